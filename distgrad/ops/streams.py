"""Where the keys of random draws come from: the same key gives the same numbers, whoever draws.

Every draw takes the next key of the stream in force. The global stream is keyed by a seed and the
number of the draw; ``stream(seed, step, shard)`` puts one in force for a block, so that what a
virtual shard draws depends on nothing but its own place.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

from distgrad.core import recording, seeding
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Tensor

WORD = 2**64 - 1  # a key is four unsigned words of 64 bits


def _mixed(seed: int) -> int:
    """An operation's seed spread over a word, so that it sets the draws of a stream apart."""
    return (int(seed) * 0x9E3779B97F4A7C15 + 1) & WORD


class Stream:
    """A place to draw keys from: four words, the last of which counts the draws.

    An operation's own seed has a count of its own: other draws do not change what it gets.
    """

    def __init__(self, seed: int, step: int = 0, shard: int = 0) -> None:
        self.words = (seed & WORD, shard & WORD, step & WORD)
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
    """Restarts the global stream: the same calls then give the same numbers.

    Datasets made after it are shuffled alike, too.
    """
    global _global, _global_for_seeded
    recording.refuse("random.set_seed inside the function")
    _global = _global_for_seeded = Stream(int(seed))
    seeding.seeded()


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


def pair_key(seed: Any) -> Tensor:
    """The key that the two ints of a stateless seed make. Raises InvalidArgumentError."""
    pair = np.asarray(as_tensor(seed)._host())
    if pair.shape != (2,) or pair.dtype.kind not in "iu":
        raise InvalidArgumentError(f"a stateless seed is two ints, not {seed!r}")
    first, second = (int(word) & WORD for word in pair)
    return Tensor(np.array([first, second, WORD, 0], dtype=np.uint64))
