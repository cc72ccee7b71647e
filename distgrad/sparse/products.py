"""Products of sparse matrices and dense ones, and of sparse ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor
from distgrad.ops import shape as shapes
from distgrad.ops.casting import cast, identity
from distgrad.ops.complex import conj
from distgrad.ops.indexing import gather
from distgrad.ops.reduce import reduce_sum
from distgrad.ops.segment import unsorted_segment_sum
from distgrad.sparse.places import placed, places_of, rows_of


def sparse_dense_matmul(
    sp_a: SparseTensor, b: Any, adjoint_a: bool = False, adjoint_b: bool = False, name: Any = None
) -> Tensor:
    """The dense product of a sparse matrix and a dense one, or of their adjoints.

    Raises InvalidArgumentError for what is no matrix, and for inner sizes that differ.
    """
    places, shape = places_of(sp_a)
    dense = identity(as_tensor(b, like=sp_a.values.dtype.numpy_dtype))  # its gradient is dense
    if adjoint_b:
        dense = shapes.transpose(dense, conjugate=True)
    if adjoint_a:
        places, shape = places[:, ::-1], shape[::-1]
    if len(shape) != 2 or dense.shape.rank != 2 or dense.shape[0] != shape[1]:
        raise InvalidArgumentError(f"no product of a matrix {shape} and one {tuple(dense.shape)}")
    values = conj(sp_a.values) if adjoint_a else sp_a.values
    products = shapes.expand_dims(values, 1) * gather(dense, places[:, 1])
    return unsorted_segment_sum(products, places[:, 0], shape[0])


def sparse_matmul(a: SparseTensor, b: SparseTensor) -> SparseTensor:
    """The sparse product of two sparse matrices. Raises InvalidArgumentError as the dense one."""
    (left, shape), (right, other) = places_of(a), places_of(b)
    if len(shape) != 2 or len(other) != 2 or shape[1] != other[0]:
        raise InvalidArgumentError(f"no product of a matrix {shape} and one {other}")
    # Each value of a meets those in one row of b, which lie together once they are sorted.
    order = np.argsort(right[:, 0], kind="stable")
    splits = np.searchsorted(right[order, 0], np.arange(other[0] + 1))
    first, last = splits[left[:, 1]], splits[left[:, 1] + 1]
    met = np.repeat(np.arange(len(left)), last - first)
    ends = np.cumsum(last - first)
    within = np.arange(len(met)) - np.repeat(ends - (last - first), last - first)
    meeting = order[first[met] + within]
    made = (shape[0], other[1])
    numbers = rows_of(np.stack([left[met, 0], right[meeting, 1]], 1), made)
    flat, rows = np.unique(numbers, return_inverse=True)
    products = gather(a.values, met) * gather(b.values, meeting)
    return SparseTensor(placed(flat, made), unsorted_segment_sum(products, rows, len(flat)), made)


def sampled_addmm(
    indices: Any,
    values: Any,
    dense_shape: Any,
    mat1: Any,
    mat2: Any,
    beta: Any = 1.0,
    alpha: Any = 1.0,
    output_type: Any = "float32",
) -> tuple[Tensor, Tensor, Tensor]:
    """``alpha * mat1 @ mat2 + beta * values`` at ``indices``: these, the values and the shape."""
    places = as_tensor(indices)
    one, other = as_tensor(mat1), as_tensor(mat2)
    rows, columns = places.numpy().T
    products = reduce_sum(gather(one, rows) * gather(shapes.transpose(other), columns), -1)
    found = cast(alpha * products + beta * as_tensor(values), output_type)
    return places, found, as_tensor(dense_shape)
