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
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from distgrad.compile.llvm.blocks import (
    Code,
    Int,
    Walk,
    add_to,
    each_vector,
    in_groups,
    panels,
    product,
    put,
    rows_at_once,
)
from distgrad.compile.llvm.layers import Layer, swapped, wide, zeros
from distgrad.compile.llvm.squares import Grid, both_sides, loaded, square, stored

_BYTES = 1 << 19  # of a block of tiles: about half of a second-level cache
_PAGE, _APART = 1024, 64  # floats: addresses that agree in a page meet in the cache
_ROWS = 24  # a block is a multiple of this, and so of rows_at_once


def fits(layer: Layer) -> bool:
    """Whether a convolution is one of those that this is for, and that it pays for."""
    usual = (layer.size, layer.strides) == ((3, 3), (1, 1)) and min(layer.counts) > 1
    return usual and not layer.depthwise and min(layer.channels, layer.outputs) >= 16


def _tiles(layer: Layer) -> tuple[int, int]:
    return -(-layer.counts[0] // 2), -(-layer.counts[1] // 2)


def _block(layer: Layer) -> int:
    """Tiles that are worked on at a time, whatever part of the channels there is."""
    most = _BYTES // (64 * ((layer.pixel or layer.channels) + layer.outputs))
    return max(1, min(most // _ROWS, 8)) * _ROWS


def _plane(block: int, depth: int) -> int:
    """Floats from one of the 16 matrices of a block to the next.

    The 16 elements of a tile then lie in different sets of the first-level cache.
    """
    return block * depth + (_APART - block * depth) % _PAGE


class _Places(NamedTuple):
    """Pointers into the memory to work in."""

    u: str  # filters, or the sums of their gradient
    v: str  # tiles of inputs
    m: str  # tiles of outputs
    nothing: str  # zeros
    trash: str
    more: str  # as many floats as there are in the filters


def _sizes(layer: Layer) -> list[int]:
    c, o, block = layer.channels, layer.outputs, _block(layer)
    most = wide(max(c, o))
    tiles = [16 * _plane(block, depth) for depth in (c, o)]
    return [wide(n) for n in (16 * c * o, *tiles, most, most, 9 * c * o)]


def work(layer: Layer) -> int:
    """Floats that a call works in."""
    return sum(_sizes(layer))


def _places(code: Code, layer: Layer) -> _Places:
    made, start = [], 0
    for size in _sizes(layer):
        made.append(code.at("%work", start))
        start += size
    places = _Places(*made)
    zeros(code, places.nothing, max(layer.channels, layer.outputs))
    return places


@functools.cache
def forward(layer: Layer) -> int:
    """A function of x ``[n, h, w, c]``, filters ``[3, 3, c, o]``, a place for y, work, and n."""
    code = Code(["x", "w", "y", "work"], ["samples"])
    places, block = _places(code, layer), _block(layer)
    tiles = _Tiles(code, layer, places)
    c, o = layer.channels, layer.outputs
    _filters(code, "%w", places.u, c * o)
    with tiles.blocks(block) as (start, count):
        tiles.transform("B^T", tiles.inputs, "%x", places.v, c, start, count)
        _products(code, block, count, c, o, places.v, places.u, places.m)
        with code.loop(count) as t:
            squares = _squares(code, places.m, t, block, o)

            def write(pointers: Grid, squares: Grid = squares) -> None:
                def one(at: Int, lanes: int) -> None:
                    made = both_sides(loaded(code, squares, at, lanes), "A^T", code)
                    stored(code, made, pointers, at, lanes)

                each_vector(code, o, one)

            tiles.outputs(code.add(start, t), "%y", places.trash, write)
    return code.native().address


@functools.cache
def grad_x(layer: Layer) -> int:
    """A function of dy ``[n, *counts, o]``, filters, a place for dx, work, and n."""
    code = Code(["dy", "w", "dx", "work"], ["samples"])
    places, block = _places(code, layer), _block(layer)
    tiles = _Tiles(code, layer, places)
    c, o = layer.channels, layer.outputs
    swapped(code, "%w", places.more, 9, c, o)
    _filters(code, places.more, places.u, c * o)
    high, across = layer.space
    zeros(code, "%dx", code.mul("%samples", high * across * c))
    with tiles.blocks(block) as (start, count):
        tiles.transform("A", tiles.outputs, "%dy", places.m, o, start, count)
        _products(code, block, count, o, c, places.m, places.u, places.v)
        _add_inputs(code, tiles, layer, places, start, count)
    return code.native().address


@functools.cache
def grad_w(layer: Layer) -> int:
    """A function of x, dy, a place for the gradient of the filters, work, and n."""
    code = Code(["x", "dy", "dw", "work"], ["samples"])
    places, block = _places(code, layer), _block(layer)
    tiles = _Tiles(code, layer, places)
    c, o = layer.channels, layer.outputs
    zeros(code, places.u, 16 * c * o)
    with tiles.blocks(block) as (start, count):
        tiles.transform("A", tiles.outputs, "%dy", places.m, o, start, count)
        tiles.transform("B^T", tiles.inputs, "%x", places.v, c, start, count)
        _add_filters(code, block, count, c, o, places)
    given, made = (places.u, 4, c * o), ("%dw", 3, (layer.pixel or c) * o)
    _on_filters(code, given, made, c * o, "G^T")
    return code.native().address


def _filters(code: Code, given: str, made: str, size: int) -> None:
    """Filters ``[3, 3, size]`` to ``[4, 4, size]``."""
    _on_filters(code, (given, 3, size), (made, 4, size), size, "G")


def _on_filters(
    code: Code, given: tuple[str, int, int], made: tuple[str, int, int], size: int, line: str
) -> None:
    """``size`` squares; each: where the first lies, its length, and floats between its elements."""

    def elements(base: str, length: int, apart: int) -> Grid:
        return square(code, base, length, length * apart, apart)

    def write(start: Int, lanes: int) -> None:
        result = both_sides(loaded(code, elements(*given), start, lanes), line, code)
        stored(code, result, elements(*made), start, lanes)

    each_vector(code, size, write)


class _Tiles:
    """The loop over the tiles of a block, and where in an image each of them lies."""

    def __init__(self, code: Code, layer: Layer, places: _Places) -> None:
        self._code = code
        self._layer = layer
        self._places = places

    @contextmanager
    def blocks(self, most: int) -> Iterator[tuple[str, Int]]:
        """The first tile of each block, and how many there are in it."""
        code = self._code
        total = code.mul("%samples", math.prod(_tiles(self._layer)))
        with code.loop(total, most) as start:
            yield start, code.smaller(code.op(f"sub i64 {total}, {start}"), most)

    def images(self, tile: Int) -> tuple[Int, Int, Int]:
        """Sample, row and column of the first output of a tile."""
        code = self._code
        high, across = _tiles(self._layer)
        n, rest = code.divmod(tile, high * across)
        row, column = code.divmod(rest, across)
        return n, code.mul(row, 2), code.mul(column, 2)

    def inputs(self, tile: Int, base: str, outside: str, write: Callable[[Grid], None]) -> None:
        n, y, x = self.images(tile)
        (top, _), (left, _) = self._layer.padding
        at = (self._code.add(y, -top), self._code.add(x, -left))
        depth = self._layer.pixel or self._layer.channels
        self._square(n, at, 4, self._layer.space, depth, base, outside, write)

    def outputs(self, tile: Int, base: str, outside: str, write: Callable[[Grid], None]) -> None:
        n, y, x = self.images(tile)
        self._square(n, (y, x), 2, self._layer.counts, self._layer.outputs, base, outside, write)

    def transform(
        self,
        line: str,
        visit: Callable[[Int, str, str, Callable[[Grid], None]], None],
        given: str,
        made: str,
        depth: int,
        start: str,
        count: Int,
    ) -> None:
        """The squares of a block in images, as ``visit`` finds them, made into its tiles."""
        code = self._code
        with code.loop(count) as t:
            squares = _squares(code, made, t, _block(self._layer), depth)

            def write(pointers: Grid) -> None:
                def one(at: Int, lanes: int) -> None:
                    result = both_sides(loaded(code, pointers, at, lanes), line, code)
                    stored(code, result, squares, at, lanes)

                each_vector(code, depth, one)

            visit(code.add(start, t), given, self._places.nothing, write)

    def _square(
        self,
        n: Int,
        at: tuple[Int, Int],
        size: int,
        space: tuple[int, int],
        depth: int,
        base: str,
        outside: str,
        write: Callable[[Grid], None],
    ) -> None:
        """``write(pointers)`` for the pixels of a square, ``outside`` for those in no image."""
        code = self._code
        (y, x), (high, across) = at, space
        pixel = code.add(code.mul(code.add(code.mul(n, high), y), across), x)
        first = code.at(base, code.mul(pixel, depth))
        pointers = square(code, first, size, across * depth, depth)

        def edge() -> None:
            rows = [code.within(code.add(y, i), high) for i in range(size)]
            columns = [code.within(code.add(x, j), across) for j in range(size)]
            write([
                [code.pick(code.both(r, c), p, outside) for c, p in zip(columns, line, strict=True)]
                for r, line in zip(rows, pointers, strict=True)
            ])  # fmt: skip

        if high < size or across < size:
            edge()
            return
        inner = code.both(code.within(y, high - size + 1), code.within(x, across - size + 1))
        code.choose(inner, lambda: write(pointers), edge)


def _squares(code: Code, base: str, tile: Int, block: int, depth: int) -> Grid:
    """The 16 elements of a tile of a block."""
    plane = _plane(block, depth)
    return square(code, code.at(base, code.mul(tile, depth)), 4, 4 * plane, plane)


def _products(
    code: Code, block: int, count: Int, depth: int, width: int, a: str, b: str, out: str
) -> None:
    """16 products of ``a [block, depth]`` with ``b [depth, width]``; rows behind ``count`` too."""
    with code.loop(16) as k:
        left = code.at(a, code.mul(k, _plane(block, depth)))
        right = code.at(b, code.mul(k, depth * width))
        made = code.at(out, code.mul(k, _plane(block, width)))
        for column, part in panels(code, width):
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
                put(code, target, width, part, sums)


def _add_inputs(
    code: Code, tiles: _Tiles, layer: Layer, places: _Places, start: str, count: Int
) -> None:
    """Each tile of ``v`` added to the inputs that it was made from."""
    block, c = _block(layer), layer.channels
    with code.loop(count) as t:
        squares = _squares(code, places.v, t, block, c)

        def write(pointers: Grid) -> None:
            def one(at: Int, lanes: int) -> None:
                made = both_sides(loaded(code, squares, at, lanes), "B", code)
                for line, ends in zip(made, pointers, strict=True):
                    for value, end in zip(line, ends, strict=True):
                        place = code.at(end, at)
                        code.store(code.fadd(code.load(place, lanes), value), place, lanes)

            each_vector(code, c, one)

        tiles.inputs(code.add(start, t), "%dx", places.trash, write)


def _add_filters(code: Code, block: int, count: Int, c: int, o: int, places: _Places) -> None:
    """16 products ``v^T m`` of a block, added to ``u [16, c, o]``."""
    with code.loop(16) as k:
        left = code.at(places.v, code.mul(k, _plane(block, c)))
        right = code.at(places.m, code.mul(k, _plane(block, o)))
        made = code.at(places.u, code.mul(k, c * o))
        for column, width in panels(code, o):

            def add(row: Int, rows: int, column: Int = column, width: int = width) -> None:
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
