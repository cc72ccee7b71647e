"""Elementwise primitives: arithmetic, comparisons, exponentials, activations.

Each ``expr`` is the same scalar expression that fused kernels are generated from.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor


def _away_from_zero(rng: Any, shape: tuple[int, ...]) -> Any:
    return rng.uniform(0.3, 1.5, shape) * rng.choice([-1.0, 1.0], shape)


# Arithmetic


@primitive(expr="x + y", kinds="iufc")
def add(xp, x, y):
    """Elementwise sum, with broadcasting."""
    return xp.add(x, y)


@add.vjp("x")
def _(g):
    return g


@add.vjp("y")
def _(g):
    return g


@add.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), rng.normal(size=(3, 4)))
    yield sample(rng.normal(size=(3, 1)), rng.normal(size=4))
    yield sample(rng.normal(size=(3, 4)), 2.5)


@primitive(expr="x - y", kinds="iufc")
def subtract(xp, x, y):
    """Elementwise difference, with broadcasting."""
    return xp.subtract(x, y)


@subtract.vjp("x")
def _(g):
    return g


@subtract.vjp("y")
def _(g):
    return negative(g)


@subtract.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), rng.normal(size=4))
    yield sample(1.0, rng.normal(size=4))


@primitive(expr="x * y", kinds="iufc")
def multiply(xp, x, y):
    """Elementwise product, with broadcasting."""
    return xp.multiply(x, y)


@multiply.vjp("x")
def _(g, y):
    return g * y


@multiply.vjp("y")
def _(g, x):
    return g * x


@multiply.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), rng.normal(size=(3, 4)))
    yield sample(rng.normal(size=(2, 1, 3)), rng.normal(size=(4, 1)))
    yield sample(rng.normal(size=4), -0.5)


@primitive(expr="x / y", kinds="fc")
def divide_exact(xp, x, y):
    """Elementwise quotient of floats; ``divide`` takes integers as well."""
    return xp.divide(x, y)


@divide_exact.vjp("x")
def _(g, y):
    return g / y


@divide_exact.vjp("y")
def _(g, out, y):
    return negative(g * out / y)


@divide_exact.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), _away_from_zero(rng, (3, 4)))
    yield sample(rng.normal(size=(3, 4)), _away_from_zero(rng, (4,)))
    yield sample(2.0, _away_from_zero(rng, (4,)))


@primitive(expr="-x", kinds="iufc")
def negative(xp, x):
    """Elementwise negation."""
    return xp.negative(x)


@negative.vjp("x")
def _(g):
    return negative(g)


@negative.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)))


@primitive(expr="x * x", kinds="iufc")
def square(xp, x):
    """Elementwise square."""
    return xp.multiply(x, x)


@square.vjp("x")
def _(g, x):
    return g * (2 * x)


@square.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)))


@primitive(expr="sqrt(x)", kinds="fc")
def sqrt(xp, x):
    """Elementwise square root."""
    return xp.sqrt(x)


@sqrt.vjp("x")
def _(g, out):
    # 0 for a zero upstream even at x = 0, so that a masked branch stays finite.
    return where(equal(g, 0), 0, 0.5 * g / out)


@sqrt.samples
def _(rng):
    yield sample(rng.uniform(0.3, 2.0, (3, 4)))


@primitive(expr="abs(x)", kinds="iuf")
def abs(xp, x):
    """Elementwise absolute value; its gradient at 0 is 0."""
    return xp.abs(x)


@abs.vjp("x")
def _(g, x):
    return g * sign(x)


@abs.samples
def _(rng):
    yield sample(_away_from_zero(rng, (3, 4)))


@primitive(expr="sign(x)", kinds="iuf")
def sign(xp, x):
    """Elementwise sign: -1, 0 or 1; its gradient is zero, not missing."""
    return xp.sign(x)


@sign.vjp("x")
def _(g):
    return zeros_like(g)


@sign.samples
def _(rng):
    yield sample(_away_from_zero(rng, (3, 4)))


@primitive(expr="x ** y", kinds="iufc")
def power(xp, x, y):
    """``x`` to the power ``y``; raises InvalidArgumentError for negative integer powers."""
    return xp.power(x, y)


@power.vjp("x")
def _(g, x, y):
    if not isinstance(y, Tensor):
        return g * (y * power(x, y - 1)) if y else zeros_like(g)
    safe = where(equal(y, 0), 1, y)
    return where(equal(y, 0), 0, g * y * power(x, safe - 1))


@power.vjp("y")
def _(g, out, x):
    # 0 where the base is not positive: the derivative is not real there.
    positive = greater(x, 0) if isinstance(x, Tensor) else x > 0
    if not isinstance(x, Tensor):
        return g * out * float(np.log(x)) if positive else zeros_like(g)
    return g * out * log(where(positive, x, 1))


@power.samples
def _(rng):
    yield sample(rng.uniform(0.4, 2.0, (3, 4)), rng.normal(size=(3, 4)))
    yield sample(_away_from_zero(rng, (3, 4)), 3.0)
    yield sample(2.0, rng.normal(size=4))


@primitive(expr="where(x >= y, x, y)", kinds="iuf")
def maximum(xp, x, y):
    """Elementwise larger value; at a tie the gradient goes to ``x``."""
    return xp.maximum(x, y)


@maximum.vjp("x")
def _(g, x, y):
    return where(greater_equal(x, y), g, 0)


@maximum.vjp("y")
def _(g, x, y):
    return where(greater_equal(x, y), 0, g)


@maximum.samples
def _(rng):
    x = rng.normal(size=(3, 4))
    yield sample(x, x + _away_from_zero(rng, (3, 4)))


@primitive(expr="where(x <= y, x, y)", kinds="iuf")
def minimum(xp, x, y):
    """Elementwise smaller value; at a tie the gradient goes to ``x``."""
    return xp.minimum(x, y)


@minimum.vjp("x")
def _(g, x, y):
    return where(less_equal(x, y), g, 0)


@minimum.vjp("y")
def _(g, x, y):
    return where(less_equal(x, y), 0, g)


@minimum.samples
def _(rng):
    x = rng.normal(size=(3, 4))
    yield sample(x, x + _away_from_zero(rng, (3, 4)))


# Exponentials and activations


@primitive(expr="exp(x)", kinds="fc")
def exp(xp, x):
    """Elementwise exponential."""
    return xp.exp(x)


@exp.vjp("x")
def _(g, out):
    return g * out


@exp.samples
def _(rng):
    yield sample(rng.uniform(-2, 2, (3, 4)))


@primitive(expr="log(x)", kinds="fc")
def log(xp, x):
    """Elementwise natural logarithm."""
    return xp.log(x)


@log.vjp("x")
def _(g, x):
    return g / x


@log.samples
def _(rng):
    yield sample(rng.uniform(0.3, 2.0, (3, 4)))


@primitive(expr="tanh(x)", kinds="fc")
def tanh(xp, x):
    """Elementwise hyperbolic tangent."""
    return xp.tanh(x)


@tanh.vjp("x")
def _(g, out):
    return g * (1 - out * out)


@tanh.samples
def _(rng):
    yield sample(rng.uniform(-2, 2, (3, 4)))


@primitive(expr="0.5 * (1.0 + tanh(0.5 * x))", kinds="fc")
def sigmoid(xp, x):
    """Elementwise logistic function, written so that no argument overflows."""
    return 0.5 * (1.0 + xp.tanh(0.5 * x))


@sigmoid.vjp("x")
def _(g, out):
    return g * (out * (1 - out))


@sigmoid.samples
def _(rng):
    yield sample(rng.uniform(-3, 3, (3, 4)))


@primitive(expr="where(x > 0, x, 0)", kinds="iuf")
def relu(xp, x):
    """``max(x, 0)`` elementwise; its gradient at 0 is 0, and nan stays nan."""
    return xp.maximum(x, 0)


@relu.vjp("x")
def _(g, out):
    return relu_grad(g, out)


@relu.samples
def _(rng):
    yield sample(_away_from_zero(rng, (3, 4)))


@primitive(expr="where(y > 0, g, 0)", kinds="iuf")
def relu_grad(xp, g, y):
    """The cotangent ``g`` where the rectified output ``y`` is positive, else 0."""
    return xp.multiply(g, y > 0)


@relu_grad.vjp("g")
def _(g, y):
    return relu_grad(g, y)


@relu_grad.vjp("y")
def _(g):
    return zeros_like(g)


@relu_grad.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), _away_from_zero(rng, (3, 4)))


# Selection and comparison


@primitive(expr="where(condition, x, y)", match=("x", "y"), constant=("condition",))
def select(xp, condition, x, y):
    """``x`` where ``condition`` (bool) holds, else ``y``, with broadcasting."""
    return xp.where(condition, x, y)


@select.vjp("x")
def _(g, condition):
    return select(condition, g, 0)


@select.vjp("y")
def _(g, condition):
    return select(condition, 0, g)


@select.samples
def _(rng):
    yield sample(rng.uniform(size=(3, 4)) > 0.5, rng.normal(size=(3, 4)), rng.normal(size=4))
    yield sample(rng.uniform(size=(3, 4)) > 0.5, rng.normal(size=(3, 4)), 0.0)


def where(condition: Any, x: Any = None, y: Any = None, name: str | None = None) -> Tensor:
    """``x`` where ``condition`` holds, else ``y``; without them, the int64 positions that hold."""
    if x is None and y is None:
        return bind(nonzero, as_tensor(condition))
    if x is None or y is None:
        raise ValueError("where needs both x and y, or neither")
    return select(condition, x, y)


@primitive(vjp=None)
def nonzero(xp, x):
    """Positions of the true elements, int64 of shape (count, rank)."""
    return xp.argwhere(x).astype(np.int64)


@nonzero.samples
def _(rng):
    yield sample(rng.uniform(size=(3, 4)) > 0.5)


def _comparison(name: str, symbol: str, doc: str, kinds: str | None) -> Any:
    def kernel(xp, x, y):
        return getattr(xp, name)(x, y)

    kernel.__name__, kernel.__doc__ = name, doc
    made = primitive(expr=f"x {symbol} y", vjp=None, kinds=kinds)(kernel)

    @made.samples
    def _(rng):
        yield sample(rng.normal(size=(3, 4)), rng.normal(size=4))
        yield sample(rng.normal(size=(3, 4)), 0.0)

    return made


equal = _comparison("equal", "==", "Elementwise equality, bool.", None)
not_equal = _comparison("not_equal", "!=", "Elementwise inequality, bool.", None)
less = _comparison("less", "<", "Elementwise ``x < y``, bool.", "iuf")
less_equal = _comparison("less_equal", "<=", "Elementwise ``x <= y``, bool.", "iuf")
greater = _comparison("greater", ">", "Elementwise ``x > y``, bool.", "iuf")
greater_equal = _comparison("greater_equal", ">=", "Elementwise ``x >= y``, bool.", "iuf")


# Copies, constants and casts


@primitive(view=True)
def identity(xp, x):
    """The same value as a tensor of its own."""
    return x


@identity.vjp("x")
def _(g):
    return g


@identity.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)))


@primitive(vjp=None, view=True)
def stop_gradient(xp, x):
    """The same value, through which no gradient passes; hidden from outer tapes as well."""
    return x


@stop_gradient.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)))


@primitive(vjp=None, match=())
def fill_like(xp, x, *, value):
    """An array of ``value`` with the shape and dtype of ``x``."""
    return xp.full_like(x, value)


@fill_like.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), value=2)


def zeros_like(input: Any, dtype: Any = None, name: str | None = None) -> Tensor:
    """Zeros of the shape (and dtype) of ``input``."""
    zeros = fill_like(input, value=0)
    return zeros if dtype is None else cast(zeros, dtype)


def ones_like(input: Any, dtype: Any = None, name: str | None = None) -> Tensor:
    """Ones of the shape (and dtype) of ``input``."""
    ones = fill_like(input, value=1)
    return ones if dtype is None else cast(ones, dtype)


@primitive()
def cast_float(xp, x, *, dtype):
    """``x`` (float) as another float dtype, as a fresh array."""
    return x.astype(dtype)


@cast_float.vjp("x")
def _(g, x_dtype):
    return cast(g, x_dtype)


@cast_float.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), dtype=np.dtype(np.float64))


@primitive(vjp=None)
def cast_discrete(xp, x, *, dtype):
    """``x`` as another dtype where one of the two is not a float: no gradient passes."""
    return x.astype(dtype)


@cast_discrete.samples
def _(rng):
    yield sample(3 * rng.normal(size=(3, 4)), dtype=np.dtype(np.int32))


def cast(x: Any, dtype: Any, name: str | None = None) -> Tensor:
    """``x`` as ``dtype``; floats become integers by truncation. Its own dtype: the same object."""
    tensor, wanted = as_tensor(x), as_dtype(dtype).numpy_dtype
    known = tensor._data.dtype
    if known == wanted:
        return tensor
    kept = known.kind in "fc" and wanted.kind in "fc"
    return bind(cast_float if kept else cast_discrete, tensor, dtype=wanted)
