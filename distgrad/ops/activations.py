"""Activation functions of neural networks."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from distgrad.core.composite import takes_composites
from distgrad.core.dispatch import as_tensor
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.arithmetic import abs, away_from_zero, square
from distgrad.ops.casting import cast, zeros_like
from distgrad.ops.exponential import exp, sigmoid, softplus
from distgrad.ops.logic import greater, less, logical_and, select
from distgrad.ops.shape import concat
from distgrad.ops.special import erf
from distgrad.ops.trigonometric import tanh

# Rectifiers


@primitive(expr="where(x <= 0, 0, x)", kinds="iuf", also="features")
def relu(xp, x):
    """``max(x, 0)`` elementwise; its gradient at 0 is 0, and nan stays nan."""
    return xp.maximum(x, 0)


@relu.vjp("x")
def _(g, out):
    return bind(relu_grad, g, out)


@relu.samples
def _(rng):
    yield sample(away_from_zero(rng, (3, 4)))


@primitive(expr="g * where(y > 0, 1.0, 0.0)", kinds="iuf")
def relu_grad(xp, g, y):
    """The cotangent ``g`` where the rectified output ``y`` is positive, else 0."""
    return xp.multiply(g, y > 0)


@relu_grad.vjp("g")
def _(g, y):
    return bind(relu_grad, g, y)


@relu_grad.vjp("y")
def _(g):
    return zeros_like(g)


@relu_grad.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), away_from_zero(rng, (3, 4)))


@primitive(expr="where(x <= 0, 0, where(x >= 6, 6, x))", kinds="iuf", also="features")
def relu6(xp, x):
    """``min(max(x, 0), 6)`` elementwise; its gradient at 0 and 6 is 0."""
    return xp.minimum(xp.maximum(x, 0), 6)


@relu6.vjp("x")
def _(g, out):
    inside = bind(logical_and, bind(greater, out, 0.0), bind(less, out, 6.0))
    return bind(select, inside, g, 0.0)


@relu6.samples
def _(rng):
    yield sample(np.array([[-3.0, -0.5, 0.4, 3.0], [5.9, 6.2, 9.0, 1.0]]))


@primitive(expr="where(x > 0, x, alpha * x)", kinds="f")
def leaky_rectifier(xp, x, *, alpha):
    """``x`` where positive, else ``alpha * x``; its gradient at 0 is ``alpha``."""
    return xp.where(x > 0, x, xp.multiply(x, alpha))


@leaky_rectifier.vjp("x")
def _(g, x, alpha):
    return bind(select, bind(greater, x, 0.0), g, g * alpha)


@leaky_rectifier.samples
def _(rng):
    yield sample(away_from_zero(rng, (3, 4)), alpha=0.2)


@takes_composites
def leaky_relu(features: Any, alpha: float = 0.2, name: str | None = None) -> Tensor:
    """``x`` where positive, else ``alpha * x``; its gradient at 0 is ``alpha``.

    Integers are cast to float32.
    """
    tensor = as_tensor(features)
    if tensor._data.dtype.kind in "iu":
        tensor = cast(tensor, np.float32)
    return leaky_rectifier(tensor, alpha=float(alpha))


def crelu(features: Any, axis: int = -1, name: str | None = None) -> Tensor:
    """``relu(x)`` and ``relu(-x)``, one after the other along ``axis``."""
    tensor = as_tensor(features)
    return concat([relu(tensor), relu(-tensor)], axis)


# Exponential units


@primitive(expr="where(x < 0, alpha * expm1(x), x)", kinds="f")
def exponential_unit(xp, x, *, alpha):
    """``x`` where positive, else ``alpha * (exp(x) - 1)``; its gradient at 0 is 1."""
    return xp.where(x < 0, xp.multiply(xp.expm1(x), alpha), x)


@exponential_unit.vjp("x")
def _(g, out, x, alpha):
    return g * bind(select, bind(less, x, 0.0), out + alpha, 1.0)


@exponential_unit.samples
def _(rng):
    yield sample(away_from_zero(rng, (3, 4)), alpha=1.0)
    yield sample(away_from_zero(rng, (3, 4)), alpha=0.5)


def elu(features: Any, name: str | None = None) -> Tensor:
    """``x`` where positive, else ``exp(x) - 1``; its gradient at 0 is 1."""
    return exponential_unit(features, alpha=1.0)


# Fixed points of mean 0 and variance 1: Klambauer et al., "Self-Normalizing Neural Networks".
_SELU_SCALE = 1.0507009873554804934193349852946
_SELU_ALPHA = 1.6732632423543772848170429916717


def selu(features: Any, name: str | None = None) -> Tensor:
    """The scaled exponential unit: ``scale * elu(x, alpha)``; its gradient at 0 is ``scale``."""
    return exponential_unit(features, alpha=_SELU_ALPHA) * _SELU_SCALE


# Smooth units


@primitive(expr="x / (1.0 + exp(-x))", kinds="f")
def sigmoid_unit(xp, x):
    """``x * sigmoid(x)``."""
    return xp.divide(x, xp.add(xp.exp(xp.negative(x)), 1))


@sigmoid_unit.vjp("x")
def _(g, x):
    s = sigmoid(x)
    return g * (s * (1.0 + x * (1.0 - s)))


@takes_composites
def silu(features: Any, beta: Any = 1.0, name: str | None = None) -> Tensor:
    """``x * sigmoid(beta * x)``, also called swish; ``beta`` may be a tensor."""
    if isinstance(beta, (int, float)) and beta == 1:
        return sigmoid_unit(features)
    tensor = as_tensor(features)
    return tensor * sigmoid(tensor * beta)


swish = silu


@primitive(expr="x / (1.0 + abs(x))", kinds="f", also="features")
def softsign(xp, x):
    """``x / (1 + abs(x))``, with a second derivative, which TensorFlow's lacks."""
    return xp.divide(x, xp.add(xp.abs(x), 1))


