"""Programs bound to the arrays of shards: where their samples lie, and where their gradients go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from distgrad.backend.sent import Sent
from distgrad.core import tree

_FRAMES = 64  # sets of places for the gradients of one program
_SMALL = 1 << 14  # bytes of a shard's array that is copied sooner than looked at

# The places of the variables of a bucket, by position, in a buffer of that bucket.
Cut = Callable[[int, Any], dict[int, Any]]


Leaves = Sequence[np.ndarray]  # the arrays of a shard, as ``flat`` gives them
Streams = Callable[[], Sequence[Any]]  # makes the contexts that shards draw in


class Outcome(NamedTuple):
    """What some shards give; their gradients are where the caller wanted them."""

    losses: list[float]  # one for each shard
    sums: np.ndarray  # a row for each shard, good until the next run
    written: list[dict[int, np.ndarray]]  # for each shard, by the id of a state variable


@dataclass(frozen=True)
class Pending:
    """What some shards give on a GPU; a call waits for their losses and sums.

    The ``count`` losses lie in an array of the device, ``step`` elements apart. There, too, lies
    what a single shard has ``assigned`` to state variables, by their ids: None where there are
    several. The outcome has it only after ``bring``, which sends it off.
    """

    outcome: Callable[[], Outcome]
    bring: Callable[[], None]
    losses: Any
    count: np.int64
    step: np.int64
    assigned: dict[int, Any] | None

    def __call__(self) -> Outcome:
        return self.outcome()


class Bound:
    """An executor, and its frames for the places of the gradients."""

    def __init__(
        self, executor: Any, present: Sequence[bool], place: dict[int, int], size: int
    ) -> None:
        self.executor = executor
        self._present, self._place, self._size = present, place, size
        self.block = executor.block()
        self._frames: dict[tuple[int, ...], tuple[Any, list[Any], Any]] = {}

    def at(self, buffers: Sequence[Sequence[Any]], cut: Cut) -> Any:
        """The frame for the buffers of each shard; what has no gradient is made zero there."""
        key = tuple([id(buffer) for own in buffers for buffer in own])
        known = self._frames.get(key)
        if known is None:
            known = self._make(key, buffers, cut)
        for view in known[1]:
            view[...] = 0
        return known[0]

    def forget(self) -> None:
        self._frames.clear()

    def _make(self, key: tuple[int, ...], buffers: Any, cut: Cut) -> tuple[Any, list[Any], Any]:
        if len(self._frames) >= _FRAMES:
            self._frames.clear()
        places, absent = self.places(buffers, cut)
        frame = self.executor.frame(places, self.block)
        self._frames[key] = frame, absent, buffers  # kept, so that their ids stay theirs
        return self._frames[key]

    def places(self, buffers: Any, cut: Cut) -> tuple[dict[int, Any], list[Any]]:
        """Those of the gradients, by their position, and of variables without one."""
        places: dict[int, Any] = {}
        absent = []
        for v, own in enumerate(buffers):
            for number, buffer in enumerate(own):
                for position, view in cut(number, buffer).items():
                    if self._present[position]:
                        places[self._place[position] + v * self._size] = view
                    else:
                        absent.append(view)
        return places, absent


def flat(arrays: Any) -> list[Any]:
    """The arrays of a nest; None stands for what was not given."""
    for a in arrays:
        if type(a) is not np.ndarray and type(a) is not Sent:
            return [a for a in tree.flatten(arrays) if a is not None]
    return list(arrays)


class Shards(list[Leaves]):
    """The arrays of some shards; ``whole`` are those that they are cut from, if in equal parts."""

    def __init__(self, shards: Sequence[tuple], whole: Leaves = ()) -> None:
        super().__init__(shards if whole else map(flat, shards))
        self.whole = whole


NO_SHARDS = Shards(())


class Inputs:
    """The arrays of several shards along a leading axis: views where they lie side by side."""

    def __init__(self, leaves: Sequence[np.ndarray], weight: np.dtype, count: int) -> None:
        self._held = [np.empty((count, *a.shape), a.dtype) for a in leaves]
        self._weights = np.empty(count, weight)
        self._given: list[float] = []

    def __call__(self, shards: Shards, weights: Sequence[float]) -> list[np.ndarray]:
        if list(weights) != self._given:
            self._weights[:] = self._given = list(weights)
        if shards.whole:
            pairs = zip(shards.whole, self._held, strict=True)
            return [*[array.reshape(held.shape) for array, held in pairs], self._weights]
        rows = zip(*shards, strict=True)
        return [*map(self._together, self._held, rows), self._weights]

    @staticmethod
    def _together(held: np.ndarray, arrays: Sequence[np.ndarray]) -> np.ndarray:
        first, nbytes = arrays[0], arrays[0].nbytes
        if nbytes > _SMALL and all(a.flags.c_contiguous for a in arrays):
            start = first.__array_interface__["data"][0]
            places = [a.__array_interface__["data"][0] for a in arrays]
            if places == [start + v * nbytes for v in range(len(arrays))]:
                strides = (nbytes, *first.strides)
                return np.lib.stride_tricks.as_strided(first, held.shape, strides, writeable=False)
        if first.ndim:  # one call, at a sixth of np.stack's time
            np.concatenate(arrays, out=held.reshape(-1, *held.shape[2:]))
        else:
            held[:] = arrays
        return held


def on_host(arrays: Any) -> Any:
    """A nest with the arrays of the host for those that were sent ahead."""
    return tree.map_structure(lambda a: a.host if type(a) is Sent else a, arrays)
