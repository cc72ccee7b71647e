"""Batches for a device: of samples that lie there, or copied while it computes the step before.

A thread lays the next batch end to end in pinned memory, from which the device copies on a stream
of its own. There are two places for batches: one is filled while the other waits to be used.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from distgrad.backend.base import Backend
from distgrad.backend.sent import Sent, padded
from distgrad.core import tree
from distgrad.core.dispatch import backend_of
from distgrad.core.dtypes import is_number
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.data.loader import Batch, Loader
from distgrad.data.prefetch import Prefetcher
from distgrad.training.resident import resident

_PLACES = 2


class Feeder:
    """Called with batches, gives the same with copies on the device for the arrays of shards.

    They are tensors of their own; with ``lends`` they are what lies in a place itself, `Sent` and
    good until the next batch is asked for, which is all that a captured step needs. Either way a
    place is filled again when the device has done with it. Places are kept from epoch to epoch.
    Arrays of numbers alone are copied.
    """

    def __init__(self, backend: Backend, *, lends: bool = False) -> None:
        self._backend: Any = backend
        self._lends = lends
        self._places = [_Place(backend) for _ in range(_PLACES)]

    def __call__(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        free: queue.SimpleQueue[_Place | None] = queue.SimpleQueue()
        for place in self._places:
            free.put(place)
        backend = self._backend
        with Prefetcher(_filled(iter(batches), free, backend), 1) as ahead:
            try:
                for place, batch in ahead:
                    backend.after(place.filled)
                    if self._lends:
                        try:
                            yield batch
                        finally:
                            place.leave(free)
                    else:
                        own = _mapped(batch, _taken)
                        place.leave(free)
                        yield own
            finally:
                free.put(None)  # wakes the thread, which then ends


def _taken(array: Any) -> Any:
    return Tensor(array.own()) if type(array) is Sent else array


class _Place:
    """Memory for one batch, on the host and on the device."""

    def __init__(self, backend: Backend) -> None:
        self._backend: Any = backend
        self._size = 0
        self.filled: Any = None  # where on its way the device has copied it,
        self.used: Any = None  # and where it has done with it

    def fill(self, batch: Batch) -> Batch:
        """Begins to copy a batch, on the current stream."""
        arrays = [a for _, nest in batch.shards for a in tree.flatten(nest) if _is_copied(a)]
        offsets, size = [], 0
        for array in arrays:
            offsets.append(size)
            size += padded(array.nbytes)
        if self.filled is not None:
            self.filled.synchronize()  # pinned memory must not change under a copy
        self._backend.after(self.used)
        if size > self._size:
            self._size = size
            self._pinned = self._backend.pinned(size)
            self._device = self._backend.xp.empty(size, np.uint8)
        views: Iterator[Any] = iter(self._lay_out(arrays, offsets, size))
        filled = _mapped(batch, lambda a: Sent(a, next(views)) if _is_copied(a) else a)
        self.filled = self._backend.mark()
        return filled

    def leave(self, free: queue.SimpleQueue[_Place | None]) -> None:
        """It may be filled again when the device has done what was asked of it so far."""
        self.used = self._backend.mark()
        free.put(self)

    def _lay_out(self, arrays: list[np.ndarray], offsets: list[int], size: int) -> list[Any]:
        if not size:
            return [self._backend.asarray(a) for a in arrays]
        views = []
        for array, start in zip(arrays, offsets, strict=True):
            where = slice(start, start + array.nbytes)
            place = self._pinned[where].view(array.dtype).reshape(array.shape)
            place[...] = array
            views.append(self._device[where].view(array.dtype).reshape(array.shape))
        self._device[:size].set(self._pinned[:size])
        return views


def _mapped(batch: Batch, fn: Callable[[Any], Any]) -> Batch:
    """A batch with ``fn`` of each array of its shards."""
    shards = [(index, tree.map_structure(fn, nest)) for index, nest in batch.shards]
    return replace(batch, shards=shards)


def _is_copied(array: Any) -> bool:
    return isinstance(array, np.ndarray) and is_number(array.dtype)


def _filled(
    batches: Iterator[Batch], free: queue.SimpleQueue[_Place | None], backend: Backend
) -> Iterator[tuple[_Place, Batch]]:
    backend.enter_thread()
    with backend.stream("input"):
        for batch in batches:
            place = free.get()
            if place is None:
                return
            yield place, place.fill(batch)


def device_of(variables: Sequence[Variable]) -> Backend | None:
    """The device with the variables, where batches may lie when they come; None: the host."""
    backend = backend_of(variables[0]._buffer) if variables else None
    return backend if backend is not None and backend.copies_ahead else None


def epochs(
    loader: Loader, device: Backend | None, *, captured: bool = False
) -> Callable[[int, int], Iterable[Batch]]:
    """``loader.epoch``, of batches whose arrays lie on ``device``; as they are, where it is None.

    They are tensors; where the step is ``captured`` they are `Sent`, and good until the next one.
    """
    if device is None or not isinstance(loader, Loader):  # what that reads ahead nobody misses
        return loader.epoch
    there = resident(loader, device)
    if captured and there is not None:
        return there.epoch
    feed = Feeder(device, lends=captured) if there is None else _of_residents
    found = there or loader

    def epoch(number: int, start_step: int = 0) -> Iterator[Batch]:
        return feed(found.epoch(number, start_step))

    return epoch


def _of_residents(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Those of samples that lie on the device, as tensors."""
    for batch in batches:
        yield replace(_mapped(batch, _taken), spare=as_tensors(batch.spare))


def as_tensors(arrays: Any) -> Any:
    """A nest with tensors of the device for what was sent ahead."""
    return tree.map_structure(_taken, arrays)
