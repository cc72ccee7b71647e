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
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.core import dispatch
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import PeerLostError
from distgrad.core.variable import Variable
from distgrad.data.loader import Batch
from distgrad.ops import random
from distgrad.training.buckets import GradientBuckets
from distgrad.training.digest import DesyncAlarm
from distgrad.training.reduction import Reduced
from distgrad.training.returned import Returned
from distgrad.training.state import StateMean, shard

_SPARE = -1  # the index of a shard that somebody else runs


class _Here(threading.local):
    """The turn that this thread takes."""

    turn: _Turn | None = None


_here = _Here()


def meeting() -> Callable[[Any, Sequence[tuple[Any, Variable]]], None] | None:
    """Where an optimizer brings its gradients while a shard runs a user's step; else None."""
    return None if _here.turn is None else _here.turn.meet


class CustomStep:
    """``fn(arrays)`` for each shard; what it returns, by name, is added up as `Returned` says.

    ``state`` are the variables that the step may assign itself. A mean loss weighs the gradients of
    a shard by its share of the samples, a sum loss (``mean_loss=False``) by 1. Each shard starts
    ``metrics`` anew. Raises RuntimeError where the shards do not apply gradients in the same turn.
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
        self.fn = fn
        self.metrics = metrics
        self.communicator = communicator
        self.virtual_shards = virtual_shards
        self.seed = seed
        self.mean_loss = mean_loss
        self.stop_requested = False
        self.returned = Returned(metrics)
        self._state = StateMean(state, virtual_shards)
        self._alarm = DesyncAlarm(state, communicator)
        self._buckets: dict[tuple[int, ...], GradientBuckets] = {}

    def __call__(self, step: int, batch: Batch) -> Reduced:
        """Step number ``step`` (from 0) on this worker's shards of ``batch``."""
        turns = [_Turn(self, step, batch, index, arrays) for index, arrays in batch.shards]
        # A worker without a shard runs along, so that it meets the others; what it brings is left.
        turns = turns or [_Turn(self, step, batch, _SPARE, batch.spare)]
        self._state.start()
        if len(turns) == 1:
            turns[0].alone = True
            turns[0].run()
            if turns[0].error is not None:
                raise turns[0].error
        else:
            self._take_turns(turns, batch)
        self._reduce_state(turns, batch)
        values = {turn.index: turn.values for turn in turns if turn.index != _SPARE}
        everyone = self.communicator.allgather_object((values, self.stop_requested))
        self._alarm.after(step + 1)
        sums = self.returned.together([found for found, _ in everyone], batch)
        loss = self.returned.values(sums).get("loss", math.nan)
        return Reduced(loss, sums, any(stop for _, stop in everyone))

    def results(self, loss: float, sums: np.ndarray) -> dict[str, Any]:
        """What the steps have returned, over all samples."""
        return self.returned.values(sums)

    def _take_turns(self, turns: list[_Turn], batch: Batch) -> None:
        """Runs all shards, from one meeting to the next."""
        for turn in turns:
            turn.start()
        while not all(turn.done for turn in turns):
            for turn in turns:
                turn.go.release()
                turn.back.acquire()
            error = next((turn.error for turn in turns if turn.error is not None), None)
            waiting = [turn for turn in turns if not turn.done]
            if error is None and waiting and len(waiting) < len(turns):
                error = RuntimeError(
                    "some shards of a batch applied gradients where others had come to their end: "
                    "train_step must apply gradients equally often for all samples"
                )
            if error is not None:
                self._dismiss(turns)
                raise error
            if waiting:
                self.together(turns, batch)

    def _dismiss(self, turns: list[_Turn]) -> None:
        for turn in turns:
            if not turn.done:
                turn.dismissed = True
                turn.go.release()
                turn.back.acquire()

    def together(self, turns: list[_Turn], batch: Batch) -> None:
        """Adds up what all shards have brought, and applies it once."""
        if len({(id(t.optimizer), tuple(id(v) for _, v in t.pairs)) for t in turns}) > 1:
            raise RuntimeError("shards of a batch applied gradients of different variables")
        self._reduce_state(turns, batch)
        variables = [variable for _, variable in turns[0].pairs]
        key = tuple(map(id, variables))
        if key not in self._buckets:
            self._buckets[key] = GradientBuckets(variables, self.virtual_shards, self.communicator)
        buckets = self._buckets[key]
        buckets.start(batch.present)
        for turn in turns:
            if turn.index != _SPARE:
                buckets.push(turn.index, [_weighed(g, self._share(turn)) for g, _ in turn.pairs])
        flags = [any(t.pairs[i][0] is not None for t in turns) for i in range(len(variables))]
        everyone = self.communicator.allgather_object(flags)
        if any(len(other) != len(flags) for other in everyone):
            raise PeerLostError("the ranks applied gradients of different variables")
        buckets.reduce()
        gradients = buckets.gradients([any(each) for each in zip(*everyone, strict=True)])
        found = [None if g is None else as_tensor(g.copy()) for g in gradients]
        turns[0].optimizer.apply_gradients(list(zip(found, variables, strict=True)))

    def _share(self, turn: _Turn) -> float:
        return turn.part if self.mean_loss else 1.0

    def _reduce_state(self, turns: list[_Turn], batch: Batch) -> None:
        own_turns = [turn for turn in turns if turn.index != _SPARE]
        flags = [self._state.propose(t.index, t.part, t.written) for t in own_turns]
        own = [any(each) for each in zip(*flags, strict=True)] if flags else []
        everyone = [each for each in self.communicator.allgather_object(own) if each]
        written = [any(each) for each in zip(*everyone, strict=True)]
        self._state.reduce(written, self.communicator, batch.present)
        self._state.start()


