"""Random numbers from counters: the same key gives the same numbers, whoever draws them.

Every draw takes the next key of the stream in force. The global stream is keyed by a seed and the
number of the draw; ``stream(seed, step, shard)`` puts one in force for a block, so that what a
virtual shard draws depends on nothing but its own place.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.core import recording
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype, is_floating, limits
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.place import Place
from distgrad.core.primitive import Primitive, bind
from distgrad.core.tensor import Tensor
from distgrad.ops.arithmetic import negative
from distgrad.ops.clipping import minimum
from distgrad.ops.draws import (
    random_integers,
    random_normal,
    random_permutation,
    random_truncated_normal,
    random_uniform,
)
from distgrad.ops.exponential import log
from distgrad.ops.indexing import take
from distgrad.ops.reduce import argmax
from distgrad.ops.shape import expand_dims, static

_WORD = 2**64 - 1


def _mixed(seed: int) -> int:
    """An operation's seed spread over a word, so that it sets the draws of a stream apart."""
    return (int(seed) * 0x9E3779B97F4A7C15 + 1) & _WORD


class Stream:
    """A place to draw keys from: four words, the last of which counts the draws.

    An operation's own seed has a count of its own: other draws do not change what it gets.
    """

    def __init__(self, seed: int, step: int = 0, shard: int = 0) -> None:
        self.words = (seed & _WORD, shard & _WORD, step & _WORD)
        self.draws: dict[int | None, int] = {}

    def next_key(self, seed: int | None = None) -> Tensor:
        draw = self.draws.get(seed, 0)
        self.draws[seed] = draw + 1
        first, shard, step = self.words
        if seed is not None:
            first ^= _mixed(seed)
        return Tensor(np.array([first, shard, step, draw], dtype=np.uint64))


class _InForce(threading.local):
    def __init__(self) -> None:
        self.streams: list[Stream] = []


_DEFAULT_SEED = 87654321  # of operations with a seed of their own in a program that sets none
_global = Stream(int.from_bytes(os.urandom(7), "little"))
_global_for_seeded = Stream(_DEFAULT_SEED)
_in_force = _InForce()


def set_seed(seed: int) -> None:
    """Restarts the global stream: the same calls then give the same numbers."""
    global _global, _global_for_seeded
    recording.refuse("random.set_seed inside the function")
    _global = _global_for_seeded = Stream(int(seed))


class stream:
    """Context in which draws depend on (seed, step, shard) and their order alone."""

    def __init__(self, seed: int, step: int = 0, shard: int = 0) -> None:
        self._stream = Stream(seed, step, shard + 1)  # 0 is the global stream

    def __enter__(self) -> None:
        recording.refuse("a random stream of its own inside the function")
        _in_force.streams.append(self._stream)

    def __exit__(self, *exc: object) -> None:
        _in_force.streams.pop()


def in_a_step() -> bool:
    """Whether a ``stream`` is in force, such as that of a shard of a training step."""
    return bool(_in_force.streams)


class replayed:
    """Remembers where the streams stand when made; as a context it draws from there again."""

    def __init__(self) -> None:
        self._places = [(source, dict(source.draws)) for source in _sources()]

    def __enter__(self) -> None:
        self._later = [(source, source.draws) for source, _ in self._places]
        self._outer = _in_force.streams
        _in_force.streams = [source for source, _ in self._places[2:]]
        for source, draws in self._places:
            source.draws = dict(draws)

    def __exit__(self, *exc: object) -> None:
        _in_force.streams = self._outer
        for source, draws in self._later:
            source.draws = draws


def _sources() -> list[Stream]:
    return [_global, _global_for_seeded, *_in_force.streams]


def next_key(seed: int | None = None) -> Tensor:
    """The key of the next draw; an operation's own ``seed`` sets its draws apart."""
    return recording.slot(lambda: _source(seed).next_key(seed), _source(seed).draws)


def _source(seed: int | None) -> Stream:
    if _in_force.streams:
        return _in_force.streams[-1]
    return _global if seed is None else _global_for_seeded


