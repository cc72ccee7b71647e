"""Arithmetic: sums, products, and what is made of them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from distgrad.core.composite import takes_composites
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import cast, ones_like, zeros_like
from distgrad.ops.complex import adjoint
from distgrad.ops.logic import equal, select


def away_from_zero(rng: Any, shape: tuple[int, ...]) -> Any:
    """Random numbers with 0.3 < abs(x) < 1.5, for samples of functions with a kink or pole at 0."""
    return rng.uniform(0.3, 1.5, shape) * rng.choice([-1.0, 1.0], shape)


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
    yield sample(rng.normal(size=()), rng.normal(size=4))


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
    return g * adjoint(y)


@multiply.vjp("y")
def _(g, x):
    return g * adjoint(x)


@multiply.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), rng.normal(size=(3, 4)))
    yield sample(rng.normal(size=(2, 1, 3)), rng.normal(size=(4, 1)))
    yield sample(rng.normal(size=4), -0.5)


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


@primitive(expr="where(y == 0, 0.0, x * y)", kinds="fc")
def multiply_no_nan(xp, x, y):
    """``x * y``, 0 where ``y`` is 0 even if ``x`` is infinite or nan."""
    return xp.where(xp.equal(y, 0), 0, xp.multiply(x, y))


@multiply_no_nan.vjp("x")
def _(g, y):
    return bind(multiply_no_nan, g, adjoint(y))


@multiply_no_nan.vjp("y")
def _(g, x):
    return bind(multiply_no_nan, adjoint(x), g)


@multiply_no_nan.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), away_from_zero(rng, (4,)))


@primitive(expr="x * x", kinds="iufc")
def square(xp, x):
    """Elementwise square."""
    return xp.multiply(x, x)


@square.vjp("x")
def _(g, x):
    return g * adjoint(x * 2.0)


@square.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)))


@primitive(expr="(x - y) * (x - y)", kinds="iufc")
def squared_difference(xp, x, y):
    """``(x - y)`` times its conjugate: the square of the difference, for reals."""
    d = xp.subtract(x, y)
    return xp.multiply(xp.conj(d), d)


@squared_difference.vjp("x")
def _(g, x, y):
    return _squared_difference_grad(g, x, y)


@squared_difference.vjp("y")
def _(g, x, y):
    return negative(_squared_difference_grad(g, x, y))


def _squared_difference_grad(g: Tensor, x: Any, y: Any) -> Tensor:
    # The result is real, so that only the real part of a complex cotangent counts.
    return (g + adjoint(g)) * (x - y)


@squared_difference.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), rng.normal(size=4))
    yield sample(rng.normal(size=(3, 4)), 0.5)


@primitive(expr="abs(x)", kinds="iufc")
def abs(xp, x):
    """Elementwise absolute value, real also for complex numbers; its gradient at 0 is 0."""
    return xp.abs(x)


@abs.vjp("x")
def _(g, x):
    dtype = x._data.dtype
    if dtype.kind != "c":
        return g * sign(x)
    size = abs(x)
    size = bind(select, bind(equal, size, 0.0), 1.0, size)  # 0 / 1 at zero
    return cast(g, dtype) * (x / cast(size, dtype))


@abs.samples
def _(rng):
    yield sample(away_from_zero(rng, (3, 4)))


@primitive(expr="sign(x)", kinds="iuf")
def sign(xp, x):
    """Elementwise sign: -1, 0 or 1; its gradient is zero, not missing."""
    return xp.sign(x)


@sign.vjp("x")
def _(g):
    return zeros_like(g)


@sign.samples
def _(rng):
    yield sample(away_from_zero(rng, (3, 4)))


@primitive(kinds="f")
def nextafter(xp, x1, x2):
    """The next float after ``x1`` towards ``x2``."""
    return xp.nextafter(x1, x2)


@nextafter.vjp("x1")
def _(g):
    return g


@nextafter.vjp("x2")
def _(g):
    return zeros_like(g)


@nextafter.samples
def _(rng):
    x = rng.normal(size=(3, 4))
    yield sample(x, x + away_from_zero(rng, (3, 4)))


# Sums and products of several


@takes_composites
def add_n(inputs: Any, name: str | None = None) -> Tensor:
    """The sum of a list of tensors of one shape, or of those along a tensor's first axis.

    Raises ValueError for an empty list, InvalidArgumentError where shapes or dtypes differ.
    """
    tensors = [as_tensor(value) for value in inputs]
    if not tensors:
        raise ValueError("add_n needs at least one tensor")
    for tensor in tensors[1:]:
        if tensor._data.shape != tensors[0]._data.shape:
            raise InvalidArgumentError(
                f"add_n: tensors of shapes {tensors[0].shape} and {tensor.shape}"
            )
    return functools.reduce(add, tensors)


def accumulate_n(
    inputs: Any, shape: Any = None, tensor_dtype: Any = None, name: str | None = None
) -> Tensor:
    """The sum of a list of tensors of one shape, as ``add_n``."""
    return add_n(inputs)


@takes_composites
def scalar_mul(scalar: Any, x: Any, name: str | None = None) -> Tensor:
    """``scalar * x``; raises ValueError where ``scalar`` is not of rank 0."""
    tensor = as_tensor(x)
    if np.ndim(scalar):
        raise ValueError(f"scalar_mul needs a scalar, not one of shape {np.shape(scalar)}")
    return multiply(scalar, tensor)


def polyval(coeffs: Any, x: Any, name: str | None = None) -> Tensor:
    """The polynomial with coefficients ``coeffs``, highest power first, at ``x``.

    Raises ValueError where ``coeffs`` is not a list.
    """
    if not isinstance(coeffs, (list, tuple)):
        raise ValueError(f"coeffs must be a list of coefficients, not {type(coeffs).__name__}")
    tensor = as_tensor(x)
    if not coeffs:
        return zeros_like(tensor)
    value = ones_like(tensor) * coeffs[0]
    for coefficient in coeffs[1:]:  # Horner's rule
        value = value * tensor + coefficient
    return value
