"""Operations of sparse tensors, and of sparse ones beside dense ones, as Keras has them.

What they give is sparse where both are, or where what is 0 stays 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.ops import arithmetic, clipping, division
from distgrad.ops import shape as shapes
from distgrad.sparse import elementwise, moving
from distgrad.sparse.making import to_dense
from distgrad.sparse.products import sparse_dense_matmul, sparse_matmul


def densified(value: Any) -> Any:
    """A sparse tensor as a dense one; anything else as it is."""
    return to_dense(value) if isinstance(value, SparseTensor) else value


def sparse(*values: Any) -> bool:
    """Whether all of them are sparse tensors."""
    return all(isinstance(value, SparseTensor) for value in values)


def _of_two(op: Callable[[Any, Any], Any], dense: Callable[[Any, Any], Any], x: Any, y: Any) -> Any:
    return op(x, y) if sparse(x, y) else dense(densified(x), densified(y))


def add(x: Any, y: Any) -> Any:
    """The sum, sparse where both are."""
    return _of_two(elementwise.add, arithmetic.add, x, y)


def subtract(x: Any, y: Any) -> Any:
    """The difference, sparse where both are."""
    if sparse(x, y):
        return elementwise.add(x, y.with_values(-y.values))
    return arithmetic.subtract(densified(x), densified(y))


def maximum(x: Any, y: Any) -> Any:
    """The larger, sparse where both are."""
    return _of_two(elementwise.maximum, clipping.maximum, x, y)


def minimum(x: Any, y: Any) -> Any:
    """The smaller, sparse where both are."""
    return _of_two(elementwise.minimum, clipping.minimum, x, y)


def multiply(x: Any, y: Any) -> SparseTensor:
    """The product, which is sparse."""
    if sparse(x, y):
        return elementwise.multiply(x, y)
    product: SparseTensor = x * y if sparse(x) else y * x
    return product


def divide(x: Any, y: Any) -> Any:
    """The quotient, sparse for a sparse dividend and a dense divisor.

    It is nan where 0 is divided by 0, or by nan.
    """
    if not sparse(x) or sparse(y):
        return division.divide(densified(x), densified(y))
    divisor = as_tensor(y, like=x.dtype.numpy_dtype)
    odd = np.broadcast_to(divisor.numpy(), x.shape)
    odd = np.argwhere((odd == 0) | np.isnan(odd))
    if len(odd):
        zeros = np.zeros(len(odd), x.dtype.numpy_dtype)
        x = elementwise.add(x, SparseTensor(odd, zeros, x.shape))
    return x / divisor


def matmul(a: Any, b: Any) -> Any:
    """The product of two matrices, sparse where both are.

    Raises InvalidArgumentError where they are no matrices, or do not fit each other.
    """
    if sparse(a, b):
        return sparse_matmul(a, b)
    if sparse(a):
        return sparse_dense_matmul(a, b)
    if np.ndim(a) != 2:
        raise InvalidArgumentError(f"no product of a tensor {np.shape(a)} and a sparse matrix")
    return shapes.transpose(sparse_dense_matmul(moving.transpose(b), shapes.transpose(a)))


def concat(values: Sequence[Any], axis: int) -> Any:
    """One after the other along an axis, sparse where all are."""
    if sparse(*values):
        return moving.concat(axis, values)
    return shapes.concat(list(map(densified, values)), axis)


def squeeze(x: SparseTensor, axis: Any = None) -> SparseTensor:
    """``x`` without its axes of size 1. Raises InvalidArgumentError for one of another size."""
    sizes = list(x.shape)
    alone = {i for i, size in enumerate(sizes) if size == 1}
    gone = alone if axis is None else set(shapes.axes(axis, len(sizes)))
    if not gone <= alone:
        raise InvalidArgumentError(f"cannot squeeze axes {sorted(gone)} of shape {sizes}")
    return moving.reshape(x, [size for i, size in enumerate(sizes) if i not in gone])


def shape_of(x: Any) -> tuple[int, ...]:
    """The shape of a tensor."""
    shape: tuple[int, ...] = tuple(x.shape) if sparse(x) else x._data.shape
    return shape


def reshape(x: Any, shape: Sequence[int]) -> Any:
    """The same elements in another shape."""
    return moving.reshape(x, shape) if sparse(x) else shapes.reshape(x, shape)


def transpose(x: Any, perm: Sequence[int]) -> Any:
    """The axes in another order."""
    return moving.transpose(x, perm) if sparse(x) else shapes.transpose(x, perm)
