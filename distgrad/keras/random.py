"""``keras.random``: numbers by a seed, by a `SeedGenerator`, or as ``set_seed`` has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype, is_floating
from distgrad.core.place import Place
from distgrad.core.tensor import Tensor
from distgrad.keras.backend import floatx
from distgrad.keras.registry import Configured
from distgrad.ops import nn, random, streams
from distgrad.ops.generator import Generator
from distgrad.ops.host import on_host
from distgrad.ops.indexing import gather
from distgrad.ops.random import drawn_classes, drawn_uniform
from distgrad.ops.shape import one_axis

__all__ = [
    "SeedGenerator",
    "beta",
    "binomial",
    "categorical",
    "dropout",
    "gamma",
    "normal",
    "randint",
    "shuffle",
    "truncated_normal",
    "uniform",
]


class SeedGenerator(Configured):
    """Stands in place of a seed where every draw is to give other numbers.

    In a training step they depend on the shard, and so not on which worker runs it: that is why
    ``state`` is none of the ``variables`` of a layer that has it, as it is in Keras, whose files do
    not hold it either. Without a ``seed`` they are those of the global stream. Raises ValueError
    for a ``seed`` that is no whole number, and for other arguments than Keras's.
    """

    def __init__(self, seed: int | None = None, name: str | None = None, **kwargs: Any) -> None:
        kwargs.pop("backend", None)  # Keras's own layers name theirs
        if kwargs:
            raise ValueError(f"Unrecognized keyword arguments: {kwargs}")
        if seed is not None and not isinstance(seed, (int, np.integer)):
            raise ValueError(f"Argument `seed` must be an integer. Received: seed={seed!r}")
        self.name = name
        self.seed = seed
        self._own = None if seed is None else Generator.from_seed(seed)

    @property
    def state(self) -> Place:
        """The seed, and how many draws it has given outside of training steps: assign to go back.

        Raises AttributeError where there is no seed.
        """
        if self._own is None:
            raise AttributeError(
                "a SeedGenerator without a seed draws from the global stream and has no state: "
                "give it a seed"
            )
        stream = self._own._stream

        def jump(place: list[int]) -> None:
            seed, draws = place
            self._own = Generator.from_seed(seed)
            self._own.skip(draws)

        return Place(lambda: [stream.words[0], stream.draws.get(None, 0)], jump)

    def next(self, ordered: bool = True) -> Tensor:
        """A seed for stateless functions, int64 of shape (2,): another one at each call."""
        return drawn_uniform(_key(self), (2,), None, None, np.int64)


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
    """Uniform floats in [minval, maxval). Raises ValueError for another dtype: see ``randint``."""
    wanted = as_dtype(dtype or floatx())
    if not is_floating(wanted.numpy_dtype):
        raise ValueError(f"uniform draws floats, not {wanted.name}: use randint for whole numbers")
    return _drawn("uniform", seed, shape, minval, maxval, wanted)


def randint(shape: Any, minval: Any, maxval: Any, dtype: Any = "int32", seed: Any = None) -> Tensor:
    """Uniform whole numbers in [minval, maxval). Raises ValueError for a dtype of others."""
    wanted = as_dtype(dtype)
    if not wanted.is_integer:
        raise ValueError(f"randint draws whole numbers, not {wanted.name}: use uniform for floats")
    return _drawn("uniform", seed, shape, minval, maxval, wanted)


def dropout(inputs: Any, rate: float, noise_shape: Any = None, seed: Any = None) -> Tensor:
    """Zeroes a fraction ``rate`` of the elements and scales the rest by ``1 / (1 - rate)``.

    ``noise_shape`` broadcasts to the shape of ``inputs``; None in it stands for their size there.
    """
    tensor = as_tensor(inputs)
    if rate == 1:
        return tensor * 0.0
    wanted = tensor.shape if noise_shape is None else noise_shape
    shape = [own if n is None else n for n, own in zip(wanted, tensor.shape, strict=True)]
    return nn.dropped(tensor, uniform(shape, dtype=tensor.dtype, seed=seed), rate)


def categorical(logits: Any, num_samples: int, dtype: Any = "int32", seed: Any = None) -> Tensor:
    """``num_samples`` class numbers for each row of ``logits``, with their softmax as chances.

    Raises InvalidArgumentError unless ``logits`` have shape (rows, classes).
    """
    scores = as_tensor(logits)

    def numbers(shape: tuple[int, ...]) -> Tensor:
        return uniform(shape, dtype=scores.dtype, seed=seed)

    return drawn_classes(scores, num_samples, dtype, numbers)


def shuffle(x: Any, axis: int = 0, seed: Any = None) -> Tensor:
    """``x`` in a random order along ``axis``."""
    tensor = as_tensor(x)
    along = one_axis("shuffle", axis, tensor._data.ndim)
    length = tensor._data.shape[along]
    order = _drawn_by(lambda rng: rng.permutation(length).astype(np.int32), seed)
    return gather(tensor, order, axis=along)


# Without a gradient, and drawn on the host


def gamma(shape: Any, alpha: Any, dtype: Any = None, seed: Any = None) -> Tensor:
    """Gamma distributed floats of shape parameter ``alpha``, which broadcasts, and scale 1."""
    wanted = as_dtype(dtype or floatx()).numpy_dtype
    return _drawn_by(lambda rng, a: rng.gamma(a, size=tuple(shape)).astype(wanted), seed, alpha)


def beta(shape: Any, alpha: Any, beta: Any, dtype: Any = None, seed: Any = None) -> Tensor:
    """Beta distributed floats; ``alpha`` and ``beta`` broadcast."""
    wanted = as_dtype(dtype or floatx()).numpy_dtype
    return _drawn_by(
        lambda rng, a, b: rng.beta(a, b, size=tuple(shape)).astype(wanted), seed, alpha, beta
    )


def binomial(
    shape: Any, counts: Any, probabilities: Any, dtype: Any = None, seed: Any = None
) -> Tensor:
    """How many of ``counts`` tries succeed, each with a chance; both broadcast. Floats."""
    wanted = as_dtype(dtype or floatx()).numpy_dtype
    return _drawn_by(
        lambda rng, n, p: rng.binomial(n.astype(np.int64), p, size=tuple(shape)).astype(wanted),
        seed,
        counts,
        probabilities,
    )


def _drawn_by(draw: Callable[..., np.ndarray], seed: Any, *parameters: Any) -> Tensor:
    """``draw(generator, *parameters)``, where the generator's numbers are those of the seed."""
    if isinstance(seed, SeedGenerator):
        key = _key(seed)
    else:
        key = streams.next_key() if seed is None else Tensor(np.array([int(seed)], np.uint64))

    def run(words: Any, *values: Any) -> np.ndarray:
        generator = np.random.default_rng(as_tensor(words)._host().tolist())
        return draw(generator, *(as_tensor(value)._host() for value in values))

    return on_host(run, key, *map(as_tensor, parameters))


def _key(generator: SeedGenerator) -> Tensor:
    own = None if streams.in_a_step() else generator._own
    return streams.next_key(generator.seed) if own is None else own._next_key()


def _drawn(kind: str, seed: Any, shape: Any, *args: Any) -> Tensor:
    if isinstance(seed, SeedGenerator) and (seed._own is None or streams.in_a_step()):
        return getattr(random, kind)(shape, *args, seed=seed.seed)
    if seed is None:
        return getattr(random, kind)(shape, *args)
    if not isinstance(seed, SeedGenerator):  # the same numbers at every call
        return getattr(random, f"stateless_{kind}")(shape, (int(seed), 0), *args)
    return getattr(seed._own, kind)(shape, *args)
