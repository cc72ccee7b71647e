"""Generated calls cut into parts that threads share; each part has the bits it has in the whole."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from distgrad.compile.llvm import listed, pool
from distgrad.compile.llvm.blocks import scratch
from distgrad.compile.llvm.loops import Native, address_of, kept
from distgrad.compile.memory import aligned
from distgrad.compile.steps import Buffer, Step, View

TERMS = 50  # of a product that one core adds up in a nanosecond, about
_LEAST = 2e4  # nanoseconds of a part: threads that sleep take as long to come
_LONG = 2e5  # nanoseconds of parts of which there are more than threads
WORTH = 1e5  # nanoseconds of a call that is worth its parts' tables where nothing is bound
_FOR_EACH = 2  # parts for each thread, so that one that is held up has less to do


class Part(NamedTuple):
    """Calls on the same arrays, one after the other.

    ``offsets`` has a line for each call, of bytes behind the start of each array; ``numbers``
    stand behind the addresses. With ``work`` the last of the arrays is memory to work in, of which
    each part has so many bytes for itself.
    """

    native: Native
    offsets: Sequence[tuple[int, ...]]
    numbers: tuple[int, ...]
    work: int = 0


class Cut(NamedTuple):
    """How a call can be cut: into ``most`` parts, or as many as ``into`` is told, or fewer.

    ``cost`` is about how long it takes one thread, in nanoseconds.
    """

    cost: float
    most: int
    into: Callable[[int], Sequence[Part]]

    def parts(self) -> Sequence[Part]:
        """The parts for the threads that there are; fewer than two where one thread does all."""
        count = min(self.most, int(self.cost / _LEAST))
        if count < 2 or pool.threads() == 1:
            return ()
        threads = pool.threads()
        wanted = min(max(threads, int(self.cost / _LONG)), _FOR_EACH * threads)
        return self.into(min(count, wanted))


def ranges(size: int, unit: int, count: int) -> list[tuple[int, int]]:
    """Where each of ``count`` parts of ``size`` starts and stops, at multiples of ``unit``."""
    units = -(-size // unit)
    edges = [min(size, units * i // count * unit) for i in range(count)] + [size]
    return [(a, b) for a, b in itertools.pairwise(edges) if a < b]


def room(nbytes: int) -> View:
    """Memory to work in."""
    return View(Buffer(nbytes), 0, (nbytes,), (1,), np.dtype(np.uint8))


def shared(step: Step) -> Step:
    """The step in parts, where it is worth it, and can be cut."""
    cut: Cut | None = getattr(step.fn, "cut", None)
    parts = () if cut is None else cut.parts()
    if cut is None or len(parts) < 2:
        return step
    made = Shared(parts)
    args = (*step.args[:-1], room(made.nbytes)) if made.nbytes else step.args
    return step._replace(fn=made, args=args)


class Shared:
    """All parts of a call, on arrays; ``nbytes`` are what they work in, if they do.

    What the machine code reads lies in one block of words, made once, to which the addresses of
    the arrays, and of the block itself, are added for each call.
    """

    __name__ = "shared"

    def __init__(self, parts: Sequence[Part]) -> None:
        rooms = list(itertools.accumulate([aligned(part.work) for part in parts], initial=0))
        self.nbytes = rooms[-1]
        self._alone = len(parts) == 1
        words: list[int] = []
        added: list[int] = []  # to each word: 0 nothing, 1 the block's address, 2 ... arrays'

        def put(some: Sequence[int], to: int = 0) -> None:
            words.extend(some)
            added.extend([to] * len(some))

        each, lists = listed.driver().address, 2 + 2 * len(parts)
        put([0 if self._alone else pool.state(), len(parts)])
        rows = lists + sum(1 + 2 * len(part.offsets) for part in parts)
        self._first = 8 * lists
        for part in parts:
            put([each])
            put([8 * lists], 1)
            lists += 1 + 2 * len(part.offsets)
        for part in parts:
            put([len(part.offsets)])
            width = len(part.offsets[0]) + bool(part.work) + len(part.numbers)
            for _ in part.offsets:
                put([part.native.address])
                put([8 * rows], 1)
                rows += width
        for part, start in zip(parts, rooms, strict=False):
            for line in part.offsets:
                own = (*line, start) if part.work else line
                for array, move in enumerate(own, 2):
                    put([move], array)
                put(part.numbers)
        self._block, self._which = np.array(words, np.int64), np.array(added, np.intp)

    def __call__(self, *arrays: np.ndarray) -> None:
        block = self._for(arrays)
        if self._alone:
            listed.driver().on(address_of(block) + self._first)
        else:
            pool.run(address_of(block))

    def _for(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        block = np.empty_like(self._block)
        bases = np.array([0, address_of(block), *map(address_of, arrays)], np.int64)
        np.add(self._block, bases[self._which], block)
        return block

    def bound(self, arrays: Sequence[np.ndarray]) -> Callable[[], Any]:
        """The same for these arrays, whose memory must not move."""
        block = self._for(arrays)
        if self._alone:
            return kept(listed.driver().on, address_of(block) + self._first, (block, arrays))
        return kept(pool.run, address_of(block), (block, arrays))


def run(native: Native, *arrays: np.ndarray) -> None:
    """Calls a function on arrays, in parts where it is worth it; memory to work in is last."""
    cut = native.cut
    made = _made(cut, pool.threads()) if cut is not None and cut.cost > WORTH else None
    if made is None:
        native(*arrays)
        return
    if made.nbytes:
        arrays = *arrays[:-1], scratch(made.nbytes)
    made(*arrays)


@functools.lru_cache(maxsize=1024)
def _made(cut: Cut, _threads: int) -> Shared | None:
    parts = cut.parts()
    return Shared(parts) if len(parts) > 1 else None
