"""Products and linear algebra of ``keras.ops``, in NumPy's ways with vectors and batches."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.tensor import Tensor
from distgrad.keras.ops.promotion import floated, tensors
from distgrad.ops import decompositions, solvers, statistics
from distgrad.ops import einsum as sums
from distgrad.ops import linalg as products
from distgrad.ops.arithmetic import abs
from distgrad.ops.casting import cast
from distgrad.ops.logic import not_equal
from distgrad.ops.reduce import reduce_min, reduce_sum
from distgrad.ops.shape import expand_dims, one_axis, permute, reshape, squeeze

# Products


def matmul(x1: Any, x2: Any) -> Tensor:
    """Product of matrices; batches broadcast, a vector is a row on the left, a column right.

    Of two of int8 it is int32, of bools whether any product is true.
    """
    a, b = tensors(x1, x2)
    if a._data.dtype.kind == "b":
        return _of_bools(matmul, a, b)
    if a._data.dtype.kind == "i" and _int8(x1, x2) and a._data.ndim > 1 and b._data.ndim > 1:
        a, b = cast(a, np.int32), cast(b, np.int32)
    row, column = a._data.ndim == 1, b._data.ndim == 1
    a, b = expand_dims(a, 0) if row else a, expand_dims(b, 1) if column else b
    result = products.matmul(a, b)
    ones = [-2] * row + [-1] * column
    return squeeze(result, ones) if ones else result


def _int8(*values: Any) -> bool:
    """Whether all are of int8, whose products are not to overflow."""
    return all(getattr(value, "dtype", None) == np.int8 for value in values)


def _of_bools(product: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    return cast(product(cast(a, np.int32), cast(b, np.int32)), np.bool_)


def _over_last(x1: Any, x2: Any, axis: int) -> Tensor:
    """Sums over the last axis of ``x1`` and ``axis`` of ``x2``, the first where it has no more."""
    a, b = tensors(x1, x2)
    if a._data.dtype.kind == "b":
        return _of_bools(functools.partial(_over_last, axis=axis), a, b)
    if not (a._data.ndim and b._data.ndim):
        return a * b
    return products.tensordot(a, b, [[a._data.ndim - 1], [max(b._data.ndim + axis, 0)]])


def dot(x1: Any, x2: Any) -> Tensor:
    """Sums over the last axis of ``x1`` and the one before the last of ``x2`` (the last, if that is
    a vector); the product with a scalar."""
    return _over_last(x1, x2, -2)


def vdot(x1: Any, x2: Any) -> Tensor:
    """The dot product of the flat tensors."""
    a, b = (reshape(x, (-1,)) for x in tensors(x1, x2))
    return dot(a, b)


def inner(x1: Any, x2: Any) -> Tensor:
    """Sums over the last axes of both; the product with a scalar."""
    return _over_last(x1, x2, -1)


def outer(x1: Any, x2: Any) -> Tensor:
    """The products of all elements of ``x1`` with all of ``x2``."""
    a, b = tensors(x1, x2)
    return reshape(a, (-1, 1)) * reshape(b, (1, -1))


def tensordot(x1: Any, x2: Any, axes: Any = 2) -> Tensor:
    """Sums over so many last axes of ``x1`` and first ones of ``x2``, or over pairs of axes."""
    a, b = tensors(x1, x2)
    if a._data.dtype.kind == "b":
        return _of_bools(functools.partial(products.tensordot, axes=axes), a, b)
    return products.tensordot(a, b, axes)


def einsum(subscripts: str, *operands: Any, **kwargs: Any) -> Tensor:
    """Einstein's sum of the operands, in the dtype in which they meet; of int8 int32."""
    given = tensors(*operands)
    if given[0]._data.dtype.kind == "i" and _int8(*operands):
        given = [cast(x, np.int32) for x in given]
    return sums.einsum(subscripts, *given)