def normal(
    shape: Any,
    mean: Any = 0.0,
    stddev: Any = 1.0,
    dtype: Any = np.float32,
    seed: int | None = None,
    name: str | None = None,
) -> Tensor:
    """Normally distributed floats."""
    return _normal(random_normal, next_key(seed), shape, mean, stddev, dtype)


def uniform(
    shape: Any,
    minval: Any = 0,
    maxval: Any = None,
    dtype: Any = np.float32,
    seed: int | None = None,
    name: str | None = None,
) -> Tensor:
    """Uniform numbers in [minval, maxval); maxval is 1 by default, and needed for integers."""
    return _uniform(next_key(seed), shape, minval, maxval, dtype)


def _uniform(key: Tensor, shape: Any, minval: Any, maxval: Any, dtype: Any) -> Tensor:
    wanted = as_dtype(dtype).numpy_dtype
    if wanted.kind in "iu":
        if maxval is None and minval is None:  # all of them
            minval, maxval = np.iinfo(wanted).min, int(np.iinfo(wanted).max) + 1
        elif maxval is None:
            raise ValueError("uniform needs maxval for an integer dtype")
        low, high = int(minval), int(maxval)
        if low >= high:
            raise InvalidArgumentError(f"uniform: minval {low} must be below maxval {high}")
        return bind(random_integers, key, low=low, high=high, shape=static(shape), dtype=wanted)
    draw = bind(random_uniform, key, shape=static(shape), dtype=_float_dtype(dtype))
    if wanted.itemsize == 2:
        draw = minimum(draw, _below(1, wanted))
    maxval = 1.0 if maxval is None else maxval
    if type(minval) not in (int, float) or type(maxval) not in (int, float):
        return draw * (maxval - minval) + minval
    if (minval, maxval) == (0, 1):
        return draw
    scaled = draw * float(maxval - minval) + float(minval)
    # Rounding may reach maxval itself, which lies outside of [minval, maxval).
    return minimum(scaled, _below(maxval, wanted)) if minval < maxval else scaled


def _below(value: float, dtype: np.dtype) -> float:
    """The largest number of ``dtype`` below ``value``."""
    return float(np.nextafter(dtype.type(value), dtype.type(-np.inf)))


def _normal(kind: Primitive, key: Tensor, shape: Any, mean: Any, stddev: Any, dtype: Any) -> Tensor:
    draw = bind(kind, key, shape=static(shape), dtype=_float_dtype(dtype))
    plain = type(stddev) in (int, float) and type(mean) in (int, float)
    return draw if plain and (stddev, mean) == (1, 0) else draw * stddev + mean


def truncated_normal(
    shape: Any,
    mean: Any = 0.0,
    stddev: Any = 1.0,
    dtype: Any = np.float32,
    seed: int | None = None,
    name: str | None = None,
) -> Tensor:
    """Normal floats within two standard deviations: those outside are drawn again."""
    return _normal(random_truncated_normal, next_key(seed), shape, mean, stddev, dtype)


def shuffle(value: Any, seed: int | None = None, name: str | None = None) -> Tensor:
    """``value`` with its first axis in random order. Raises InvalidArgumentError for a scalar."""
    return _shuffled(as_tensor(value), next_key(seed))


def stateless_shuffle(value: Any, seed: Any, alg: Any = "auto_select", name: Any = None) -> Tensor:
    """``value`` with its first axis in an order that depends on the two ints of ``seed`` alone."""
    return _shuffled(as_tensor(value), _pair_key(seed))


def _shuffled(tensor: Tensor, key: Tensor) -> Tensor:
    if not tensor._data.ndim:
        raise InvalidArgumentError("shuffle needs a first axis; this is a scalar")
    return take(tensor, bind(random_permutation, key, n=tensor._data.shape[0]), axis=0)


