"""Bessel functions, and the incomplete gamma and beta functions."""

from __future__ import annotations

from typing import Any

from distgrad.core.dispatch import as_tensor
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.arithmetic import negative, sign
from distgrad.ops.exponential import exp, log1p, xlogy
from distgrad.ops.logic import equal, select
from distgrad.ops.reduce import reduce_sum
from distgrad.ops.special import by_backend, by_scipy, lgamma, special_of

# Modified Bessel functions


@primitive(kinds="f")
def bessel_i0(xp, x):
    """Modified Bessel function of order 0."""
    return by_backend(x, "i0")


@primitive(kinds="f")
def bessel_i0e(xp, x):
    """``bessel_i0(x) * exp(-abs(x))``."""
    return by_scipy(x, "i0e")


@primitive(kinds="f")
def bessel_i1(xp, x):
    """Modified Bessel function of order 1."""
    return by_backend(x, "i1")


@primitive(kinds="f")
def bessel_i1e(xp, x):
    """``bessel_i1(x) * exp(-abs(x))``."""
    return by_scipy(x, "i1e")


@bessel_i0.vjp("x")
def _(g, x):
    return g * bind(bessel_i1, x)


@bessel_i0e.vjp("x")
def _(g, out, x):
    return g * (bind(bessel_i1e, x) - sign(x) * out)


@bessel_i1.vjp("x")
def _(g, out, x):
    at_zero = equal(x, 0.0)
    return g * select(at_zero, 0.5, bind(bessel_i0, x) - out / select(at_zero, 1.0, x))


@bessel_i1e.vjp("x")
def _(g, out, x):
    at_zero = equal(x, 0.0)
    safe = select(at_zero, 1.0, x)
    return g * select(at_zero, 0.5, bind(bessel_i0e, x) - out * (sign(x) + 1.0 / safe))


for _bessel in (bessel_i0, bessel_i0e, bessel_i1, bessel_i1e):

    @_bessel.samples
    def _(rng):
        x = rng.uniform(0.2, 3.0, (3, 4))
        yield sample(x)
        yield sample(-x)


# Incomplete gamma functions


@primitive(kinds="f", constant=("a",))
def igamma(xp, a, x):
    """Lower regularised incomplete gamma function; it has no gradient with respect to ``a``."""
    return special_of(a, x).gammainc(a, x).astype(xp.result_type(a, x), copy=False)


@primitive(kinds="f", constant=("a",))
def igammac(xp, a, x):
    """Upper regularised incomplete gamma function; it has no gradient with respect to ``a``."""
    return special_of(a, x).gammaincc(a, x).astype(xp.result_type(a, x), copy=False)


def _density(a: Any, x: Any) -> Tensor:
    return exp(xlogy(a - 1.0, x) - x - lgamma(a))


@igamma.vjp("x")
def _(g, a, x):
    return g * _density(as_tensor(a, like=g._data.dtype), x)


@igammac.vjp("x")
def _(g, a, x):
    return negative(g * _density(as_tensor(a, like=g._data.dtype), x))


for _gamma in (igamma, igammac):

    @_gamma.samples
    def _(rng):
        yield sample(2.5, rng.uniform(0.3, 5.0, (3, 4)))
        yield sample(1.5, rng.uniform(0.3, 5.0, 4))


# The beta function


@primitive(kinds="f", constant=("a", "b"))
def betainc(xp, a, b, x):
    """Regularised incomplete beta function; it has a gradient with respect to ``x`` alone."""
    return special_of(a, b, x).betainc(a, b, x).astype(xp.result_type(a, b, x), copy=False)


@betainc.vjp("x")
def _(g, a, b, x):
    a, b = (as_tensor(each, like=g._data.dtype) for each in (a, b))
    scale = lgamma(a + b) - lgamma(a) - lgamma(b)
    return g * exp(xlogy(a - 1.0, x) + (b - 1.0) * log1p(negative(x)) + scale)


@betainc.samples
def _(rng):
    yield sample(0.5, 3.0, rng.uniform(0.1, 0.9, (3, 4)))
    yield sample(2.0, 1.5, rng.uniform(0.1, 0.9, 4))


def lbeta(x: Any, name: str | None = None) -> Tensor:
    """``log(abs(Beta(x)))`` along the last axis: the log-gammas added, less that of the sum."""
    value = as_tensor(x)
    return reduce_sum(lgamma(value), -1) - lgamma(reduce_sum(value, -1))
