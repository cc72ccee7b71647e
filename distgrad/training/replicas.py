"""A script's function, run for every virtual shard: the replicas of TensorFlow's strategies.

A replica is a virtual shard, whoever runs it, so that what replicas add up has the same bits at any
number of workers.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import worker_shards
from distgrad.core import recording, tree
from distgrad.core import variable as variables_of
from distgrad.core.dispatch import as_tensor, backend_of
from distgrad.core.variable import Variable
from distgrad.data.loader import Batch
from distgrad.ops import random
from distgrad.training.digest import DesyncAlarm
from distgrad.training.handshake import check_kernels, check_variables
from distgrad.training.meeting import SPARE, ordered_sum
from distgrad.training.staging import link
from distgrad.training.state import StateMean
from distgrad.training.turns import Turn, Turns

_KEPT = 32  # functions


class PerReplica:
    """What the replicas of this worker have of one value, by their numbers.

    ``spare`` is what a worker without a replica uses to run along.
    """

    of_one_call = True  # as an argument, it says nothing of the next one

    def __init__(self, own: dict[int, Any], batch: Batch, spare: Any = None) -> None:
        self.own = own
        self.batch = batch
        self.spare = spare

    @property
    def values(self) -> tuple[Any, ...]:
        """Of this worker's replicas, in their order: tensors, where these are arrays."""
        return tuple(map(_as_given, self.own.values()))

    def of(self, index: int) -> Any:
        """What one replica has."""
        return self.own.get(index, self.spare)

    def __repr__(self) -> str:
        each = zip(self.own, self.values, strict=True)
        rows = ",\n".join(f"  {index}: {value!r}" for index, value in each)
        return f"PerReplica:{{\n{rows}\n}}"