def categorical(
    logits: Any,
    num_samples: int,
    dtype: Any = np.int64,
    seed: int | None = None,
    name: str | None = None,
) -> Tensor:
    """``num_samples`` class numbers for each row of ``logits``, with their softmax as chances.

    Raises InvalidArgumentError unless ``logits`` have shape (rows, classes).
    """
    return _categorical(next_key(seed), as_tensor(logits), num_samples, dtype)


def _categorical(key: Tensor, scores: Tensor, num_samples: int, dtype: Any) -> Tensor:
    if scores._data.ndim != 2:
        raise InvalidArgumentError(f"categorical takes logits of rank 2, not {scores.shape}")
    rows, classes = scores._data.shape
    draw = _uniform(key, (rows, int(num_samples), classes), 0, 1, _float_dtype(scores.dtype))
    # The largest of logits + Gumbel noise falls on each class with its chance (Gumbel, 1954).
    noise = negative(log(negative(log(draw + float(limits(scores._data.dtype).tiny)))))
    return argmax(expand_dims(scores, 1) + noise, axis=-1, output_type=dtype)


def stateless_normal(
    shape: Any,
    seed: Any,
    mean: Any = 0.0,
    stddev: Any = 1.0,
    dtype: Any = np.float32,
    name: str | None = None,
) -> Tensor:
    """Normal floats that depend on the two ints of ``seed`` and the arguments alone."""
    return _normal(random_normal, _pair_key(seed), shape, mean, stddev, dtype)


def stateless_truncated_normal(
    shape: Any,
    seed: Any,
    mean: Any = 0.0,
    stddev: Any = 1.0,
    dtype: Any = np.float32,
    name: str | None = None,
) -> Tensor:
    """Normal floats within two deviations that depend on the two ints of ``seed`` alone."""
    return _normal(random_truncated_normal, _pair_key(seed), shape, mean, stddev, dtype)


def stateless_uniform(
    shape: Any,
    seed: Any,
    minval: Any = 0,
    maxval: Any = None,
    dtype: Any = np.float32,
    name: str | None = None,
) -> Tensor:
    """Uniform numbers that depend on the two ints of ``seed`` and the arguments alone.

    Integers are drawn from all there are where ``minval`` and ``maxval`` are both None.
    """
    return _uniform(_pair_key(seed), shape, minval, maxval, dtype)


def stateless_categorical(
    logits: Any, num_samples: int, seed: Any, dtype: Any = np.int64, name: str | None = None
) -> Tensor:
    """``categorical`` with numbers that depend on the two ints of ``seed`` alone."""
    return _categorical(_pair_key(seed), as_tensor(logits), num_samples, dtype)


def split(seed: Any, num: int = 2, alg: Any = "auto_select") -> Tensor:
    """``num`` stateless seeds made from one, an int32 tensor of shape (num, 2).

    Raises InvalidArgumentError unless ``seed`` is two ints.
    """
    return _uniform(_derived(seed, 0), (int(num), 2), None, None, np.int32)


def fold_in(seed: Any, data: Any, alg: Any = "auto_select") -> Tensor:
    """A stateless seed made from one and the integer ``data``, an int32 tensor of shape (2,).

    Raises InvalidArgumentError unless ``seed`` is two ints.
    """
    return _uniform(_derived(seed, 1 + 2 * int(data)), (2,), None, None, np.int32)


def _derived(seed: Any, which: int) -> Tensor:
    """A key to draw seeds with, apart from those that the seed itself draws numbers with."""
    key = _pair_key(seed)._data.copy()
    key[2:] = _WORD - 1, which & _WORD
    return Tensor(key)


def _pair_key(seed: Any) -> Tensor:
    pair = np.asarray(as_tensor(seed)._host())
    if pair.shape != (2,) or pair.dtype.kind not in "iu":
        raise InvalidArgumentError(f"a stateless seed is two ints, not {seed!r}")
    first, second = (int(word) & _WORD for word in pair)
    return Tensor(np.array([first, second, _WORD, 0], dtype=np.uint64))


def create_rng_state(seed: int, alg: Any = None) -> np.ndarray:
    """The state of a generator of this seed, before its first draw: int64 of shape (3,)."""
    return Generator(seed)._place.numpy()


