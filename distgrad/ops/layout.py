"""Repeated, reversed, rolled and sliced tensors, all made of the shape primitives."""

from __future__ import annotations

import builtins
import operator
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor, backend_of
from distgrad.core.dtypes import as_dtype, kind_of
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.core.texts import moves_texts
from distgrad.ops import shape as shapes
from distgrad.ops.casting import cast, identity
from distgrad.ops.indexing import getitem, index, take
from distgrad.ops.logic import less
from distgrad.ops.shape import axes, expand_dims, join, one_axis, part, reshape_to, static


def beside(x: Tensor, array: np.ndarray) -> Tensor:
    """A host array as a tensor on the device of ``x``."""
    return Tensor(backend_of(x._data).asarray(array))


@moves_texts
def broadcast_to(input: Any, shape: Any, name: str | None = None) -> Tensor:
    """``input`` repeated along new and size-1 axes to ``shape``.

    Raises InvalidArgumentError where it does not broadcast to it.
    """
    return bind(shapes.broadcast_to, as_tensor(input), shape=static(shape))


@moves_texts
def tile(input: Any, multiples: Any, name: str | None = None) -> Tensor:
    """``input`` repeated ``multiples[i]`` times along each axis i.

    Raises InvalidArgumentError unless there is one non-negative number for each axis.
    """
    x, counts = as_tensor(input), static(multiples)
    shape = x._data.shape
    if len(counts) != len(shape) or min((0, *counts)) < 0:
        raise InvalidArgumentError(f"tile: multiples {counts} for a tensor of shape {x.shape}")
    apart = tuple(n for size in shape for n in (1, size))
    wide = tuple(n for pair in zip(counts, shape, strict=True) for n in pair)
    spread = bind(shapes.broadcast_to, bind(reshape_to, x, shape=apart), shape=wide)
    return bind(reshape_to, spread, shape=tuple(map(operator.mul, counts, shape)))


@moves_texts
def repeat(input: Any, repeats: Any, axis: int | None = None, name: str | None = None) -> Tensor:
    """Each element of ``input`` along ``axis`` repeated: all alike, or each its own number.

    Without an axis the flat tensor is repeated. Raises InvalidArgumentError for negative numbers,
    or unless there is one of them or one for each element.
    """
    x = as_tensor(input)
    if axis is None:
        x, axis = bind(reshape_to, x, shape=(x._data.size,)), 0
    axis = one_axis("repeat", axis, x._data.ndim)
    shape, counts = x._data.shape, static(repeats)
    if len(counts) not in (1, shape[axis]) or min((0, *counts)) < 0:
        raise InvalidArgumentError(f"repeat: repeats {counts} for axis {axis} of {x.shape}")
    if len(counts) == 1:
        wide = (*shape[: axis + 1], counts[0], *shape[axis + 1 :])
        spread = bind(shapes.broadcast_to, expand_dims(x, axis + 1), shape=wide)
        merged = (*shape[:axis], shape[axis] * counts[0], *shape[axis + 1 :])
        return bind(reshape_to, spread, shape=merged)
    return bind(take, x, beside(x, np.repeat(np.arange(len(counts)), counts)), axis=axis)


@moves_texts
def reverse(tensor: Any, axis: Any, name: str | None = None) -> Tensor:
    """``tensor`` with the order of its elements turned round along each of the axes.

    Raises InvalidArgumentError for an axis outside the rank or given twice.
    """
    x = as_tensor(tensor)
    over = axes(axis, x._data.ndim)
    key = tuple(slice(None, None, -1 if i in over else None) for i in range(x._data.ndim))
    return bind(getitem, x, key=key)


@moves_texts
def roll(input: Any, shift: Any, axis: Any, name: str | None = None) -> Tensor:
    """``input`` moved by ``shift`` along ``axis``; what leaves at one end comes in at the other.

    Raises InvalidArgumentError unless there are as many shifts as axes.
    """
    x = identity(as_tensor(input))
    moves, over = static(shift), static(axis)
    if len(moves) != len(over):
        raise InvalidArgumentError(f"roll: {len(moves)} shifts for {len(over)} axes")
    for move, along in zip(moves, over, strict=True):
        along = one_axis("roll", along, x._data.ndim)
        length = x._data.shape[along]
        if length and move % length:
            cut = length - move % length
            tail = bind(getitem, x, key=part(along, cut, None))
            x = bind(join, tail, bind(getitem, x, key=part(along, None, cut)), axis=along)
    return x


