"""``tf.random.Generator``: a stream of random numbers of one's own, and the global one of them."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.core import recording
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.place import Place
from distgrad.core.tensor import Tensor
from distgrad.ops.draws import random_normal, random_truncated_normal
from distgrad.ops.random import drawn_uniform, scaled_normal
from distgrad.ops.streams import WORD, Stream


class Algorithm(enum.Enum):
    """TensorFlow's names of its algorithms; there is one here, whichever is named."""

    PHILOX = 1
    THREEFRY = 2
    AUTO_SELECT = 3


def create_rng_state(seed: int, alg: Any = None) -> np.ndarray:
    """The state of a generator of this seed, before its first draw: int64 of shape (3,)."""
    return Generator.from_seed(seed)._place.numpy()


class Generator:
    """A stream of random numbers of its own (``tf.random.Generator``).

    It goes on where ``copy_from``, another one, stands, or from a ``state``; most are made with
    ``from_seed`` or ``from_non_deterministic_state``. Raises ValueError unless one is given.
    """

    algorithm = Algorithm.PHILOX.value

    def __init__(
        self, copy_from: Generator | None = None, state: Any = None, alg: Any = None
    ) -> None:
        if (copy_from is None) == (state is None):
            raise ValueError("give either copy_from, a Generator, or state, three whole numbers")
        self._stream = Stream(0, shard=WORD)
        self._place = Place(self._standing, self._jump)
        self.reset(state if copy_from is None else copy_from.state)

    def _standing(self) -> list[int]:
        seed, _, step = self._stream.words
        return [self._stream.draws.get(None, 0), step, seed]

    def _jump(self, place: list[int]) -> None:
        draws, step, seed = place
        self._stream = Stream(seed, step, WORD)
        self._stream.draws[None] = draws

    def checkpointed(self) -> Iterator[tuple[str, Place]]:
        """What is saved, by name."""
        yield "state", self._place

    def _next_key(self) -> Tensor:
        return recording.slot(lambda: self._stream.next_key(), self._stream.draws)

    @classmethod
    def from_seed(cls, seed: int, alg: Any = None) -> Generator:
        """A generator whose numbers depend on ``seed`` and the order of its draws alone."""
        made = cls.__new__(cls)
        made._stream = Stream(int(seed), shard=WORD)  # apart from the global and the shard streams
        made._place = Place(made._standing, made._jump)
        return made

    @classmethod
    def from_non_deterministic_state(cls, alg: Any = None) -> Generator:
        """A generator seeded by the operating system."""
        return cls.from_seed(int.from_bytes(os.urandom(7), "little"))

    @classmethod
    def from_state(cls, state: Any, alg: Any = None) -> Generator:
        """A generator that goes on where one had the ``state``: three whole numbers."""
        return cls(state=state)

    @classmethod
    def from_key_counter(cls, key: int, counter: Any, alg: Any = None) -> Generator:
        """A generator whose state is the two numbers of ``counter``, then ``key``."""
        return cls(state=[*np.asarray(counter).tolist(), int(key)])

    @property
    def state(self) -> Tensor:
        """Where it stands, int64 of shape (3,): two words that count, and the seed."""
        recording.refuse("Generator.state inside the function")
        return as_tensor(self._place.numpy())

    @property
    def key(self) -> Tensor:
        """The seed, an int64 scalar."""
        return as_tensor(self._place.numpy()[2])

    def reset(self, state: Any) -> None:
        """Goes on from a ``state``. Raises InvalidArgumentError unless it is three integers."""
        recording.refuse("Generator.reset inside the function")
        numbers = np.asarray(state)
        if numbers.shape != (3,) or numbers.dtype.kind not in "iu":
            raise InvalidArgumentError(f"the state is three whole numbers, not {state!r}")
        self._place.assign(numbers)

    def reset_from_key_counter(self, key: int, counter: Any) -> None:
        """Goes on from a seed, ``key``, and two words that count."""
        self.reset((*np.asarray(counter).tolist(), int(key)))

    def skip(self, delta: int) -> None:
        """Leaves out ``delta`` draws."""
        recording.refuse("Generator.skip inside the function")
        self._stream.draws[None] = self._stream.draws.get(None, 0) + int(delta)

    def reset_from_seed(self, seed: int) -> None:
        """Starts again, from ``seed``."""
        recording.refuse("Generator.reset_from_seed inside the function")
        self._stream = Stream(int(seed), shard=WORD)

    def make_seeds(self, count: int = 1) -> Tensor:
        """Seeds for stateless functions, an int64 tensor of shape (2, count); each column is one.

        A draw like any other: the next call gives other seeds.
        """
        return drawn_uniform(self._next_key(), (2, int(count)), None, None, np.int64)

    def split(self, count: int = 1) -> list[Generator]:
        """``count`` generators with streams of their own, that draw other numbers than this one."""
        seeds = self.make_seeds(count)._host()
        return [Generator.from_seed(int(first) & WORD) for first in seeds[0]]

    def normal(
        self,
        shape: Any,
        mean: Any = 0.0,
        stddev: Any = 1.0,
        dtype: Any = np.float32,
        name: str | None = None,
    ) -> Tensor:
        """Normally distributed floats."""
        return scaled_normal(random_normal, self._next_key(), shape, mean, stddev, dtype)

    def truncated_normal(
        self,
        shape: Any,
        mean: Any = 0.0,
        stddev: Any = 1.0,
        dtype: Any = np.float32,
        name: str | None = None,
    ) -> Tensor:
        """Normal floats within two standard deviations."""
        return scaled_normal(random_truncated_normal, self._next_key(), shape, mean, stddev, dtype)

    def uniform(
        self,
        shape: Any,
        minval: Any = 0,
        maxval: Any = None,
        dtype: Any = np.float32,
        name: str | None = None,
    ) -> Tensor:
        """Uniform numbers in [minval, maxval)."""
        return drawn_uniform(self._next_key(), shape, minval, maxval, dtype)

    def uniform_full_int(
        self, shape: Any, dtype: Any = np.uint64, name: str | None = None
    ) -> Tensor:
        """Whole numbers drawn from all that ``dtype`` has."""
        return drawn_uniform(self._next_key(), shape, None, None, dtype)

    def binomial(
        self, shape: Any, counts: Any, probs: Any, dtype: Any = np.int32, name: str | None = None
    ) -> Tensor:
        """Successes among ``counts`` trials of chance ``probs``, which broadcast to ``shape``."""
        from distgrad.ops.distributions import binomial

        return binomial(self._next_key(), shape, counts, probs, dtype)


_own: list[Generator] = []


def get_global_generator() -> Generator:
    """The generator that ``set_global_generator`` put in place; one of random seed before."""
    if not _own:
        _own.append(Generator.from_non_deterministic_state())
    return _own[0]


def set_global_generator(generator: Generator) -> None:
    """Puts ``generator`` in place for ``get_global_generator``; TypeError where it is none."""
    if not isinstance(generator, Generator):
        raise TypeError(f"a Generator is needed, not {generator!r}")
    _own[:] = [generator]