class Generator:
    """A stream of random numbers of its own (``tf.random.Generator``).

    Make one with ``from_seed`` or ``from_non_deterministic_state``.
    """

    algorithm = 1  # Philox, as TensorFlow numbers it

    def __init__(self, seed: int) -> None:
        self._stream = Stream(int(seed), shard=_WORD)  # apart from the global and the shard streams
        self._place = Place(self._standing, self._jump)

    def _standing(self) -> list[int]:
        seed, _, step = self._stream.words
        return [self._stream.draws.get(None, 0), step, seed]

    def _jump(self, place: list[int]) -> None:
        draws, step, seed = place
        self._stream = Stream(seed, step, _WORD)
        self._stream.draws[None] = draws

    def checkpointed(self) -> Iterator[tuple[str, Place]]:
        """What is saved, by name."""
        yield "state", self._place

    def _next_key(self) -> Tensor:
        return recording.slot(lambda: self._stream.next_key(), self._stream.draws)

    @classmethod
    def from_seed(cls, seed: int, alg: Any = None) -> Generator:
        """A generator whose numbers depend on ``seed`` and the order of its draws alone."""
        return cls(seed)

    @classmethod
    def from_non_deterministic_state(cls, alg: Any = None) -> Generator:
        """A generator seeded by the operating system."""
        return cls(int.from_bytes(os.urandom(7), "little"))

    @classmethod
    def from_state(cls, state: Any, alg: Any = None) -> Generator:
        """A generator that goes on where one had the ``state``: three whole numbers."""
        made = cls(0)
        made.reset(state)
        return made

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

    def skip(self, delta: int) -> None:
        """Leaves out ``delta`` draws."""
        recording.refuse("Generator.skip inside the function")
        self._stream.draws[None] = self._stream.draws.get(None, 0) + int(delta)

    def reset_from_seed(self, seed: int) -> None:
        """Starts again, from ``seed``."""
        recording.refuse("Generator.reset_from_seed inside the function")
        self._stream = Stream(int(seed), shard=_WORD)

    def make_seeds(self, count: int = 1) -> Tensor:
        """Seeds for stateless functions, an int64 tensor of shape (2, count); each column is one.

        A draw like any other: the next call gives other seeds.
        """
        return _uniform(self._next_key(), (2, int(count)), None, None, np.int64)

    def split(self, count: int = 1) -> list[Generator]:
        """``count`` generators with streams of their own, that draw other numbers than this one."""
        seeds = self.make_seeds(count)._host()
        return [Generator(int(first) & _WORD) for first in seeds[0]]

    def normal(
        self, shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = np.float32
    ) -> Tensor:
        """Normally distributed floats."""
        return _normal(random_normal, self._next_key(), shape, mean, stddev, dtype)

    def truncated_normal(
        self, shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = np.float32
    ) -> Tensor:
        """Normal floats within two standard deviations."""
        return _normal(random_truncated_normal, self._next_key(), shape, mean, stddev, dtype)

    def uniform(
        self, shape: Any, minval: Any = 0, maxval: Any = None, dtype: Any = np.float32
    ) -> Tensor:
        """Uniform numbers in [minval, maxval)."""
        return _uniform(self._next_key(), shape, minval, maxval, dtype)

    def uniform_full_int(
        self, shape: Any, dtype: Any = np.uint64, name: str | None = None
    ) -> Tensor:
        """Whole numbers drawn from all that ``dtype`` has."""
        return _uniform(self._next_key(), shape, None, None, dtype)

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
    """Puts ``generator`` in place for ``get_global_generator``."""
    if not isinstance(generator, Generator):
        raise TypeError(f"a Generator is needed, not {generator!r}")
    _own[:] = [generator]


def _float_dtype(dtype: Any) -> np.dtype:
    wanted = as_dtype(dtype).numpy_dtype
    if not is_floating(wanted):
        raise ValueError(f"random floats cannot have dtype {wanted}")
    return wanted