# Linear algebra, of floats


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The norm of vectors along ``axis``, of matrices over a pair of axes, or of everything.

    Without ``ord`` the root of the sum of squares. The orders are those of ``numpy.linalg.norm``.
    Raises ValueError for another one, and for 0 and ints below -2, which vectors have, of matrices.
    """
    tensor = floated(x)
    if ord is None:
        return statistics.reduce_euclidean_norm(tensor, axis, keepdims)
    if axis is None and tensor._data.ndim == 2:
        axis = (0, 1)
    matrices = isinstance(axis, (tuple, list)) and len(axis) == 2
    if ord in ("nuc", -1, -2, -math.inf) and matrices:
        rows, columns = (one_axis("norm", a, tensor._data.ndim) for a in axis)
        return _least_of_matrices(tensor, ord, rows, columns, keepdims)
    if isinstance(ord, (int, float)) and ord <= 0 and not matrices:
        size = abs(tensor)
        if ord == -math.inf:
            return reduce_min(size, axis, keepdims)
        counted = cast(not_equal(size, 0.0), size.dtype) if ord == 0 else size ** float(ord)
        total = reduce_sum(counted, axis, keepdims)
        return total ** (1 / ord) if ord else total
    return statistics.norm(tensor, ord, axis, keepdims)


def _least_of_matrices(x: Tensor, ord: Any, rows: int, columns: int, keepdims: bool) -> Tensor:
    """The smallest sum of columns (-1) or rows (-inf) or singular value (-2), or these' sum."""
    if ord in (-1, -math.inf):
        over, along = (rows, columns) if ord == -1 else (columns, rows)
        found = reduce_min(reduce_sum(abs(x), over, True), along, True)
    else:
        shape = x._data.shape
        rest = [i for i in range(len(shape)) if i not in (rows, columns)]
        values = decompositions.svd(permute(x, perm=(*rest, rows, columns)), compute_uv=False)
        found = (reduce_sum if ord == "nuc" else reduce_min)(values, -1)
        found = reshape(found, [n if i in rest else 1 for i, n in enumerate(shape)])
    return found if keepdims else squeeze(found, [rows, columns])


def det(x: Any) -> Tensor:
    """The determinant of square matrices."""
    return solvers.det(floated(x))


def slogdet(x: Any) -> tuple[Tensor, Tensor]:
    """The sign of the determinant, and the logarithm of its absolute value."""
    return solvers.slogdet(floated(x))


def inv(x: Any) -> Tensor:
    """The inverse of square matrices."""
    return solvers.inv(floated(x))


def _as_columns(a: Tensor, b: Tensor) -> tuple[Tensor, bool]:
    vector = b._data.ndim == a._data.ndim - 1
    return (expand_dims(b, -1) if vector else b), vector


def solve(a: Any, b: Any) -> Tensor:
    """``x`` with ``a @ x = b``; ``b`` is a vector, or has vectors as columns."""
    left, right = tensors(a, b, also=float)
    right, vector = _as_columns(left, right)
    x = solvers.solve(left, right)
    return squeeze(x, -1) if vector else x


def solve_triangular(a: Any, b: Any, lower: bool = False) -> Tensor:
    """``x`` with ``T @ x = b``, where T is the upper or lower triangle of ``a``."""
    left, right = tensors(a, b, also=float)
    right, vector = _as_columns(left, right)
    x = solvers.triangular_solve(left, right, lower)
    return squeeze(x, -1) if vector else x


def cholesky(x: Any, upper: bool = False) -> Tensor:
    """Lower triangular L with ``L @ L.T = x``, or its transpose."""
    factor = solvers.cholesky(floated(x))
    return products.matrix_transpose(factor) if upper else factor


def qr(x: Any, mode: str = "reduced") -> tuple[Tensor, Tensor]:
    """Orthonormal q and upper triangular r with ``q @ r = x``; mode "reduced" or "complete".

    Raises ValueError for another mode.
    """
    if mode not in ("reduced", "complete"):
        raise ValueError(f"qr: mode is 'reduced' or 'complete', not {mode!r}")
    return decompositions.qr(floated(x), mode == "complete")


def svd(x: Any, full_matrices: bool = True, compute_uv: bool = True) -> Any:
    """u, s and vh with ``u @ diag(s) @ vh = x``, s descending; or s alone."""
    if not compute_uv:
        return decompositions.svd(floated(x), compute_uv=False)
    s, u, v = decompositions.svd(floated(x), full_matrices)
    return u, s, products.matrix_transpose(v)


def eigh(x: Any) -> tuple[Tensor, Tensor]:
    """The ascending eigenvalues of symmetric matrices, and their eigenvectors as columns."""
    return decompositions.eigh(floated(x))
