"""What ``tf.math.special`` has besides ``tf.math``: Bessel functions of the first and second kind,
and integrals that physics has names for.
"""

from __future__ import annotations

import math

from distgrad.core.primitive import bind, primitive, sample
from distgrad.ops.arithmetic import negative
from distgrad.ops.exponential import exp, log
from distgrad.ops.logic import equal, select
from distgrad.ops.special import by_backend, by_scipy
from distgrad.ops.trigonometric import cos, sin

# Of the first kind


@primitive(kinds="f")
def bessel_j0(xp, x):
    """Bessel function of the first kind of order 0."""
    return by_backend(x, "j0")


@primitive(kinds="f")
def bessel_j1(xp, x):
    """Bessel function of the first kind of order 1."""
    return by_backend(x, "j1")


@bessel_j0.vjp("x")
def _(g, x):
    return negative(g * bind(bessel_j1, x))


@bessel_j1.vjp("x")
def _(g, out, x):
    at_zero = equal(x, 0.0)
    return g * select(at_zero, 0.5, bind(bessel_j0, x) - out / select(at_zero, 1.0, x))


# Of the second kind: for positive numbers alone


@primitive(kinds="f")
def bessel_y0(xp, x):
    """Bessel function of the second kind of order 0."""
    return by_backend(x, "y0")


@primitive(kinds="f")
def bessel_y1(xp, x):
    """Bessel function of the second kind of order 1."""
    return by_backend(x, "y1")


@primitive(kinds="f")
def bessel_k0(xp, x):
    """Modified Bessel function of the second kind of order 0."""
    return by_backend(x, "k0")


@primitive(kinds="f")
def bessel_k0e(xp, x):
    """``bessel_k0(x) * exp(x)``."""
    return by_scipy(x, "k0e")


@primitive(kinds="f")
def bessel_k1(xp, x):
    """Modified Bessel function of the second kind of order 1."""
    return by_backend(x, "k1")


@primitive(kinds="f")
def bessel_k1e(xp, x):
    """``bessel_k1(x) * exp(x)``."""
    return by_scipy(x, "k1e")


@bessel_y0.vjp("x")
def _(g, x):
    return negative(g * bind(bessel_y1, x))


@bessel_y1.vjp("x")
def _(g, out, x):
    return g * (bind(bessel_y0, x) - out / x)


@bessel_k0.vjp("x")
def _(g, x):
    return negative(g * bind(bessel_k1, x))


@bessel_k0e.vjp("x")
def _(g, out, x):
    return g * (out - bind(bessel_k1e, x))


@bessel_k1.vjp("x")
def _(g, out, x):
    return negative(g * (bind(bessel_k0, x) + out / x))


@bessel_k1e.vjp("x")
def _(g, out, x):
    return g * (out - out / x - bind(bessel_k0e, x))


# Integrals


@primitive(kinds="f")
def expint(xp, x):
    """The exponential integral Ei: that of ``exp(t) / t`` up to ``x``, for positive ``x``."""
    return by_backend(x, "expi")


@expint.vjp("x")
def _(g, x):
    return g * (exp(x) / x)


@primitive(kinds="f")
def dawsn(xp, x):
    """Dawson's integral: ``exp(-x**2)`` times the integral of ``exp(t**2)`` from 0 to ``x``."""
    return by_scipy(x, "dawsn")


@dawsn.vjp("x")
def _(g, out, x):
    return g * (1.0 - 2.0 * x * out)


@primitive(kinds="f")
def fresnel_cos(xp, x):
    """Fresnel's integral of ``cos(pi * t**2 / 2)`` from 0 to ``x``."""
    return by_scipy(x, "fresnel", 1)


@primitive(kinds="f")
def fresnel_sin(xp, x):
    """Fresnel's integral of ``sin(pi * t**2 / 2)`` from 0 to ``x``."""
    return by_scipy(x, "fresnel", 0)


@fresnel_cos.vjp("x")
def _(g, x):
    return g * cos(x * x * (math.pi / 2))


@fresnel_sin.vjp("x")
def _(g, x):
    return g * sin(x * x * (math.pi / 2))


@primitive(kinds="f")
def spence(xp, x):
    """Spence's integral: minus that of ``log(t) / (t - 1)`` from 1 to ``x``."""
    return by_scipy(x, "spence")


@spence.vjp("x")
def _(g, x):
    at_one = equal(x, 1.0)
    return g * select(at_one, -1.0, log(x) / select(at_one, 1.0, 1.0 - x))


for _anywhere in (bessel_j0, bessel_j1, dawsn, fresnel_cos, fresnel_sin):

    @_anywhere.samples
    def _(rng):
        x = rng.uniform(0.2, 2.5, (3, 4))
        yield sample(x)
        yield sample(-x)


for _positive in (
    *(bessel_y0, bessel_y1, bessel_k0, bessel_k0e, bessel_k1, bessel_k1e),
    *(expint, spence),
):

    @_positive.samples
    def _(rng):
        yield sample(rng.uniform(0.4, 0.9, (3, 4)))
        yield sample(rng.uniform(1.2, 3.0, 4))
