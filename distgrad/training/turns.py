"""A user's own training step, run for every virtual shard.

Each shard runs the step on its own samples, under its own random numbers. Where a step applies
gradients, the shards meet: what all of them bring is added up in the fixed order, the optimizer is
applied once, and all go on. Shards of one worker take turns, each in a thread of its own, one of
which runs at a time; so a step that applies several optimizers needs nothing special.
"""

from __future__ import annotations

import contextvars
import math
import threading
from collections.abc import Callable, Container, Sequence
from typing import Any

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.core import dispatch, recording
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import OutOfStepError
from distgrad.core.undone import undone
from distgrad.core.variable import Variable
from distgrad.data.loader import Batch
from distgrad.ops import streams
from distgrad.training.buckets import GradientBuckets
from distgrad.training.digest import DesyncAlarm
from distgrad.training.reduction import Reduced
from distgrad.training.returned import Returned
from distgrad.training.state import StateMean, shard

SPARE = -1  # the index of a shard that somebody else runs


class _Here(threading.local):
    """The turn that this thread takes."""

    turn: Turn | None = None


_here = _Here()


def current() -> Turn | None:
    """The turn that this thread takes, while a shard runs."""
    return _here.turn


def meeting() -> Callable[[Any, Sequence[tuple[Any, Variable]]], None] | None:
    """Where an optimizer brings its gradients while a shard runs a user's step; else None."""
    return None if _here.turn is None else _here.turn.meet


def joins(metric: Any) -> None:
    """Says that a metric is about to be given a batch."""
    if _here.turn is not None:
        _here.turn.step.joined(_here.turn, metric)


class Turns:
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
        self.communicator = communicator
        self.virtual_shards = virtual_shards
        self.seed = seed
        self.mean_loss = mean_loss
        self._state = StateMean(state, virtual_shards)
        self._buckets: dict[tuple[int, ...], GradientBuckets] = {}

    # What a subclass says

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
        if len(turns) == 1:
            turns[0].alone = True
            turns[0].run()
            if turns[0].error is not None:
                raise turns[0].error
        else:
            self._take_turns(turns, batch)
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

    def _take_turns(self, turns: list[Turn], batch: Batch) -> None:
        """Runs all shards, from one meeting to the next."""
        for turn in turns:
            turn.start()
        try:
            while not all(turn.done for turn in turns):
                for turn in turns:
                    turn.go.release()
                    turn.back.acquire()
                self._look_for_errors(turns)
                if not turns[0].done:
                    self.together(turns, batch)
        except BaseException:
            self._dismiss(turns)
            raise

    def _look_for_errors(self, turns: list[Turn]) -> None:
        """Raises the error of a shard, or RuntimeError where some alone have ended."""
        error = next((turn.error for turn in turns if turn.error is not None), None)
        if error is not None:
            raise error
        if len({turn.done for turn in turns}) > 1:
            raise RuntimeError(
                "some shards of a batch applied gradients where others had come to their end: "
                "train_step must apply gradients equally often for all samples"
            )

    def _dismiss(self, turns: list[Turn]) -> None:
        """Ends the threads of shards that have met, or are on their way to it."""
        for turn in turns:
            if not turn.done:
                turn.dismissed = True
                turn.go.release()
                turn.back.acquire()

    def together(self, turns: list[Turn], batch: Batch) -> None:
        """Does what all shards have met for."""
        if len({turn.purpose for turn in turns}) > 1:
            raise RuntimeError(
                "shards of a batch applied gradients of different variables, or met for something "
                "else: a step must do the same for all samples"
            )
        self._reduce_state(turns, batch)
        if turns[0].optimizer is None:
            self._add_up(turns)
        else:
            self._apply(turns, batch)

    def _apply(self, turns: list[Turn], batch: Batch) -> None:
        """Adds up the gradients that all shards have brought, and applies them once."""
        variables = [variable for _, variable in turns[0].pairs]
        key = tuple(map(id, variables))
        if key not in self._buckets:
            self._buckets[key] = GradientBuckets(variables, self.virtual_shards, self.communicator)
        buckets = self._buckets[key]
        buckets.start(batch.present)
        for turn in turns:
            if turn.index != SPARE:
                buckets.push(turn.index, [_weighed(g, self._share(turn)) for g, _ in turn.pairs])
        flags = [any(t.pairs[i][0] is not None for t in turns) for i in range(len(variables))]
        everyone = self.communicator.allgather_object(flags)
        if any(len(other) != len(flags) for other in everyone):
            raise OutOfStepError("the ranks applied gradients of different variables")
        buckets.reduce()
        gradients = buckets.gradients([any(each) for each in zip(*everyone, strict=True)])
        found = [None if g is None else as_tensor(g.copy()) for g in gradients]
        turns[0].optimizer.apply_pairs(list(zip(found, variables, strict=True)))

    def _add_up(self, turns: list[Turn]) -> None:
        """Adds up the arrays that all shards have brought, in their order, whoever had them."""
        own = {turn.index: turn.brought for turn in turns if turn.index != SPARE}
        total = ordered_sum(self.communicator.allgather_object(own))
        for turn in turns:
            turn.brought = total

    def _share(self, turn: Turn) -> float:
        return turn.part if self.mean_loss else 1.0

    def _reduce_state(self, turns: list[Turn], batch: Batch) -> None:
        own_turns = [turn for turn in turns if turn.index != SPARE]
        flags = [self._state.propose(t.index, t.part, t.written) for t in own_turns]
        own = [any(each) for each in zip(*flags, strict=True)] if flags else []
        everyone = [each for each in self.communicator.allgather_object(own) if each]
        written = [any(each) for each in zip(*everyone, strict=True)]
        self._state.reduce(written, self.communicator, batch.present)
        self._state.start()