def meshgrid(*args: Any, indexing: str = "xy", name: str | None = None) -> list[Tensor]:
    """Coordinate grids of vectors; ``indexing="xy"`` swaps the first two axes, "ij" does not.

    Inputs of rank over 1 are taken as vectors. Raises ValueError for another ``indexing``.
    """
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: indexing is 'xy' or 'ij', not {indexing!r}")
    tensors = [as_tensor(a) for a in args]
    order = list(range(len(tensors)))
    if indexing == "xy" and len(order) > 1:
        order[:2] = 1, 0
    sizes = [1] * len(order)
    for tensor, along in zip(tensors, order, strict=True):
        sizes[along] = tensor._data.size
    grids = []
    for tensor, along in zip(tensors, order, strict=True):
        line = tuple(tensor._data.size if i == along else 1 for i in range(len(order)))
        aligned = bind(reshape_to, tensor, shape=line)
        grids.append(bind(shapes.broadcast_to, aligned, shape=tuple(sizes)))
    return grids


# Slices as functions; the name ``slice`` belongs to Python in the rest of this file.


@moves_texts
def slice_from(input_: Any, begin: Any, size: Any, name: str | None = None) -> Tensor:
    """The block of ``input_`` that starts at ``begin`` and has ``size``; -1 is all that is left.

    Raises InvalidArgumentError where the block does not lie inside the tensor.
    """
    x, starts, sizes = as_tensor(input_), static(begin), static(size)
    shape = x._data.shape
    if not len(starts) == len(sizes) == len(shape):
        raise InvalidArgumentError(f"slice: begin {starts} and size {sizes} for shape {x.shape}")
    key = []
    for start, length, whole in zip(starts, sizes, shape, strict=True):
        stop = whole if length == -1 else start + length
        if not 0 <= start <= stop <= whole:
            raise InvalidArgumentError(
                f"slice: begin {starts} and size {sizes} do not lie inside shape {x.shape}"
            )
        key.append(slice(start, stop))
    return bind(getitem, x, key=tuple(key))


def strided_slice(
    input_: Any,
    begin: Any,
    end: Any,
    strides: Any = None,
    begin_mask: int = 0,
    end_mask: int = 0,
    ellipsis_mask: int = 0,
    new_axis_mask: int = 0,
    shrink_axis_mask: int = 0,
    var: Any = None,
    name: str | None = None,
) -> Tensor:
    """``input_[begin:end:strides]``; bit i of a mask concerns entry i.

    In turn: leave out the begin or the end, put an ellipsis, put a new axis, or index with begin
    alone. Raises InvalidArgumentError as indexing does, and for entries of different numbers.
    """
    starts, stops = static(begin), static(end)
    steps = (1,) * len(starts) if strides is None else static(strides)
    if not len(starts) == len(stops) == len(steps):
        raise InvalidArgumentError(f"strided_slice: {starts}, {stops} and {steps} differ in length")
    key: list[Any] = []
    for i, (start, stop, step) in enumerate(zip(starts, stops, steps, strict=True)):
        if ellipsis_mask >> i & 1:
            key.append(...)
        elif new_axis_mask >> i & 1:
            key.append(None)
        elif shrink_axis_mask >> i & 1:
            key.append(start)
        else:
            first = None if begin_mask >> i & 1 else start
            last = None if end_mask >> i & 1 else stop
            key.append(slice(first, last, step))
    return index(as_tensor(input_), tuple(key))


def sequence_mask(
    lengths: Any, maxlen: Any = None, dtype: Any = np.bool_, name: str | None = None
) -> Tensor:
    """For each length, ``maxlen`` values of which the first so many are True.

    ``maxlen`` is the largest length by default. Raises InvalidArgumentError for lengths that are
    no real numbers, or several numbers as ``maxlen``.
    """
    x = as_tensor(lengths)
    if kind_of(x._data.dtype) not in "iuf":
        raise InvalidArgumentError(f"sequence_mask: lengths are numbers, not {x.dtype.name}")
    if maxlen is not None and as_tensor(maxlen)._data.ndim:
        raise InvalidArgumentError(f"sequence_mask: maxlen is one number, not {maxlen!r}")
    if x._data.dtype.itemsize < 4:  # too small, perhaps, for the last column's number
        x = cast(x, np.int32 if x._data.dtype.kind in "iu" else np.float32)
    width = int(x._data.max()) if maxlen is None and x._data.size else int(maxlen or 0)
    columns = beside(x, np.arange(builtins.max(width, 0), dtype=x._data.dtype))
    return cast(less(columns, expand_dims(x, -1)), as_dtype(dtype))


def shape_n(input: Any, out_type: Any = np.int32, name: str | None = None) -> list[Tensor]:
    """The shape of each tensor of a list."""
    dtype = as_dtype(out_type).numpy_dtype
    return [Tensor(np.array(as_tensor(x)._data.shape, dtype=dtype)) for x in input]
