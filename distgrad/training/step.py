"""One data-parallel training step, whatever started the workers.

The gradients of all shards of all workers are added in one fixed order, and every worker applies
the same update. That is why the weights do not depend on the number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from distgrad.comm.communicator import Communicator
from distgrad.core.dispatch import backend_of
from distgrad.core.errors import DivergedError
from distgrad.core.variable import Variable
from distgrad.data.loader import Batch
from distgrad.training.arena import Arena
from distgrad.training.reduction import Compute, GradientSum, Reduced


class Optimizer(Protocol):
    """What a step asks of an optimizer."""

    iterations: Variable
    slots: dict[str, list[Variable]]
    slot_names: tuple[str, ...]  # of the slots that ``update`` takes

    @property
    def loss_scale(self) -> float: ...

    def unscaled(self, finite: bool) -> bool: ...

    def build(self, variables: Sequence[Variable]) -> None: ...

    def before_update(self, gradients: Sequence[Any], step: int) -> None: ...

    def update(self, value: Any, gradient: Any, slots: list[Any], step: int) -> None: ...

    def after_update(self, step: int) -> None: ...


class TrainStep:
    """Runs a worker's shards, reduces, and updates the variables.

    The arguments are those of `GradientSum`. Raises DivergedError at a loss that is not finite
    where ``stop_on_nan``; no variable has been changed by that step then.
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
        )
        self._arenas: list[Arena] = []
        self._slots: list[dict[str, Arena]] = []
        for layout in self.sum.trees.layouts:
            where = layout.positions
            self._arenas.append(Arena(layout.variables, where))
            self._slots.append(
                {name: Arena([of[i] for i in where]) for name, of in optimizer.slots.items()}
            )

    @property
    def variables(self) -> list[Variable]:
        return self.sum.variables

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

    def __call__(self, step: int, batch: Batch) -> Reduced:
        """Step number ``step`` (from 0) on this worker's shards of ``batch``."""

        def accept(loss: float) -> None:
            if self.stop_on_nan and not math.isfinite(loss):
                raise DivergedError(
                    f"the loss is {loss} at step {step}: the weights of step {step} are kept. "
                    "Lower optimizer.learning_rate, or look for bad values in the data."
                )

        scale = self.optimizer.loss_scale
        result = self.sum(step, batch, scale, accept)
        if scale == 1.0 or self.optimizer.unscaled(self._unscale(scale)):
            self._update()
        return result

    def _unscale(self, scale: float) -> bool:
        """Takes the loss scale out of the gradients; whether all of them are finite."""
        finite = True
        for flat in self.sum.trees.flats:
            finite = finite and bool(backend_of(flat).xp.isfinite(flat).all())
            flat *= flat.dtype.type(1.0 / scale)
        return finite

    def _update(self) -> None:
        present = self.sum.present
        iterations = self.optimizer.iterations
        iterations._store(iterations._buffer + 1)
        count = int(iterations._buffer)
        for arena in self._arenas:
            arena.recall_loans()
        self.optimizer.before_update(self.sum.gradients, count)
        for arena, flat, slots in zip(self._arenas, self.sum.trees.flats, self._slots, strict=True):
            state = [slots[name].values for name in self.optimizer.slot_names]
            for where in arena.segments(present):
                values = [part[where] for part in state]
                self.optimizer.update(arena.values[where], flat[where], values, count)
        self.optimizer.after_update(count)
