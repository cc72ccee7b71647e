"""Random numbers from counters: the same key gives the same numbers, whoever draws them.

Every draw takes the next key of the stream in force. The global stream is keyed by a seed and the
number of the draw; ``stream(seed, step, shard)`` puts one in force for a block, so that what a
virtual shard draws depends on nothing but its own place.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor, backend_of
from distgrad.core.dtypes import as_dtype
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.indexing import take
from distgrad.ops.shape import static

_WORD = 2**64 - 1


class _Stream:
    """A place to draw keys from: four words, the last of which counts the draws."""

    def __init__(self, seed: int, step: int = 0, shard: int = 0) -> None:
        self.words = (seed & _WORD, shard & _WORD, step & _WORD)
        self.draws = 0

    def next_key(self) -> np.ndarray:
        key = np.array([*self.words, self.draws], dtype=np.uint64)
        self.draws += 1
        return key


class _InForce(threading.local):
    def __init__(self) -> None:
        self.streams: list[_Stream] = []


_global = _Stream(int.from_bytes(os.urandom(7), "little"))
_in_force = _InForce()


def set_seed(seed: int) -> None:
    """Restarts the global stream: the same calls then give the same numbers."""
    global _global
    _global = _Stream(int(seed))


class stream:
    """Context in which draws depend on (seed, step, shard) and their order alone."""

    def __init__(self, seed: int, step: int = 0, shard: int = 0) -> None:
        self._stream = _Stream(seed, step, shard + 1)  # 0 is the global stream

    def __enter__(self) -> None:
        _in_force.streams.append(self._stream)

    def __exit__(self, *exc: object) -> None:
        _in_force.streams.pop()


def next_key(seed: int | None = None) -> Tensor:
    """The key of the next draw; an operation's own ``seed`` sets its draws apart."""
    source = _in_force.streams[-1] if _in_force.streams else _global
    key = source.next_key()
    if seed is not None:
        key[0] ^= np.uint64((int(seed) * 0x9E3779B97F4A7C15 + 1) & _WORD)
    return Tensor(key)


_KEY = np.array([1, 2, 3, 4], dtype=np.uint64)


@primitive(vjp=None, match=())
def random_uniform(xp, key, *, shape, dtype):
    """Floats in [0, 1) drawn from ``key``."""
    return backend_of(key).random_uniform(key, shape, dtype)


@random_uniform.samples
def _(rng):
    yield sample(_KEY, shape=(3, 4), dtype=np.dtype(np.float64))


@primitive(vjp=None, match=())
def random_normal(xp, key, *, shape, dtype):
    """Standard normal floats drawn from ``key``."""
    return backend_of(key).random_normal(key, shape, dtype)


@random_normal.samples
def _(rng):
    yield sample(_KEY, shape=(3, 4), dtype=np.dtype(np.float64))


@primitive(vjp=None, match=())
def random_integers(xp, key, *, low, high, shape, dtype):
    """Integers in [low, high) drawn from ``key``."""
    return backend_of(key).random_integers(key, low, high, shape, dtype)


@random_integers.samples
def _(rng):
    yield sample(_KEY, low=-3, high=5, shape=(3, 4), dtype=np.dtype(np.int64))


@primitive(vjp=None, match=())
def random_permutation(xp, key, *, n):
    """A permutation of ``range(n)``, int64, drawn from ``key``."""
    return backend_of(key).random_permutation(key, n)


@random_permutation.samples
def _(rng):
    yield sample(_KEY, n=5)


def normal(
    shape: Any,
    mean: Any = 0.0,
    stddev: Any = 1.0,
    dtype: Any = np.float32,
    seed: int | None = None,
    name: str | None = None,
) -> Tensor:
    """Normally distributed floats."""
    wanted = _float_dtype(dtype)
    draw = bind(random_normal, next_key(seed), shape=static(shape), dtype=wanted)
    return draw if mean == 0.0 and stddev == 1.0 else draw * stddev + mean


def uniform(
    shape: Any,
    minval: Any = 0,
    maxval: Any = None,
    dtype: Any = np.float32,
    seed: int | None = None,
    name: str | None = None,
) -> Tensor:
    """Uniform numbers in [minval, maxval); maxval is 1 by default, and needed for integers."""
    wanted = as_dtype(dtype).numpy_dtype
    if wanted.kind in "iu":
        if maxval is None:
            raise ValueError("uniform needs maxval for an integer dtype")
        low, high = int(minval), int(maxval)
        if low >= high:
            raise InvalidArgumentError(f"uniform: minval {low} must be below maxval {high}")
        bounds = {"low": low, "high": high}
        return bind(random_integers, next_key(seed), shape=static(shape), dtype=wanted, **bounds)
    draw = bind(random_uniform, next_key(seed), shape=static(shape), dtype=_float_dtype(dtype))
    maxval = 1.0 if maxval is None else maxval
    if minval == 0 and maxval == 1:
        return draw
    return draw * (maxval - minval) + minval


def truncated_normal(
    shape: Any,
    mean: Any = 0.0,
    stddev: Any = 1.0,
    dtype: Any = np.float32,
    seed: int | None = None,
    name: str | None = None,
) -> Tensor:
    """Normal floats within two standard deviations: those outside are drawn again."""
    wanted = _float_dtype(dtype)
    size = static(shape)
    draw = bind(random_normal, next_key(seed), shape=size, dtype=wanted)._host().copy()
    while (outside := np.abs(draw) > 2).any():
        again = bind(random_normal, next_key(seed), shape=size, dtype=wanted)._host()
        draw[outside] = again[outside]
    return Tensor(draw) * stddev + mean


def shuffle(value: Any, seed: int | None = None, name: str | None = None) -> Tensor:
    """``value`` with its first axis in random order."""
    tensor = as_tensor(value)
    order = bind(random_permutation, next_key(seed), n=tensor._data.shape[0])
    return take(tensor, order, axis=0)


def _float_dtype(dtype: Any) -> np.dtype:
    wanted = as_dtype(dtype).numpy_dtype
    if wanted.kind != "f":
        raise ValueError(f"random floats cannot have dtype {wanted}")
    return wanted
