"""Quotients: of floats, of integers, and with a value where the divisor is zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.composite import CompositeError, otherwise, takes_composites
from distgrad.core.dispatch import as_tensor, match_dtypes
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.ops.arithmetic import away_from_zero, multiply_no_nan, negative
from distgrad.ops.casting import cast
from distgrad.ops.complex import adjoint


@primitive(expr="x / y", kinds="fc")
def divide_exact(xp, x, y):
    """Elementwise quotient of floats; ``divide`` takes integers as well."""
    return xp.divide(x, y)


@divide_exact.vjp("x")
def _(g, y):
    return g / adjoint(y)


@divide_exact.vjp("y")
def _(g, out, y):
    return negative(g * adjoint(out / y))


@divide_exact.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), away_from_zero(rng, (3, 4)))
    yield sample(rng.normal(size=(3, 4)), away_from_zero(rng, (4,)))
    yield sample(2.0, away_from_zero(rng, (4,)))


def divide(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Elementwise quotient; 32- and 64-bit integers give float64, smaller ones float32.

    Raises TypeError for an integer tensor beside a float, InvalidArgumentError for tensors of two
    dtypes.
    """
    try:
        return divide_exact(*floating(x, y))
    except CompositeError:
        return otherwise(divide, (x, y), {})


def truediv(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Elementwise quotient, as ``divide``."""
    return divide(x, y)


def floating(x: Any, y: Any) -> tuple[Any, Any]:
    """The operands of a quotient, integers among them cast to a float type wide enough."""
    tensors = [t for t in (x, y) if isinstance(t, (Tensor, Variable))]
    if not tensors:
        if all(type(v) in (int, bool) for v in (x, y)):
            return np.float64(x), np.float64(y)
        x, y = tensors = match_dtypes("divide", (x, y))
    if not all(t.dtype.is_integer for t in tensors):
        return x, y
    if len(tensors) == 2 and x.dtype != y.dtype:
        raise InvalidArgumentError(
            f"divide: tensors of {x.dtype.name} and {y.dtype.name} do not mix; use cast"
        )
    for v in (x, y):
        if type(v) in (float, complex):
            raise TypeError(f"an integer tensor cannot be divided by {v!r}; use cast")
    kept = tensors[0].dtype.numpy_dtype
    wide = np.float64 if kept.itemsize >= 4 else np.float32
    return cast(as_tensor(x, like=kept), wide), cast(as_tensor(y, like=kept), wide)


@primitive(expr="1.0 / x", kinds="fc")
def reciprocal(xp, x):
    """Elementwise ``1 / x``."""
    return xp.reciprocal(x)


@reciprocal.vjp("x")
def _(g, out):
    return negative(g * adjoint(out * out))


@reciprocal.samples
def _(rng):
    yield sample(away_from_zero(rng, (3, 4)))


@primitive(expr="where(y == 0, 0.0, x / y)", kinds="fc")
def quotient_or_zero(xp, x, y):
    """``x / y``, 0 where ``y`` is 0."""
    return xp.where(xp.equal(y, 0), 0, xp.divide(x, y))


@quotient_or_zero.vjp("x")
def _(g, y):
    return bind(quotient_or_zero, g, adjoint(y))


@quotient_or_zero.vjp("y")
def _(g, out, y):
    return negative(g * adjoint(bind(quotient_or_zero, out, y)))


@quotient_or_zero.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), away_from_zero(rng, (4,)))
    yield sample(2.0, away_from_zero(rng, (4,)))
    yield sample(rng.normal(size=4), -1.5)


@takes_composites
def divide_no_nan(x: Any, y: Any, name: str | None = None) -> Tensor:
    """``x / y``, and 0 with gradient 0 where ``y`` is 0; integers give floats."""
    return quotient_or_zero(*floating(x, y))


@takes_composites
def reciprocal_no_nan(x: Any, name: str | None = None) -> Tensor:
    """``1 / x``, and 0 with gradient 0 where ``x`` is 0."""
    return quotient_or_zero(1.0, as_tensor(x))


@primitive(expr="where(g == 0, 0.0, g / y)", kinds="fc")
def divide_cotangent(xp, g, y):
    """``g / y``, 0 where ``g`` is 0 even if ``y`` is 0 or nan.

    For the rules of functions like ``sqrt``, whose masked branches must not make nan of a zero
    cotangent. It is linear in ``g``, and derivatives of any order keep to the same rule.
    """
    return xp.where(xp.equal(g, 0), 0, xp.divide(g, y))


@divide_cotangent.vjp("g")
def _(g, y):
    return bind(divide_cotangent, g, adjoint(y))


@divide_cotangent.vjp("y")
def _(g, out, y):
    weighted = bind(multiply_no_nan, g, adjoint(out))  # 0 where g was, even if this one is inf
    return negative(bind(divide_cotangent, weighted, adjoint(y)))


@divide_cotangent.samples
def _(rng):
    yield sample(away_from_zero(rng, (3, 4)), away_from_zero(rng, (3, 4)))
