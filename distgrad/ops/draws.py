"""Random numbers as primitives: what a key gives, whoever draws it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from distgrad.backend.numpy import backend as numpy_backend
from distgrad.core.dispatch import backend_over
from distgrad.core.primitive import primitive, registry, sample

SAMPLE_KEY = np.array([1, 2, 3, 4], dtype=np.uint64)


@primitive(vjp=None, match=(), creates=True)
def random_uniform(xp, key, *, shape, dtype):
    """Floats in [0, 1) drawn from ``key``; those of 16 bits are rounded, up to 1 at the end."""
    return backend_over(xp).random_uniform(key, shape, dtype)


def _fills(kind: str) -> Any:
    """A primitive's ``native``, by a method of NumPy's generators that can draw into an array."""

    def native(out: tuple, args: tuple, params: dict) -> bool:
        (array,), (key,) = out, args
        if type(array) is not np.ndarray or not array.flags.c_contiguous:
            return False
        if array.dtype.name not in ("float32", "float64"):
            return False
        numpy_backend.random_fill(kind, key, array)
        return True

    return native


random_uniform.native = _fills("random")


@random_uniform.samples
def _(rng):
    yield sample(SAMPLE_KEY, shape=(3, 4), dtype=np.dtype(np.float64))


@primitive(vjp=None, match=(), creates=True)
def random_normal(xp, key, *, shape, dtype):
    """Standard normal floats drawn from ``key``."""
    return backend_over(xp).random_normal(key, shape, dtype)


random_normal.native = _fills("standard_normal")


@random_normal.samples
def _(rng):
    yield sample(SAMPLE_KEY, shape=(3, 4), dtype=np.dtype(np.float64))


@primitive(vjp=None, match=(), creates=True)
def random_truncated_normal(xp, key, *, shape, dtype):
    """Standard normal floats within [-2, 2] drawn from ``key``: those outside are drawn again."""
    backend = backend_over(xp)
    draw = backend.random_normal(key, shape, dtype)
    for again in itertools.count(1):
        outside = xp.abs(draw) > 2
        if not outside.any():
            break
        following = key.copy()
        following[2] ^= np.uint64(again << 48)  # far from the keys of other steps
        draw = xp.where(outside, backend.random_normal(following, shape, dtype), draw)
    return draw


@random_truncated_normal.samples
def _(rng):
    yield sample(SAMPLE_KEY, shape=(30, 4), dtype=np.dtype(np.float64))


@primitive(vjp=None, match=(), creates=True)
def random_integers(xp, key, *, low, high, shape, dtype):
    """Integers in [low, high) drawn from ``key``."""
    return backend_over(xp).random_integers(key, low, high, shape, dtype)


@random_integers.samples
def _(rng):
    yield sample(SAMPLE_KEY, low=-3, high=5, shape=(3, 4), dtype=np.dtype(np.int64))


@primitive(vjp=None, match=(), creates=True)
def random_permutation(xp, key, *, n):
    """A permutation of ``range(n)``, int64, drawn from ``key``."""
    return backend_over(xp).random_permutation(key, n)


@random_permutation.samples
def _(rng):
    yield sample(SAMPLE_KEY, n=5)


@primitive(vjp=None, match=(), creates=True)
def random_rows(xp, keys, *, kernel, params):
    """What the kernel of a primitive above draws from each row of ``keys``, along a first axis."""
    return xp.stack([kernel(xp, key, **params) for key in keys])


def _fill_rows(out: tuple, args: tuple, params: dict) -> bool:
    native = registry[params["kernel"].__name__].native
    rows = zip(out[0], args[0], strict=True)
    return native is not None and all(native((o,), (k,), params["params"]) for o, k in rows)


random_rows.native = _fill_rows


@random_rows.samples
def _(rng):
    params = {"shape": (3, 4), "dtype": np.dtype(np.float64)}
    yield sample(
        np.stack([SAMPLE_KEY, SAMPLE_KEY + 1]), kernel=random_uniform.kernel, params=params
    )
