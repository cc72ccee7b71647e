"""What one batch adds up to: loss, gradients, statistics, over all shards of all workers.

Every virtual shard of a worker runs its own tape; what the shards give is added in one fixed
order. That is why a sum does not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import TreeSum
from distgrad.core.tape import GradientTape
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.data.loader import Batch
from distgrad.ops import random
from distgrad.training.arena import Layout, layouts
from distgrad.training.state import StateMean, shard


class ShardResult(NamedTuple):
    """What one shard's forward pass gives."""

    loss: Tensor  # a scalar, to differentiate
    sums: np.ndarray  # float64: additive statistics of the metrics
    over: float = 0.0  # what its mean is over, where that is not its samples


# ``compute(arrays, training)`` of one shard.
Compute = Callable[[tuple, bool], ShardResult]


class Reduced(NamedTuple):
    """Sums over the whole batch, the same on every rank."""

    loss: float
    sums: np.ndarray
    stop: bool  # some rank was asked to stop


class GradientTrees:
    """Gradients of a list of variables, added up over the shards of all workers.

    ``start``, ``push`` for each shard of this worker, ``reduce``: then ``flats`` hold the sums,
    one flat array for each dtype, laid out by ``layouts``.
    """

    def __init__(self, variables: Sequence[Variable], virtual_shards: int) -> None:
        self.layouts: list[Layout] = layouts(variables)
        self.flats = [layout.empty() for layout in self.layouts]
        self._views = [layout.views(f) for layout, f in zip(self.layouts, self.flats, strict=True)]
        self._trees = [TreeSum(virtual_shards, each.size, each.dtype) for each in self.layouts]

    def start(self, present: Sequence[int]) -> None:
        for tree in self._trees:
            tree.start(present)

    def push(self, index: int, gradients: Sequence[Any]) -> None:
        for layout, tree in zip(self.layouts, self._trees, strict=True):
            flat = tree.buffer()
            layout.write(gradients, flat)
            tree.push(index, flat)

    def reduce(self, communicator: Communicator) -> None:
        for bucket, (tree, flat) in enumerate(zip(self._trees, self.flats, strict=True)):
            communicator.reduce_tree(tree, flat, bucket=bucket)

    def gradients(self, present: Sequence[bool]) -> list[Any]:
        """One array for each variable, a view into ``flats``; None for those not present."""
        found: list[Any] = [None] * len(present)
        for layout, views in zip(self.layouts, self._views, strict=True):
            for position, view in zip(layout.positions, views, strict=True):
                found[position] = view if present[position] else None
        return found


class GradientSum:
    """Runs a worker's shards of a batch and adds up what all workers' shards give.

    A mean loss weighs a shard by its share of the batch's samples (where ``counted``, of what
    ``compute`` says that its mean is over), a sum loss (``mean_loss=False``) by 1. ``state`` are
    the variables that layers may assign themselves. After a call ``gradients`` has one array per
    variable, None where no shard has a gradient.
    """

    def __init__(
        self,
        compute: Compute,
        sums_size: int,
        variables: Sequence[Variable],
        communicator: Communicator,
        virtual_shards: int,
        seed: int,
        *,
        state: Sequence[Variable] = (),
        mean_loss: bool = True,
        counted: bool = False,
    ) -> None:
        self.compute = compute
        self.variables = list(variables)
        self.communicator = communicator
        self.seed = seed
        self.mean_loss = mean_loss
        self.counted = counted and mean_loss
        self.stop_requested = False
        self.trees = GradientTrees(self.variables, virtual_shards)
        self._state = StateMean(state, virtual_shards)
        # Loss, stop request, metric sums, per variable the number of shards with a gradient, and
        # per state variable the number of shards that wrote it.
        self._sums_end = 2 + sums_size
        self._flags_end = self._sums_end + len(self.variables)
        self._stats = np.zeros(self._flags_end + len(self._state.variables))
        self._stats_tree = TreeSum(virtual_shards, self._stats.size, np.float64)
        self._count_tree = TreeSum(virtual_shards, 1, np.float64)

    def __call__(
        self,
        step: int,
        batch: Batch,
        scale: float = 1.0,
        accept: Callable[[float], None] = lambda loss: None,
    ) -> Reduced:
        """The sums of step number ``step``; gradients are those of ``scale`` times the loss.

        ``accept`` is told the loss before anything has been changed, and may raise.
        """
        self.trees.start(batch.present)
        self._stats_tree.start(batch.present)
        self._state.start()
        if self.counted:
            self._run_together(step, batch, scale)
        else:
            for index, arrays in batch.shards:
                run = self._forward(step, batch, index, arrays)
                self._backward(index, run, run.part if self.mean_loss else 1.0, scale)
        self.communicator.reduce_tree(self._stats_tree, self._stats)
        loss = float(self._stats[0])
        accept(loss)
        self.trees.reduce(self.communicator)
        self._state.reduce(self._stats[self._flags_end :] > 0, self.communicator, batch.present)
        return Reduced(loss, self._stats[2 : self._sums_end].copy(), bool(self._stats[1] > 0))

    @property
    def present(self) -> list[bool]:
        """Which variables have got a gradient from any shard."""
        return (self._stats[self._sums_end : self._flags_end] > 0).tolist()

    @property
    def gradients(self) -> list[Any]:
        return self.trees.gradients(self.present)

    def _run_together(self, step: int, batch: Batch, scale: float) -> None:
        """Forward passes first: what a shard weighs depends on all of them."""
        self._count_tree.start(batch.present)
        runs = [(i, self._forward(step, batch, i, arrays)) for i, arrays in batch.shards]
        for index, run in runs:
            self._count_tree.push(index, np.array([run.result.over]))
        total = np.zeros(1)
        self.communicator.reduce_tree(self._count_tree, total)
        for index, run in runs:
            share = run.result.over / total[0] if total[0] else 0.0
            self._backward(index, run, share, scale)

    def _forward(self, step: int, batch: Batch, index: int, arrays: tuple) -> _Run:
        part = batch.sizes[index] / batch.size
        with (
            random.stream(self.seed, step, index),
            shard(part, self._state.variables) as own,
            GradientTape() as tape,
        ):
            result = self.compute(arrays, True)
        return _Run(result, tape, part, own.written)

    def _backward(self, index: int, run: _Run, share: float, scale: float) -> None:
        loss = run.result.loss
        factor = share * scale
        weight = None if factor == 1.0 else np.asarray(factor, loss._data.dtype)
        gradients = run.tape.gradient(loss, self.variables, output_gradients=weight)
        self.trees.push(index, gradients)
        stats = self._stats_tree.buffer()
        stats[0] = share * float(loss)
        stats[1] = self.stop_requested
        stats[2 : self._sums_end] = run.result.sums
        stats[self._sums_end : self._flags_end] = [g is not None for g in gradients]
        stats[self._flags_end :] = self._state.propose(index, run.part, run.written)
        self._stats_tree.push(index, stats)


class _Run(NamedTuple):
    """A shard after its forward pass."""

    result: ShardResult
    tape: GradientTape
    part: float
    written: dict[int, Any]
