"""Functions of ``tf.experimental.numpy`` over axes, and products of arrays."""

from __future__ import annotations

from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.experimental.promotion import default_float, floats, tensor, together
from distgrad.keras import ops
from distgrad.ops.casting import cast

__all__ = [
    "all",
    "amax",
    "amin",
    "any",
    "argmax",
    "argmin",
    "average",
    "count_nonzero",
    "cross",
    "cumprod",
    "cumsum",
    "dot",
    "einsum",
    "inner",
    "kron",
    "matmul",
    "max",
    "mean",
    "min",
    "nanmean",
    "nanprod",
    "nansum",
    "outer",
    "prod",
    "ptp",
    "std",
    "sum",
    "tensordot",
    "trace",
    "var",
    "vdot",
]


def _counts(a: Any, dtype: Any) -> Tensor:
    """What is added up: integers, and bools, with 64 bits."""
    a = tensor(a, dtype)
    if dtype is None and a.dtype.numpy_dtype.kind in "biu":
        return cast(a, "uint64" if a.dtype.is_unsigned else "int64")
    return a


def _means(a: Any, dtype: Any = None) -> Tensor:
    a = tensor(a, dtype)
    return cast(a, default_float()) if a.dtype.numpy_dtype.kind in "biu" else a


def sum(a: Any, axis: Any = None, dtype: Any = None, keepdims: Any = None) -> Tensor:
    """Sums; those of integers have 64 bits."""
    return ops.sum(_counts(a, dtype), axis, keepdims=bool(keepdims))


def prod(a: Any, axis: Any = None, dtype: Any = None, keepdims: Any = None) -> Tensor:
    """Products; those of integers have 64 bits."""
    return ops.prod(_counts(a, dtype), axis, keepdims=bool(keepdims))


def cumsum(a: Any, axis: int | None = None, dtype: Any = None) -> Tensor:
    """Running sums; of the flat array where no axis is given."""
    return ops.cumsum(_counts(a, dtype), axis)


def cumprod(a: Any, axis: int | None = None, dtype: Any = None) -> Tensor:
    """Running products; of the flat array where no axis is given."""
    return ops.cumprod(_counts(a, dtype), axis)


def nansum(a: Any, axis: Any = None, dtype: Any = None, keepdims: Any = None) -> Tensor:
    """Sums of what is not nan."""
    return ops.nansum(_counts(a, dtype), axis, keepdims=bool(keepdims))


def nanprod(a: Any, axis: Any = None, dtype: Any = None, keepdims: Any = False) -> Tensor:
    """Products of what is not nan."""
    return ops.nanprod(_counts(a, dtype), axis, keepdims=bool(keepdims))


def nanmean(a: Any, axis: Any = None, dtype: Any = None, keepdims: Any = None) -> Tensor:
    """Means of what is not nan."""
    return ops.nanmean(_means(a, dtype), axis, keepdims=bool(keepdims))


def mean(
    a: Any, axis: Any = None, dtype: Any = None, out: None = None, keepdims: Any = None
) -> Tensor:
    """Means; those of integers are float64. ``out`` is None: tensors are never written to."""
    return ops.mean(_means(a, dtype), axis, keepdims=bool(keepdims))


def var(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: None = None,
    ddof: int = 0,
    keepdims: Any = None,
) -> Tensor:
    """Variances: squares over the number of elements less ``ddof``. ``out`` is None."""
    a = _means(a, dtype)
    found = ops.real(ops.var(a, axis, keepdims=bool(keepdims)))
    if not ddof:
        return found
    count = ops.size(a) // (ops.size(found) or 1)
    return found * (count / (count - ddof))


def std(a: Any, axis: Any = None, keepdims: Any = None) -> Tensor:
    """Standard deviations."""
    return ops.sqrt(var(a, axis, keepdims=keepdims))


