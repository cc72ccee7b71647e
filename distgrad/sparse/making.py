"""Sparse tensors of dense ones, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.texts import Bytes, Texts, as_bytes, as_strings, holds_texts
from distgrad.ops.constants import fill, ones
from distgrad.ops.scatter import tensor_scatter_nd_update
from distgrad.ops.shape import concat
from distgrad.sparse.moving import reorder
from distgrad.sparse.places import check, places_of


def to_dense(
    sp_input: SparseTensor,
    default_value: Any = None,
    validate_indices: bool = True,
    name: str | None = None,
) -> Tensor | Bytes | Texts:
    """The tensor, or array of texts, that has the values, and ``default_value`` at other places.

    That is 0 or "" for None. Raises TypeError for anything but a SparseTensor, InvalidArgumentError
    for an index outside the shape, and where ``validate_indices`` for one that comes twice or
    before a smaller one.
    """
    places, shape = places_of(sp_input)
    check(places, shape, validate_indices)
    values = sp_input.values
    if isinstance(values, np.ndarray):  # of texts
        made = np.full(shape, "" if default_value is None else default_value, object)
        made[tuple(places.T)] = np.asarray(as_bytes(values))
        return as_strings(np.asarray(as_bytes(made)))
    default = as_tensor(
        0 if default_value is None else default_value, like=values.dtype.numpy_dtype
    )
    return tensor_scatter_nd_update(fill(shape, default), sp_input.indices, values)


def from_dense(tensor: Any, name: str | None = None) -> SparseTensor:
    """The values of a tensor that are not 0, or of an array of texts that are not empty."""
    text = not isinstance(tensor, Operand) and holds_texts(np.asarray(tensor))
    array: Any = np.asarray(as_bytes(tensor)) if text else as_tensor(tensor).numpy()
    places = np.argwhere(array != (b"" if text else 0))
    return SparseTensor(places, array[tuple(places.T)], array.shape)


def eye(
    num_rows: int, num_columns: int | None = None, dtype: Any = "float32", name: Any = None
) -> SparseTensor:
    """Ones on the diagonal of a matrix, by default a square one."""
    shape = (num_rows, num_rows if num_columns is None else num_columns)
    places = np.arange(min(shape))
    return SparseTensor(np.stack([places, places], 1), ones(places.shape, dtype), shape)


def to_indicator(sp_input: SparseTensor, vocab_size: int, name: str | None = None) -> Tensor:
    """True at the numbers that the values are: bools, the last axis of ``vocab_size``.

    Raises InvalidArgumentError for values that are no integers below that.
    """
    places, shape = places_of(sp_input)
    if sp_input.dtype.numpy_dtype.kind not in "iu":
        raise InvalidArgumentError(f"to_indicator: values are {sp_input.dtype.name}, no integers")
    numbers = sp_input.values.numpy()
    lie = np.column_stack([places[:, :-1], numbers])
    check(lie, (*shape[:-1], vocab_size), False)
    made = np.zeros((*shape[:-1], vocab_size), bool)
    made[tuple(lie.T)] = True
    return as_tensor(made)


def fill_empty_rows(
    sp_input: SparseTensor, default_value: Any, name: str | None = None
) -> tuple[SparseTensor, Tensor]:
    """One with ``default_value`` in the first place of rows without values, and which these were.

    Raises InvalidArgumentError for a default that is no single value.
    """
    if np.ndim(default_value):
        raise InvalidArgumentError(f"default_value must be one value, not {default_value!r}")
    places, shape = places_of(sp_input)
    empty = np.bincount(places[:, 0], minlength=shape[0]) == 0
    more = np.zeros((empty.sum(), len(shape)), np.int64)
    more[:, 0] = np.flatnonzero(empty)
    default = fill([len(more)], as_tensor(default_value, like=sp_input.dtype.numpy_dtype))
    values = concat([sp_input.values, default], 0)
    filled = reorder(SparseTensor(np.concatenate([places, more]), values, shape))
    return filled, as_tensor(empty)
