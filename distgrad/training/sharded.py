"""The state that an optimizer keeps for each variable: whole on every rank, or in parts (ZeRO-1).

In parts, each rank keeps and updates its own part of every bucket, and the new weights are then
gathered (Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter
Models", 2020). An update works element by element, so that both give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.core.dispatch import backend_of, beside
from distgrad.core.variable import Variable
from distgrad.training.arena import Arena
from distgrad.training.buckets import Bucket, GradientBuckets

Pieces = Iterator[tuple[slice, list[Any]]]


class WholeSlots:
    """The slots of all variables, in arenas of their own."""

    def __init__(
        self,
        buckets: GradientBuckets,
        slots: Mapping[str, list[Variable]],
        names: Sequence[str],
    ) -> None:
        self._names = names
        self._arenas = [
            {name: Arena([of[i] for i in layout.positions]) for name, of in slots.items()}
            for layout in buckets.layouts
        ]

    @property
    def nbytes(self) -> int:
        return sum(arena.values.nbytes for each in self._arenas for arena in each.values())

    def pieces(self, layout: int, where: slice) -> Pieces:
        """What this rank updates of a slice of a layout, and the slots of that."""
        arenas = self._arenas[layout]
        yield where, [arenas[name].values[where] for name in self._names]

    def adopt(self) -> None:
        """Moves slots back that somebody has moved elsewhere."""
        for each in self._arenas:
            for arena in each.values():
                arena.adopt()

    def finish(self, arenas: Sequence[Arena]) -> None:
        """Called after the update."""


class SlotParts:
    """This rank's part of every slot; ``slots`` gives up the whole ones, and keeps all others.

    ``gather`` and ``load`` go from parts to whole arrays and back, so that a checkpoint does not
    depend on the number of ranks.
    """

    def __init__(
        self,
        buckets: GradientBuckets,
        slots: dict[str, list[Variable]],
        names: Sequence[str],
        communicator: Communicator,
    ) -> None:
        self._buckets = buckets
        self._names = list(names)
        self._communicator = communicator
        # For each layout: the parts of its buckets in the flat array, and where they lie here.
        self._parts: list[list[tuple[Bucket, slice, int]]] = []
        self._arrays: list[dict[str, Any]] = []
        for layout in buckets.layouts:
            parts, size = [], 0
            for bucket in buckets.buckets:
                if bucket.layout is layout:
                    part = communicator.part(bucket.total.size)
                    start = bucket.where.start
                    parts.append((bucket, slice(start + part.start, start + part.stop), size))
                    size += part.stop - part.start
            self._parts.append(parts)
            xp = backend_of(buckets.flats[0]).xp
            self._arrays.append({name: xp.zeros(size, layout.dtype) for name in self._names})
        for name in self._names:
            self.load(name, [variable._buffer for variable in slots.pop(name)])
        # What is kept for whole variables (moving averages) lies in arenas of its own.
        self._others = [
            Arena([of[i] for i in layout.positions])
            for of in slots.values()
            for layout in buckets.layouts
        ]

    def adopt(self) -> None:
        """As in `WholeSlots`; the parts are nobody else's."""
        for arena in self._others:
            arena.adopt()

    @property
    def names(self) -> list[str]:
        return list(self._names)

    @property
    def nbytes(self) -> int:
        others = sum(arena.values.nbytes for arena in self._others)
        return others + sum(a.nbytes for arrays in self._arrays for a in arrays.values())

    def pieces(self, layout: int, where: slice) -> Pieces:
        """What this rank updates of a slice of a layout, and the slots of that."""
        arrays = self._arrays[layout]
        for _, part, offset in self._parts[layout]:
            start, stop = max(part.start, where.start), min(part.stop, where.stop)
            if start < stop:
                mine = slice(offset + start - part.start, offset + stop - part.start)
                yield slice(start, stop), [arrays[name][mine] for name in self._names]

    def finish(self, arenas: Sequence[Arena]) -> None:
        """Gives everyone the weights that each rank has updated."""
        where = {id(layout): n for n, layout in enumerate(self._buckets.layouts)}
        for bucket in self._buckets.buckets:
            values = arenas[where[id(bucket.layout)]].values[bucket.where]
            self._buckets.gather(bucket, values)
        self._buckets.settle()

    def gather(self, name: str) -> list[np.ndarray] | None:
        """The whole slot, one array for each variable, on rank 0; all ranks must call it."""
        chief = self._communicator.rank == 0
        found: dict[int, np.ndarray] = {}
        for parts, arrays in zip(self._parts, self._arrays, strict=True):
            for bucket, part, offset in parts:
                whole = np.zeros(bucket.total.size, bucket.layout.dtype)
                own = slice(part.start - bucket.where.start, part.stop - bucket.where.start)
                mine = arrays[name][offset : offset + part.stop - part.start]
                whole[own] = bucket.backend.to_numpy(mine)
                self._communicator.allgather(whole, bucket=bucket.number)
                if chief:
                    found |= bucket.cut(whole)
        return [found[position] for position in sorted(found)] if chief else None

    def load(self, name: str, values: Sequence[Any]) -> None:
        """Takes this rank's part of a slot, given as one array for each variable."""
        for parts, arrays in zip(self._parts, self._arrays, strict=True):
            for bucket, part, offset in parts:
                whole = np.zeros(bucket.total.size, bucket.layout.dtype)
                for position, view in bucket.cut(whole).items():
                    view[...] = backend_of(values[position]).to_numpy(values[position])
                own = slice(part.start - bucket.where.start, part.stop - bucket.where.start)
                mine = arrays[name][offset : offset + part.stop - part.start]
                mine[...] = beside(mine, whole[own])
