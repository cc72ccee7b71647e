"""Error functions, the gamma function and its derivatives.

Every one is the function of that name in ``scipy.special``, or its like in another backend.
"""

from __future__ import annotations

import math
from typing import Any

from distgrad.backend.numpy import backend as numpy_backend
from distgrad.core import dispatch
from distgrad.core.primitive import bind, primitive, sample
from distgrad.ops.arithmetic import negative
from distgrad.ops.exponential import exp


def special_of(*operands: Any) -> Any:
    """The module of special functions of the backend that the arrays belong to."""
    array = next((x for x in operands if type(x) in dispatch.arrays), None)
    return dispatch.backend_of(array).special


def by_backend(x: Any, name: str) -> Any:
    """The special function of that name, in the dtype of ``x``."""
    return getattr(special_of(x), name)(x).astype(x.dtype, copy=False)  # float16 as well


def by_scipy(x: Any, name: str, part: int | None = None) -> Any:
    """On the host: what CuPy lacks, or makes as the product of a number that overflows."""
    library = dispatch.backend_of(x)
    found = getattr(numpy_backend.special, name)(library.to_numpy(x))
    return library.asarray((found if part is None else found[part]).astype(x.dtype, copy=False))


@primitive(expr="erf(x)", kinds="f")
def erf(xp, x):
    """Elementwise error function."""
    return by_backend(x, "erf")


@erf.vjp("x")
def _(g, x):
    return g * (exp(negative(x * x)) * (2 / math.sqrt(math.pi)))


@primitive(expr="erfc(x)", kinds="f")
def erfc(xp, x):
    """Elementwise ``1 - erf(x)``, exact for large ``x``."""
    return by_backend(x, "erfc")


@erfc.vjp("x")
def _(g, x):
    return g * (exp(negative(x * x)) * (-2 / math.sqrt(math.pi)))


for _error in (erf, erfc):

    @_error.samples
    def _(rng):
        yield sample(rng.uniform(-1.5, 1.5, (3, 4)))


@primitive(kinds="f")
def erfinv(xp, x):
    """Inverse of ``erf``: infinite at -1 and 1, nan outside [-1, 1]."""
    return by_backend(x, "erfinv")


@erfinv.vjp("x")
def _(g, out):
    return g * (exp(out * out) * (math.sqrt(math.pi) / 2))


@erfinv.samples
def _(rng):
    yield sample(rng.uniform(-0.8, 0.8, (3, 4)))


@primitive(kinds="f")
def erfcinv(xp, x):
    """Inverse of ``erfc``: infinite at 0 and 2, nan outside [0, 2]."""
    return by_backend(x, "erfcinv")


@erfcinv.vjp("x")
def _(g, out):
    return g * (exp(out * out) * (-math.sqrt(math.pi) / 2))


@erfcinv.samples
def _(rng):
    yield sample(rng.uniform(0.2, 1.8, (3, 4)))


@primitive(kinds="f")
def ndtri(xp, x):
    """Inverse of the standard normal distribution function: infinite at 0 and 1."""
    return by_backend(x, "ndtri")


@ndtri.vjp("x")
def _(g, out):
    return g * (exp(out * out * 0.5) * math.sqrt(2 * math.pi))


@ndtri.samples
def _(rng):
    yield sample(rng.uniform(0.1, 0.9, (3, 4)))


@primitive(expr="lgamma(x)", kinds="f")
def lgamma(xp, x):
    """Logarithm of the absolute value of the gamma function; inf at its poles."""
    return by_backend(x, "gammaln")


@lgamma.vjp("x")
def _(g, x):
    return g * digamma(x)


@primitive(kinds="f")
def digamma(xp, x):
    """Derivative of ``lgamma``."""
    return by_backend(x, "digamma")


@digamma.vjp("x")
def _(g, x):
    return g * bind(polygamma, 1.0, x)


for _gamma in (lgamma, digamma):

    @_gamma.samples
    def _(rng):
        yield sample(rng.uniform(0.6, 4.0, (3, 4)))
        yield sample(-rng.uniform(0.3, 0.7, 4) - rng.integers(0, 3, 4))


@primitive(kinds="f", constant=("a",))
def polygamma(xp, a, x):
    """Derivative of order ``a`` of ``digamma``; nan where ``a`` is not 0, 1, 2...

    It has no gradient with respect to ``a``.
    """
    special = special_of(a, x)
    dtype = xp.result_type(a, x)
    a, x = xp.asarray(a, dtype=dtype), xp.asarray(x, dtype=dtype)
    order = a + 1
    # (-1) ** order * gamma(order) * zeta(order, x); the zeta function has its pole at a = 0.
    sign = 1 - 2 * xp.remainder(order, 2)
    derivative = sign * special.gamma(order) * special.zeta(order, x)
    value = xp.where(a == 0, special.digamma(x), derivative)
    return xp.where((a >= 0) & (a == xp.floor(a)), value, xp.nan).astype(dtype, copy=False)


@polygamma.vjp("x")
def _(g, a, x):
    return g * bind(polygamma, a + 1.0, x)


@polygamma.samples
def _(rng):
    yield sample(1.0, rng.uniform(0.6, 4.0, (3, 4)))
    yield sample(3.0, -rng.uniform(0.3, 0.7, 4))
    yield sample(0.0, rng.uniform(0.6, 4.0, 4))


@primitive(kinds="f", constant=("x",))
def zeta(xp, x, q):
    """The Hurwitz zeta function: the sum over n of ``1 / (q + n) ** x``, for ``x`` above 1.

    It has no gradient with respect to ``x``.
    """
    return special_of(x, q).zeta(x, q).astype(xp.result_type(x, q), copy=False)


@zeta.vjp("q")
def _(g, x, q):
    return negative(g * (x * bind(zeta, x + 1.0, q)))


@zeta.samples
def _(rng):
    yield sample(2.0, rng.uniform(0.6, 4.0, (3, 4)))
    yield sample(3.5, rng.uniform(0.6, 4.0, 4))
