"""Sparse tensors with fewer axes, and over their last one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distgrad.core.errors import InvalidArgumentError
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor
from distgrad.ops import shape as shapes
from distgrad.ops.casting import stop_gradient, zeros_like
from distgrad.ops.exponential import exp
from distgrad.ops.indexing import gather
from distgrad.ops.logic import where
from distgrad.ops.segment import unsorted_segment_max, unsorted_segment_sum
from distgrad.sparse.places import placed, places_of, rows_of


def reduce_sum(
    sp_input: SparseTensor,
    axis: Any = None,
    keepdims: bool | None = None,
    output_is_sparse: bool = False,
    name: Any = None,
) -> Tensor | SparseTensor:
    """The sum over ``axis``, by default over all: dense, or with ``output_is_sparse`` sparse."""
    return _reduced(unsorted_segment_sum, sp_input, axis, keepdims, output_is_sparse)


def reduce_max(
    sp_input: SparseTensor,
    axis: Any = None,
    keepdims: bool | None = None,
    output_is_sparse: bool = False,
    name: Any = None,
) -> Tensor | SparseTensor:
    """The maximum over ``axis`` of the values that are there, 0 where there are none.

    It is dense, or with ``output_is_sparse`` sparse.
    """
    return _reduced(unsorted_segment_max, sp_input, axis, keepdims, output_is_sparse)


def _reduced(reduction: Any, sp_input: SparseTensor, axis: Any, keep: Any, is_sparse: bool) -> Any:
    places, shape = places_of(sp_input)
    rank = len(shape)
    over = range(rank) if axis is None else np.ravel(shapes.static(axis))
    axes = [shapes.one_axis("reduce", int(each), rank) for each in over]
    rest = [i for i in range(rank) if i not in axes]
    kept = [shape[i] for i in rest]
    whole = [1 if i in axes else size for i, size in enumerate(shape)] if keep else kept
    rows, count = rows_of(places[:, rest], kept), math.prod(kept)
    if is_sparse:
        flat, rows = np.unique(rows, return_inverse=True)
        return SparseTensor(placed(flat, whole), reduction(sp_input.values, rows, len(flat)), whole)
    found = reduction(sp_input.values, rows, count)
    there = np.bincount(rows, minlength=count) > 0
    return shapes.reshape(where(there, found, zeros_like(found)), whole)


def softmax(sp_input: SparseTensor, name: Any = None) -> SparseTensor:
    """The softmax of the values that are there, over the last axis.

    Raises InvalidArgumentError for fewer than two axes.
    """
    places, shape = places_of(sp_input)
    if len(shape) < 2:
        raise InvalidArgumentError(f"sparse.softmax takes two axes or more, not {list(shape)}")
    rows, count = rows_of(places[:, :-1], shape[:-1]), math.prod(shape[:-1])
    values = sp_input.values
    largest = unsorted_segment_max(stop_gradient(values), rows, count)
    powers = exp(values - gather(largest, rows))
    return sp_input.with_values(powers / gather(unsorted_segment_sum(powers, rows, count), rows))