@softsign.vjp("x")
def _(g, x):
    return g / square(abs(x) + 1.0)


@softsign.samples
def _(rng):
    yield sample(away_from_zero(rng, (3, 4)))


# Mish: Misra, "Mish: A Self Regularized Non-Monotonic Activation Function", 2019. The hyperbolic
# tangent of softplus is a fraction of polynomials in a = exp(-abs(x)), which never overflows.
_MISH_ABOVE = "where(x < 0.0, a * (a + 2.0), a + a + 1.0)"
_MISH_BELOW = "where(x < 0.0, a * (a + 2.0) + 2.0, 2.0 * a * (a + 1.0) + 1.0)"


def _mish_parts(xp: Any, x: Any) -> tuple[Any, Any, Any]:
    """``a``, and the upper and the lower part of the fraction."""
    a = xp.exp(xp.negative(xp.abs(x)))
    above = xp.where(x < 0, a * (a + 2), a + a + 1)
    return a, above, xp.where(x < 0, above + 2, a * (a + 1) * 2 + 1)


def _of_x(expr: str) -> str:
    return re.sub(r"\ba\b", "exp(-abs(x))", expr)


@primitive(expr=_of_x(f"x * ({_MISH_ABOVE} / {_MISH_BELOW})"), kinds="f", also="features")
def mish(xp, x):
    """``x * tanh(softplus(x))`` (a name of Keras's activations, not of ``tf.nn``)."""
    _, above, below = _mish_parts(xp, x)
    return xp.multiply(x, above / below)


@mish.vjp("x")
def _(g, x):
    return bind(mish_grad, g, x)


@primitive(
    expr=_of_x(
        f"g * ({_MISH_ABOVE} / {_MISH_BELOW} + 4.0 * x * a * (a + 1.0) * where(x < 0.0, 1.0, a)"
        f" / ({_MISH_BELOW} * {_MISH_BELOW}))"
    ),
    kinds="f",
)
def mish_grad(xp, g, x):
    """``g`` times the derivative of ``mish`` at ``x``."""
    a, above, below = _mish_parts(xp, x)
    rise = 4 * x * a * (a + 1) * xp.where(x < 0, xp.ones_like(a), a) / (below * below)
    return xp.multiply(g, above / below + rise)