class CustomStep(Turns):
    """``fn(arrays)`` for each shard; what it returns, by name, is added up as `Returned` says.

    Each shard starts ``metrics`` anew.
    """

    def __init__(
        self,
        fn: Callable[[tuple], dict[str, Any]],
        communicator: Communicator,
        virtual_shards: int,
        seed: int,
        *,
        state: Sequence[Variable] = (),
        metrics: Callable[[], Sequence[Any]] = tuple,
        mean_loss: bool = True,
    ) -> None:
        super().__init__(communicator, virtual_shards, seed, state=state, mean_loss=mean_loss)
        self.fn = fn
        self.metrics = metrics
        self.stop_requested = False
        self.returned = Returned(metrics)
        self._alarm = DesyncAlarm(state, communicator)

    def __call__(self, step: int, batch: Batch) -> Reduced:
        """Step number ``step`` (from 0) on this worker's shards of ``batch``."""
        turns = self.take(step, batch)
        values = {turn.index: turn.values for turn in turns if turn.index != SPARE}
        everyone = self.communicator.allgather_object((values, self.stop_requested))
        self._alarm.after(step + 1)
        sums = self.returned.together([found for found, _ in everyone], batch)
        loss = self.returned.values(sums).get("loss", math.nan)
        return Reduced(loss, sums, any(stop for _, stop in everyone))

    def run(self, turn: Turn) -> None:
        for metric in self.metrics():
            metric.reset_state()
        with turn:
            returned = self.fn(turn.arrays)
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
        """What the steps have returned, over all samples."""
        return self.returned.values(sums)


class Turn:
    """One shard's run of a step; the context in which its layers' state is its own."""

    def __init__(self, step: Turns, number: int, batch: Batch, index: int, arrays: tuple) -> None:
        self.step = step
        self.batch = batch
        self.index = index
        self.arrays = arrays
        self.part = batch.sizes.get(index, 0) / batch.size
        self.stream = streams.stream(step.seed, number, max(index, 0))
        self.alone = False
        self.rehearses = False  # meets nobody, and applies nothing
        self.metrics: list[Any] = []  # that it has given batches, where each shard keeps its own
        self.dismissed = self.done = False
        self.go, self.back = threading.Semaphore(0), threading.Semaphore(0)
        self.error: BaseException | None = None
        self.values: Any = {}  # what is kept of the end
        self.written: dict[int, Any] = {}
        # What it has brought to a meeting: gradients for an optimizer, or arrays.
        self.optimizer: Any = None
        self.pairs: list[tuple[Any, Variable]] = []
        self.brought: list[np.ndarray] = []

    @property
    def is_spare(self) -> bool:
        """Whether somebody else runs this shard as well, and what it brings is left."""
        return self.index == SPARE

    @property
    def purpose(self) -> tuple[Any, ...]:
        """What it has come to a meeting for: the same for all shards."""
        if self.optimizer is None:
            return tuple((array.shape, array.dtype) for array in self.brought)
        return (id(self.optimizer), *(id(variable) for _, variable in self.pairs))

    def start(self) -> None:
        context, backend = contextvars.copy_context(), dispatch.current()

        def work() -> None:
            backend.enter_thread()
            self.go.acquire()
            context.run(self.run)
            self.back.release()

        threading.Thread(target=work, daemon=True, name=f"shard {self.index}").start()

    def run(self) -> None:
        before, _here.turn = _here.turn, self
        try:
            if not self.dismissed:
                with self.stream:
                    self.step.run(self)
        except _Dismissed:
            pass
        except BaseException as error:
            self.error = error
        finally:
            _here.turn = before
            self.done = True

    def meet(self, optimizer: Any, pairs: Sequence[tuple[Any, Variable]]) -> None:
        """Brings gradients; returns when those of all shards have been applied."""
        self.optimizer, self.pairs = optimizer, list(pairs)
        self._meet()

    def add_up(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The sums of what all shards bring, in one fixed order."""
        self.optimizer, self.brought = None, list(arrays)
        self._meet()
        return self.brought

    def _meet(self) -> None:
        if self.rehearses:
            return
        self._leave()
        kept = [(metric, metric.state()) for metric in self.step.metrics_of(self)]
        if self.alone:
            _here.turn = None
            try:
                self.step.together([self], self.batch)
            finally:
                _here.turn = self
        else:
            self.back.release()
            self.go.acquire()
            if self.dismissed:
                raise _Dismissed
        for metric, state in kept:
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


class _Dismissed(BaseException):
    """Ends the turns of shards beside one that has failed."""


def ordered_sum(everyone: Sequence[dict[int, list[np.ndarray]]]) -> list[np.ndarray]:
    """Arrays by shard, of all ranks, added in the order of the shards."""
    first, *rest = in_order(everyone)
    total = [np.array(array) for array in first]
    for arrays in rest:
        for place, array in zip(total, arrays, strict=True):
            place += array
    return total


def in_order(everyone: Sequence[dict[int, Any]]) -> list[Any]:
    """What the shards of all ranks have, in their order."""
    shards = {index: each for part in everyone for index, each in part.items()}
    return [shards[index] for index in sorted(shards)]


def _weighed(gradient: Any, share: float) -> Any:
    if gradient is None or share == 1.0:
        return gradient
    tensor = as_tensor(gradient)
    return tensor * tensor._data.dtype.type(share)
