"""One data-parallel training step, whatever started the workers.

Every virtual shard of a worker runs its own tape; the gradients of all shards of all workers are
added in one fixed order; every worker applies the same update. That is why the weights do not
depend on the number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import TreeSum
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import DivergedError
from distgrad.core.tape import GradientTape
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.data.loader import Batch
from distgrad.ops import random
from distgrad.training.arena import Arena, by_dtype
from distgrad.training.state import StateMean, shard

# Sums of one shard: the scalar loss to differentiate, and the additive statistics of its metrics.
Compute = Callable[[tuple, bool], "tuple[Tensor, np.ndarray]"]


class Optimizer(Protocol):
    """What a step asks of an optimizer."""

    iterations: Variable
    slots: dict[str, list[Variable]]
    slot_names: tuple[str, ...]  # of the slots that ``update`` takes

    def build(self, variables: Sequence[Variable]) -> None: ...

    def before_update(self, gradients: Sequence[Any], step: int) -> None: ...

    def update(self, value: Any, gradient: Any, slots: list[Any], step: int) -> None: ...

    def after_update(self, step: int) -> None: ...


class StepResult(NamedTuple):
    """What one step gives, the same on every rank."""

    loss: float  # of the whole batch
    sums: np.ndarray  # float64 statistics of the metrics, over the whole batch
    stop: bool  # some rank was asked to stop


class _Group:
    """The variables of one dtype: values, gradients and optimizer state as flat arrays."""

    def __init__(self, positions: list[int], variables: Sequence[Variable], optimizer: Optimizer):
        self.positions = positions
        self.arena = Arena([variables[i] for i in positions])
        self.slots = {
            name: Arena([slot[i] for i in positions]) for name, slot in optimizer.slots.items()
        }
        self.gradient = self.arena.empty()
        self.gradients = self.arena.views(self.gradient)
        self._gaps = _gaps(self.arena)

    def write(self, gradients: list[Any], flat: Any) -> None:
        """Lays the gradients of this group into ``flat``; zeros where one is None."""
        for gap in self._gaps:
            flat[gap] = 0
        for position, view in zip(self.positions, self.arena.views(flat), strict=True):
            gradient = gradients[position]
            # as_tensor makes the IndexedSlices of a gather dense
            view[...] = 0 if gradient is None else as_tensor(gradient)._data

    def segments(self, present: Sequence[bool]) -> Iterable[slice]:
        """The longest runs of the arena in which every variable has a gradient."""
        start = None
        for position, where in zip(self.positions, self.arena.slices, strict=True):
            if present[position]:
                start = where.start if start is None else start
                stop = where.stop
            elif start is not None:
                yield slice(start, stop)
                start = None
        if start is not None:
            yield slice(start, stop)


def _gaps(arena: Arena) -> list[slice]:
    ends = [where.stop for where in arena.slices]
    starts = [where.start for where in arena.slices[1:]] + [arena.size]
    return [slice(a, b) for a, b in zip(ends, starts, strict=True) if b > a]


class TrainStep:
    """Runs a worker's shards, reduces, and updates the variables.

    ``compute(arrays, training)`` gives the loss of one shard and the sums of its metrics, a
    float64 vector of ``sums_size``. A mean loss weighs a shard by its share of the batch, a sum
    loss (``mean_loss=False``) by 1. ``state`` are the variables that layers may assign themselves.
    Raises DivergedError at a loss that is not finite where ``stop_on_nan``; no variable has been
    changed by that step then.
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
        stop_on_nan: bool = True,
    ) -> None:
        self.compute = compute
        self.variables = list(variables)
        self.optimizer = optimizer
        self.communicator = communicator
        self.seed = seed
        self.mean_loss = mean_loss
        self.stop_on_nan = stop_on_nan
        self.stop_requested = False
        optimizer.build(self.variables)
        self.groups = [
            _Group(positions, self.variables, optimizer) for positions in by_dtype(self.variables)
        ]
        self._trees = [TreeSum(virtual_shards, g.arena.size, g.arena.dtype) for g in self.groups]
        self._state = StateMean(state, virtual_shards)
        # Loss, stop request, metric sums, per variable the number of shards with a gradient, and
        # per state variable the number of shards that wrote it.
        self._sums_end = 2 + sums_size
        self._flags_end = self._sums_end + len(self.variables)
        self._stats = np.zeros(self._flags_end + len(self._state.variables))
        self._stats_tree = TreeSum(virtual_shards, self._stats.size, np.float64)

    def __call__(self, step: int, batch: Batch) -> StepResult:
        """Step number ``step`` (from 0) on this worker's shards of ``batch``."""
        self._stats_tree.start(batch.present)
        for tree in self._trees:
            tree.start(batch.present)
        self._state.start()
        for index, arrays in batch.shards:
            self._run_shard(step, batch, index, arrays)
        self.communicator.reduce_tree(self._stats_tree, self._stats)
        loss = float(self._stats[0])
        if self.stop_on_nan and not math.isfinite(loss):
            raise DivergedError(
                f"the loss is {loss} at step {step}: the weights of step {step} are kept. "
                "Lower optimizer.learning_rate, or look for bad values in the data."
            )
        for bucket, (group, tree) in enumerate(zip(self.groups, self._trees, strict=True)):
            self.communicator.reduce_tree(tree, group.gradient, bucket=bucket)
        self._state.reduce(self._stats[self._flags_end :] > 0, self.communicator, batch)
        self._update()
        return StepResult(loss, self._stats[2 : self._sums_end].copy(), bool(self._stats[1] > 0))

    def _run_shard(self, step: int, batch: Batch, index: int, arrays: tuple) -> None:
        part = len(arrays[0]) / batch.size
        share = part if self.mean_loss else 1.0
        with (
            random.stream(self.seed, step, index),
            shard(part, self._state.variables) as run,
            GradientTape() as tape,
        ):
            loss, sums = self.compute(arrays, True)
        weight = None if share == 1.0 else np.asarray(share, loss._data.dtype)
        gradients = tape.gradient(loss, self.variables, output_gradients=weight)
        for group, tree in zip(self.groups, self._trees, strict=True):
            flat = tree.buffer()
            group.write(gradients, flat)
            tree.push(index, flat)
        stats = self._stats_tree.buffer()
        stats[0] = share * float(loss)
        stats[1] = self.stop_requested
        stats[2 : self._sums_end] = sums
        stats[self._sums_end : self._flags_end] = [g is not None for g in gradients]
        stats[self._flags_end :] = self._state.propose(index, part, run.written)
        self._stats_tree.push(index, stats)

    def _update(self) -> None:
        present = (self._stats[self._sums_end : self._flags_end] > 0).tolist()
        iterations = self.optimizer.iterations
        iterations._store(iterations._buffer + 1)
        count = int(iterations._buffer)
        gradients: list[Any] = [None] * len(self.variables)
        for group in self.groups:
            group.arena.recall_loans()
            for position, gradient in zip(group.positions, group.gradients, strict=True):
                gradients[position] = gradient if present[position] else None
        self.optimizer.before_update(gradients, count)
        for group in self.groups:
            slots = [group.slots[name].values for name in self.optimizer.slot_names]
            for where in group.segments(present):
                self.optimizer.update(
                    group.arena.values[where],
                    group.gradient[where],
                    [slot[where] for slot in slots],
                    count,
                )
        self.optimizer.after_update(count)


def evaluate(
    compute: Compute,
    sums_size: int,
    batches: Iterable[Batch],
    communicator: Communicator,
    virtual_shards: int,
    *,
    mean_loss: bool = True,
) -> tuple[float, np.ndarray]:
    """Loss and metric sums over all batches, in the same fixed order as in training."""
    tree = TreeSum(virtual_shards, 1 + sums_size, np.float64)
    stats, total, samples = np.zeros(1 + sums_size), np.zeros(1 + sums_size), 0
    for batch in batches:
        tree.start(batch.present)
        for index, arrays in batch.shards:
            part = len(arrays[0]) / batch.size
            share = part if mean_loss else 1.0
            with shard(part):
                loss, sums = compute(arrays, False)
            row = tree.buffer()
            row[0], row[1:] = share * float(loss), sums
            tree.push(index, row)
        communicator.reduce_tree(tree, stats)
        total[0] += stats[0] * batch.size
        total[1:] += stats[1:]
        samples += batch.size
    return float(total[0] / samples) if samples else math.nan, total[1:]
