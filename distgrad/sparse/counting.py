"""What numbers are counted into, or point at: sparse tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.composite import Composite
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import cast
from distgrad.ops.constants import ones
from distgrad.ops.indexing import gather
from distgrad.ops.segment import unsorted_segment_sum
from distgrad.ops.shape import one_axis, reshape
from distgrad.sparse.moving import reorder
from distgrad.sparse.places import placed, places_of


def bincount(
    values: Any,
    weights: Any = None,
    axis: int | None = 0,
    minlength: int | None = None,
    maxlength: int | None = None,
    binary_output: bool = False,
    name: str | None = None,
) -> SparseTensor:
    """How often each integer appears, in all ``values`` or (``axis`` -1) in each row of a matrix.

    With ``weights`` their sums, with ``binary_output`` ones. Values may be dense, sparse or ragged;
    there are ``minlength`` to ``maxlength`` columns, and larger integers are not counted. Raises
    ValueError for another axis, and for both options; InvalidArgumentError for values that are
    negative or no integers, and for weights of another shape.
    """
    if axis not in (None, 0, -1):
        raise ValueError(f"axis {axis}: only 0 and -1 are supported")
    if weights is not None and binary_output:
        raise ValueError("binary_output and weights are mutually exclusive: give one of them")
    numbers, rows, count = _numbers(values)
    kind = numbers.dtype
    if kind.kind not in "iu" or numbers.min(initial=0) < 0:
        raise InvalidArgumentError(f"bincount takes integers from 0 on, not {values}")
    most = int(numbers.max(initial=-1)) + 1
    length = max(most, minlength or 0) if maxlength is None else int(maxlength)
    amounts = ones([len(numbers)], kind) if weights is None else _amounts(weights, len(numbers))
    apart = axis == -1 and count is not None
    shape = [count, length] if apart else [length]
    kept = np.flatnonzero(numbers < length)
    places = numbers[kept] + (rows[kept] * length if apart else 0)
    flat, at = np.unique(places, return_inverse=True)
    if binary_output:
        return SparseTensor(placed(flat, shape), ones([len(flat)], kind), shape)
    sums = unsorted_segment_sum(gather(amounts, kept), at, len(flat))
    return SparseTensor(placed(flat, shape), sums, shape)


def _numbers(values: Any) -> tuple[np.ndarray, np.ndarray, int | None]:
    """All of them, the row of each, and how many rows there are: None for a vector."""
    if isinstance(values, SparseTensor):
        places, shape = places_of(values)
        return values.values.numpy(), places[:, 0], shape[0] if len(shape) > 1 else None
    if isinstance(values, Composite):
        return _numbers(values.to_sparse())  # type: ignore[attr-defined]
    array = as_tensor(values).numpy()
    if array.ndim > 2:
        raise InvalidArgumentError(f"bincount takes vectors and matrices, not {array.shape}")
    rows = np.repeat(np.arange(len(array)), array.shape[1]) if array.ndim == 2 else array
    return array.ravel(), rows, len(array) if array.ndim == 2 else None


def _amounts(weights: Any, count: int) -> Tensor:
    flat = weights.flat_values if isinstance(weights, Composite) else reshape(weights, [-1])
    if len(flat) != count:
        raise InvalidArgumentError(f"bincount: {len(flat)} weights for {count} values")
    return flat


def one_hot(
    numbers: Any, depth: int, axis: int = -1, dtype: Any = "float32", weights: Any = None
) -> SparseTensor:
    """Ones, or ``weights``, at each number along a new axis of size ``depth``.

    A sparse tensor has them where it has values. Numbers outside [0, depth) give nothing.
    """
    if isinstance(numbers, SparseTensor):
        places, shape = places_of(numbers)
        found = numbers.values.numpy()
    else:
        array = as_tensor(numbers).numpy()
        places, shape, found = np.argwhere(np.ones(array.shape, bool)), array.shape, array.ravel()
    at = one_axis("one_hot", axis, len(shape) + 1)
    kept = np.flatnonzero((found >= 0) & (found < depth))
    lie = np.insert(places, at, found, axis=1)[kept]
    amounts = ones([len(kept)], dtype)
    if weights is not None:
        amounts = gather(cast(_amounts(weights, len(found)), dtype), kept)
    return reorder(SparseTensor(lie, amounts, (*shape[:at], depth, *shape[at:])))
