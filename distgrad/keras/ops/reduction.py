"""Functions of ``keras.ops`` that go along axes: sums, extrema, orders, running sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor
from distgrad.keras.ops.promotion import counted, floated, promoted, tensors
from distgrad.ops import clipping, reduce, scan, sorting, statistics
from distgrad.ops.casting import cast
from distgrad.ops.indexing import gather
from distgrad.ops.layout import broadcast_to
from distgrad.ops.logic import is_nan, select
from distgrad.ops.shape import axes, permute, reshape
from distgrad.sparse import counting

_SUMS = {
    np.dtype(small): np.dtype(sum)
    for small, sum in (
        ("bool", "int32"),
        ("int8", "int32"),
        ("int16", "int32"),
        ("uint8", "uint32"),
        ("uint16", "uint32"),
    )
}


def summed(x: Any, dtype: Any = None) -> Tensor:
    """Small integers as those that their sums fit in."""
    tensor = x if type(x) is Tensor else as_tensor(x)
    wanted = dtype or _SUMS.get(tensor._data.dtype)
    return tensor if wanted is None else cast(tensor, wanted)


def _wide(x: Any) -> tuple[Tensor, Any]:
    """Floats of at least 32 bits, and the dtype of a mean of them."""
    tensor = floated(x)
    dtype = tensor._data.dtype
    return (tensor if dtype.itemsize >= 4 else cast(tensor, np.float32)), dtype


def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Sum over ``axis``; of bools and small integers in 32 bits."""
    return reduce.reduce_sum(summed(x), axis, keepdims)


