"""A user's own training step, run for every virtual shard.

Each shard runs the step on its own samples, under its own random numbers. Where a step applies
gradients, the shards meet: what all of them bring is added up in the fixed order, the optimizer is
applied once, and all go on. Shards of one worker take turns, each in a thread of its own, one of
which runs at a time; so a step that applies several optimizers needs nothing special.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from typing import Any

import numpy as np

from distgrad.backend.base import Backend
from distgrad.comm.communicator import Communicator
from distgrad.core import recording
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import OutOfStepError, UsageError
from distgrad.core.undone import undone
from distgrad.core.variable import Variable
from distgrad.data.loader import Batch
from distgrad.ops import streams
from distgrad.training import meeting
from distgrad.training.applied import check_settings
from distgrad.training.buckets import GradientBuckets
from distgrad.training.digest import DesyncAlarm
from distgrad.training.feeding import device_of
from distgrad.training.meeting import SPARE, Meeting, Seat
from distgrad.training.reduction import Reduced
from distgrad.training.returned import Returned
from distgrad.training.state import StateMean, shard


def current() -> Turn | None:
    """The turn that this thread takes, while a shard runs."""
    seat = meeting.current()
    return seat if isinstance(seat, Turn) else None


def brings_gradients() -> Callable[[Any, Sequence[tuple[Any, Variable]]], None] | None:
    """Where an optimizer brings its gradients while a shard runs a user's step; else None."""
    turn = current()
    if turn is None:
        return None
    if not turn.step.captures:
        recording.refuse("apply_gradients of a data-parallel script")
    return turn.bring


def joins(metric: Any) -> None:
    """Says that a metric is about to be given a batch."""
    turn = current()
    if turn is not None:
        turn.step.joined(turn, metric)


