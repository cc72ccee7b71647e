"""What a dataset runs over: passes, and rows of arrays in an order, which are fast to batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from distgrad.core.seeding import when_seeded
from distgrad.data import nest, shard


class Numbers:
    """Numbers for what was given no seed, from 1, and from 1 again where a program sets a seed."""

    def __init__(self) -> None:
        self._restart()
        when_seeded(self._restart)
        _all_numbers.append(self)

    def _restart(self) -> None:
        self._next = itertools.count(1)

    def __next__(self) -> int:
        return next(self._next)


_all_numbers: list[Numbers] = []
_unseeded = Numbers()


@contextmanager
def numbered_apart(place: int) -> Iterator[None]:
    """Context in which numbers are those of a place, 0 or more: what others make changes none."""
    before = [(numbers, numbers._next) for numbers in _all_numbers]
    for numbers, _ in before:
        numbers._next = itertools.count((place + 1) << 32)
    try:
        yield
    finally:
        for numbers, those in before:
            numbers._next = those


def seed_of(seed: int | None) -> int:
    """``seed``; without one another at each call, which is the same on every worker."""
    return next(_unseeded) if seed is None else seed


class Pass(NamedTuple):
    """One run over the data: which, and the seed of the shuffles that were given none."""

    epoch: int
    seed: int = 0


class Rows(NamedTuple):
    """Elements that are rows of arrays, in an order (None: as they lie): fast to batch."""

    arrays: Any
    order: np.ndarray | None

    def __len__(self) -> int:
        return nest.length(self.arrays) if self.order is None else len(self.order)

    def cut(self, where: slice) -> Rows:
        if self.order is not None:
            return Rows(self.arrays, self.order[where])
        return Rows(nest.map_leaves(lambda array: array[where], self.arrays), None)

    def gathered(self) -> Any:
        """All rows as arrays: views where they lie in order."""
        order = self.order
        if order is None:
            return self.arrays
        return nest.map_leaves(lambda array: np.take(array, order, axis=0), self.arrays)


def each_row(rows: Rows) -> Iterator[Any]:
    """The elements one by one."""
    arrays, order = rows
    for row in range(len(rows)) if order is None else order:
        # The ellipsis keeps numbers in arrays.
        yield nest.map_leaves(lambda array: array[row, ...], arrays)  # noqa: B023


def shuffled(rows: Rows, buffer_size: int, key: tuple[int, int, int]) -> Rows:
    """The same rows in the random order in which `drawn` gives elements."""
    count = len(rows)
    if count <= buffer_size:
        order = shard.random_order(count, *key)
    else:
        order = np.fromiter(drawn(iter(range(count)), buffer_size, key), np.int64, count)
    return Rows(rows.arrays, order if rows.order is None else rows.order[order])


def drawn(elements: Iterator[Any], buffer_size: int, key: tuple[int, int, int]) -> Iterator[Any]:
    """Elements drawn at random from a buffer that the next ones fill up again."""
    buffer = list(itertools.islice(elements, buffer_size))
    if len(buffer) == buffer_size:
        random = shard.random_numbers(*key)
        for element in elements:
            place = next(random) * buffer_size >> 64
            buffer[place], element = element, buffer[place]
            yield element
    # What is left, and all of a dataset that fits: the same order as that of rows.
    for place in shard.random_order(len(buffer), *key):
        yield buffer[place]
