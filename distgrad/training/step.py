"""One data-parallel training step, whatever started the workers.

The gradients of all shards of all workers are added in one fixed order, and every worker applies
the same update. That is why the weights do not depend on the number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from distgrad.backend.base import Backend
from distgrad.backend.denormals import flushed
from distgrad.comm.communicator import Communicator
from distgrad.core import timeline
from distgrad.core.dispatch import backend_of, in_caches
from distgrad.core.errors import DivergedError
from distgrad.core.user_line import warn
from distgrad.core.variable import Variable
from distgrad.data.loader import Batch
from distgrad.training.arena import Arena
from distgrad.training.digest import DesyncAlarm
from distgrad.training.feeding import device_of
from distgrad.training.frames import Pending
from distgrad.training.programs import ExecutorName
from distgrad.training.reduction import Compute, GradientSum, Overlap, Reduced
from distgrad.training.sharded import SlotParts, WholeSlots

_BLOCK = 1 << 16  # elements that are looked at a time: it bounds the memory of the answers


class Planned(Protocol):
    """The update of arrays that stay where they are, by its number."""

    @property
    def bound(self) -> bool: ...

    def __call__(self, step: int) -> None: ...

    def where_finite(self, step: int, losses: Any) -> bool: ...


class Optimizer(Protocol):
    """What a step asks of an optimizer."""

    slots: dict[str, list[Variable]]
    slot_names: tuple[str, ...]  # of the slots that ``update`` takes

    @property
    def loss_scale(self) -> float: ...

    @property
    def needs_whole_gradients(self) -> bool: ...

    def unscaled(self, finite: bool) -> bool: ...

    def build(self, variables: Sequence[Variable]) -> None: ...

    @property
    def only_updates(self) -> bool: ...

    def begin(self, gradients: Sequence[Any]) -> tuple[int, bool]: ...

    def take_back(self) -> None: ...

    def before_update(self, gradients: Sequence[Any], step: int) -> None: ...

    def planned(self, pieces: Sequence[tuple[Any, Any, list[Any]]]) -> Planned: ...

    def after_update(self, step: int) -> None: ...


class _Plan(NamedTuple):
    """What an update works on, for as long as the same variables have gradients."""

    present: list[bool]
    gradients: list[Any]  # one for each variable, None without one
    update: Planned  # of the values and the state that this rank updates


class TrainStep:
    """Runs a worker's shards, reduces, and updates the variables.

    The arguments are those of `GradientSum`. With ``shard_optimizer`` a rank keeps a part of the
    optimizer's state (ZeRO-1), which ``optimizer.slots`` then does not have. Weights are compared
    over all ranks every ``check_every`` steps; ``paths`` name variables in messages. Raises
    DivergedError at a loss that is not finite where ``stop_on_nan``; no variable has been changed
    by that step then. Raises DesyncError where the ranks have different weights.
    """

    def __init__(
        self,
        compute: Compute,
        sums_size: int,
        variables: Sequence[Variable],
        optimizer: Optimizer,
        communicator: Communicator,
        virtual_shards: int,
        seed: int,
        *,
        state: Sequence[Variable] = (),
        mean_loss: bool = True,
        counted: bool = False,
        stop_on_nan: bool = True,
        overlap: Overlap = "auto",
        shard_optimizer: bool = False,
        check_every: int = 100,
        paths: Mapping[str, Variable] | None = None,
        bucket_bytes: int | None = None,
        lends: bool = False,
        meets: bool = False,
        executor: ExecutorName = "eager",
        strict: bool = False,
    ) -> None:
        self.optimizer = optimizer
        self.stop_on_nan = stop_on_nan
        optimizer.build(variables)
        self.sum = GradientSum(
            compute,
            sums_size,
            variables,
            communicator,
            virtual_shards,
            seed,
            state=state,
            mean_loss=mean_loss,
            counted=counted,
            overlap=overlap,
            bucket_bytes=bucket_bytes,
            lends=lends,
            meets=meets,
            executor=executor,
            strict=strict,
            scatter=shard_optimizer and not optimizer.needs_whole_gradients,
        )
        buckets, names = self.sum.buckets, optimizer.slot_names
        self._arenas = [Arena(layout.variables, layout.positions) for layout in buckets.layouts]
        self.slots: WholeSlots | SlotParts
        if shard_optimizer:
            self.slots = SlotParts(buckets, optimizer.slots, names, communicator)
        else:
            self.slots = WholeSlots(buckets, optimizer.slots, names)
        known = {id(v): v for v in (*variables, *state)}
        self.alarm = DesyncAlarm(list(known.values()), communicator, check_every, paths)
        self._unconnected: set[int] = set()  # variables that a warning has named
        self._plan: _Plan | None = None
        self.layers: Sequence[Any] = ()  # what has to live as long as it

    @classmethod
    def of(
        cls, model: Any, communicator: Communicator, virtual_shards: int, seed: int, **options: Any
    ) -> TrainStep:
        """The step of a Keras model that is compiled and built; ``options`` as for the class."""
        trainable = model.trainable_variables
        model.optimizer.build(trainable)
        frozen = {id(v) for v in model.optimizer.trained} - {id(v) for v in trainable}
        step = cls(
            model.compute,
            model.sums_size,
            model.optimizer.trained,
            model.optimizer,
            communicator,
            virtual_shards,
            seed,
            state=model.variables,  # layers may assign those that are trained, too
            mean_loss=model.mean_loss,
            counted=model.counted,
            lends=True,  # as in a captured step, the model gets tensors
            meets=any(layer.meets for layer in model._layers_below()),
            **options,
        )
        step._unconnected |= frozen  # after the optimizer was built; no news to the user
        return step

    @property
    def variables(self) -> list[Variable]:
        return self.sum.variables

    @property
    def input_device(self) -> Backend | None:
        """Where the arrays of batches may lie when they come; None: on the host alone."""
        return device_of(self.variables)

    @property
    def waited(self) -> float:
        """Seconds for other workers, and what they send, in all steps so far."""
        return self.sum.waited

    @property
    def captured(self) -> bool:
        """Whether it runs programs; a shape that cannot be captured is eager all the same."""
        return self.sum.programs is not None

    @property
    def communicator(self) -> Communicator:
        return self.sum.communicator

    @property
    def stop_requested(self) -> bool:
        """Whether this rank was asked to stop; the result of the next step tells all of them."""
        return self.sum.stop_requested

    @stop_requested.setter
    def stop_requested(self, value: bool) -> None:
        self.sum.stop_requested = value

    def start_anew(self, seed: int) -> None:
        """From now on the step of another run, whose shards draw from ``seed``."""
        self.sum.seed = seed
        self.sum.stop_requested = False

    def __call__(self, step: int, batch: Batch) -> Reduced:
        """Step number ``step`` (from 0) on this worker's shards of ``batch``."""
        with flushed():
            return self._run(step, batch)

    def _run(self, step: int, batch: Batch) -> Reduced:
        begun = False  # the update, which a device leaves out where a loss is not finite

        def ahead(losses: Pending) -> None:
            nonlocal begun
            if self.optimizer.only_updates:
                begun = self._update(losses if self.stop_on_nan else None)

        def accept(loss: float) -> None:
            if self.stop_on_nan and not math.isfinite(loss):
                if begun:
                    self.optimizer.take_back()
                raise DivergedError(
                    f"the loss is {loss} at step {step}, which was not taken. Lower "
                    "optimizer.learning_rate, or look for bad values in the data."
                )

        scale = self.optimizer.loss_scale
        result = self.sum(step, batch, scale, accept, ahead if scale == 1.0 else None)
        if not begun and (scale == 1.0 or self.optimizer.unscaled(self._unscale(scale))):
            self._update()
        self.alarm.after(step + 1)
        return result

    def _unscale(self, scale: float) -> bool:
        """Takes the loss scale out of the gradients; whether all of them are finite."""
        finite = True
        for flat in self.sum.buckets.flats:
            xp = backend_of(flat).xp
            size = _BLOCK if in_caches(xp) else max(flat.size, 1)
            for start in range(0, flat.size, size):
                finite = finite and bool(xp.isfinite(flat[start : start + size]).all())
            flat *= flat.dtype.type(1.0 / scale)
        return finite

    def _update(self, losses: Pending | None = None) -> bool:
        """Updates the variables, where ``losses`` that are on their way turn out to be finite.

        False where that cannot be left to the device: nothing has been done then.
        """
        if timeline.told is None:
            return self._updated(losses)
        with timeline.span("update"):
            return self._updated(losses)

    def _updated(self, losses: Pending | None) -> bool:
        plan = self._plan
        if plan is None or plan.present is not self.sum.present:
            plan = self._plan = self._planned(self.sum.present)
        if losses is not None and not plan.update.bound:
            return False
        optimizer = self.optimizer
        if any([arena.recall_loans() for arena in self._arenas]):
            self.slots.adopt()
        count, due = optimizer.begin(plan.gradients)
        if losses is not None:
            done = plan.update.where_finite(count, losses)
            if not done:
                optimizer.take_back()
            return done
        if due:
            optimizer.before_update(plan.gradients, count)
            plan.update(count)
            self.slots.finish(self._arenas)
        optimizer.after_update(count)
        return True

    def _planned(self, present: list[bool]) -> _Plan:
        if not all(present):
            self._warn(present)
        update = self.optimizer.planned(self._cut(present))
        return _Plan(present, self.sum.buckets.gradients(present), update)

    def _cut(self, present: Sequence[bool]) -> list[tuple[Any, Any, list[Any]]]:
        """What this rank updates: the same arrays at every step, so that kernels stay bound."""
        return [
            (arena.values[where], flat[where], state)
            for number, (arena, flat) in enumerate(
                zip(self._arenas, self.sum.buckets.flats, strict=True)
            )
            for run in arena.segments(present)
            for where, state in self.slots.pieces(number, run)
        ]

    def _warn(self, present: Sequence[bool]) -> None:
        """Names variables without a gradient, each once, on rank 0."""
        pairs = zip(self.variables, present, strict=True)
        new = [v for v, there in pairs if not there and id(v) not in self._unconnected]
        self._unconnected.update(map(id, new))
        if new and self.communicator.rank == 0:
            names = ", ".join(map(self.alarm.name, new))
            warn(
                f"no gradient for {names}: the loss of this batch does not depend on it. It is "
                "left as it is."
            )
