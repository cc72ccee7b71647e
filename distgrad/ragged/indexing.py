"""Python's indexing of ragged tensors, and rows taken from them."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from distgrad.core.errors import InvalidArgumentError
from distgrad.ops.indexing import gather
from distgrad.ragged import partition
from distgrad.ragged.tensor import RaggedTensor, count_of


def take_rows(values: Any, rows: np.ndarray) -> Any:
    """The rows of these numbers, of a tensor, of texts or of a RaggedTensor."""
    if not isinstance(values, RaggedTensor):
        return values[rows] if isinstance(values, np.ndarray) else gather(values, rows)
    starts, limits = values._splits[:-1][rows], values._splits[1:][rows]
    taken, splits = partition.ranges(starts, limits)
    return RaggedTensor(take_rows(values.values, taken), splits, values._uniform)


def getitem(rt: RaggedTensor, key: Any) -> Any:
    """``rt[key]``: ints, slices, ``...``, ``None`` and scalar int tensors.

    Slices past the end are cut. Raises IndexError for a row out of range, ValueError for an int at
    a ragged axis, of which some rows may not have that element, TypeError for other keys.
    """
    return _item(rt, list(key) if isinstance(key, (tuple, list)) else [key])


def _item(x: Any, keys: list[Any]) -> Any:
    if not keys:
        return x
    if not isinstance(x, RaggedTensor):
        return x[tuple(keys)]
    first, *rest = keys
    if first is ...:
        return _item(x, _spelled_out(x, keys))
    if first is None:
        inner = _item(x, rest)
        return RaggedTensor.from_uniform_row_length(inner, count_of(inner))
    if isinstance(first, slice):
        return _inner(take_rows(x, np.arange(count_of(x))[_slice(first)]), rest)
    row, count = _number(first), count_of(x)
    if not -count <= row < count:
        raise IndexError(f"Row key {row} out of bounds")
    start, limit = x._splits[row % count : row % count + 2].tolist()
    return _item(_item(x.values, [slice(start, limit)]), rest)


def _inner(x: Any, keys: list[Any]) -> Any:
    """The keys at the axes after the first one."""
    if not keys:
        return x
    if not isinstance(x, RaggedTensor):
        return x[(slice(None), *keys)]
    first, *rest = keys
    if first is ...:
        return _inner(x, _spelled_out(x.values, keys))
    if first is None:
        return RaggedTensor.from_uniform_row_length(_inner(x, rest), 1, count_of(x))
    if isinstance(first, slice):
        part = _slice(first)
        if part != slice(None):
            x = _columns(x, part)
        return x.with_values(_inner(x.values, rest))
    if x._uniform is None:
        raise ValueError("Cannot index into an inner ragged dimension.")
    column = _number(first)
    if not -x._uniform <= column < x._uniform:
        raise InvalidArgumentError(f"column {column} of rows of the length {x._uniform}")
    return _inner(take_rows(x.values, x._splits[:-1] + column % x._uniform), rest)


def _columns(x: RaggedTensor, part: slice) -> RaggedTensor:
    """A slice of every row."""
    step = 1 if part.step is None else part.step
    lengths = partition.lengths_of(x._splits)
    low, high = (0, lengths) if step > 0 else (-1, lengths - 1)

    def place(bound: int | None, otherwise: Any) -> Any:
        if bound is None:
            return otherwise
        return np.clip(bound if bound >= 0 else lengths + bound, low, high)

    first, last = (low, high) if step > 0 else (high, low)
    starts = x._splits[:-1]
    begin, end = starts + place(part.start, first), starts + place(part.stop, last)
    rows, splits = partition.ranges(begin, end, step)
    uniform = None if x._uniform is None else len(range(x._uniform)[part])
    return RaggedTensor(take_rows(x.values, rows), splits, uniform)


def _spelled_out(x: Any, keys: list[Any]) -> list[Any]:
    """The keys with whole slices in place of their first, an ellipsis."""
    used = sum(key is not None for key in keys[1:])
    return [slice(None)] * (len(x.shape) - used) + keys[1:]


def _slice(key: slice) -> slice:
    bounds = (key.start, key.stop, key.step)
    return slice(*[None if bound is None else _number(bound) for bound in bounds])


def _number(key: Any) -> int:
    try:
        return operator.index(key)
    except TypeError:
        raise TypeError(
            f"a RaggedTensor is indexed by ints, slices, ... and None, not by {key!r}: "
            "tf.ragged.boolean_mask takes masks, tf.gather lists"
        ) from None