@mish_grad.vjp("g")
def _(g, x):
    return bind(mish_grad, g, x)


@mish_grad.vjp("x")
def _(g, args, x):
    t, s = tanh(softplus(x)), sigmoid(x)
    return g * args[0] * ((1.0 - t * t) * s * (2.0 + x * (1.0 - s - 2.0 * t * s)))


@mish_grad.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), rng.uniform(-2, 2, (3, 4)))


def hard_sigmoid(features: Any, name: str | None = None) -> Tensor:
    """``relu6(x + 3) / 6`` (a name of Keras's activations, not of ``tf.nn``)."""
    return relu6(as_tensor(features) + 3.0) * (1 / 6)


def hard_silu(features: Any, name: str | None = None) -> Tensor:
    """``x * hard_sigmoid(x)``, also called hard swish (one of Keras's activations)."""
    tensor = as_tensor(features)
    return tensor * hard_sigmoid(tensor)


hard_swish = hard_silu


# Gaussian error linear units: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016


@primitive(expr="0.5 * x * (1.0 + erf(x * 0.7071067811865476))", kinds="f")
def gelu_exact(xp, x):
    """``x`` times the standard normal distribution function of ``x``."""
    return xp.multiply(xp.multiply(x, 0.5), xp.add(erf.kernel(xp, x * math.sqrt(0.5)), 1))


@gelu_exact.vjp("x")
def _(g, x):
    return bind(gelu_exact_grad, g, x)


@primitive(
    expr="g * (0.5 + 0.5 * erf(x * 0.7071067811865476)"
    " + x * exp(-0.5 * x * x) * 0.3989422804014327)",
    kinds="f",
)
def gelu_exact_grad(xp, g, x):
    """``g`` times the derivative of ``gelu_exact`` at ``x``."""
    below = xp.multiply(xp.add(erf.kernel(xp, x * math.sqrt(0.5)), 1), 0.5)
    density = xp.exp(x * x * -0.5) * math.sqrt(0.5 / math.pi)
    return xp.multiply(g, xp.add(below, x * density))


@gelu_exact_grad.vjp("g")
def _(g, x):
    return bind(gelu_exact_grad, g, x)


@gelu_exact_grad.vjp("x")
def _(g, args, x):
    density = exp(x * x * -0.5) * math.sqrt(0.5 / math.pi)
    return g * args[0] * (density * (2.0 - x * x))


@gelu_exact_grad.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), rng.uniform(-2, 2, (3, 4)))


_GELU_SLOPE = math.sqrt(2 / math.pi)
_GELU_CUBE = 0.044715


@primitive(
    expr="0.5 * x * (1.0 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))", kinds="f"
)
def gelu_tanh(xp, x):
    """The approximation of ``gelu_exact`` by a hyperbolic tangent."""
    inner = xp.multiply(x, x * x * (_GELU_SLOPE * _GELU_CUBE) + _GELU_SLOPE)
    return xp.multiply(xp.multiply(x, 0.5), xp.add(xp.tanh(inner), 1))


@gelu_tanh.vjp("x")
def _(g, x):
    xx = x * x
    t = tanh(x * (xx * (_GELU_SLOPE * _GELU_CUBE) + _GELU_SLOPE))
    slope = xx * (3 * _GELU_SLOPE * _GELU_CUBE) + _GELU_SLOPE
    return g * ((t + 1.0) * 0.5 + x * 0.5 * (1.0 - t * t) * slope)


for _smooth in (sigmoid_unit, mish, gelu_exact, gelu_tanh):

    @_smooth.samples
    def _(rng):
        yield sample(rng.uniform(-2, 2, (3, 4)))


def gelu(features: Any, approximate: bool = False, name: str | None = None) -> Tensor:
    """``x`` times the standard normal distribution function of ``x``.

    ``approximate`` takes a hyperbolic tangent in place of the error function. Raises
    InvalidArgumentError for integers.
    """
    return (gelu_tanh if approximate else gelu_exact)(features)
