"""Samples that lie on a device as a whole: batches are picked out there, and nothing is sent."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from distgrad.backend.sent import Picked, Sent
from distgrad.core.composite import Composite
from distgrad.core.dtypes import is_number
from distgrad.data import nest
from distgrad.data.loader import Loader
from distgrad.data.source import ArraySource

# Bytes of samples, and the part of the memory that is free, which they may take: models come first.
_MOST, _PART = 1 << 30, 1 / 8
# What lies on a device already, as long as somebody has its source: samples that are held out are
# evaluated after every epoch.
_lying: WeakKeyDictionary[ArraySource, _Resident] = WeakKeyDictionary()


class _Resident(ArraySource):
    """The rows of another source, as `Sent` whose host's side is made when it is asked for."""

    def __init__(self, backend: Any, source: ArraySource) -> None:
        self.at = backend, backend.selected
        self._backend, self._size = backend, len(source)
        self._here = source.take(slice(0, self._size))
        self._there = nest.map_leaves(backend.asarray, self._here)
        super().__init__(*nest.leaves(self._here))

    def __len__(self) -> int:
        return self._size

    def take(self, rows: np.ndarray | slice) -> tuple[Any, ...]:
        if not isinstance(rows, slice):
            return self.ordered(rows)(slice(0, len(rows)))
        return self._each(
            lambda here, there: Sent(here[rows], Picked(there, None, 0, self._size)[rows])
        )

    def ordered(self, order: np.ndarray) -> Callable[[slice], tuple[Any, ...]]:
        places = self._backend.asarray(order)  # of a whole epoch: at once

        def take(where: slice) -> tuple[Any, ...]:
            def one(here: np.ndarray, there: Any) -> Sent:
                made = partial(np.take, here, order[where], axis=0)
                return Sent(made, Picked(there, places, 0, len(order))[where])

            return self._each(one)

        return take

    def _each(self, fn: Callable[[np.ndarray, Any], Sent]) -> tuple[Any, ...]:
        return nest.map_leaves(fn, self._here, self._there)


def resident(loader: Loader, backend: Any) -> Loader | None:
    """The same batches of samples that lie on a device; None where they had better not.

    They are copied there as a whole: memory has to have room for them, and an epoch use them.
    """
    source, steps = loader.source, loader.steps_per_epoch
    known = _lying.get(source)
    if known is not None and known.at == (backend, backend.selected):
        return _with(loader, known)
    if source.slow or any(isinstance(a, Composite) for a in source.arrays):
        return None
    nbytes = sum(len(source) * (array.nbytes // len(array)) for array in source.arrays)
    if (
        not all(is_number(a.dtype) and a.dtype.isbuiltin == 1 for a in source.arrays)
        or nbytes > min(_MOST, _PART * backend.free())
        or 2 * steps * loader.global_batch_size < len(source)
    ):
        return None
    _lying[source] = made = _Resident(backend, source)
    return _with(loader, made)


def _with(loader: Loader, source: _Resident) -> Loader:
    found = copy.copy(loader)
    found.source, found.prefetch = source, 0
    return found