class Turns(Meeting):
    """Runs a function for every virtual shard of this worker, and lets the shards meet.

    ``state`` are the variables that the function may assign itself. The gradients of a shard weigh
    its share of the samples, or 1 where they are those of sums (``mean_loss=False``). A subclass
    says what a shard starts with and what is kept of its end. Raises RuntimeError where the shards
    do not meet equally often.
    """

    def __init__(
        self,
        communicator: Communicator,
        virtual_shards: int,
        seed: int,
        *,
        state: Sequence[Variable] = (),
        mean_loss: bool = True,
    ) -> None:
        super().__init__(communicator)
        self.virtual_shards = virtual_shards
        self.seed = seed
        self.mean_loss = mean_loss
        self._state = StateMean(state, virtual_shards)
        self._buckets: dict[tuple[int, ...], GradientBuckets] = {}

    # What a subclass says

    captures = False  # whether what a shard runs may be captured

    def run(self, turn: Turn) -> None:
        """One shard, from beginning to end."""
        raise NotImplementedError

    def metrics_of(self, turn: Turn) -> Sequence[Any]:
        """The metrics whose states are a shard's own until its end."""
        raise NotImplementedError

    def joined(self, turn: Turn, metric: Any) -> None:
        """Told before a metric is given a batch by a shard."""

    # What all of them do

    def take(self, step: int, batch: Batch) -> list[Turn]:
        """Runs this worker's shards of a batch, in step number ``step``; their turns, done."""
        turns = [Turn(self, step, batch, index, arrays) for index, arrays in batch.shards]
        # A worker without a shard runs along, so that it meets the others; what it brings is left.
        turns = turns or [Turn(self, step, batch, SPARE, batch.spare)]
        self._state.start()
        self.hold(turns)
        self._reduce_state(turns, batch)
        return turns

    def rehearse(self, batch: Batch, arrays: tuple) -> None:
        """Runs a shard of nobody, which applies no gradients, for the variables that it makes.

        What layers draw when they build themselves does not depend then on who runs which shard.
        Whatever it assigns is undone.
        """
        turn = Turn(self, 0, batch, SPARE, arrays)
        turn.rehearses = True
        with undone(), recording.rehearsal():
            turn.run()
        if turn.error is not None:
            raise turn.error

    def together(self, seats: Sequence[Turn]) -> None:
        self._reduce_state(seats, seats[0].batch)
        super().together(seats)

    def add_up(self, seats: Sequence[Turn]) -> None:
        if seats[0].optimizer is None:
            super().add_up(seats)
        else:
            self._apply(seats, seats[0].batch)

    def _apply(self, turns: Sequence[Turn], batch: Batch) -> None:
        """Adds up the gradients that all shards have brought, and applies them once."""
        variables = [variable for _, variable in turns[0].pairs]
        key = tuple(map(id, variables))
        if key not in self._buckets:
            if self.communicator.world_size > 1:
                check_settings(self.communicator, [turns[0].optimizer])
            self._buckets[key] = GradientBuckets(variables, self.virtual_shards, self.communicator)
        buckets = self._buckets[key]
        buckets.start(batch.present)
        for turn in turns:
            if not turn.is_spare:
                buckets.push(turn.index, [_weighed(g, self._share(turn)) for g, _ in turn.pairs])
        flags = [any(t.pairs[i][0] is not None for t in turns) for i in range(len(variables))]
        told = self.communicator.allgather_object((batch.size, flags))
        sizes, everyone = zip(*told, strict=True)
        for rank, size in enumerate(sizes):
            if size != sizes[0]:
                raise UsageError(
                    f"rank {rank} was given a batch of {size}, rank 0 one of {sizes[0]}: every "
                    "worker needs the whole batch, and takes its own part."
                )
        if any(len(other) != len(flags) for other in everyone):
            raise OutOfStepError("the ranks applied gradients of different variables")
        buckets.reduce()
        gradients = buckets.gradients([any(each) for each in zip(*everyone, strict=True)])
        found = [None if g is None else as_tensor(g.copy()) for g in gradients]
        turns[0].optimizer.apply_pairs(list(zip(found, variables, strict=True)))

    def _share(self, turn: Turn) -> float:
        return turn.part if self.mean_loss else 1.0

    def _reduce_state(self, turns: Sequence[Turn], batch: Batch) -> None:
        own_turns = [turn for turn in turns if not turn.is_spare]
        for turn in own_turns:
            self._state.propose(turn.index, turn.part, turn.written)
        flags = [self._state.among(turn.written) for turn in own_turns]
        own = [any(each) for each in zip(*flags, strict=True)] if flags else []
        everyone = [each for each in self.communicator.allgather_object(own) if each]
        written = [any(each) for each in zip(*everyone, strict=True)]
        self._state.reduce(written, self.communicator, batch.present)
        self._state.start()


