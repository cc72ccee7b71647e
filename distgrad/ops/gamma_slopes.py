"""What the gamma distribution's numbers do where its shape changes: gradients with respect to it.

Sources: Figurnov, Mohamed, Mnih, "Implicit reparameterization gradients", 2018; the series and the
continued fraction are those of the Cephes library, differentiated term by term (Moore, 1982).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.backend.numpy import backend as _numpy
from distgrad.core.composite import takes_composites
from distgrad.core.custom import custom_gradient
from distgrad.core.dispatch import as_tensor, backend_of
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops import bessel
from distgrad.ops.exponential import exp, xlogy
from distgrad.ops.layout import broadcast_to
from distgrad.ops.special import lgamma

_TERMS = 2000
_CLOSE, _LARGE = 1e-14, 2.0**52


@primitive(kinds="f", vjp=None)
def gamma_slope(xp, a, x):
    """How a gamma distributed ``x`` changes with the shape ``a`` where its chance is kept.

    It is minus the slope of ``igamma(a, x)`` with respect to ``a``, by the density at ``x``.
    """
    library = backend_of(x)
    return library.asarray(_slope(library.to_numpy(a), library.to_numpy(x)))


def _slope(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    a, x = np.broadcast_arrays(a, x)
    there, near = (x > 0) & (a > 0), x < a + 1
    found = np.zeros(x.shape)
    # Each of the two converges soon where the other does not.
    for of, where in ((_series, there & near), (_fraction, there & ~near)):
        if where.any():
            found[where] = of(a[where].astype(np.float64), x[where].astype(np.float64))
    return found.astype(np.result_type(a, x))


def _series(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    term, total = np.ones_like(a), np.ones_like(a)
    term_slope, total_slope = np.zeros_like(a), np.zeros_like(a)
    at = a
    for _ in range(_TERMS):
        at = at + 1
        ratio = x / at
        term_slope = ratio * term_slope - ratio / at * term
        term = term * ratio
        total, total_slope = total + term, total_slope + term_slope
        if (np.abs(term_slope) <= _CLOSE * np.abs(total_slope)).all():
            break
    front = np.log(x) - _numpy.special.digamma(a + 1)
    return -(total_slope + total * front) * x / a


def _fraction(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    y, z = 1 - a, x - a + 2
    before, now = [np.ones_like(a), x], [x + 1, z * x]  # numerators and denominators
    before_slopes, slopes = [np.zeros_like(a)] * 2, [np.zeros_like(a), -x]
    value = now[0] / now[1]
    slope = (slopes[0] - value * slopes[1]) / now[1]
    for count in range(1, _TERMS):
        y, z = y + 1, z + 2
        product = y * count
        new = [n * z - b * product for n, b in zip(now, before, strict=True)]
        parts = zip(slopes, now, before_slopes, before, strict=True)
        new_slopes = [ds * z - n - db * product + b * count for ds, n, db, b in parts]
        last = slope
        value = new[0] / new[1]
        slope = (new_slopes[0] - value * new_slopes[1]) / new[1]
        shrink = np.where(np.abs(new[0]) > _LARGE, 1 / _LARGE, 1.0)
        before, now = [n * shrink for n in now], [n * shrink for n in new]
        before_slopes, slopes = [s * shrink for s in slopes], [s * shrink for s in new_slopes]
        if (np.abs(slope - last) <= _CLOSE * np.abs(slope)).all():
            break
    return (slope + value * (np.log(x) - _numpy.special.digamma(a))) * x


@gamma_slope.samples
def _(rng):
    yield sample(rng.uniform(0.8, 5.0, (3, 4)), rng.uniform(0.3, 9.0, (3, 4)))


def follows(drawn: Tensor, alpha: Any) -> Tensor:
    """Gamma distributed numbers of shape parameter ``alpha``, with a gradient to it."""

    @custom_gradient
    def kept(x: Tensor, a: Tensor) -> Any:
        return x, lambda g: (g, g * bind(gamma_slope, a, x))

    return kept(drawn, broadcast_to(alpha, drawn._data.shape))


@takes_composites
def igamma(a: Any, x: Any, name: str | None = None) -> Tensor:
    """Lower regularised incomplete gamma function. Its gradient to ``a`` is not differentiable."""
    return _with_slope(bessel.igamma, a, x, -1.0)


def igammac(a: Any, x: Any, name: str | None = None) -> Tensor:
    """Upper regularised incomplete gamma function. Its gradient to ``a`` is not differentiable."""
    return _with_slope(bessel.igammac, a, x, 1.0)


def _with_slope(of: Any, a: Any, x: Any, sign: float) -> Tensor:
    y = of(a, x)
    like = y._data.dtype
    shape = y._data.shape

    @custom_gradient
    def kept(y: Tensor, a: Tensor, x: Tensor) -> Any:
        def grad(g: Tensor) -> Any:
            density = exp(xlogy(a - 1.0, x) - x - lgamma(a))
            return g, g * (sign * density * bind(gamma_slope, a, x)), None

        return y, grad

    a, x = (broadcast_to(as_tensor(each, like=like), shape) for each in (a, x))
    return kept(y, a, x)