class Replicas(Turns):
    """Runs functions for all replicas; variables made in ``watching`` are alike in all of them.

    The gradients of the replicas are summed. What a function assigns to such a variable itself
    becomes the mean over the replicas, by their samples; what it gives to metrics is summed.
    """

    def __init__(self, communicator: Communicator, virtual_shards: int) -> None:
        super().__init__(communicator, virtual_shards, 0, mean_loss=False)
        self.own = worker_shards(virtual_shards, communicator.rank, communicator.world_size)
        self.steps = 0
        self._made: list[weakref.ref[Variable]] = []
        self._placed: set[int] = set()  # those that all workers have had the values of
        self._others: set[int] = set()  # of optimizers and metrics, which keep them alike
        self._known: list[Any] = []  # functions that have run before, the latest last
        self._metrics: list[tuple[Any, Any]] = []  # of a run, with their states before it
        self._alarm = DesyncAlarm([], communicator, first=2)
        self._chosen = True  # whether the state to keep alike has been chosen anew
        check_kernels(communicator)
        link(communicator, deterministic=True)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Context in which variables that are made belong to the replicas."""
        if self._note in variables_of.watchers:
            yield
            return
        variables_of.watchers.append(self._note)
        try:
            yield
        finally:
            variables_of.watchers.remove(self._note)

    def _note(self, variable: Variable) -> None:
        self._made.append(weakref.ref(variable))

    def call(self, fn: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        """``fn`` of each replica's part of the arguments: a nest of `PerReplica`.

        Raises ValueError where it trains a variable that was not made in ``watching``.
        """
        recording.refuse("strategy.run")
        given = (fn, args, kwargs)
        batch = self.batch_of(given)
        if not self._known:  # not before: to make a strategy draws no random number
            drawn = random.drawn_seed()
            self.seed = self.communicator.broadcast_object(drawn)
        with self.watching():
            if fn not in self._known:  # a method equals itself, though it is another object
                self._rehearse(batch, given)
                self._known = [*self._known[-_KEPT:], fn]
            self._place()
            self._metrics = []
            shards = [(index, part_of(given, index)) for index in self.own if index in batch.sizes]
            spare = () if shards else part_of(given, SPARE)
            turns = self.take(self.steps, replace(batch, shards=shards, spare=spare))
        self.steps += 1
        self._add_up_metrics(turns)
        self._alarm.after(self.steps)
        return self._returned(turns, batch)

    def batch_of(self, given: Any) -> Batch:
        """What the arguments say of the replicas' shares; all run alike where they say nothing."""
        found = [leaf for leaf in tree.flatten(given) if isinstance(leaf, PerReplica)]
        if found:
            return found[0].batch
        everyone = list(range(self.virtual_shards))
        return Batch(0, len(everyone), everyone, [], dict.fromkeys(everyone, 1))

    # One replica

    def run(self, turn: Turn) -> None:
        fn, args, kwargs = turn.arrays
        with turn:
            returned = fn(*args, **kwargs)
        turn.values = returned, [metric.statistics() for metric in turn.metrics]

    def metrics_of(self, turn: Turn) -> Sequence[Any]:
        return turn.metrics

    def joined(self, turn: Turn, metric: Any) -> None:
        """Each replica gives a metric its batches apart from all others."""
        if any(known is metric for known in turn.metrics):
            return
        if not any(known is metric for known, _ in self._metrics):
            self._metrics.append((metric, metric.state()))
            self._leave_out(metric.added)
        turn.leave_out(self._others)
        metric.reset_state()
        turn.metrics.append(metric)

    def _apply(self, turns: Sequence[Turn], batch: Batch) -> None:
        for _, variable in turns[0].pairs:
            if id(variable) not in self._placed:
                raise ValueError(
                    f"{variable.name} was not made within strategy.scope(): the workers may have "
                    "different values of it; make models and variables there"
                )
        super()._apply(turns, batch)
        self._leave_out(turns[0].optimizer.variables)

    # Their variables

    def _rehearse(self, batch: Batch, given: Any) -> None:
        """Runs a new function once beforehand; metrics keep their states."""
        index = next((i for i in self.own if i in batch.sizes), SPARE)
        self._metrics = []
        try:
            self.rehearse(batch, part_of(given, index))
        finally:
            for metric, state in self._metrics:
                metric.set_state(state)

    def _living(self) -> list[Variable]:
        return [variable for ref in self._made if (variable := ref()) is not None]

    def _place(self) -> None:
        """Gives all workers the values that rank 0 has of variables made since the last call."""
        made = self._living()
        fresh = [variable for variable in made if id(variable) not in self._placed]
        if fresh or len(made) < len(self._made):
            check_variables({f"{i}: {v.name}": v for i, v in enumerate(fresh)}, self.communicator)
            for variable in fresh:
                value = np.array(variable.numpy())
                self.communicator.broadcast(value, 0)
                variable._store(backend_of(variable._buffer).asarray(value))
            self._made = [weakref.ref(variable) for variable in made]
            self._placed = {id(variable) for variable in made}
            self._chosen = False
        if not self._chosen:
            self._chosen = True
            state = [variable for variable in made if id(variable) not in self._others]
            self._state = StateMean(state, self.virtual_shards)
            self._alarm = DesyncAlarm(made, self.communicator, first=2)

    def _leave_out(self, others: Sequence[Variable]) -> None:
        """Somebody else keeps these variables alike."""
        new = {id(variable) for variable in others} - self._others
        self._others |= new
        self._chosen = self._chosen and not new

    def _add_up_metrics(self, turns: list[Turn]) -> None:
        own = {turn.index: turn.values[1] for turn in turns if not turn.is_spare}
        everyone = self.communicator.allgather_object(own)
        for (metric, state), total in zip(self._metrics, ordered_sum(everyone), strict=True):
            metric.set_state(state)
            metric.absorb(total)

    def _returned(self, turns: list[Turn], batch: Batch) -> Any:
        if self.virtual_shards == 1:
            return turns[0].values[0]
        leaves = [tree.flatten(turn.values[0]) for turn in turns]
        indices = [turn.index for turn in turns if not turn.is_spare]
        each = zip(*leaves, strict=True)
        places = [PerReplica(dict(zip(indices, v, strict=False)), batch, v[0]) for v in each]
        return tree.pack_sequence_as(turns[0].values[0], places)


def part_of(given: Any, index: int) -> Any:
    """The arguments as one replica has them."""

    def part(leaf: Any) -> Any:
        if not isinstance(leaf, PerReplica):
            return leaf
        return _as_given(leaf.of(index))

    return tree.map_structure(part, given)


def _as_given(value: Any) -> Any:
    """What a replica has, as the function that it runs is given it."""
    return as_tensor(value) if isinstance(value, np.ndarray) else value
