"""Powers and roots."""

from __future__ import annotations

import cmath
import math
from typing import Any

from distgrad.core.composite import CompositeError, otherwise
from distgrad.core.dispatch import match_dtypes
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.arithmetic import away_from_zero
from distgrad.ops.casting import zeros_like
from distgrad.ops.complex import adjoint
from distgrad.ops.division import divide_cotangent
from distgrad.ops.exponential import log
from distgrad.ops.logic import equal, greater, logical_and, not_equal, select


@primitive(expr="sqrt(x)", kinds="fc")
def sqrt(xp, x):
    """Elementwise square root; at 0 its gradient is inf, or 0 for a zero upstream."""
    return xp.sqrt(x)


@sqrt.vjp("x")
def _(g, out):
    return bind(divide_cotangent, g * 0.5, adjoint(out))


@sqrt.samples
def _(rng):
    yield sample(rng.uniform(0.3, 2.0, (3, 4)))


@primitive(expr="1.0 / sqrt(x)", kinds="fc")
def rsqrt(xp, x):
    """Elementwise ``1 / sqrt(x)``; its gradient is 0 for a zero upstream."""
    return xp.reciprocal(xp.sqrt(x))


@rsqrt.vjp("x")
def _(g, x):
    by_x = bind(divide_cotangent, g * -0.5, adjoint(x))
    return bind(divide_cotangent, by_x, adjoint(sqrt(x)))


@rsqrt.samples
def _(rng):
    yield sample(rng.uniform(0.3, 2.0, (3, 4)))


@primitive(expr="x ** y", kinds="fc")
def power(xp, x, y):
    """``x`` to the power ``y``, both floats; ``pow`` takes integers as well."""
    return xp.power(x, y)


@power.vjp("x")
def _(g, x, y):
    if not isinstance(y, Tensor):
        if not y:
            return zeros_like(g)
        return g * adjoint((x if y == 2 else power(x, y - 1)) * y)
    # 0 ** 0 has derivative 0, where the formula would say 0 * inf.
    base = bind(select, bind(logical_and, equal(x, 0), equal(y, 0)), 1.0, x)
    return g * adjoint(y * power(base, y - 1))


@power.vjp("y")
def _(g, out, x):
    # 0 where the base is not positive: the derivative is not real there.
    if not isinstance(x, Tensor):
        defined = x != 0 if isinstance(x, complex) else x > 0
        return g * adjoint(out * _log(x)) if defined else zeros_like(g)
    defined = not_equal(x, 0) if x._data.dtype.kind == "c" else greater(x, 0)
    return g * adjoint(out * log(bind(select, defined, x, 1.0)))


def _log(number: Any) -> Any:
    return cmath.log(number) if isinstance(number, complex) else math.log(number)


@power.samples
def _(rng):
    yield sample(rng.uniform(0.4, 2.0, (3, 4)), rng.normal(size=(3, 4)))
    yield sample(away_from_zero(rng, (3, 4)), 3.0)
    yield sample(rng.uniform(0.4, 2.0, (3, 1)), -1.5)
    yield sample(2.0, rng.normal(size=4))


@primitive(vjp=None, kinds="iu")
def integer_power(xp, x, y):
    """Integers to integer powers; raises InvalidArgumentError for a negative power."""
    if xp.any(xp.less(y, 0)).item():
        raise ValueError("integers to negative powers are not integers; use cast")
    return xp.power(x, y)


@integer_power.samples
def _(rng):
    yield sample(rng.integers(-4, 5, (3, 4)), rng.integers(0, 4, 4))
    yield sample(rng.integers(-4, 5, (3, 4)), 3)


def pow(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x`` to the power ``y``; raises InvalidArgumentError for negative powers of integers.

    The gradient of ``x ** 0`` is 0, and that of a base that is not positive with respect to its
    exponent is 0.
    """
    try:
        x, y = match_dtypes("pow", (x, y))
    except CompositeError:
        return otherwise(pow, (x, y), {})
    number = x if type(x) is Tensor else y
    return (integer_power if number._data.dtype.kind in "iu" else power)(x, y)
