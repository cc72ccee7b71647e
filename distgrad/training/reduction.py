"""What one batch adds up to: loss, gradients, statistics, over all shards of all workers.

Every virtual shard of a worker runs its own tape; what the shards give is added in one fixed
order. That is why a sum does not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import TreeSum
from distgrad.core.tape import GradientTape
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.data.loader import Batch
from distgrad.launcher import environ
from distgrad.ops import random
from distgrad.training.buckets import BUCKET_BYTES, Bucket, GradientBuckets
from distgrad.training.overlap import Courier, Job
from distgrad.training.state import StateMean, shard


class ShardResult(NamedTuple):
    """What one shard's forward pass gives."""

    loss: Tensor  # a scalar, to differentiate
    sums: np.ndarray  # float64: additive statistics of the metrics
    over: float = 0.0  # what its mean is over, where that is not its samples


# ``compute(arrays, training)`` of one shard.
Compute = Callable[[tuple, bool], ShardResult]


Overlap = bool | Literal["auto"]


class Reduced(NamedTuple):
    """Sums over the whole batch, the same on every rank."""

    loss: float
    sums: np.ndarray
    stop: bool  # some rank was asked to stop


class GradientSum:
    """Runs a worker's shards of a batch and adds up what all workers' shards give.

    A mean loss weighs a shard by its share of the batch's samples (where ``counted``, of what
    ``compute`` says that its mean is over), a sum loss (``mean_loss=False``) by 1. ``state`` are
    the variables that layers may assign themselves. After a call ``gradients`` has one array per
    variable, None where no shard has a gradient.

    ``overlap`` sends each bucket while the backward pass of the worker's last shard goes on.
    Neither that, nor ``bucket_bytes``, nor ``scatter`` (of `GradientBuckets`) changes any bit.
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
        overlap: Overlap = "auto",
        bucket_bytes: int = BUCKET_BYTES,
        scatter: bool = False,
    ) -> None:
        self.compute = compute
        self.variables = list(variables)
        self.communicator = communicator
        self.seed = seed
        self.mean_loss = mean_loss
        self.counted = counted and mean_loss
        self.stop_requested = False
        self.buckets = GradientBuckets(
            self.variables,
            virtual_shards,
            communicator,
            bucket_bytes=bucket_bytes,
            scatter=scatter,
        )
        # One bucket is full when the backward pass has ended: nothing to run beside.
        several = communicator.world_size > 1 and len(self.buckets.buckets) > 1
        self.overlap = several and (_pays() if overlap == "auto" else overlap)
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
        self.buckets.start(batch.present)
        self._stats_tree.start(batch.present)
        self._state.start()
        if self.overlap and batch.shards:
            with Courier() as courier:
                self._run(step, batch, scale, courier.send)
            self.communicator.reduce_tree(self._stats_tree, self._stats)
        else:
            self._run(step, batch, scale)
            self.buckets.reduce(beside=(self._stats_tree, self._stats))
        loss = float(self._stats[0])
        accept(loss)
        self._state.reduce(self._stats[self._flags_end :] > 0, self.communicator, batch.present)
        return Reduced(loss, self._stats[2 : self._sums_end].copy(), bool(self._stats[1] > 0))

    @property
    def present(self) -> list[bool]:
        """Which variables have got a gradient from any shard."""
        return (self._stats[self._sums_end : self._flags_end] > 0).tolist()

    @property
    def gradients(self) -> list[Any]:
        return self.buckets.gradients(self.present)

    def _run(
        self, step: int, batch: Batch, scale: float, send: Callable[[Job], None] | None = None
    ) -> None:
        """Runs all shards; the gradients of the last one go through ``send``, where given."""
        if self.counted:
            self._run_together(step, batch, scale, send)
            return
        for number, (index, arrays) in enumerate(batch.shards, 1):
            run = self._forward(step, batch, index, arrays)
            share = run.part if self.mean_loss else 1.0
            last = number == len(batch.shards)
            self._backward(index, run, share, scale, send if last else None)

    def _run_together(
        self, step: int, batch: Batch, scale: float, send: Callable[[Job], None] | None
    ) -> None:
        """Forward passes first: what a shard weighs depends on all of them."""
        self._count_tree.start(batch.present)
        runs = [(i, self._forward(step, batch, i, arrays)) for i, arrays in batch.shards]
        for index, run in runs:
            self._count_tree.push(index, np.array([run.result.over]))
        total = np.zeros(1)
        self.communicator.reduce_tree(self._count_tree, total)
        for number, (index, run) in enumerate(runs, 1):
            share = run.result.over / total[0] if total[0] else 0.0
            self._backward(index, run, share, scale, send if number == len(runs) else None)

    def _forward(self, step: int, batch: Batch, index: int, arrays: tuple) -> _Run:
        part = batch.sizes[index] / batch.size
        with (
            random.stream(self.seed, step, index),
            shard(part, self._state.variables) as own,
            GradientTape() as tape,
        ):
            result = self.compute(arrays, True)
        return _Run(result, tape, part, own.written)

    def _backward(
        self,
        index: int,
        run: _Run,
        share: float,
        scale: float,
        send: Callable[[Job], None] | None,
    ) -> None:
        loss = run.result.loss
        factor = share * scale
        weight = None if factor == 1.0 else np.asarray(factor, loss._data.dtype)
        if send is None:
            gradients = run.tape.gradient(loss, self.variables, output_gradients=weight)
            self.buckets.push(index, gradients)
        else:

            def full(bucket: Bucket, buffer: Any) -> None:
                send(partial(self._send, bucket, index, buffer))

            run.tape._told = self.buckets.fill(index, full).put
            gradients = run.tape.gradient(loss, self.variables, output_gradients=weight)
        stats = self._stats_tree.buffer()
        stats[0] = share * float(loss)
        stats[1] = self.stop_requested
        stats[2 : self._sums_end] = run.result.sums
        stats[self._sums_end : self._flags_end] = [g is not None for g in gradients]
        stats[self._flags_end :] = self._state.propose(index, run.part, run.written)
        self._stats_tree.push(index, stats)

    def _send(self, bucket: Bucket, index: int, buffer: Any) -> None:
        bucket.tree.push(index, buffer)
        self.buckets.reduce_bucket(bucket)


class _Run(NamedTuple):
    """A shard after its forward pass."""

    result: ShardResult
    tape: GradientTape
    part: float
    written: dict[int, Any]


def _pays() -> bool:
    """Whether a core is free for a second thread beside the workers of this machine.

    With two workers on two cores it changed nothing within the noise (0.97 and 0.98 of the time).
    """
    return environ.usable_cores() > environ.detect().local_size
