"""Shapes, indices and joins as ONNX operations."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.export.converters import converter
from distgrad.export.converters.elementwise import cast
from distgrad.export.graph import Edge, Graph
from distgrad.export.sizes import Size

Sizes = tuple[int | Size, ...]


@converter("reshape_to")
def _(to: Graph, x: Edge, *, shape: Sizes) -> Edge:
    open_ones = [n for n in shape if type(n) is Size]
    if len(open_ones) == 1 and 0 not in shape:  # the rest of the elements
        shape = tuple(-1 if type(n) is Size else n for n in shape)
    return to.node("Reshape", x, to.vector(shape), allowzero=int(0 in shape))


@converter("permute")
def _(to: Graph, x: Edge, *, perm: tuple[int, ...]) -> Edge:
    return x if perm == tuple(range(len(perm))) else to.arranged(x, perm)


@converter("broadcast_to")
def _(to: Graph, x: Edge, *, shape: Sizes) -> Edge:
    return to.node("Expand", x, to.vector(shape))


@converter("fill")
def _(to: Graph, value: Edge, *, shape: Sizes, dtype: np.dtype) -> Edge:
    value = value if value.dtype == dtype else cast(to, value, dtype)
    return to.node("Expand", value, to.vector(shape))


@converter("fill_like")
def _(to: Graph, x: Edge, *, value: Any) -> Edge:
    return to.node("Expand", to.number(value, x), to.vector(x.shape))


@converter("join")
def _(to: Graph, *xs: Edge, axis: int) -> Edge:
    return to.node("Concat", *xs, axis=axis)


@converter("split_at")
def _(to: Graph, x: Edge, *, axis: int, sizes: Sizes) -> tuple[Edge, ...]:
    return to.several("Split", len(sizes), x, to.vector(sizes), axis=axis)


@converter("pad_constant")
def _(to: Graph, x: Edge, *, paddings: tuple, value: Any) -> Edge:
    if not paddings:
        return x
    pads = to.vector([n for side in zip(*paddings, strict=True) for n in side])
    return to.node("Pad", x, pads, to.number(value, x))


@converter("getitem")
def _(to: Graph, x: Edge, *, key: tuple) -> Edge:
    """Slices first, then the axes that an int takes away, then those that None adds."""
    key = (*key, ...) if ... not in key else key
    at = key.index(...)
    named = sum(k is not None and k is not ... for k in key)
    key = key[:at] + (slice(None),) * (len(x.shape) - named) + key[at + 1 :]
    slices, gone, new, axis, place = [], [], [], 0, 0
    for k in key:
        if k is None:
            new.append(place)
            place += 1
            continue
        if isinstance(k, slice):
            if k != slice(None):
                slices.append((axis, *_bounds(k, x.shape[axis])))
            place += 1
        else:
            slices.append((axis, k, k + 1 if k != -1 else _END, 1))
            gone.append(axis)
        axis += 1
    if slices:
        axes, starts, stops, steps = zip(*slices, strict=True)
        x = to.node("Slice", x, *map(to.vector, (starts, stops, axes, steps)))
    if gone:
        x = to.node("Squeeze", x, to.vector(gone))
    return to.node("Unsqueeze", x, to.vector(new)) if new else x


_END = 2**31 - 1  # beyond any axis


def _bounds(key: slice, size: int | Size) -> tuple:
    """Start, stop and step; what is left open lies beyond the ends of the axis."""
    if type(size) is int and all(type(n) is not Size for n in (key.start, key.stop, key.step)):
        start, stop, step = key.indices(size)
        return start, (-_END if step < 0 and stop < 0 else stop), step
    step = 1 if key.step is None else key.step
    first, last = (0, _END) if step > 0 else (_END, -_END)
    return first if key.start is None else key.start, last if key.stop is None else key.stop, step


@converter("take")
def _(to: Graph, x: Edge, indices: Edge, *, axis: int) -> Edge:
    if indices.dtype not in (np.int32, np.int64):
        indices = cast(to, indices, np.int64)
    return to.node("Gather", x, indices, axis=axis)


@converter("gather_rows")
def _(to: Graph, x: Edge, indices: Edge) -> Edge:
    if indices.dtype not in (np.int32, np.int64):
        indices = cast(to, indices, np.int64)
    return to.node("Gather", x, indices, axis=0)


@converter("row_positions")
def _(to: Graph, indices: Edge, *, length: int) -> Edge:
    count, *others = indices.shape
    end = to.node("Squeeze", to.vector([count]))
    number = to.node("Range", to.constant(np.int64(0)), end, to.constant(np.int64(1)))
    starts = to.node("Mul", number, to.vector([length]))
    axes = to.vector(range(1, 1 + len(others)))
    indices = indices if indices.dtype == np.int64 else cast(to, indices, np.int64)
    return to.node("Add", indices, to.node("Unsqueeze", starts, axes))


@converter("band")
def _(to: Graph, x: Edge, *, lower: int, upper: int) -> Edge:
    if lower >= 0:
        x = to.node("Trilu", x, to.constant(np.int64(-lower)), upper=1)
    if upper >= 0:
        x = to.node("Trilu", x, to.constant(np.int64(upper)), upper=0)
    return x
