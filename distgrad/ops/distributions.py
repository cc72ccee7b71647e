"""Random numbers with parameters: gamma, Poisson and binomial, drawn by NumPy on the host.

They come from the counters of ``ops.streams``: the same key gives the same numbers, whoever draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.backend.numpy import backend as numpy_backend
from distgrad.core.dispatch import as_tensor, backend_over
from distgrad.core.dtypes import as_dtype, limits
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import cast, stop_gradient
from distgrad.ops.clipping import maximum
from distgrad.ops.draws import SAMPLE_KEY
from distgrad.ops.factors import on_host
from distgrad.ops.gamma_slopes import follows
from distgrad.ops.layout import broadcast_to
from distgrad.ops.shape import static
from distgrad.ops.streams import next_key, pair_key


def _draw(key: Any, kind: str, shape: Any, dtype: Any, *parameters: Any) -> np.ndarray:
    host = [on_host(parameter) for parameter in parameters]
    drawn = getattr(numpy_backend.generator(on_host(key)), kind)(*host, size=shape)
    return np.asarray(drawn).astype(dtype)


@primitive(vjp=None, match=(), creates=True)
def random_gamma(xp, key, alpha, *, shape, dtype):
    """Gamma distributed floats of shape parameter ``alpha``, and scale 1, drawn from ``key``."""
    return backend_over(xp).asarray(_draw(key, "standard_gamma", shape, dtype, alpha))


@primitive(vjp=None, match=(), creates=True)
def random_poisson(xp, key, lam, *, shape, dtype):
    """Poisson distributed numbers of mean ``lam`` drawn from ``key``."""
    return backend_over(xp).asarray(_draw(key, "poisson", shape, dtype, lam))


@primitive(vjp=None, match=(), creates=True)
def random_binomial(xp, key, counts, probs, *, shape, dtype):
    """How many of ``counts`` (integers) trials of chance ``probs`` succeed, drawn from ``key``."""
    return backend_over(xp).asarray(_draw(key, "binomial", shape, dtype, counts, probs))


@random_gamma.samples
def _(rng):
    yield sample(SAMPLE_KEY, np.array([0.5, 2.0, 9.0]), shape=(4, 3), dtype=np.dtype(np.float64))


@random_poisson.samples
def _(rng):
    yield sample(SAMPLE_KEY, np.array([0.5, 2.0, 9.0]), shape=(4, 3), dtype=np.dtype(np.float64))


@random_binomial.samples
def _(rng):
    counts, probs = np.array([9, 20, 40]), np.array([0.3, 0.5, 0.9])
    yield sample(SAMPLE_KEY, counts, probs, shape=(4, 3), dtype=np.dtype(np.int64))


def _of_shape(inner: tuple[int, ...], shape: Any) -> tuple[int, ...]:
    return (*static(shape), *inner)


def _gamma(key: Tensor, shape: tuple[int, ...], alpha: Any, beta: Any, dtype: Any) -> Tensor:
    wanted = as_dtype(dtype).numpy_dtype
    drawn = bind(random_gamma, key, stop_gradient(alpha), shape=shape, dtype=wanted)
    drawn = follows(drawn, alpha)
    scaled = drawn if beta is None else drawn / cast(beta, wanted)
    return maximum(scaled, float(limits(wanted).tiny))


def _parameters(alpha: Any, beta: Any, dtype: Any) -> tuple[Tensor, tuple[int, ...]]:
    a = cast(alpha, as_dtype(dtype))
    other = () if beta is None else as_tensor(beta).shape
    return a, np.broadcast_shapes(a._data.shape, tuple(other))


def gamma(
    shape: Any,
    alpha: Any,
    beta: Any = None,
    dtype: Any = np.float32,
    seed: int | None = None,
    name: str | None = None,
) -> Tensor:
    """``shape`` gamma distributed floats for each ``alpha`` (shape) and ``beta`` (rate).

    There are gradients with respect to both; that to ``alpha`` is not differentiable.
    """
    a, inner = _parameters(alpha, beta, dtype)
    return _gamma(next_key(seed), _of_shape(inner, shape), broadcast_to(a, inner), beta, dtype)


def stateless_gamma(
    shape: Any,
    seed: Any,
    alpha: Any,
    beta: Any = None,
    dtype: Any = np.float32,
    name: str | None = None,
) -> Tensor:
    """Gamma floats of ``shape``, to which parameters broadcast; they depend on ``seed`` alone."""
    a, _ = _parameters(alpha, beta, dtype)
    return _gamma(pair_key(seed), static(shape), a, beta, dtype)


def poisson(
    shape: Any,
    lam: Any,
    dtype: Any = np.float32,
    seed: int | None = None,
    name: str | None = None,
) -> Tensor:
    """``shape`` Poisson distributed numbers for each mean in ``lam``."""
    mean = as_tensor(lam)
    whole = _of_shape(mean._data.shape, shape)
    wanted = as_dtype(dtype).numpy_dtype
    return bind(random_poisson, next_key(seed), mean, shape=whole, dtype=wanted)


def stateless_poisson(
    shape: Any, seed: Any, lam: Any, dtype: Any = np.int32, name: str | None = None
) -> Tensor:
    """Poisson numbers of ``shape``, to which ``lam`` broadcasts; they depend on ``seed`` alone."""
    wanted = as_dtype(dtype).numpy_dtype
    return bind(random_poisson, pair_key(seed), as_tensor(lam), shape=static(shape), dtype=wanted)


def stateless_binomial(
    shape: Any,
    seed: Any,
    counts: Any,
    probs: Any,
    output_dtype: Any = np.int32,
    name: str | None = None,
) -> Tensor:
    """Successes among ``counts`` trials of chance ``probs``; they depend on ``seed`` alone."""
    return binomial(pair_key(seed), shape, counts, probs, output_dtype)


def binomial(key: Tensor, shape: Any, counts: Any, probs: Any, dtype: Any) -> Tensor:
    """Successes among ``counts`` trials of chance ``probs``, of ``shape``, drawn from ``key``."""
    wanted = as_dtype(dtype).numpy_dtype
    parameters = cast(counts, np.int64), as_tensor(probs)
    return bind(random_binomial, key, *parameters, shape=static(shape), dtype=wanted)
