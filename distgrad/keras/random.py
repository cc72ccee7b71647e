"""``keras.random``: numbers by a seed, by a `SeedGenerator`, or as ``set_seed`` has it."""

from __future__ import annotations

from typing import Any

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.keras.backend import floatx
from distgrad.ops import nn, random

__all__ = ["SeedGenerator", "dropout", "normal", "randint", "truncated_normal", "uniform"]


class SeedGenerator:
    """Stands in place of a seed where every draw is to give other numbers.

    In a training step they depend on the shard, and so not on which worker runs it.
    """

    def __init__(self, seed: int | None = None, name: str | None = None, **kwargs: Any) -> None:
        self.name = name
        self.seed = seed
        self._own = None if seed is None else random.Generator.from_seed(seed)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed, "name": self.name}


def normal(
    shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, seed: Any = None
) -> Tensor:
    """Normally distributed floats."""
    return _drawn("normal", seed, shape, mean, stddev, dtype or floatx())


def truncated_normal(
    shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, seed: Any = None
) -> Tensor:
    """Normal floats within two standard deviations."""
    return _drawn("truncated_normal", seed, shape, mean, stddev, dtype or floatx())


def uniform(
    shape: Any, minval: Any = 0.0, maxval: Any = 1.0, dtype: Any = None, seed: Any = None
) -> Tensor:
    """Uniform floats in [minval, maxval)."""
    return _drawn("uniform", seed, shape, minval, maxval, dtype or floatx())


def randint(shape: Any, minval: Any, maxval: Any, dtype: Any = "int32", seed: Any = None) -> Tensor:
    """Uniform whole numbers in [minval, maxval)."""
    return _drawn("uniform", seed, shape, minval, maxval, dtype)


def dropout(inputs: Any, rate: float, noise_shape: Any = None, seed: Any = None) -> Tensor:
    """Zeroes a fraction ``rate`` of the elements and scales the rest by ``1 / (1 - rate)``."""
    tensor = as_tensor(inputs)
    noise = uniform(noise_shape or tensor.shape, dtype=tensor.dtype, seed=seed)
    return nn.dropped(tensor, noise, rate)


def _drawn(kind: str, seed: Any, shape: Any, *args: Any) -> Tensor:
    if isinstance(seed, SeedGenerator) and (seed._own is None or random.in_a_step()):
        return getattr(random, kind)(shape, *args, seed=seed.seed)
    if seed is None:
        return getattr(random, kind)(shape, *args)
    if not isinstance(seed, SeedGenerator):  # the same numbers at every call
        return getattr(random, f"stateless_{kind}")(shape, (int(seed), 0), *args)
    return getattr(seed._own, kind)(shape, *args)
