"""Convolutions over two axes as sums in registers, in machine code, without a matrix of windows.

Dense ones, and depthwise ones with one output per channel.

Several neighbouring outputs, or rows of the filters' gradient, are made at a time: each is a chain
of multiplications and additions over the elements of a window, in one order, whatever stands beside
it. Any filter size, stride and padding; images with padding are copied into zeros one by one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from math import prod

from distgrad.compile.llvm.blocks import (
    Code,
    Int,
    Walk,
    add_to,
    in_groups,
    panel,
    panels,
    product,
    put,
    rows_at_once,
)
from distgrad.compile.llvm.layers import Layer, Pair, copy_padded, swapped, wide, zeros

_TERMS = 256  # of a filter's gradient that are summed before they are added to the rest


def work(layer: Layer) -> int:
    """Floats that a call works in: filters, images with their padding, room for whole vectors."""
    given = _size(layer.space, layer.padding) * layer.channels * _chunk(layer)
    made = _size(layer.counts, _reach(layer)) * layer.outputs
    return wide(layer.filters) + wide(max(given, made))


def _size(space: Pair, edges: tuple[Pair, Pair]) -> int:
    return prod(n + sum(pair) for n, pair in zip(space, edges, strict=True))


def _plain(layer: Layer) -> Layer:
    """A product of matrices as one row of pixels; any other layer as it is."""
    if layer.size == layer.strides == (1, 1) and not layer.padded:
        return layer._replace(space=(1, prod(layer.space)))
    return layer


@functools.cache
def forward(layer: Layer) -> int:
    """A function of x ``[n, h, w, c]``, filters ``[k, m, c, o]``, a place for y, work, and n."""
    layer = _plain(layer)
    code = Code(["x", "w", "y", "work"], ["samples"])
    (high, across), o = layer.counts, layer.outputs
    with _images(code, layer) as (image, row, n):
        result = code.at("%y", code.mul(n, high * across * o))
        _outputs(code, layer, image, row, result)
    return code.native().address


@contextmanager
def _images(code: Code, layer: Layer) -> Iterator[tuple[str, int, str]]:
    """For each image: where it lies with its padding, the floats of a row, and its number."""
    (high, across), c = layer.space, layer.channels
    held = code.at("%work", wide(layer.filters))
    if layer.padded:
        zeros(code, held, _size(layer.space, layer.padding) * c)
    with code.loop("%samples") as n:
        image = code.at("%x", code.mul(n, high * across * c))
        if layer.padded:
            copy_padded(code, image, held, layer.space, layer.padding, c)
            image, across = held, across + sum(layer.padding[1])
        yield image, across * c, n


def _outputs(code: Code, layer: Layer, image: str, row: int, result: str) -> None:
    (high, across), c, o = layer.counts, layer.channels, layer.outputs
    (down, right), (k, m) = layer.strides, layer.size
    walks = [Walk(k, row, m * c * o), Walk(m * c, 1, o)]
    if layer.depthwise:
        walks = [Walk(k, row, m * c), Walk(m, c, c)]
    for column, width in panels(code, o):
        with code.loop(high) as y:
            given = code.at(image, code.mul(y, down * row))
            made = code.at(result, code.add(code.mul(y, across * o), column))

            _row(
                code,
                across,
                width,
                (code.at(given, column if layer.depthwise else 0), right * c),
                code.at("%w", column),
                (made, o),
                walks,
                layer.depthwise,
            )


def _row(
    code: Code,
    count: int,
    width: int,
    given: tuple[str, int],
    filters: str,
    made: tuple[str, int],
    walks: list[Walk],
    depthwise: bool,
) -> None:
    """``count`` windows of a row: where the first lies, and its sums, and how far to the next."""
    (start, step), (target, apart) = given, made

    def write(x: Int, rows: int) -> None:
        at = code.at(start, code.mul(x, step))
        sums = product(code, [r * step for r in range(rows)], width, at, filters, walks, depthwise)
        put(code, code.at(target, code.mul(x, apart)), apart, width, sums)

    in_groups(code, count, rows_at_once(width), write)


def _reach(layer: Layer) -> tuple[Pair, Pair]:
    """Zeros around the outputs, so that each input has all the outputs that it may be part of."""
    pairs = []
    for n, count, (before, _), k, s in zip(
        layer.space, layer.counts, layer.padding, layer.size, layer.strides, strict=True
    ):
        low = -((k - 1 - before) // s) if k - 1 > before else 0
        pairs.append((-low, max((n - 1 + before) // s - count + 1, 0)))
    return pairs[0], pairs[1]


@functools.cache
def grad_x(layer: Layer) -> int:
    """A function of dy ``[n, *counts, o]``, filters, a place for dx, work, and n.

    The inputs fall into classes by their position within a stride; those of a class have the same
    elements of the filters.
    """
    layer = _plain(layer)
    code = Code(["dy", "w", "dx", "work"], ["samples"])
    c, o = layer.channels, layer.outputs
    filters = "%w"
    if not layer.depthwise:
        filters = "%work"
        swapped(code, "%w", filters, prod(layer.size), c, o)
    outputs = layer._replace(channels=o, space=layer.counts, padding=_reach(layer))
    held = code.at("%work", wide(layer.filters))
    zeros(code, held, _size(outputs.space, outputs.padding) * o)
    with code.loop("%samples") as n:
        image = code.at("%dy", code.mul(n, prod(layer.counts) * o))
        if outputs.padded:
            copy_padded(code, image, held, outputs.space, outputs.padding, o)
            image = held
        result = code.at("%dx", code.mul(n, prod(layer.space) * c))
        for y in range(layer.strides[0]):
            for x in range(layer.strides[1]):
                _inputs(code, layer, (y, x), image, filters, result)
    return code.native().address


def _inputs(code: Code, layer: Layer, first: Pair, image: str, filters: str, result: str) -> None:
    """The inputs of one class; ``first`` is the first of them."""
    c, o, across = layer.channels, layer.outputs, layer.space[1]
    down, right = layer.strides
    edges = _reach(layer)
    row = (layer.counts[1] + sum(edges[1])) * o
    ys, xs = (range(f, n, s) for f, n, s in zip(first, layer.space, layer.strides, strict=True))
    if not ys or not xs:
        return
    # Input i takes element k of the filters from output (i + before - k) / stride.
    taps = [
        range((f + before) % s, k, s)
        for f, (before, _), k, s in zip(
            first, layer.padding, layer.size, layer.strides, strict=True
        )
    ]
    start = 0
    for f, (before, _), (more, _), ks, s, step in zip(
        first, layer.padding, edges, taps, layer.strides, (row, o), strict=True
    ):
        if ks:
            start += ((f + before - ks[0]) // s + more) * step
    element = taps[0][0] * layer.size[1] + taps[1][0] if all(taps) else 0
    each = c if layer.depthwise else c * o
    filters = code.at(filters, element * each)
    walks = [
        Walk(len(taps[0]), -row, down * layer.size[1] * each),
        Walk(len(taps[1]), -o, right * each),
        Walk(1 if layer.depthwise else o, 1, c),
    ]
    for column, width in panels(code, c):
        with code.loop(len(ys)) as y:
            given = code.at(image, code.add(code.mul(y, row), start))
            made = code.add(code.mul(y, down * across * c), (first[0] * across + first[1]) * c)
            made = code.at(result, code.add(made, column))

            _row(
                code,
                len(xs),
                width,
                (code.at(given, column if layer.depthwise else 0), o),
                code.at(filters, column),
                (made, right * c),
                walks,
                layer.depthwise,
            )


def _chunk(layer: Layer) -> int:
    """Images whose terms of the filters' gradient are summed at once."""
    return max(1, _TERMS // max(prod(layer.counts), 1))


def _lines(layer: Layer) -> int:
    """Rows of outputs whose terms are."""
    high, across = layer.counts
    return high if _chunk(layer) > 1 else max(1, _TERMS // max(across, 1))


def groups(layer: Layer) -> tuple[int, int]:
    """How many rows of the filters' gradient can be parted, and how many are made at a time.

    Those of all elements of a window, where these are few; else those of each line of it.
    """
    (k, m), c = layer.size, layer.channels
    return (k * m * c if _few(layer) else m * c), rows_at_once(panel(layer.outputs))


def _few(layer: Layer) -> bool:
    return prod(layer.size) * layer.channels <= 3 * rows_at_once(panel(layer.outputs))


def part_of_grad_w(layer: Layer, start: int, stop: int) -> tuple[int, int]:
    """The function of these rows, and the number behind the samples in its table."""
    if _few(layer):
        return grad_w(layer, (start, stop)), 0
    return grad_w(layer, (0, stop - start)), start


@functools.cache
def grad_w(layer: Layer, part: Pair = (0, 0)) -> int:
    """A function of x, dy, a place for the gradient of the filters, work, n, and the first row.

    It makes the rows from the first one on as ``part`` says; all of them without a part.
    """
    code = Code(["x", "dy", "dw", "work"], ["samples", "first"])
    c, o = layer.channels, layer.outputs
    each, chunk = _size(layer.space, layer.padding) * c, _chunk(layer)
    held = code.at("%work", wide(layer.filters))
    if layer.padded:
        zeros(code, held, each * chunk)
    _clear(code, layer, part)
    row = (layer.space[1] + sum(layer.padding[1])) * c
    with code.loop("%samples", chunk) as n:
        count = code.smaller(code.op(f"sub i64 %samples, {n}"), chunk)
        images = code.at("%x", code.mul(n, prod(layer.space) * c))
        if layer.padded:
            with code.loop(count) as i:
                given = code.at(images, code.mul(i, prod(layer.space) * c))
                made = code.at(held, code.mul(i, each))
                copy_padded(code, given, made, layer.space, layer.padding, c)
            images = held
        outputs = code.at("%dy", code.mul(n, prod(layer.counts) * o))
        high, across = layer.counts
        with code.loop(high, _lines(layer)) as y:
            lines = code.smaller(code.op(f"sub i64 {high}, {y}"), _lines(layer))
            walks = [
                Walk(count, each, high * across * o),
                Walk(lines, layer.strides[0] * row, across * o),
                Walk(across, layer.strides[1] * c, o),
            ]
            a = code.at(images, code.mul(y, layer.strides[0] * row))
            b = code.at(outputs, code.mul(y, across * o))
            if layer.depthwise:
                _elements(code, layer, a, row, b, walks[chunk == 1 :])
            else:
                _filters(code, layer, a, row, b, walks[chunk == 1 :], part)
    return code.native().address


def _clear(code: Code, layer: Layer, part: Pair) -> None:
    start, stop = part
    if not stop:
        zeros(code, "%dw", layer.filters)
        return
    o, line = layer.outputs, layer.size[1] * layer.channels
    with code.loop(1 if _few(layer) else layer.size[0]) as y:
        first = code.add(code.mul(y, line), code.add("%first", start))
        zeros(code, code.at("%dw", code.mul(first, o)), (stop - start) * o)


def _filters(
    code: Code,
    layer: Layer,
    images: str,
    row: int,
    outputs: str,
    walks: list[Walk],
    part: Pair,
) -> None:
    (k, m), c, o = layer.size, layer.channels, layer.outputs
    for column, width in panels(code, o):

        def add(
            offsets: list[int], image: str, at: Int, column: Int = column, width: int = width
        ) -> None:
            right = code.at(outputs, column)
            sums = product(code, offsets, width, image, right, walks)
            add_to(code, code.at("%dw", code.add(code.mul(at, o), column)), o, width, sums)

        most = rows_at_once(width)
        if _few(layer):
            offsets = [y * row + i for y in range(k) for i in range(m * c)]
            first, last = part if part[1] else (0, len(offsets))
            count = -(-(last - first) // most)
            ends = [first + (last - first) * g // count for g in range(count + 1)]
            for start, stop in pairwise(ends):
                add(offsets[start:stop], images, start)
            continue
        with code.loop(k) as y:
            across = code.at(images, code.mul(y, row))

            def write(at: Int, rows: int, across: str = across, y: str = y, add=add) -> None:
                at = code.add(at, "%first")
                add(list(range(rows)), code.at(across, at), code.add(code.mul(y, m * c), at))

            in_groups(code, part[1] - part[0] or m * c, most, write)


def _elements(
    code: Code, layer: Layer, images: str, row: int, outputs: str, walks: list[Walk]
) -> None:
    """As ``_filters``, for one filter of each channel: its elements are the rows."""
    (k, m), c = layer.size, layer.channels
    offsets = [y * row + x * c for y in range(k) for x in range(m)]
    for column, width in panels(code, c, 1):
        for start in range(0, len(offsets), rows_at_once(width)):
            part = offsets[start : start + rows_at_once(width)]
            a, b = code.at(images, column), code.at(outputs, column)
            sums = product(code, part, width, a, b, walks, True)
            add_to(code, code.at("%dw", code.add(column, start * c)), c, width, sums)
