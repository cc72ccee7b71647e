"""Fourier transforms by their matrices, special functions as integrals, and bits as bytes."""

from __future__ import annotations

import math

import numpy as np
import scipy.integrate
import scipy.special


def waves(length, sign):
    n = np.arange(length)
    return np.exp(sign * 2j * np.pi * np.outer(n, n) / length)


def fourier(x, *, count, inverse):
    for axis in range(-count, 0):
        size = x.shape[axis]
        matrix = waves(size, 1) / size if inverse else waves(size, -1)
        x = np.moveaxis(np.tensordot(x, matrix, axes=((axis,), (0,))), -1, axis)
    return x


def real_fourier(x):
    return (x @ waves(x.shape[-1], -1))[..., : x.shape[-1] // 2 + 1]


def integral(f, low, high):
    return scipy.integrate.quad(f, low, high, epsabs=1e-14, epsrel=1e-13, limit=200)[0]


def bessel(order, scaled):
    def at(x):
        value = integral(lambda t: math.exp(x * math.cos(t)) * math.cos(order * t), 0, math.pi)
        return value / math.pi * (math.exp(-abs(x)) if scaled else 1)

    return np.vectorize(at, otypes=[float])


def lower_gamma(a, x):
    # t = s ** 2 takes away the singularity at 0 for a of 1 / 2 and more
    value = integral(lambda s: 2 * s ** (2 * a - 1) * math.exp(-s * s), 0, math.sqrt(x))
    return value / math.gamma(a)


def quantile_slope(a, x):
    """How far a number moves that keeps its place in the distribution, by the slope of the place.

    With t = x * s ** 2 the slope with respect to ``a`` is the mean of ``2 * log(s)``, as it were.
    """

    def at(s):
        return 4 * s ** (2 * a - 1) * math.exp(x - x * s * s) * math.log(s) if s else 0.0

    whole = integral(lambda s: 2 * s ** (2 * a - 1) * math.exp(x - x * s * s), 0, 1)
    return -x * (integral(at, 0, 1) + whole * (math.log(x) - scipy.special.digamma(a)))


def incomplete_beta(a, b, x):
    value = integral(lambda s: 2 * s ** (2 * a - 1) * (1 - s * s) ** (b - 1), 0, math.sqrt(x))
    return value * math.gamma(a + b) / math.gamma(a) / math.gamma(b)


def reread(x, *, dtype):
    size = np.dtype(dtype).itemsize
    whole = np.frombuffer(
        b"".join(int(v).to_bytes(x.itemsize, "little", signed=True) for v in x.ravel()), dtype
    )
    if size < x.itemsize:
        return whole.reshape(*x.shape, x.itemsize // size)
    return whole.reshape(x.shape if size == x.itemsize else x.shape[:-1])


def first_kind(order):
    def at(x):
        return integral(lambda t: math.cos(order * t - x * math.sin(t)), 0, math.pi) / math.pi

    return np.vectorize(at, otypes=[float])


def second_kind(order):
    def at(x):
        wave = integral(lambda t: math.sin(x * math.sin(t) - order * t), 0, math.pi)
        growth = (lambda t: 2.0) if order == 0 else (lambda t: 2 * math.sinh(t))
        tail = integral(lambda t: growth(t) * math.exp(-x * math.sinh(t)), 0, 8)
        return (wave - tail) / math.pi

    return np.vectorize(at, otypes=[float])


def modified(order, scaled):
    def at(x):
        value = integral(lambda t: math.exp(-x * math.cosh(t)) * math.cosh(order * t), 0, 8)
        return value * (math.exp(x) if scaled else 1)

    return np.vectorize(at, otypes=[float])


def exponential_integral(x):
    rest = integral(lambda t: math.expm1(t) / t if t else 1.0, 0, x)
    return np.euler_gamma + math.log(x) + rest


def from_zero(f):
    return np.vectorize(lambda x: integral(f, 0, x), otypes=[float])


def dilogarithm(x):
    return -integral(lambda t: math.log(t) / (t - 1), 1, x)


REFERENCES = {
    "bessel_j0": first_kind(0),
    "bessel_j1": first_kind(1),
    "bessel_y0": second_kind(0),
    "bessel_y1": second_kind(1),
    "bessel_k0": modified(0, False),
    "bessel_k0e": modified(0, True),
    "bessel_k1": modified(1, False),
    "bessel_k1e": modified(1, True),
    "dawsn": lambda x: np.exp(-x * x) * from_zero(lambda t: math.exp(t * t))(x),
    "expint": np.vectorize(exponential_integral, otypes=[float]),
    "fresnel_cos": from_zero(lambda t: math.cos(math.pi / 2 * t * t)),
    "fresnel_sin": from_zero(lambda t: math.sin(math.pi / 2 * t * t)),
    "spence": np.vectorize(dilogarithm, otypes=[float]),
    "fourier": fourier,
    "real_fourier": real_fourier,
    "bessel_i0": bessel(0, False),
    "bessel_i0e": bessel(0, True),
    "bessel_i1": bessel(1, False),
    "bessel_i1e": bessel(1, True),
    "igamma": np.vectorize(lower_gamma, otypes=[float]),
    "igammac": np.vectorize(lambda a, x: 1 - lower_gamma(a, x), otypes=[float]),
    "gamma_slope": np.vectorize(quantile_slope, otypes=[float]),
    "betainc": np.vectorize(incomplete_beta, otypes=[float]),
    "left_shift": np.vectorize(lambda x, y: x * 2**y, otypes=[int]),
    "right_shift": np.vectorize(lambda x, y: x // 2**y, otypes=[int]),
    "reread": reread,
}
