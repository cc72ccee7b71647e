"""Sums, products and extremes of sparse tensors, element by element.

Two of them that have values at the same places stay there. A place that only one of them has is 0
in the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.errors import InvalidArgumentError
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor
from distgrad.ops import shape as shapes
from distgrad.ops.arithmetic import multiply as times
from distgrad.ops.clipping import maximum as larger
from distgrad.ops.clipping import minimum as smaller
from distgrad.ops.indexing import gather
from distgrad.ops.scatter import tensor_scatter_nd_add
from distgrad.ops.segment import unsorted_segment_sum
from distgrad.sparse.moving import retain
from distgrad.sparse.places import placed, places_of, rows_of


def add(a: Any, b: Any, threshold: Any = 0) -> SparseTensor | Tensor:
    """The sum: of two sparse tensors one with the places of both, of a sparse and a dense dense.

    Sums smaller than ``threshold`` in size are left out. Raises InvalidArgumentError for two
    shapes, and TypeError where neither is sparse.
    """
    if not isinstance(a, SparseTensor):
        a, b = b, a
    shape = places_of(a)[1]
    if not isinstance(b, SparseTensor):
        return tensor_scatter_nd_add(b, a.indices, a.values)
    flat, rows = _union("add", a, b)
    values = unsorted_segment_sum(shapes.concat([a.values, b.values], 0), rows, len(flat))
    made = SparseTensor(placed(flat, shape), values, shape)
    return retain(made, np.abs(values.numpy()) >= threshold) if threshold else made


def maximum(sp_a: SparseTensor, sp_b: SparseTensor, name: str | None = None) -> SparseTensor:
    """The larger of both, at the places of either. Raises InvalidArgumentError for two shapes."""
    return _of_both("maximum", larger, sp_a, sp_b)


def minimum(sp_a: SparseTensor, sp_b: SparseTensor, name: str | None = None) -> SparseTensor:
    """The smaller of both, at the places of either. Raises InvalidArgumentError for two shapes."""
    return _of_both("minimum", smaller, sp_a, sp_b)


def multiply(a: SparseTensor, b: SparseTensor) -> SparseTensor:
    """The product, at the places that both have. Raises InvalidArgumentError for two shapes."""
    shape = _one_shape("multiply", a, b)
    one, other = (rows_of(each._places, shape) for each in (a, b))
    flat, left, right = np.intersect1d(one, other, return_indices=True)
    product = times(gather(a.values, left), gather(b.values, right))
    return SparseTensor(placed(flat, shape), product, shape)


def _of_both(
    name: str, op: Callable[[Any, Any], Tensor], a: SparseTensor, b: SparseTensor
) -> SparseTensor:
    """What an operation makes of two, at the places of either."""
    flat, rows = _union(name, a, b)
    cut = len(a.values)
    parts = ((a.values, rows[:cut]), (b.values, rows[cut:]))
    one, other = (unsorted_segment_sum(values, at, len(flat)) for values, at in parts)
    return SparseTensor(placed(flat, a.shape), op(one, other), a.shape)


def _union(name: str, a: SparseTensor, b: SparseTensor) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the places of either, and at which of them each value of both lies."""
    shape = _one_shape(name, a, b)
    numbers = [rows_of(each._places, shape) for each in (a, b)]
    flat, rows = np.unique(np.concatenate(numbers), return_inverse=True)
    return flat, rows


def _one_shape(name: str, a: SparseTensor, b: SparseTensor) -> tuple[int, ...]:
    (_, shape), (_, other) = places_of(a), places_of(b)
    if shape != other:
        raise InvalidArgumentError(f"sparse.{name}: shapes {a.shape} and {b.shape} differ")
    return shape


def map_values(op: Callable[..., Any], *args: Any, **kwargs: Any) -> SparseTensor:
    """``op`` of the values of sparse arguments, which have the same places, and of the others.

    Raises ValueError where there is no sparse argument, InvalidArgumentError where places differ.
    """
    sparse = [x for x in (*args, *kwargs.values()) if isinstance(x, SparseTensor)]
    if not sparse:
        raise ValueError("No SparseTensor in argument list of map_values")
    (places, shape), *others = map(places_of, sparse)
    if any(not np.array_equal(places, each) or shape != other for each, other in others):
        raise InvalidArgumentError("map_values: the sparse tensors have values at other places")

    def dense(value: Any) -> Any:
        return value.values if isinstance(value, SparseTensor) else value

    values = op(*map(dense, args), **{name: dense(value) for name, value in kwargs.items()})
    return sparse[0].with_values(values)