def average(a: Any, axis: Any = None, weights: Any = None, returned: bool = False) -> Any:
    """Weighted means; with ``returned`` the sums of the weights, too."""
    a = _means(a)
    if weights is None:
        found = ops.mean(a, axis)
        total = ops.full_like(found, ops.size(a) // (ops.size(found) or 1))
    else:
        a, weights = floats(a, weights)
        if weights.ndim < a.ndim:
            sizes = [1] * a.ndim
            sizes[axis] = -1
            weights = ops.reshape(weights, sizes)
        weights = ops.broadcast_to(weights, a.shape)
        total = ops.sum(weights, axis)
        found = ops.sum(a * weights, axis) / total
    return (found, total) if returned else found


def amax(a: Any, axis: Any = None, out: None = None, keepdims: Any = None) -> Tensor:
    """The largest elements. ``out`` is None: tensors are never written to."""
    return ops.max(tensor(a), axis, keepdims=bool(keepdims))


def amin(a: Any, axis: Any = None, out: None = None, keepdims: Any = None) -> Tensor:
    """The smallest elements. ``out`` is None: tensors are never written to."""
    return ops.min(tensor(a), axis, keepdims=bool(keepdims))


def max(a: Any, axis: Any = None, keepdims: Any = None) -> Tensor:
    """The largest elements."""
    return amax(a, axis, keepdims=keepdims)


def min(a: Any, axis: Any = None, keepdims: Any = None) -> Tensor:
    """The smallest elements."""
    return amin(a, axis, keepdims=keepdims)


def ptp(a: Any, axis: Any = None, keepdims: Any = None) -> Tensor:
    """From the smallest elements to the largest."""
    return amax(a, axis, keepdims=keepdims) - amin(a, axis, keepdims=keepdims)


def all(a: Any, axis: Any = None, keepdims: Any = None) -> Tensor:
    """Whether all elements are true."""
    return ops.all(cast(tensor(a), bool), axis, keepdims=bool(keepdims))


def any(a: Any, axis: Any = None, keepdims: Any = None) -> Tensor:
    """Whether some element is true."""
    return ops.any(cast(tensor(a), bool), axis, keepdims=bool(keepdims))


def argmax(a: Any, axis: int | None = None) -> Tensor:
    """Where the largest elements are: int64."""
    return cast(ops.argmax(tensor(a), axis), "int64")


def argmin(a: Any, axis: int | None = None) -> Tensor:
    """Where the smallest elements are: int64."""
    return cast(ops.argmin(tensor(a), axis), "int64")


def count_nonzero(a: Any, axis: Any = None) -> Tensor:
    """How many elements are not 0: int64."""
    return ops.sum(cast(cast(tensor(a), bool), "int64"), axis)


def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None) -> Tensor:
    """Sums of diagonals."""
    return ops.sum(ops.diagonal(tensor(a, dtype), offset, axis1, axis2), -1)


# Products


def matmul(x1: Any, x2: Any) -> Tensor:
    """Matrix products."""
    return ops.matmul(*together(x1, x2))


def dot(a: Any, b: Any) -> Tensor:
    """Sums of products over the last axis of ``a`` and the last but one of ``b``."""
    return ops.dot(*together(a, b))


def inner(a: Any, b: Any) -> Tensor:
    """Sums of products over the last axes."""
    return ops.inner(*together(a, b))


def outer(a: Any, b: Any) -> Tensor:
    """Products of each element of one with each of the other."""
    return ops.outer(*together(a, b))


def vdot(a: Any, b: Any) -> Tensor:
    """The sum of products of two flat arrays, the first conjugated."""
    return ops.vdot(*together(a, b))


def tensordot(a: Any, b: Any, axes: Any = 2) -> Tensor:
    """Sums of products over pairs of axes."""
    a, b = together(a, b)
    return ops.tensordot(a, b, axes)


def kron(a: Any, b: Any) -> Tensor:
    """Kronecker's product."""
    return ops.kron(*together(a, b))


def cross(
    a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None
) -> Tensor:
    """Cross products of vectors of two or three elements."""
    return ops.cross(*together(a, b), axisa, axisb, axisc, axis)


def einsum(subscripts: str, *operands: Any, **kwargs: Any) -> Tensor:
    """Sums of products by letters. Raises TypeError for ``out``: tensors are never written to."""
    if set(kwargs) - {"optimize", "casting", "dtype", "order"}:
        raise TypeError(f"einsum has no argument {', '.join(kwargs)}")
    return ops.einsum(subscripts, *together(*operands))
