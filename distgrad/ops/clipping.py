"""Larger and smaller values, clipping, and casts that clip."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distgrad.core.composite import CompositeError, otherwise, takes_composites
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype, is_floating, kind_of, limits
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.arithmetic import away_from_zero
from distgrad.ops.casting import cast
from distgrad.ops.logic import (
    greater,
    greater_equal,
    less,
    less_equal,
    logical_and,
    logical_or,
    select,
)


@primitive(expr="where((x >= y) | (x != x), x, y)", kinds="iuf")
def maximum(xp, x, y):
    """Elementwise larger value; at a tie the gradient goes to ``x``."""
    return xp.maximum(x, y)


@maximum.vjp("x")
def _(g, x, y):
    return bind(select, bind(greater_equal, x, y), g, 0.0)


@maximum.vjp("y")
def _(g, x, y):
    return bind(select, bind(greater_equal, x, y), 0.0, g)


@maximum.samples
def _(rng):
    x = rng.normal(size=(3, 4))
    yield sample(x, x + away_from_zero(rng, (3, 4)))
    yield sample(away_from_zero(rng, (3, 4)), 0.0)


@primitive(expr="where((x <= y) | (x != x), x, y)", kinds="iuf")
def minimum(xp, x, y):
    """Elementwise smaller value; at a tie the gradient goes to ``x``."""
    return xp.minimum(x, y)


@minimum.vjp("x")
def _(g, x, y):
    return bind(select, bind(less_equal, x, y), g, 0.0)


@minimum.vjp("y")
def _(g, x, y):
    return bind(select, bind(less_equal, x, y), 0.0, g)


@minimum.samples
def _(rng):
    x = rng.normal(size=(3, 4))
    yield sample(x, x + away_from_zero(rng, (3, 4)))
    yield sample(away_from_zero(rng, (3, 4)), 0.0)


@primitive(
    expr="where(low != low, low, where(high != high, high, "
    "where(x > high, where(high < low, low, high), where(x < low, low, x))))",
    kinds="iuf",
)
def clip(xp, x, low, high):
    """``x`` with values below ``low`` or above ``high`` set to that bound.

    Where ``low`` lies above ``high``, the result is ``low``. Raises ValueError for bounds that do
    not broadcast to ``x``.
    """
    clipped = xp.maximum(xp.minimum(x, high), low)
    if clipped.shape != x.shape:
        bounds = " and ".join(str(getattr(bound, "shape", ())) for bound in (low, high))
        raise ValueError(
            f"bounds of the shapes {bounds} do not broadcast to values of the shape {x.shape}"
        )
    return clipped


@clip.vjp("x")
def _(g, x, low, high):
    inside = bind(logical_and, bind(greater_equal, x, low), bind(less_equal, x, high))
    return bind(select, inside, g, 0.0)


@clip.vjp("low")
def _(g, x, low, high):
    # The smaller of x and high, then low, as the kernel has it.
    below = bind(logical_or, bind(less, x, low), bind(less, high, low))
    return bind(select, below, g, 0.0)


@clip.vjp("high")
def _(g, x, low, high):
    above = bind(logical_and, bind(greater, x, high), bind(greater_equal, high, low))
    return bind(select, above, g, 0.0)


@clip.samples
def _(rng):
    x = rng.permutation(np.linspace(-2, 2, 12)).reshape(3, 4)  # none of them at a bound
    yield sample(x, -1.0, 0.5)
    yield sample(x, np.array([-1.5, -1.0, 0.1, 0.2]), np.array([[0.3], [0.5], [1.5]]))
    yield sample(x, 0.5, -1.0)


def clip_by_value(
    t: Any, clip_value_min: Any, clip_value_max: Any, name: str | None = None
) -> Tensor:
    """``t`` clipped to ``[clip_value_min, clip_value_max]``; the gradient at a bound is 1.

    Raises InvalidArgumentError where the bounds do not broadcast to the shape of ``t``.
    """
    try:
        return clip(as_tensor(t), clip_value_min, clip_value_max)
    except CompositeError:
        return otherwise(clip_by_value, (t, clip_value_min, clip_value_max), {})


@takes_composites
def saturate_cast(value: Any, dtype: Any, name: str | None = None) -> Tensor:
    """``value`` as ``dtype``, clipped to what that can hold; a nan becomes any integer."""
    tensor, wanted = as_tensor(value), as_dtype(dtype).numpy_dtype
    known = tensor._data.dtype
    if kind_of(known) not in "iuf" or kind_of(wanted) not in "iuf":
        return cast(tensor, wanted)
    low, high = (_nearest(bound, known) for bound in _range(wanted))
    return cast(bind(clip, tensor, low, high), wanted)


def _range(dtype: np.dtype) -> tuple[Any, Any]:
    ends, plain = limits(dtype), float if is_floating(dtype) else int
    return plain(ends.min), plain(ends.max)


def _nearest(bound: Any, dtype: np.dtype) -> Any:
    """The number of ``dtype`` closest to ``bound`` of those not beyond it, as a Python number."""
    low, high = _range(dtype)
    if not low <= bound <= high:
        return low if bound < low else high
    if not is_floating(dtype):
        return math.trunc(bound)
    near = dtype.type(bound)
    if abs(float(near)) > abs(bound):
        near = np.nextafter(near, dtype.type(0))
    return float(near)