def prod(x: Any, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> Tensor:
    """Product over ``axis``; of bools and small integers in 32 bits."""
    return reduce.reduce_prod(summed(x, dtype), axis, keepdims)


def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Mean over ``axis``, in floats."""
    wide, dtype = _wide(x)
    return cast(reduce.reduce_mean(wide, axis, keepdims), dtype)


def var(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Variance over ``axis``, divided by the number of elements, in floats."""
    wide, dtype = _wide(x)
    return cast(statistics.reduce_variance(wide, axis, keepdims), dtype)


def std(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Standard deviation over ``axis``, in floats."""
    wide, dtype = _wide(x)
    return cast(statistics.reduce_std(wide, axis, keepdims), dtype)


def average(x: Any, axis: Any = None, weights: Any = None) -> Tensor:
    """Mean over ``axis``, each element with its weight; weights of rank 1 lie along the axis."""
    if weights is None:
        return mean(x, axis)
    values, w = tensors(x, weights, also=float)
    if w._data.ndim == 1 < values._data.ndim:
        (along,) = axes(axis, values._data.ndim)
        w = reshape(w, [-1 if i == along else 1 for i in range(values._data.ndim)])
    w = broadcast_to(w, values._data.shape)
    return reduce.reduce_sum(values * w, axis) / reduce.reduce_sum(w, axis)


def _extreme(x: Any, axis: Any, keepdims: bool, initial: Any, run: Any, pick: Any) -> Tensor:
    tensor = as_tensor(x)
    if tensor._data.dtype.kind == "b":
        return cast(_extreme(cast(tensor, "int32"), axis, keepdims, initial, run, pick), "bool")
    found = run(tensor, axis, keepdims)
    return found if initial is None else pick(*promoted(found, initial))


def max(x: Any, axis: Any = None, keepdims: bool = False, initial: Any = None) -> Tensor:
    """The largest element over ``axis``, or ``initial``, if that is larger."""
    return _extreme(x, axis, keepdims, initial, reduce.reduce_max, clipping.maximum)


def min(x: Any, axis: Any = None, keepdims: bool = False, initial: Any = None) -> Tensor:
    """The smallest element over ``axis``, or ``initial``, if that is smaller."""
    return _extreme(x, axis, keepdims, initial, reduce.reduce_min, clipping.minimum)


def amax(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The largest element over ``axis``."""
    return max(x, axis, keepdims)


def amin(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The smallest element over ``axis``."""
    return min(x, axis, keepdims)


def all(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Whether all elements over ``axis`` hold (are not 0)."""
    return reduce.reduce_all(cast(x, np.bool_), axis, keepdims)


def any(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Whether any element over ``axis`` holds (is not 0)."""
    return reduce.reduce_any(cast(x, np.bool_), axis, keepdims)


def count_nonzero(x: Any, axis: Any = None) -> Tensor:
    """How many elements over ``axis`` are not 0, int32."""
    return statistics.count_nonzero(x, axis, dtype=np.int32)


def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """``log(sum(exp(x)))`` over ``axis`` without overflow."""
    return statistics.reduce_logsumexp(floated(x), axis, keepdims)


# Positions and orders


def _index_of(x: Any, axis: int | None, keepdims: bool, run: Any) -> Tensor:
    tensor = counted(x)
    shape = tensor._data.shape
    flat = reshape(tensor, (-1,)) if axis is None else tensor
    found = run(flat, 0 if axis is None else axis, np.int32)
    if not keepdims:
        return found
    over = axes(axis, len(shape))
    return reshape(found, [1 if i in over else n for i, n in enumerate(shape)])


def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """int32 position of the first largest element along ``axis``, or in the flat tensor."""
    return _index_of(x, axis, keepdims, reduce.argmax)


def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """int32 position of the first smallest element along ``axis``, or in the flat tensor."""
    return _index_of(x, axis, keepdims, reduce.argmin)


def _along(x: Tensor, axis: int | None) -> tuple[Tensor, int]:
    return (reshape(x, (-1,)), 0) if axis is None else (x, axis)


def sort(x: Any, axis: int | None = -1) -> Tensor:
    """``x`` sorted along ``axis``; None sorts the flat tensor."""
    return sorting.sort(*_along(as_tensor(x), axis))


def argsort(x: Any, axis: int | None = -1) -> Tensor:
    """int32 positions that sort ``x`` along ``axis``; None sorts the flat tensor."""
    return sorting.argsort(*_along(counted(x), axis))


def top_k(x: Any, k: int, sorted: bool = True) -> tuple[Tensor, Tensor]:
    """The ``k`` largest elements of the last axis and their int32 positions, largest first."""
    return sorting.top_k(as_tensor(x), k, sorted)


def quantile(
    x: Any, q: Any, axis: Any = None, method: str = "linear", keepdims: bool = False
) -> Tensor:
    """The value below which the fraction ``q`` (numbers) of the elements over ``axis`` lies.

    Several fractions come along a new first axis. ``method`` says what lies between two elements:
    "linear", "lower", "higher", "nearest" or "midpoint". It is nan where an element is. Raises
    ValueError for another method.
    """
    tensor = floated(x)
    fractions = np.asarray(as_tensor(q).numpy(), np.float64)
    shape, ndim = tensor._data.shape, tensor._data.ndim
    over = axes(axis, ndim)
    rest = [i for i in range(ndim) if i not in over]
    count = math.prod(shape[i] for i in over)
    rows = reshape(permute(tensor, perm=(*rest, *over)), [*(shape[i] for i in rest), count])
    rows = sorting.sort(rows, -1)
    place = fractions * (count - 1)
    low, high = np.floor(place).astype(np.int32), np.ceil(place).astype(np.int32)
    weights = {
        "linear": place - low,
        "lower": np.zeros_like(place),
        "higher": np.ones_like(place),
        "nearest": np.rint(place) - low,
        "midpoint": np.where(high > low, 0.5, 0.0),
    }
    if method not in weights:
        raise ValueError(f"quantile: method is one of {', '.join(weights)}, not {method!r}")
    weight = as_tensor(weights[method], like=tensor.dtype.numpy_dtype)
    below, above = gather(rows, low, axis=-1), gather(rows, high, axis=-1)
    last = gather(rows, np.full_like(low, count - 1), axis=-1)  # where nan is sorted to
    result = select(is_nan(last), last, below + (above - below) * weight)
    if fractions.ndim:
        last = result._data.ndim - 1
        result = permute(result, perm=(last, *range(last)))
    if not keepdims:
        return result
    kept = [1 if i in over else n for i, n in enumerate(shape)]
    return reshape(result, [*fractions.shape, *kept])


def median(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The middle of the elements over ``axis``, or the mean of the two in the middle."""
    return quantile(x, 0.5, axis, keepdims=keepdims)


# Running along an axis


def cumsum(x: Any, axis: int | None = None, dtype: Any = None) -> Tensor:
    """Running sums along ``axis``, or over the flat tensor; of bools int32."""
    return scan.cumsum(*_along(counted(x) if dtype is None else cast(x, dtype), axis))


def cumprod(x: Any, axis: int | None = None, dtype: Any = None) -> Tensor:
    """Running products along ``axis``, or over the flat tensor; of bools int32."""
    return scan.cumprod(*_along(counted(x) if dtype is None else cast(x, dtype), axis))


# Counting and grouping


def bincount(x: Any, weights: Any = None, minlength: int = 0, sparse: bool = False) -> Any:
    """How often each number from 0 on is in ``x``, or the sums of its ``weights``.

    With ``sparse``, or of a sparse one, it is a SparseTensor.
    """
    if sparse or isinstance(x, SparseTensor):
        numbers = cast(x, np.int32)
        return counting.bincount(numbers, weights, axis=-1, minlength=minlength)
    numbers = cast(x, np.int32)
    dtype = np.int32 if weights is None else as_tensor(weights).dtype
    axis = -1 if numbers._data.ndim > 1 else None
    return sorting.bincount(numbers, weights, minlength=minlength, dtype=dtype, axis=axis)


def searchsorted(sorted_sequence: Any, values: Any, side: str = "left") -> Tensor:
    """int32 positions at which ``values`` would keep a sorted vector sorted."""
    sequence, wanted = tensors(sorted_sequence, values)
    flat = sorting.searchsorted(sequence, reshape(wanted, (-1,)), side)
    return reshape(flat, wanted._data.shape)


def digitize(x: Any, bins: Any) -> Tensor:
    """int32 number of the bin of each element: how many of the sorted ``bins`` are not above."""
    return searchsorted(bins, x, side="right")
