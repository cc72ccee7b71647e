"""Functions of ``keras.ops`` that pass over what is nan, and fractions in percent."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.keras.ops import reduction
from distgrad.keras.ops.promotion import floated
from distgrad.ops import logic, sorting
from distgrad.ops.casting import cast
from distgrad.ops.indexing import take_along_last
from distgrad.ops.powers import sqrt
from distgrad.ops.rounding import ceil, floor, rint
from distgrad.ops.shape import axes, permute, reshape


def _filled(x: Any, value: float) -> Tensor:
    """``x`` with ``value`` in the place of nan."""
    tensor = as_tensor(x)
    if tensor._data.dtype.kind != "f":
        return tensor
    return logic.select(logic.is_nan(tensor), value, tensor)


def _there(x: Any) -> Tensor:
    tensor = floated(x)
    return cast(logic.logical_not(logic.is_nan(tensor)), tensor._data.dtype)


def nansum(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Sum over ``axis`` of what is not nan."""
    return reduction.sum(_filled(x, 0.0), axis, keepdims)


def nanprod(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Product over ``axis`` of what is not nan."""
    return reduction.prod(_filled(x, 1.0), axis, keepdims)


def nanmean(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Mean over ``axis`` of what is not nan; nan where all is."""
    total = reduction.sum(_filled(floated(x), 0.0), axis, keepdims)
    return total / reduction.sum(_there(x), axis, keepdims)


def nanvar(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Variance over ``axis`` of what is not nan."""
    tensor = floated(x)
    apart = tensor - nanmean(tensor, axis, True)
    return nanmean(apart * apart, axis, keepdims)


def nanstd(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Standard deviation over ``axis`` of what is not nan."""
    return sqrt(nanvar(x, axis, keepdims))


def _extreme(x: Any, axis: Any, keepdims: bool, run: Any, least: float) -> Tensor:
    tensor = as_tensor(x)
    found = run(_filled(tensor, least), axis, keepdims)
    if tensor._data.dtype.kind != "f":
        return found
    some = reduction.any(_there(tensor), axis, keepdims)
    return logic.select(some, found, math.nan)


def nanmax(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The largest element over ``axis`` that is not nan; nan where all are."""
    return _extreme(x, axis, keepdims, reduction.max, -math.inf)


def nanmin(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The smallest element over ``axis`` that is not nan; nan where all are."""
    return _extreme(x, axis, keepdims, reduction.min, math.inf)


def nanargmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """int32 position of the first largest element that is not nan; -1 where all are."""
    return _position(reduction.argmax, x, -math.inf, axis, keepdims)


def nanargmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """int32 position of the first smallest element that is not nan; -1 where all are."""
    return _position(reduction.argmin, x, math.inf, axis, keepdims)


def _position(run: Any, x: Any, least: float, axis: int | None, keepdims: bool) -> Tensor:
    found = run(_filled(x, least), axis, keepdims)
    return logic.select(reduction.any(_there(x), axis, keepdims), found, -1)


def nancumsum(x: Any, axis: int | None = None, dtype: Any = None) -> Tensor:
    """Running sums of what is not nan."""
    return reduction.cumsum(_filled(x, 0.0), axis, dtype)


def nancumprod(x: Any, axis: int | None = None, dtype: Any = None) -> Tensor:
    """Running products of what is not nan."""
    return reduction.cumprod(_filled(x, 1.0), axis, dtype)


def nanquantile(
    x: Any, q: Any, axis: Any = None, method: str = "linear", keepdims: bool = False
) -> Tensor:
    """`quantile` of what is not nan; nan where all is. Raises ValueError for another method."""
    if method not in _METHODS:
        raise ValueError(f"nanquantile: method is one of {', '.join(_METHODS)}, not {method!r}")
    tensor, fractions = floated(x), cast(as_tensor(q), np.float64)
    shape, ndim, several = tensor._data.shape, tensor._data.ndim, fractions._data.shape
    over = axes(axis, ndim)
    rest = [i for i in range(ndim) if i not in over]
    flat = [*(shape[i] for i in rest), math.prod(shape[i] for i in over)]
    rows = reshape(permute(tensor, perm=(*rest, *over)), flat)
    count = reduction.sum(cast(_there(rows), np.float64), -1, True)
    rows = sorting.sort(_filled(rows, math.inf), -1)
    place = logic.select(count > 0, reshape(fractions, (-1,)) * (count - 1.0), 0.0)
    low, high = floor(place), ceil(place)
    weight = cast(_METHODS[method](place, low, high), tensor._data.dtype)
    below, above = (take_along_last(rows, cast(n, np.int32)) for n in (low, high))
    # (Of two that are inf, or of one that counts for nothing, the difference would make a nan.)
    apart = logic.select(logic.equal(above, below), 0.0, above - below)
    more = logic.select(weight > 0, apart * weight, 0.0)
    found = logic.select(count > 0, below + more, math.nan)
    found = permute(found, perm=(len(rest), *range(len(rest))))
    kept = [1 if i in over else n for i, n in enumerate(shape) if keepdims or i in rest]
    return reshape(found, (*several, *kept))


# How much of the way from the element below a place to the one above it, by the method.
_METHODS: dict[str, Any] = {
    "linear": lambda place, low, high: place - low,
    "lower": lambda place, low, high: 0.0 * place,
    "higher": lambda place, low, high: high - low,
    "nearest": lambda place, low, high: rint(place) - low,
    "midpoint": lambda place, low, high: 0.5 * (high - low),
}


def nanpercentile(
    x: Any, q: Any, axis: Any = None, method: str = "linear", keepdims: bool = False
) -> Tensor:
    """`percentile` of what is not nan."""
    return nanquantile(x, floated(q) / 100.0, axis, method, keepdims)


def nanmedian(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The middle of what is not nan over ``axis``."""
    return nanquantile(x, 0.5, axis, keepdims=keepdims)


def percentile(
    x: Any, q: Any, axis: Any = None, method: str = "linear", keepdims: bool = False
) -> Tensor:
    """`quantile` with ``q`` in percent."""
    return reduction.quantile(x, np.asarray(floated(q)._host()) / 100.0, axis, method, keepdims)


def ptp(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The largest element over ``axis`` less the smallest."""
    return reduction.max(x, axis, keepdims) - reduction.min(x, axis, keepdims)
