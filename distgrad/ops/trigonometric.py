"""Trigonometric and hyperbolic functions, and their inverses."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.arithmetic import away_from_zero, negative
from distgrad.ops.complex import adjoint, imag, real
from distgrad.ops.powers import sqrt


@primitive(expr="sin(x)", kinds="fc")
def sin(xp, x):
    """Elementwise sine of radians."""
    return xp.sin(x)


@sin.vjp("x")
def _(g, x):
    return g * adjoint(cos(x))


@primitive(expr="cos(x)", kinds="fc")
def cos(xp, x):
    """Elementwise cosine of radians."""
    return xp.cos(x)


@cos.vjp("x")
def _(g, x):
    return negative(g * adjoint(sin(x)))


@primitive(expr="tan(x)", kinds="fc")
def tan(xp, x):
    """Elementwise tangent of radians."""
    return xp.tan(x)


@tan.vjp("x")
def _(g, out):
    return g * adjoint(out * out + 1.0)


@primitive(expr="sinh(x)", kinds="fc")
def sinh(xp, x):
    """Elementwise hyperbolic sine."""
    return xp.sinh(x)


@sinh.vjp("x")
def _(g, x):
    return g * adjoint(cosh(x))


@primitive(expr="cosh(x)", kinds="fc")
def cosh(xp, x):
    """Elementwise hyperbolic cosine."""
    return xp.cosh(x)


@cosh.vjp("x")
def _(g, x):
    return g * adjoint(sinh(x))


@primitive(expr="tanh(x)", kinds="fc")
def tanh(xp, x):
    """Elementwise hyperbolic tangent."""
    return xp.tanh(x)


@tanh.vjp("x")
def _(g, out):
    return bind(tanh_grad, g, adjoint(out))


# One kernel for what eager training repeats most: three operations otherwise.
@primitive(expr="g * (1.0 - y * y)", kinds="fc")
def tanh_grad(xp, g, y):
    """The cotangent ``g`` through a hyperbolic tangent of value ``y``."""
    return xp.multiply(g, xp.subtract(1, xp.multiply(y, y)))


@tanh_grad.vjp("g")
def _(g, y):
    return bind(tanh_grad, g, adjoint(y))


@tanh_grad.vjp("y")
def _(g, y, args):
    return g * adjoint(args[0] * y * -2.0)


@tanh_grad.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), rng.uniform(-0.9, 0.9, (3, 4)))
    yield sample(np.array(0.7), np.array(-0.4))


@primitive(expr="atan(x)", kinds="fc")
def atan(xp, x):
    """Elementwise inverse tangent, radians in [-pi/2, pi/2]."""
    return xp.arctan(x)


@atan.vjp("x")
def _(g, x):
    return g / adjoint(x * x + 1.0)


@primitive(expr="asinh(x)", kinds="fc")
def asinh(xp, x):
    """Elementwise inverse hyperbolic sine."""
    return xp.arcsinh(x)


@asinh.vjp("x")
def _(g, out):
    return g / adjoint(cosh(out))


for _function in (sin, cos, tan, sinh, cosh, tanh, atan, asinh):

    @_function.samples
    def _(rng):
        yield sample(rng.uniform(-1.3, 1.3, (3, 4)))
        yield sample(rng.uniform(-1.3, 1.3, ()))


@primitive(expr="asin(x)", kinds="fc")
def asin(xp, x):
    """Elementwise inverse sine, radians in [-pi/2, pi/2]; nan outside [-1, 1]."""
    return xp.arcsin(x)


@asin.vjp("x")
def _(g, x):
    return g / adjoint(sqrt(1.0 - x * x))


@primitive(expr="acos(x)", kinds="fc")
def acos(xp, x):
    """Elementwise inverse cosine, radians in [0, pi]; nan outside [-1, 1]."""
    return xp.arccos(x)


@acos.vjp("x")
def _(g, x):
    return negative(g / adjoint(sqrt(1.0 - x * x)))


@primitive(expr="atanh(x)", kinds="fc")
def atanh(xp, x):
    """Elementwise inverse hyperbolic tangent; nan outside [-1, 1]."""
    return xp.arctanh(x)


@atanh.vjp("x")
def _(g, x):
    return g / adjoint(1.0 - x * x)


for _inverse in (asin, acos, atanh):

    @_inverse.samples
    def _(rng):
        yield sample(rng.uniform(-0.8, 0.8, (3, 4)))


@primitive(expr="acosh(x)", kinds="fc")
def acosh(xp, x):
    """Elementwise inverse hyperbolic cosine; nan below 1."""
    return xp.arccosh(x)


@acosh.vjp("x")
def _(g, out):
    return g / adjoint(sinh(out))


@acosh.samples
def _(rng):
    yield sample(rng.uniform(1.3, 3.0, (3, 4)))


@primitive(expr="atan2(y, x)", kinds="f")
def atan2(xp, y, x):
    """The angle of the point ``(x, y)``, radians in [-pi, pi]."""
    return xp.arctan2(y, x)


@atan2.vjp("y")
def _(g, y, x):
    return g * (x / (x * x + y * y))


@atan2.vjp("x")
def _(g, y, x):
    return negative(g * (y / (x * x + y * y)))


@atan2.samples
def _(rng):
    yield sample(away_from_zero(rng, (3, 4)), away_from_zero(rng, (4,)))
    yield sample(1.5, away_from_zero(rng, (4,)))
    yield sample(away_from_zero(rng, (4,)), 0.5)


def angle(input: Any, name: str | None = None) -> Tensor:
    """The argument of complex numbers, radians in [-pi, pi]; 0 or pi for real ones."""
    tensor = as_tensor(input)
    return atan2(imag(tensor), real(tensor))
