"""The gradient of a convolution's input where that has few channels, in machine code.

Lanes then hold the elements of a window, not channels: each output is multiplied by all the filters
and spread over its window.
"""

from __future__ import annotations

import functools
from math import prod

from distgrad.compile.llvm.blocks import (
    LANES,
    Code,
    Int,
    Walk,
    each_vector,
    in_groups,
    panel,
    panels,
    product,
    rows_at_once,
    vectors,
)
from distgrad.compile.llvm.layers import Layer, copy_inner, swapped, wide, zeros

_FEW = 8  # channels
_ROWS = 12  # outputs at a time, at most


def fits(layer: Layer) -> bool:
    """Whether a layer has few input channels."""
    return layer.channels < _FEW and not layer.depthwise


def _window(layer: Layer) -> int:
    return prod(layer.size) * layer.channels


def _row(layer: Layer) -> int:
    """Floats of a row of an image with its padding."""
    return (layer.space[1] + sum(layer.padding[1])) * layer.channels


def _image(layer: Layer) -> int:
    return (layer.space[0] + sum(layer.padding[0])) * _row(layer)


def work(layer: Layer) -> int:
    """Floats that a call works in: filters, the windows of some outputs, an image."""
    return wide(layer.filters) + _ROWS * wide(_window(layer)) + _image(layer) + LANES


@functools.cache
def grad_x(layer: Layer) -> int:
    """A function of dy ``[n, *counts, o]``, filters ``[k, m, c, o]``, a place for dx, work, n."""
    code = Code(["dy", "w", "dx", "work"], ["samples"])
    c, o = layer.channels, layer.outputs
    swapped(code, "%w", "%work", 1, _window(layer), o)
    windows = code.at("%work", wide(layer.filters))
    held = code.at(windows, _ROWS * wide(_window(layer)))
    with code.loop("%samples") as n:
        result = code.at("%dx", code.mul(n, prod(layer.space) * c))
        image = held if layer.padded else result
        zeros(code, image, _image(layer))
        given = code.at("%dy", code.mul(n, prod(layer.counts) * o))
        with code.loop(layer.counts[0]) as y:
            line = code.at(given, code.mul(y, layer.counts[1] * o))
            target = code.at(image, code.mul(y, layer.strides[0] * _row(layer)))

            def write(x: Int, rows: int, line: str = line, target: str = target) -> None:
                _multiply(code, layer, code.at(line, code.mul(x, o)), rows, windows)
                first = code.at(target, code.mul(x, layer.strides[1] * c))
                _spread(code, layer, rows, windows, first)

            most = min(rows_at_once(panel(_window(layer))), _ROWS)
            in_groups(code, layer.counts[1], most, write)
        if layer.padded:
            copy_inner(code, image, result, layer.space, layer.padding, c)
    return code.native().address


def _multiply(code: Code, layer: Layer, outputs: str, rows: int, windows: str) -> None:
    """The windows of some outputs, one after the other."""
    size, o = _window(layer), layer.outputs
    for column, width in panels(code, size):
        offsets = [r * o for r in range(rows)]
        filters = code.at("%work", column)
        sums = product(code, offsets, width, outputs, filters, [Walk(o, 1, size)])
        for r, line in enumerate(sums):
            for value, (at, _) in zip(line, vectors(width), strict=True):
                code.store(value, code.at(windows, code.add(column, r * wide(size) + at)))


def _spread(code: Code, layer: Layer, rows: int, windows: str, target: str) -> None:
    """Adds windows to the image, row by row."""
    (k, m), c = layer.size, layer.channels
    with code.loop(rows) as r:
        window = code.at(windows, code.mul(r, wide(_window(layer))))
        place = code.at(target, code.mul(r, layer.strides[1] * c))
        for y in range(k):
            given, made = code.at(window, y * m * c), code.at(place, y * _row(layer))

            def add(at: Int, lanes: int, given: str = given, made: str = made) -> None:
                end = code.at(made, at)
                total = code.fadd(code.load(end, lanes), code.load(code.at(given, at), lanes))
                code.store(total, end, lanes)

            each_vector(code, m * c, add)
