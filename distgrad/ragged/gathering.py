"""Elements of ragged tensors, and of tensors at ragged indices, by their numbers."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from distgrad.core.composite import of_composites
from distgrad.core.errors import InvalidArgumentError
from distgrad.ops import indexing, scatter, shape
from distgrad.ops.shape import one_axis
from distgrad.ragged import partition
from distgrad.ragged.converting import in_rows
from distgrad.ragged.indexing import take_rows
from distgrad.ragged.joining import as_ragged
from distgrad.ragged.tensor import RaggedTensor, as_tensor_or_ragged, count_of


@of_composites(indexing.gather)
def gather(
    params: Any,
    indices: Any,
    validate_indices: Any = None,
    axis: int | None = None,
    batch_dims: int = 0,
    name: str | None = None,
) -> Any:
    params, indices = as_tensor_or_ragged(params), as_tensor_or_ragged(indices)
    batch = operator.index(batch_dims)
    batch += len(indices.shape) if batch < 0 else 0
    axis = one_axis("gather", batch if axis is None else axis, len(params.shape))
    if axis < batch:
        raise ValueError(f"gather: axis {axis} lies within the {batch} batch axes")
    if axis and not isinstance(params, RaggedTensor):
        params = as_ragged(params, axis)
    if batch:
        indices = as_ragged(indices, 1)
        if count_of(params) != count_of(indices):
            raise InvalidArgumentError(
                f"gather: {count_of(params)} rows of params, {count_of(indices)} of indices"
            )
    if axis == 0:
        if not isinstance(indices, RaggedTensor):
            where = integers_of(indices)
            if not where.ndim:
                return params[int(where)]
            _check(where, count_of(params))
            return _in_shape(take_rows(params, where.ravel()), where.shape)
        return indices.with_values(gather(params, indices.values))
    if batch > 1:
        if not np.array_equal(params._splits, indices._splits):
            raise InvalidArgumentError("gather: batch axes of params and indices differ")
        return indices.with_values(gather(params.values, indices.values, None, axis - 1, batch - 1))
    if axis > 1:
        return params.with_values(gather(params.values, indices, None, axis - 1, max(batch - 1, 0)))
    if not batch:  # the same elements of each row
        where = integers_of(indices)
        _check(
            where, int(partition.lengths_of(params._splits).min(initial=where.max(initial=-1) + 1))
        )
        rows = params._splits[:-1, None] + where.ravel()
        taken = take_rows(params.values, rows.ravel())
        return _in_shape(taken, (count_of(params), *where.shape))
    return _in_rows(params, indices)


def _in_rows(params: RaggedTensor, indices: RaggedTensor) -> Any:
    """Of each row of ``params`` the elements at a row of ``indices``."""
    flat = indices.merge_dims(1, len(indices.shape) - 1) if len(indices.shape) > 2 else indices
    where, rows = integers_of(flat.values), partition.row_ids(flat._splits)
    lengths = partition.lengths_of(params._splits)[rows]
    if ((where < 0) | (where >= lengths)).any():
        raise InvalidArgumentError(
            f"gather: indices {where.tolist()} outside rows of {lengths.tolist()}"
        )
    taken = take_rows(params.values, params._splits[:-1][rows] + where)
    if len(indices.shape) == 2:
        return indices.with_values(taken)
    places = indices.with_flat_values(np.arange(len(where)).reshape(indices.flat_values.shape))
    return gather(taken, places)


def integers_of(value: Any) -> np.ndarray:
    """An array of indices on the host."""
    array = np.asarray(value)
    return array.astype(np.int64) if not array.size else array


def _check(where: np.ndarray, count: int) -> None:
    if where.size and (where.min() < 0 or where.max() >= count):
        raise InvalidArgumentError(f"gather: indices {where.tolist()} outside [0, {count})")


def _in_shape(values: Any, sizes: tuple[int, ...]) -> Any:
    """A first axis as several."""
    if isinstance(values, RaggedTensor):
        return in_rows(values, sizes, ragged=True)
    return shape.reshape(values, (*sizes, *values.shape[1:]))


@of_composites(scatter.gather_nd)
def gather_nd(params: Any, indices: Any, batch_dims: int = 0, name: str | None = None) -> Any:
    if isinstance(indices, RaggedTensor):
        return indices.with_values(gather_nd(params, indices.values, batch_dims))
    if not isinstance(params, RaggedTensor):
        return scatter.gather_nd(params, indices, batch_dims)
    where = integers_of(indices)
    if batch_dims or not where.ndim:
        raise ValueError("gather_nd of a RaggedTensor takes indices of an axis, in no batch")
    rows = where.reshape(-1, where.shape[-1])
    values: Any = params
    if not rows.shape[1]:
        raise ValueError("gather_nd: indices of a RaggedTensor name one axis or more")
    place = rows[:, 0]
    _check(place, count_of(values))
    for column in rows[:, 1:].T:
        if not isinstance(values, RaggedTensor):
            values = as_ragged(values, 1)
        lengths = partition.lengths_of(values._splits)[place]
        if ((column < 0) | (column >= lengths)).any():
            raise InvalidArgumentError(f"gather_nd: indices {rows.tolist()} outside {params!r}")
        values, place = values.values, values._splits[:-1][place] + column
    return _in_shape(take_rows(values, place), where.shape[:-1])
