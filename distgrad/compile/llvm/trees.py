"""Sums over the samples of shards, and of those over the shards in their tree, in registers.

A weight's gradient is a product X^T G over samples, a bias's a sum of rows. Each shard's sum starts
from zero and adds its samples in their order; then the shards are added in the order of the tree.
So a shard has the same bits alone and among others, and no shard's gradient is ever in memory.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from distgrad.compile.llvm import engine
from distgrad.compile.llvm.blocks import LANES, Code, Int, vectors
from distgrad.compile.llvm.loops import Native
from distgrad.compile.llvm.parts import TERMS, Cut, Part, ranges
from distgrad.compile.program import Apply, Value
from distgrad.compile.steps import Buffer, Step, View

_MOST = 4 * LANES  # floats of rows that are added up at once


def compile_product(apply: Apply, places: dict[Value, View]) -> list[Step] | None:
    """Steps for ``product_over_shards``."""
    x, g = (places[v] for v in apply.inputs)
    count, rows, height = x.shape
    width = g.shape[2]
    merges = apply.params["merges"]
    tile = _tile(width)
    most = tile.vectors * LANES

    def part(start: int, stop: int) -> Part:
        address = _product(tile, width > most, (stop - start) % tile.rows, width % most)
        numbers = count, rows, stop - start, width, height
        offsets = [(4 * start, 0, 4 * start * width, 0)]
        return Part(Native(address), offsets, numbers, 4 * floats(stop - start))

    def into(parts: int) -> list[Part]:
        return [part(*each) for each in ranges(height, tile.rows, parts)]

    def floats(taken: int) -> int:
        """Those that a part of so many rows of the result works in."""
        packed = count * rows * (taken + (most if width > most else 0)) + LANES
        return packed + _depth(merges) * tile.rows * most

    cut = Cut(count * rows * height * width / TERMS, -(-height // tile.rows), into)
    whole = part(0, height)
    native = Native(whole.native.address, whole.numbers, cut)
    return _steps(native, [x, g], places[apply.outputs[0]], merges, floats(height))


def compile_rows_sum(apply: Apply, places: dict[Value, View]) -> list[Step] | None:
    """Steps for ``sum_over_shards``."""
    (x,) = (places[v] for v in apply.inputs)
    count, rows, width = x.shape
    merges = apply.params["merges"]
    address = _rows_sum(width % _MOST)
    floats = _depth(merges) * _MOST
    native = Native(address, (count, rows, width))
    return _steps(native, [x], places[apply.outputs[0]], merges, floats)


def _steps(
    native: Native, inputs: Sequence[View], out: View, merges: Sequence[int], floats: int
) -> list[Step]:
    """The kernel on its inputs, which are copied where their elements do not lie in order."""
    steps, given = [], []
    for view in inputs:
        plain = View(Buffer(math.prod(view.shape) * 4), 0, view.shape, _packed(view), view.dtype)
        if view.strides != plain.strides:
            steps.append(Step(np.copyto, (plain, view), {}, plain, False, False))
            view = plain
        given.append(view)
    counts = np.array(merges, np.int64)
    table = View(Buffer(counts.nbytes, "constant", counts), 0, counts.shape, (8,), counts.dtype)
    work = View(Buffer(floats * 4), 0, (floats,), (4,), np.dtype(np.float32))
    return [*steps, Step(native, (*given, out, table, work), {}, out, False, False)]


def _packed(view: View) -> tuple[int, ...]:
    """The strides of the same array in C order; those of axes of size 1 are as they are."""
    strides, size = [], view.dtype.itemsize
    for n, stride in zip(reversed(view.shape), reversed(view.strides), strict=True):
        strides.append(stride if n == 1 else size)
        size *= n
    return tuple(reversed(strides))


def _depth(merges: Sequence[int]) -> int:
    """How many sums wait at most, while the shards are added up."""
    most = waiting = 0
    for merged in merges:
        waiting += 1 - merged
        most = max(most, waiting)
    return most


class Tile(NamedTuple):
    """Rows and vectors of a result whose sums fit into the registers; they change no bit."""

    rows: int
    vectors: int


def _tile(width: int) -> Tile:
    if not engine.has("avx512f"):
        return Tile(6, 1)
    across = min(4, -(-width // LANES))
    return Tile({1: 12, 2: 12, 3: 8, 4: 6}[across], across)


@functools.cache
def _product(tile: Tile, wide: bool, rest_rows: int, rest_floats: int) -> int:
    """The address of a kernel for products that leave so many rows and floats beside whole tiles;
    ``wide`` ones have several tiles to a row. A sample of X has ``line`` floats, of which the
    first ``height`` are taken.

    Samples of X lie side by side for each tile, and those of G for each panel where there are
    several: the strides of the arrays would throw each other out of the cache.
    """
    most = tile.vectors * LANES
    code = Code(["x", "g", "out", "merges", "work"], ["count", "rows", "height", "width", "line"])
    samples = code.op("mul nsw i64 %count, %rows")
    whole_rows = code.op(f"sub nsw i64 %height, {rest_rows}")
    whole_floats = code.op(f"sub nsw i64 %width, {rest_floats}")
    panel = code.at("%work", code.add(code.times(samples, "%height"), LANES))
    stack = code.at(panel, code.mul(samples, most)) if wide else panel

    def tiles(write: Callable[[Int, int], None]) -> None:
        with code.loop(whole_rows, tile.rows) as first:
            write(first, tile.rows)
        if rest_rows:
            write(whole_rows, rest_rows)

    def pack(first: Int, tall: int) -> None:
        source, target = code.at("%x", first), code.at("%work", code.times(samples, first))
        with code.loop(samples) as r:
            value = code.load(code.at(source, code.times(r, "%line")), tall)
            code.store(value, code.at(target, code.mul(r, tall)), tall)

    def across(start: Int, floats: int) -> None:
        columns = list(vectors(floats))
        right, step = code.at("%g", start), "%width"
        if wide:
            size = len(columns) * LANES
            with code.loop(samples) as r:
                source = code.at(right, code.times(r, "%width"))
                target = code.at(panel, code.mul(r, size))
                for at, lanes in columns:
                    code.store(code.load(code.at(source, at), lanes), code.at(target, at))
            right, step = panel, str(size)
        tiles(functools.partial(multiply, start, right, step, columns))

    def multiply(
        start: Int, right: str, step: str, columns: list[tuple[int, int]], first: Int, tall: int
    ) -> None:
        left = code.at("%work", code.times(samples, first))

        def term(shard: str, sums: list[list[str]]) -> None:
            base = code.times(shard, "%rows")
            with code.loop("%rows") as r:
                row = code.add(base, r)
                b = code.at(right, code.times(row, step))
                values = [code.load(code.at(b, at), LANES if wide else n) for at, n in columns]
                a = code.at(left, code.mul(row, tall))
                for i, line in enumerate(sums):
                    value = code.spread(code.at(a, i))
                    for slot, other in zip(line, values, strict=True):
                        code.store(code.fma(value, other, code.load(slot)), slot)

        out = code.at(code.at("%out", start), code.times(first, "%width"))
        places = []
        for i in range(tall):
            line = code.at(out, code.mul("%width", i)) if i else out
            places.append([(code.at(line, at), lanes) for at, lanes in columns])
        _in_tree(code, stack, places, term)

    tiles(pack)
    if wide:
        with code.loop(whole_floats, most) as start:
            across(start, most)
        if rest_floats:
            across(whole_floats, rest_floats)
    else:
        across(0, rest_floats or most)
    return code.native().address


def _in_tree(
    code: Code,
    stack: str,
    places: Sequence[Sequence[tuple[str, int]]],
    term: Callable[[str, list[list[str]]], None],
) -> None:
    """The sum over all shards of what ``term`` adds up for each, stored at ``places``.

    Sums that wait for their neighbours lie on a stack. After each shard, ``merges`` says how many
    of them are added to it, the last one first.
    """
    sums = [[code.slot() for _ in line] for line in places]
    flat = [slot for line in sums for slot in line]
    size = len(flat) * LANES
    top = code.number_slot()
    code.set_number(0, top)
    last = code.op("sub nsw i64 %count, 1")
    with code.loop("%count") as shard:
        for slot in flat:
            code.store("zeroinitializer", slot)
        term(shard, sums)
        merged = code.number_at("%merges", shard)
        with code.loop(merged):
            below = code.op(f"sub nsw i64 {code.number(top)}, {size}")
            code.set_number(below, top)
            waiting = code.at(stack, below)
            for i, slot in enumerate(flat):
                before = code.load(code.at(waiting, i * LANES))
                code.store(code.fadd(before, code.load(slot)), slot)

        def store() -> None:
            for line, targets in zip(sums, places, strict=True):
                for slot, (target, lanes) in zip(line, targets, strict=True):
                    code.store(code.load(slot), target, lanes)

        def wait() -> None:
            here = code.number(top)
            target = code.at(stack, here)
            for i, slot in enumerate(flat):
                code.store(code.load(slot), code.at(target, i * LANES))
            code.set_number(code.op(f"add nsw i64 {here}, {size}"), top)

        code.choose(code.op(f"icmp eq i64 {shard}, {last}"), store, wait)


@functools.cache
def _rows_sum(rest: int) -> int:
    """The address of a kernel that adds rows; ``rest`` is what is left of their width."""
    code = Code(["x", "out", "merges", "work"], ["count", "rows", "width"])

    def write(start: Int, floats: int) -> None:
        columns = list(vectors(floats))
        source, out = code.at("%x", start), code.at("%out", start)

        def term(shard: str, sums: list[list[str]]) -> None:
            base = code.times(shard, "%rows")
            with code.loop("%rows") as r:
                row = code.at(source, code.times(code.add(base, r), "%width"))
                for slot, (at, lanes) in zip(sums[0], columns, strict=True):
                    value = code.load(code.at(row, at), lanes)
                    code.store(code.fadd(code.load(slot), value), slot)

        _in_tree(code, "%work", [[(code.at(out, at), lanes) for at, lanes in columns]], term)

    whole = code.op(f"sub nsw i64 %width, {rest}")
    with code.loop(whole, _MOST) as start:
        write(start, _MOST)
    if rest:
        write(whole, rest)
    return code.native().address