class _Turn:
    """One shard's run of a step."""

    def __init__(
        self, step: CustomStep, number: int, batch: Batch, index: int, arrays: tuple
    ) -> None:
        self.step = step
        self.batch = batch
        self.index = index
        self.arrays = arrays
        self.part = batch.sizes.get(index, 0) / batch.size
        self.stream = random.stream(step.seed, number, max(index, 0))
        self.alone = False
        self.dismissed = self.done = False
        self.go, self.back = threading.Semaphore(0), threading.Semaphore(0)
        self.error: BaseException | None = None
        self.values: dict[str, Any] = {}
        self.written: dict[int, Any] = {}
        self.optimizer: Any = None
        self.pairs: list[tuple[Any, Variable]] = []
        self.metrics: list[Any] = []  # the states of all metrics while another shard has its turn

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
                    for metric in self.step.metrics():
                        metric.reset_state()
                    self._enter()
                    try:
                        returned = self.step.fn(self.arrays)
                    finally:
                        self._leave()
                    self.values = self.step.returned.of_shard(returned)
        except _Dismissed:
            pass
        except BaseException as error:
            self.error = error
        finally:
            _here.turn = before
            self.done = True

    def meet(self, optimizer: Any, pairs: Sequence[tuple[Any, Variable]]) -> None:
        """Brings gradients; returns when those of all shards have been applied."""
        self._leave()
        self.metrics = [metric.state() for metric in self.step.metrics()]
        self.optimizer, self.pairs = optimizer, list(pairs)
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
        for metric, state in zip(self.step.metrics(), self.metrics, strict=True):
            metric.set_state(state)
        self._enter()

    def _enter(self) -> None:
        self._shard: shard | None = shard(self.part, self.step._state.variables)
        self._shard.__enter__()

    def _leave(self) -> None:
        if self._shard is not None:
            self._shard.__exit__()
            self.written, self._shard = self._shard.written, None


class _Dismissed(BaseException):
    """Ends the turns of shards beside one that has failed."""


def _weighed(gradient: Any, share: float) -> Any:
    if gradient is None or share == 1.0:
        return gradient
    tensor = as_tensor(gradient)
    return tensor * tensor._data.dtype.type(share)
