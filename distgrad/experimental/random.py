"""``tf.experimental.numpy.random``."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.tensor import Tensor
from distgrad.experimental.promotion import default_float, tensor
from distgrad.ops import distributions, streams
from distgrad.ops import random as draws

__all__ = [
    "poisson",
    "rand",
    "randint",
    "randn",
    "random",
    "seed",
    "standard_normal",
    "uniform",
]


def seed(s: int) -> None:
    """Sets the seed, as ``tf.random.set_seed`` does."""
    streams.set_seed(int(s))


def _sizes(size: Any) -> tuple[int, ...]:
    return () if size is None else tuple(int(n) for n in np.atleast_1d(np.asarray(size, np.int64)))


def randn(*args: int) -> Tensor:
    """Normal numbers, of mean 0 and deviation 1, in a shape."""
    return standard_normal(args)


def standard_normal(size: Any = None) -> Tensor:
    """Normal numbers, of mean 0 and deviation 1, in a shape."""
    return draws.normal(_sizes(size), dtype=default_float())


def rand(*args: int) -> Tensor:
    """Numbers of [0, 1) in a shape."""
    return uniform(size=args)


def random(size: Any = None) -> Tensor:
    """Numbers of [0, 1) in a shape."""
    return uniform(size=size)


def uniform(low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Tensor:
    """Numbers of [low, high) in a shape; by default in that in which these two meet."""
    dtype = default_float()
    low, high = tensor(low, dtype), tensor(high, dtype)
    sizes = np.broadcast_shapes(low.shape, high.shape) if size is None else _sizes(size)
    return draws.uniform(sizes, dtype=dtype) * (high - low) + low


def randint(low: int, high: int | None = None, size: Any = None, dtype: Any = int) -> Tensor:
    """Integers of [low, high), or of [0, low), in a shape; ValueError where there is none."""
    low, high = (0, low) if high is None else (low, high)
    if low >= high:
        raise ValueError(f"there is no integer from {low} up to, but not with, {high}")
    return tensor(draws.uniform(_sizes(size), low, high, np.int64), dtype)


def poisson(lam: Any = 1.0, size: Any = None) -> Tensor:
    """Numbers of events, ``lam`` on average, in a shape."""
    lam = tensor(lam, default_float())
    sizes = () if size is None else _sizes(size)
    return distributions.poisson(sizes, lam, dtype=np.int64)
