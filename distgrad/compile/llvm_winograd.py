"""Convolutions with 3 x 3 filters by Winograd's F(2 x 2, 3 x 3), in machine code.

Each tile of 2 x 2 outputs is made from 4 x 4 inputs by 16 products in place of 36 (Lavin and Gray,
"Fast algorithms for convolutional neural networks", 2016). The gradients are the adjoint of the
same steps, not another convolution: the tiles, and their number, are those of the forward pass.
Tiles are worked on in blocks that stay in the cache.

What a tile gives depends on that tile alone, not on how many samples there are. The gradient of
the filters is summed over each block of tiles, and then over the blocks.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from distgrad.compile.llvm_blocks import (
    Code,
    Int,
    Walk,
    each_vector,
    panels,
    product,
    rows_at_once,
    scratch,
    vectors,
)
from distgrad.compile.llvm_loops import Native, address_of

_BYTES = 1 << 19  # of a block of tiles: about half of a second-level cache
_ROWS = 24  # a block is a multiple of this, and so of rows_at_once

Grid = list[list[str]]  # registers or pointers, by row and column


class Layer(NamedTuple):
    """Shapes of one convolution: channels in and out, sizes in and out, zeros before each axis."""

    channels: int
    outputs: int
    space: tuple[int, int]
    counts: tuple[int, int]
    before: tuple[int, int]

    @property
    def tiles(self) -> tuple[int, int]:
        return -(-self.counts[0] // 2), -(-self.counts[1] // 2)

    @property
    def block(self) -> int:
        """Tiles that are worked on at a time."""
        fits = _BYTES // (64 * (self.channels + self.outputs))
        return max(1, min(fits // _ROWS, 8)) * _ROWS

    @property
    def work(self) -> int:
        """Floats that a call works in: for the filters, for a block, and zeros."""
        c, o = self.channels, self.outputs
        return 16 * (2 * c * o + self.block * (c + o)) + 2 * _wide(max(c, o)) + 16 * 5


def _wide(size: int) -> int:
    return -(-size // 16) * 16


def forward(x: np.ndarray, w: np.ndarray, y: np.ndarray, layer: Layer) -> None:
    """The convolution of ``x [n, h, w, c]`` with ``w [3, 3, c, o]``, written to ``y``."""
    places = _places(layer)
    _filters(layer.channels, layer.outputs).at(address_of(w), places.u)
    _forward(layer).at(
        address_of(x), places.u, address_of(y), places.zeros, places.trash, places.v, places.m,
        x.shape[0],
    )  # fmt: skip


def backward(
    x: np.ndarray | None,
    w: np.ndarray | None,
    dy: np.ndarray,
    dx: np.ndarray | None,
    dw: np.ndarray | None,
    layer: Layer,
) -> None:
    """The gradients of ``forward``, into ``dx`` (which needs w) and ``dw`` (which needs x)."""
    places = _places(layer)
    nothing = places.trash
    if dx is not None:
        assert w is not None
        turned = np.ascontiguousarray(w.swapaxes(2, 3))
        _filters(layer.outputs, layer.channels).at(address_of(turned), places.u)
        dx.fill(0)
    if dw is not None:
        places.sums.fill(0)
    _backward(layer, dx is not None, dw is not None).at(
        nothing if x is None else address_of(x), address_of(dy), places.u,
        nothing if dx is None else address_of(dx), address_of(places.sums),
        places.zeros, places.trash, places.v, places.m, dy.shape[0],
    )  # fmt: skip
    if dw is not None:
        _filters_grad(layer.channels, layer.outputs).at(address_of(places.sums), address_of(dw))


class _Places(NamedTuple):
    """Addresses in this thread's memory, and the sums for the filters' gradient."""

    u: int
    v: int
    m: int
    zeros: int
    trash: int
    sums: np.ndarray


def _places(layer: Layer) -> _Places:
    floats = scratch(4 * layer.work)[: 4 * layer.work].view(np.float32)
    c, o = layer.channels, layer.outputs
    sizes = [_wide(s) for s in (16 * c * o, 16 * c * o, 16 * layer.block * c)]
    sizes += [_wide(16 * layer.block * o), _wide(max(c, o))]
    starts = np.cumsum([0, *sizes])
    base = address_of(floats)
    u, _, v, m, zeros, trash = (base + 4 * int(s) for s in starts)
    floats[starts[4] : starts[5]] = 0
    return _Places(u, v, m, zeros, trash, floats[starts[1] : starts[1] + 16 * c * o])


# The transforms: both sides of a square of registers are multiplied by one small matrix.


def _both_sides(grid: Grid, line: str, code: Code) -> Grid:
    """``L grid L^T`` for the matrix L called ``line``."""
    change = _LINES[line]
    columns = [change(code, column) for column in zip(*grid, strict=True)]
    return [change(code, row) for row in zip(*columns, strict=True)]


def _b_transposed(code: Code, d: tuple[str, ...]) -> list[str]:
    return [
        code.fsub(d[0], d[2]),
        code.fadd(d[1], d[2]),
        code.fsub(d[2], d[1]),
        code.fsub(d[1], d[3]),
    ]


def _b(code: Code, d: tuple[str, ...]) -> list[str]:
    return [
        d[0],
        code.fadd(code.fsub(d[1], d[2]), d[3]),
        code.fsub(code.fadd(d[1], d[2]), d[0]),
        code.op(f"fneg {_VECTOR} {d[3]}"),
    ]


def _a_transposed(code: Code, m: tuple[str, ...]) -> list[str]:
    return [
        code.fadd(code.fadd(m[0], m[1]), m[2]),
        code.fsub(code.fsub(m[1], m[2]), m[3]),
    ]


def _a(code: Code, y: tuple[str, ...]) -> list[str]:
    return [y[0], code.fadd(y[0], y[1]), code.fsub(y[0], y[1]), code.op(f"fneg {_VECTOR} {y[1]}")]


def _g(code: Code, w: tuple[str, ...]) -> list[str]:
    ends, middle = code.half(code.fadd(w[0], w[2])), code.half(w[1])
    return [w[0], code.fadd(ends, middle), code.fsub(ends, middle), w[2]]


def _g_transposed(code: Code, u: tuple[str, ...]) -> list[str]:
    sum_, difference = code.half(code.fadd(u[1], u[2])), code.half(code.fsub(u[1], u[2]))
    return [code.fadd(u[0], sum_), difference, code.fadd(sum_, u[3])]


_VECTOR = "<16 x float>"
_LINES = {
    "B^T": _b_transposed,
    "B": _b,
    "A^T": _a_transposed,
    "A": _a,
    "G": _g,
    "G^T": _g_transposed,
}


@functools.cache
def _filters(channels: int, outputs: int) -> Native:
    """Filters ``[3, 3, c, o]`` to ``[16, c, o]``."""
    return _on_filters(channels * outputs, 3, 4, "G")


@functools.cache
def _filters_grad(channels: int, outputs: int) -> Native:
    """The adjoint: ``[16, c, o]`` to ``[3, 3, c, o]``."""
    return _on_filters(channels * outputs, 4, 3, "G^T")


def _on_filters(size: int, before: int, after: int, line: str) -> Native:
    code = Code(["given", "made"], [])

    def write(start: Int, lanes: int) -> None:
        grid = _loaded(code, _constant(code, "%given", before, before * size, size), start, lanes)
        made = _both_sides(grid, line, code)
        _stored(code, made, _constant(code, "%made", after, after * size, size), start, lanes)

    each_vector(code, size, write)
    return code.native()


# Tiles in memory


def _constant(code: Code, base: str, size: int, row: int, column: int) -> Grid:
    """Pointers of a square, a fixed way from each other."""
    return [[code.at(base, i * row + j * column) for j in range(size)] for i in range(size)]


def _loaded(code: Code, pointers: Grid, start: Int, lanes: int) -> Grid:
    return [[code.load(code.at(p, start), lanes) for p in line] for line in pointers]


def _stored(code: Code, values: Grid, pointers: Grid, start: Int, lanes: int) -> None:
    for line, ends in zip(values, pointers, strict=True):
        for value, pointer in zip(line, ends, strict=True):
            code.store(value, code.at(pointer, start), lanes)


class _Tiles:
    """The loop over the tiles of a block, and where in an image each of them lies."""

    def __init__(self, code: Code, layer: Layer) -> None:
        self._code = code
        self._layer = layer

    def images(self, tile: Int) -> tuple[Int, Int, Int]:
        """Sample, row and column of the first output of a tile."""
        code = self._code
        high, wide = self._layer.tiles
        n, rest = code.divmod(tile, high * wide)
        row, column = code.divmod(rest, wide)
        return n, code.mul(row, 2), code.mul(column, 2)

    def inputs(self, tile: Int, base: str, outside: str, write: object) -> None:
        n, y, x = self.images(tile)
        before = self._layer.before
        at = (self._code.add(y, -before[0]), self._code.add(x, -before[1]))
        self._square(n, at, 4, self._layer.space, self._layer.channels, base, outside, write)

    def outputs(self, tile: Int, base: str, outside: str, write: object) -> None:
        n, y, x = self.images(tile)
        self._square(n, (y, x), 2, self._layer.counts, self._layer.outputs, base, outside, write)

    def _square(self, n, at, size, space, depth, base, outside, write) -> None:
        """``write(pointers)`` for the pixels of a square, ``outside`` for those in no image."""
        code = self._code
        (y, x), (high, wide) = at, space
        pixel = code.add(code.mul(code.add(code.mul(n, high), y), wide), x)
        first = code.at(base, code.mul(pixel, depth))
        pointers = _constant(code, first, size, wide * depth, depth)

        def edge() -> None:
            rows = [code.within(code.add(y, i), high) for i in range(size)]
            columns = [code.within(code.add(x, j), wide) for j in range(size)]
            write([
                [code.pick(code.both(r, c), p, outside) for c, p in zip(columns, line, strict=True)]
                for r, line in zip(rows, pointers, strict=True)
            ])  # fmt: skip

        if high < size or wide < size:
            edge()
            return
        inner = code.both(code.within(y, high - size + 1), code.within(x, wide - size + 1))
        code.choose(inner, lambda: write(pointers), edge)


@functools.cache
def _forward(layer: Layer) -> Native:
    code = Code(["x", "u", "y", "zeros", "trash", "v", "m"], ["samples"])
    tiles, block = _Tiles(code, layer), layer.block
    c, o = layer.channels, layer.outputs
    total = code.mul("%samples", layer.tiles[0] * layer.tiles[1])
    with code.loop(total, block) as start:
        count = code.smaller(code.op(f"sub i64 {total}, {start}"), block)
        _transform_inputs(code, tiles, layer, start, count)
        _products(code, block, count, c, o, "%v", "%u", "%m")
        with code.loop(count) as t:
            squares = _constant(code, code.at("%m", code.mul(t, o)), 4, 4 * block * o, block * o)

            def write(pointers: Grid, squares: Grid = squares) -> None:
                def one(at: Int, lanes: int) -> None:
                    made = _both_sides(_loaded(code, squares, at, lanes), "A^T", code)
                    _stored(code, made, pointers, at, lanes)

                each_vector(code, o, one)

            tiles.outputs(code.add(start, t), "%y", "%trash", write)
    return code.native()


def _transform_inputs(code: Code, tiles: _Tiles, layer: Layer, start: str, count: Int) -> None:
    block, c = layer.block, layer.channels
    with code.loop(count) as t:
        squares = _constant(code, code.at("%v", code.mul(t, c)), 4, 4 * block * c, block * c)

        def write(pointers: Grid) -> None:
            def one(at: Int, lanes: int) -> None:
                made = _both_sides(_loaded(code, pointers, at, lanes), "B^T", code)
                _stored(code, made, squares, at, lanes)

            each_vector(code, c, one)

        tiles.inputs(code.add(start, t), "%x", "%zeros", write)


def _products(
    code: Code, block: int, count: Int, depth: int, width: int, a: str, b: str, out: str
) -> None:
    """16 products of ``a [block, depth]`` with ``b [depth, width]``; rows behind ``count`` too."""
    with code.loop(16) as k:
        left = code.at(a, code.mul(k, block * depth))
        right = code.at(b, code.mul(k, depth * width))
        made = code.at(out, code.mul(k, block * width))
        for column, part in panels(width, 4):
            rows = rows_at_once(part)
            with code.loop(count, rows) as t:
                sums = product(
                    code,
                    [r * depth for r in range(rows)],
                    part,
                    code.at(left, code.mul(t, depth)),
                    code.at(right, column),
                    [Walk(depth, 1, width)],
                )
                target = code.at(made, code.add(code.mul(t, width), column))
                for r, line in enumerate(sums):
                    for value, (at, lanes) in zip(line, vectors(part), strict=True):
                        code.store(value, code.at(target, r * width + at), lanes)


@functools.cache
def _backward(layer: Layer, wants_x: bool, wants_w: bool) -> Native:
    code = Code(["x", "dy", "u", "dx", "du", "zeros", "trash", "v", "m"], ["samples"])
    tiles, block = _Tiles(code, layer), layer.block
    c, o = layer.channels, layer.outputs
    total = code.mul("%samples", layer.tiles[0] * layer.tiles[1])
    with code.loop(total, block) as start:
        count = code.smaller(code.op(f"sub i64 {total}, {start}"), block)
        with code.loop(count) as t:
            squares = _constant(code, code.at("%m", code.mul(t, o)), 4, 4 * block * o, block * o)

            def spread(pointers: Grid, squares: Grid = squares) -> None:
                def one(at: Int, lanes: int) -> None:
                    made = _both_sides(_loaded(code, pointers, at, lanes), "A", code)
                    _stored(code, made, squares, at, lanes)

                each_vector(code, o, one)

            tiles.outputs(code.add(start, t), "%dy", "%zeros", spread)
        if wants_x:
            _products(code, block, count, o, c, "%m", "%u", "%v")
            _add_inputs(code, tiles, layer, start, count)
        if wants_w:
            _transform_inputs(code, tiles, layer, start, count)
            _add_filters(code, block, count, c, o)
    return code.native()


def _add_inputs(code: Code, tiles: _Tiles, layer: Layer, start: str, count: Int) -> None:
    """Each tile of ``v`` added to the inputs that it was made from."""
    block, c = layer.block, layer.channels
    with code.loop(count) as t:
        squares = _constant(code, code.at("%v", code.mul(t, c)), 4, 4 * block * c, block * c)

        def write(pointers: Grid) -> None:
            def one(at: Int, lanes: int) -> None:
                made = _both_sides(_loaded(code, squares, at, lanes), "B", code)
                for line, ends in zip(made, pointers, strict=True):
                    for value, end in zip(line, ends, strict=True):
                        place = code.at(end, at)
                        code.store(code.fadd(code.load(place, lanes), value), place, lanes)

            each_vector(code, c, one)

        tiles.inputs(code.add(start, t), "%dx", "%trash", write)


def _add_filters(code: Code, block: int, count: Int, c: int, o: int) -> None:
    """16 products ``v^T m`` of a block, added to ``du [16, c, o]``."""
    with code.loop(16) as k:
        left = code.at("%v", code.mul(k, block * c))
        right = code.at("%m", code.mul(k, block * o))
        made = code.at("%du", code.mul(k, c * o))
        for column, width in panels(o, 4):

            def add(row: Int, rows: int, column: int = column, width: int = width) -> None:
                sums = product(
                    code,
                    range(rows),
                    width,
                    code.at(left, row),
                    code.at(right, column),
                    [Walk(count, c, o)],
                )
                target = code.at(made, code.add(code.mul(row, o), column))
                add_to(code, target, o, width, sums)

            in_groups(code, c, rows_at_once(width), add)


def in_groups(code: Code, size: int, most: int, write) -> None:
    """``write(first, rows)`` for all of ``size`` rows, ``most`` or a few less at a time."""
    rows = next((r for r in range(most, most // 2, -1) if size % r == 0), most)
    if size >= rows:
        with code.loop(size // rows * rows, rows) as row:
            write(row, rows)
    if size % rows:
        write(size // rows * rows, size % rows)


def add_to(code: Code, target: str, row: int, width: int, sums: list[list[str]]) -> None:
    """Adds the rows of a product to a matrix in memory."""
    for r, line in enumerate(sums):
        for value, (at, lanes) in zip(line, vectors(width), strict=True):
            place = code.at(target, r * row + at)
            code.store(code.fadd(code.load(place, lanes), value), place, lanes)