class CustomStep(Turns):
    """``fn`` for each shard, on what ``given`` makes of its arrays.

    What it returns, by name, is added up as `Returned` says; it may be captured, and has `marked`
    what it returns then. Each shard starts ``metrics`` anew.
    """

    captures = True

    def __init__(
        self,
        fn: Callable[[Any], dict[str, Any]],
        communicator: Communicator,
        virtual_shards: int,
        seed: int,
        *,
        state: Sequence[Variable] = (),
        given: Callable[[tuple], Any] = lambda arrays: arrays,
        metrics: Callable[[], Sequence[Any]] = tuple,
        mean_loss: bool = True,
    ) -> None:
        super().__init__(communicator, virtual_shards, seed, state=state, mean_loss=mean_loss)
        self.fn = fn
        self.given = given
        self.metrics = metrics
        self.stop_requested = False
        self.layers: Sequence[Any] = ()  # what has to live as long as it
        self.returned = Returned(metrics, alone=virtual_shards == 1)
        self.alarm = DesyncAlarm(state, communicator)

    @property
    def input_device(self) -> Backend | None:
        """Where the arrays of batches may lie when they come; None: on the host alone."""
        return device_of(self._state.variables)

    @property
    def waited(self) -> float:
        """Seconds for other workers, and what they send, so far."""
        return self.communicator.seconds

    def __call__(self, step: int, batch: Batch) -> Reduced:
        """Step number ``step`` (from 0) on this worker's shards of ``batch``."""
        turns = self.take(step, batch)
        values = {turn.index: turn.values for turn in turns if not turn.is_spare}
        everyone = self.communicator.allgather_object((values, self.stop_requested))
        self.alarm.after(step + 1)
        sums = self.returned.together([found for found, _ in everyone], batch)
        loss = self.returned.values(sums).get("loss", math.nan)
        loss = loss if type(loss) is float else float(np.mean(loss))
        return Reduced(loss, sums, any(stop for _, stop in everyone))

    def run(self, turn: Turn) -> None:
        self.returned.begin_shard()
        with turn:
            returned = self.fn(self.given(turn.arrays))
        turn.values = self.returned.of_shard(returned)

    def metrics_of(self, turn: Turn) -> Sequence[Any]:
        return self.metrics()

    def build(self, arrays: tuple) -> None:
        """Runs the step once on some samples, for the variables that layers make; see `rehearse`.

        Metrics keep their states.
        """
        kept = [(metric, metric.state()) for metric in self.metrics()]
        try:
            self.rehearse(Batch(0, 1, [0], [], {0: 1}), arrays)
        finally:
            for metric, state in kept:
                metric.set_state(state)

    def results(self, loss: float, sums: np.ndarray) -> dict[str, Any]:
        """What the steps have returned, of all batches as `Returned` adds them up."""
        return self.returned.values(sums)


class Turn(Seat):
    """One shard's run of a step; the context in which its layers' state is its own."""

    def __init__(self, step: Turns, number: int, batch: Batch, index: int, arrays: tuple) -> None:
        size = batch.sizes.get(index, 0)
        weighs = step.mean_loss and index != SPARE
        weight = size * len(batch.sizes) / batch.size if weighs else 1.0
        super().__init__(index, step.virtual_shards, weight)
        self.step = step
        self.batch = batch
        self.arrays = arrays
        self.part = size / batch.size
        self.stream = streams.stream(step.seed, number, max(index, 0))
        self.metrics: list[Any] = []  # that it has given batches, where each shard keeps its own
        self._kept: list[tuple[Any, Any]] = []  # metrics and their states, while others run
        self.values: Any = {}  # what is kept of the end
        self.written: dict[int, Any] = {}
        # Gradients that it has brought for an optimizer.
        self.optimizer: Any = None
        self.pairs: list[tuple[Any, Variable]] = []

    @property
    def purpose(self) -> tuple[Any, ...]:
        if self.optimizer is None:
            return super().purpose
        return (id(self.optimizer), *(id(variable) for _, variable in self.pairs))

    def work(self) -> None:
        with self.stream:
            self.step.run(self)

    def bring(self, optimizer: Any, pairs: Sequence[tuple[Any, Variable]]) -> None:
        """Brings gradients; returns when those of all shards have been applied."""
        self.optimizer, self.pairs = optimizer, list(pairs)
        self.meet()

    def add_up(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.optimizer = None
        return super().add_up(arrays)

    def pause(self) -> None:
        self._leave()
        self._kept = [(metric, metric.state()) for metric in self.step.metrics_of(self)]

    def resume(self) -> None:
        for metric, state in self._kept:
            metric.set_state(state)
        self.__enter__()

    def __enter__(self) -> None:
        self._shard: shard | None = shard(self.part, self.step._state.variables)
        self._shard.__enter__()

    def __exit__(self, *exc: object) -> None:
        self._leave()

    def leave_out(self, others: Container[int]) -> None:
        """What is assigned to variables of these ids from now on is nobody's proposal."""
        if self._shard is not None:
            self._shard.leave_out(others)

    def _leave(self) -> None:
        if self._shard is not None:
            self._shard.__exit__()
            self.written, self._shard = self._shard.written, None


def _weighed(gradient: Any, share: float) -> Any:
    if gradient is None or share == 1.0:
        return gradient
    tensor = as_tensor(gradient)
    return tensor * tensor._data.dtype.type(share)
