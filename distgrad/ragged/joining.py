"""Ragged tensors put together, and axes put in and left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.composite import of_composites
from distgrad.core.errors import InvalidArgumentError
from distgrad.ops import shape
from distgrad.ops.shape import one_axis
from distgrad.ragged import partition
from distgrad.ragged.converting import flat_axes, in_rows
from distgrad.ragged.indexing import take_rows
from distgrad.ragged.tensor import RaggedTensor, as_tensor_or_ragged, as_values, count_of


def as_ragged(value: Any, ragged_rank: int) -> Any:
    """A tensor as rows of one length along so many axes, a RaggedTensor with as many at least."""
    if not ragged_rank:
        return value
    if not isinstance(value, RaggedTensor):
        value = as_values(value)
        sizes = tuple(value.shape)[: ragged_rank + 1]
        return in_rows(flat_axes(value, ragged_rank + 1), sizes)
    return RaggedTensor(as_ragged(value.values, ragged_rank - 1), value._splits, value._uniform)


def alike(values: Sequence[Any], least: int = 0) -> list[Any]:
    """Tensors of one rank with as many ragged axes, ``least`` at least.

    Raises ValueError for tensors of several ranks.
    """
    found = [as_values(value) for value in values]
    ranks = {len(value.shape) for value in found}
    if len(ranks) != 1:
        raise ValueError(f"ragged tensors of the ranks {sorted(ranks)} do not go together")
    depths = [value.ragged_rank for value in found if isinstance(value, RaggedTensor)]
    depth = max(depths, default=0)
    return [as_ragged(value, max(depth, least)) for value in found]


def along(values: list[Any], axis: int, stacked: bool) -> Any:
    """Tensors that are alike one after the other along an axis, or along a new one."""
    if not isinstance(values[0], RaggedTensor):
        return (shape.stack if stacked else shape.concat)(values, axis)
    first = values[0]
    if axis > 1:
        if any(not np.array_equal(first._splits, each._splits) for each in values[1:]):
            raise InvalidArgumentError(f"rows before axis {axis} have other lengths")
        return first.with_values(along([each.values for each in values], axis - 1, stacked))
    counts = [count_of(each) for each in values]
    joined = RaggedTensor(
        along([each.values for each in values], 0, False),
        partition.of_lengths(np.concatenate([partition.lengths_of(v._splits) for v in values])),
        first._uniform if len({each._uniform for each in values}) == 1 else None,
    )
    if axis == 0:
        if not stacked:
            return joined
        return RaggedTensor(joined, partition.of_lengths(np.array(counts)))
    if len(set(counts)) > 1:
        raise InvalidArgumentError(f"ragged tensors of {counts} rows do not go together")
    # The first row of each, then the second row of each.
    count, rows = len(values), counts[0]
    mixed = take_rows(joined, np.arange(count * rows).reshape(count, rows).T.ravel())
    groups = RaggedTensor(mixed, count * np.arange(rows + 1))
    return groups if stacked else groups.merge_dims(1, 2)


def stack_rows(values: Sequence[Any], axis: int = 0, name: str | None = None) -> Any:
    """Tensors of one rank, but of any sizes, along a new axis (``tf.ragged.stack``).

    A RaggedTensor; of scalars a tensor. Raises ValueError for tensors of several ranks.
    """
    found = [as_tensor_or_ragged(value) for value in values]
    if not found:
        raise ValueError("stack needs one value or more")
    rank = len(found[0].shape)
    if rank == 0:
        return shape.stack(found, axis)
    axis = one_axis("stack", axis, rank + 1)
    if rank > 1:
        return along(alike(found, 1), axis, True)
    if axis == 1:
        return RaggedTensor.from_tensor(shape.stack(found, 1))
    if any(len(value.shape) != 1 for value in found):
        raise ValueError("tensors of several ranks do not go together")
    lengths = [int(value.shape[0]) for value in found]
    return RaggedTensor.from_row_lengths(shape.concat(found, 0), lengths)


@of_composites(shape.concat)
def concat(values: Any, axis: int, name: str | None = None) -> Any:
    values = alike(values if isinstance(values, (list, tuple)) else [values])
    return along(values, one_axis("concat", axis, len(values[0].shape)), False)


@of_composites(shape.stack)
def stack(values: Sequence[Any], axis: int = 0, name: str | None = None) -> Any:
    values = alike(values)
    return along(values, one_axis("stack", axis, len(values[0].shape) + 1), True)


@of_composites(shape.expand_dims)
def expand_dims(input: RaggedTensor, axis: Any, name: str | None = None) -> Any:
    axis = one_axis("expand_dims", axis, len(input.shape) + 1)
    if axis == 0:
        return RaggedTensor.from_uniform_row_length(input, count_of(input), 1)
    if axis == 1:
        return RaggedTensor.from_uniform_row_length(input, 1, count_of(input))
    return input.with_values(shape.expand_dims(input.values, axis - 1))


@of_composites(shape.squeeze)
def squeeze(input: RaggedTensor, axis: Any = None, name: str | None = None) -> Any:
    if axis is None:
        raise ValueError("Ragged.squeeze must have an axis argument.")
    rank = len(input.shape)
    made: Any = input
    for each in sorted({one_axis("squeeze", a, rank) for a in np.atleast_1d(axis)}, reverse=True):
        made = _without_axis(made, each)
    return made


def _without_axis(x: Any, axis: int) -> Any:
    if not isinstance(x, RaggedTensor):
        return shape.squeeze(x, axis)
    if axis > 1:
        return x.with_values(_without_axis(x.values, axis - 1))
    lengths = partition.lengths_of(x._splits) if axis else np.array([count_of(x)])
    if (lengths != 1).any():
        raise InvalidArgumentError(f"squeeze: axis {axis} of {x.shape} has not the size 1")
    return x.values
