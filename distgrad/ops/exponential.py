"""Exponentials and logarithms."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.composite import takes_composites
from distgrad.core.dispatch import as_tensor
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import cast
from distgrad.ops.complex import adjoint
from distgrad.ops.logic import not_equal


@primitive(expr="exp(x)", kinds="fc")
def exp(xp, x):
    """Elementwise exponential."""
    return xp.exp(x)


@exp.vjp("x")
def _(g, out):
    return g * adjoint(out)


@primitive(expr="expm1(x)", kinds="fc")
def expm1(xp, x):
    """Elementwise ``exp(x) - 1``, exact for small ``x``."""
    return xp.expm1(x)


@expm1.vjp("x")
def _(g, x):
    return g * adjoint(exp(x))


for _exponential in (exp, expm1):

    @_exponential.samples
    def _(rng):
        yield sample(rng.uniform(-2, 2, (3, 4)))


@primitive(expr="log(x)", kinds="fc")
def log(xp, x):
    """Elementwise natural logarithm."""
    return xp.log(x)


@log.vjp("x")
def _(g, x):
    return g / adjoint(x)


@log.samples
def _(rng):
    yield sample(rng.uniform(0.3, 2.0, (3, 4)))


@primitive(expr="log1p(x)", kinds="fc")
def log1p(xp, x):
    """Elementwise ``log(1 + x)``, exact for small ``x``."""
    return xp.log1p(x)


@log1p.vjp("x")
def _(g, x):
    return g / adjoint(x + 1.0)


@log1p.samples
def _(rng):
    yield sample(rng.uniform(-0.7, 2.0, (3, 4)))


# The logistic function and its integral


@primitive(expr="1.0 / (1.0 + exp(-x))", kinds="fc")
def sigmoid(xp, x):
    """Elementwise logistic function ``1 / (1 + exp(-x))``."""
    # exp may overflow to inf, which gives the right 0; a form in tanh would round small values.
    return xp.reciprocal(xp.add(xp.exp(xp.negative(x)), 1))


@sigmoid.vjp("x")
def _(g, out):
    return bind(sigmoid_grad, g, adjoint(out))


@primitive(expr="g * y * (1.0 - y)", kinds="fc")
def sigmoid_grad(xp, g, y):
    """The cotangent ``g`` through a logistic function of value ``y``."""
    return xp.multiply(g, xp.multiply(y, xp.subtract(1, y)))


@sigmoid_grad.vjp("g")
def _(g, y):
    return bind(sigmoid_grad, g, adjoint(y))


@sigmoid_grad.vjp("y")
def _(g, y, args):
    return g * adjoint(args[0] * (1.0 - 2.0 * y))


@sigmoid_grad.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), rng.uniform(0.1, 0.9, (3, 4)))
    yield sample(np.array(0.7), np.array(0.4))


@primitive(expr="where(x > 0, x, 0.0) + log1p(exp(-abs(x)))", kinds="f", also="features")
def softplus(xp, x):
    """``log(1 + exp(x))`` elementwise, without overflow."""
    return xp.add(xp.maximum(x, 0), xp.log1p(xp.exp(xp.negative(xp.abs(x)))))


@softplus.vjp("x")
def _(g, x):
    return g * sigmoid(x)


for _logistic in (sigmoid, softplus):

    @_logistic.samples
    def _(rng):
        yield sample(rng.uniform(-3, 3, (3, 4)))


@takes_composites
def log_sigmoid(x: Any, name: str | None = None) -> Tensor:
    """Logarithm of the logistic function: ``-softplus(-x)``."""
    return -softplus(-as_tensor(x))


# Products with a factor that wins when it is zero. As in TensorFlow, their derivative with respect
# to that factor is 0 where it is 0.


def _arrays(xp: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """Both as arrays: a function of a Python number alone would not have the other's dtype."""
    dtype = xp.result_type(x, y)
    return xp.asarray(x, dtype=dtype), xp.asarray(y, dtype=dtype)


def _nonzero(x: Any) -> Tensor:
    return cast(not_equal(x, 0), x._data.dtype)  # x is a tensor: a number has no gradient


@primitive(expr="where(x == 0, 0.0, x * log(y))", kinds="fc")
def xlogy(xp, x, y):
    """``x * log(y)``, 0 where ``x`` is 0; there the gradient of ``x`` is 0 as well."""
    x, y = _arrays(xp, x, y)
    return xp.where(x == 0, 0, x * xp.log(y))


@xlogy.vjp("x")
def _(g, x, y):
    return g * adjoint(xlogy(_nonzero(x), y))


@xlogy.vjp("y")
def _(g, x, y):
    return g * adjoint(bind(xdivy, x, y))


@primitive(expr="where(x == 0, 0.0, x * log1p(y))", kinds="fc")
def xlog1py(xp, x, y):
    """``x * log1p(y)``, 0 where ``x`` is 0; there the gradient of ``x`` is 0 as well."""
    x, y = _arrays(xp, x, y)
    return xp.where(x == 0, 0, x * xp.log1p(y))


@xlog1py.vjp("x")
def _(g, x, y):
    return g * adjoint(xlog1py(_nonzero(x), y))


@xlog1py.vjp("y")
def _(g, x, y):
    return g * adjoint(bind(xdivy, x, y + 1.0))


@primitive(expr="where(x == 0, 0.0, x / y)", kinds="fc")
def xdivy(xp, x, y):
    """``x / y``, 0 where ``x`` is 0; there the gradient of ``x`` is 0 as well."""
    return xp.where(xp.equal(x, 0), 0, xp.divide(x, y))


@xdivy.vjp("x")
def _(g, x, y):
    return g * adjoint(xdivy(_nonzero(x), y))


@xdivy.vjp("y")
def _(g, x, y):
    return g * adjoint(bind(xdivy, -x, y * y))


for _product in (xlogy, xlog1py, xdivy):

    @_product.samples
    def _(rng):
        yield sample(rng.normal(size=(3, 4)), rng.uniform(0.3, 2.0, 4))
        yield sample(1.5, rng.uniform(0.3, 2.0, 4))
        yield sample(rng.normal(size=4), 2.5)
