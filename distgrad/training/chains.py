"""A rank's shards on a GPU: one after the other in one launch, which adds them up as well.

The additions are those of `TreeSum`, in its order, so that every bit is that of shards which are
launched one by one. Each tree of shards ends up in the buffers that the caller has for it; what
waits to be added lies in scratch memory, of which there is one set for all programs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import setitem
from typing import Any

import numpy as np

from distgrad.backend.fetching import Fetcher
from distgrad.compile.cupy_exec import Link
from distgrad.compile.numpy_exec import c_strides
from distgrad.compile.passes.shards import Merges
from distgrad.compile.steps import View
from distgrad.training.frames import Bound, Cut, Outcome, Pending, Shards, Streams

_CHAINS = 64  # of one program, for other trees and other buffers
LAUNCHES = 1 << 14  # in a graph; a guess: what it costs to make grows with them
_ALIGN = 16  # bytes between results

most_launches = LAUNCHES  # 0: a graph for each shard, for a comparison

Scratch = dict[tuple[int, int], Any]  # by the bucket, and by how many sums wait before it


class Chains:
    """The chains of one program, of which ``bound`` has the executor.

    Its outputs are ``statistics`` (the loss, and sums), the gradients, and what is assigned to the
    state variables with the ids ``assigned``.
    """

    def __init__(
        self,
        bound: Bound,
        statistics: int,
        assigned: Sequence[int],
        weight: np.dtype,
        scratch: Scratch,
    ) -> None:
        self.bound, self.assigned = bound, assigned
        plan = bound.executor.plan
        self.statistics = range(statistics)
        self.states = range(len(plan.outputs) - len(assigned), len(plan.outputs))
        self.at_once = max(1, most_launches // max(len(plan.nodes), 1))
        self._dtype, self._scratch = weight, scratch
        self._draws = any(node.where != "device" for node in plan.nodes)  # or might
        self._given: list[float] = []
        self._weights: list[np.ndarray] = []  # the same, as inputs
        self._known: dict[Any, _Chain] = {}

    def run(
        self,
        shards: Shards,
        weights: Sequence[float],
        trees: tuple[Merges, ...],
        streams: Streams,
        buffers: Sequence[Sequence[Any]],
        cut: Cut,
        told: Callable[[int], None] | None,
    ) -> Pending:
        """As `ShardProgram.run`: losses and sums are on their way before the backward pass of
        the last shard is launched.
        """
        chain = self._at(trees, buffers, cut)
        if weights != self._given:
            self._given = list(weights)
            self._weights = [np.asarray(weight, self._dtype) for weight in weights]
        rows = [[*arrays, w] for arrays, w in zip(shards, self._weights, strict=True)]
        return chain.run(rows, streams() if self._draws else (), told)

    def _at(self, trees: tuple[Merges, ...], buffers: Sequence[Sequence[Any]], cut: Cut) -> _Chain:
        key = trees, tuple([id(buffer) for own in buffers for buffer in own])
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _CHAINS:
                self._known.clear()
            known = self._known[key] = _Chain(self, trees, buffers, cut)
        return known

    def scratch(self, depth: int, like: Sequence[Any]) -> list[Any]:
        """Memory of the size of each bucket, while ``depth`` sums wait before it."""
        xp, found = self.bound.executor.backend.xp, []
        for number, buffer in enumerate(like):
            if (number, depth) not in self._scratch:
                self._scratch[number, depth] = xp.zeros_like(buffer)  # gaps stay zero
            found.append(self._scratch[number, depth])
        return found


class _Chain:
    """The shards of some trees, bound to the buffers of their sums."""

    def __init__(
        self,
        chains: Chains,
        trees: Sequence[Merges],
        buffers: Sequence[Sequence[Any]],
        cut: Cut,
    ) -> None:
        self._chains, self._buffers = chains, buffers  # kept, so that their ids stay theirs
        executor, count = chains.bound.executor, sum(map(len, trees))
        self._backend = executor.backend
        self._statistics = _Results(executor, chains.statistics, count)
        self._states = _Results(executor, chains.states, count)
        self._losses = self._statistics.spread(0)
        self._assigned: dict[int, Any] | None = None if chains.assigned else {}
        if count == 1 and chains.assigned:
            places = self._states.places(0)
            both = zip(chains.assigned, chains.states, strict=True)
            self._assigned = {variable: places[position] for variable, position in both}
        links: list[Link] = []
        for merges, own in zip(trees, buffers, strict=True):
            waiting: list[Sequence[Any]] = []
            for merged in merges:
                here = chains.scratch(len(waiting), own) if waiting else own
                waiting.append(here)
                sums = []
                for _ in range(merged):
                    right = waiting.pop()
                    sums.append((waiting[-1], right))
                links.append(self._link(len(links), here, sums, cut))
        self._frame = executor.chain(links, chains.bound.block)

    def _link(self, v: int, here: Sequence[Any], sums: Sequence[tuple[Any, Any]], cut: Cut) -> Link:
        """A shard whose gradients go ``here``, and the sums that are complete with it."""
        bound, xp = self._chains.bound, self._backend.xp
        plan = bound.executor.plan
        places, absent = bound.places([here], cut)
        beside: dict[int, list[Callable[[], Any]]] = {}
        if absent:
            beside[0] = [partial(setitem, view, ..., 0) for view in absent]
        for number, end in enumerate(plan.ends[: len(here)]):
            done = beside.setdefault(min(end + 1, len(plan.nodes)), [])
            for left, right in sums:
                done.append(partial(xp.add, left[number], right[number], out=left[number]))
        return Link({**places, **self._statistics.places(v), **self._states.places(v)}, beside)

    def run(
        self,
        rows: Sequence[Sequence[Any]],
        contexts: Sequence[Any],
        told: Callable[[int], None] | None,
    ) -> Pending:
        self._frame.run(rows, told, self._look, contexts)
        ids, statistics = self._chains.assigned, self._looked
        states: Any = None

        def bring() -> None:
            nonlocal states
            states = self._states.fetch() if ids else None

        def outcome() -> Outcome:
            losses, sums = statistics()
            written: list[dict[int, np.ndarray]] = [{} for _ in rows]
            if states is not None:
                found = zip(*states(), strict=True)
                written = [dict(zip(ids, own, strict=True)) for own in found]
            return Outcome(losses.tolist(), sums, written)

        return Pending(outcome, bring, *self._losses, self._assigned)

    def _look(self) -> None:
        self._looked = self._statistics.fetch()


class _Results:
    """Outputs of some runs of a program, in one piece: they come to the host in one copy."""

    def __init__(self, executor: Any, positions: Sequence[int], count: int) -> None:
        self._positions, self._count = positions, count
        # Of each output where it starts, and the strides of those of all runs.
        self._views: list[tuple[View, int, tuple[int, ...]]] = []
        size = 0
        for position in positions:
            view = executor.plan.outputs[position]
            step = -(-math.prod(view.shape) * view.dtype.itemsize // _ALIGN) * _ALIGN
            self._views.append((view, size, (step, *c_strides(view))))
            size += count * step
        xp = executor.backend.xp
        self.memory = xp.zeros(size, dtype=np.uint8)
        self.fetch = Fetcher(xp, self.memory, self._read)  # to be read as ``_read`` gives it

    def places(self, v: int) -> Mapping[int, Any]:
        """Where the outputs of run ``v`` go, by position."""
        found = {}
        for position, (view, start, strides) in zip(self._positions, self._views, strict=True):
            first = start + v * strides[0]
            nbytes = math.prod(view.shape) * view.dtype.itemsize
            own = self.memory[first : first + nbytes]
            found[position] = own.view(view.dtype).reshape(view.shape)
        return found

    def spread(self, number: int) -> tuple[Any, np.int64, np.int64]:
        """Where an output that is one number lies for all runs: an array, and how it is read."""
        view, start, (nbytes, *_) = self._views[number]
        own = self.memory[start : start + self._count * nbytes].view(view.dtype)
        return own, np.int64(self._count), np.int64(nbytes // view.dtype.itemsize)

    def _read(self, memory: np.ndarray) -> list[np.ndarray]:
        """For each output what all runs gave, a row for each, of a copy on the host."""
        return [
            np.ndarray((self._count, *view.shape), view.dtype, memory, start, strides)
            for view, start, strides in self._views
        ]
