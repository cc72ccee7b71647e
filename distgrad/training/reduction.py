"""What one batch adds up to: loss, gradients, statistics, over all shards of all workers.

Every virtual shard of a worker runs its own tape; what the shards give is added in one fixed
order. That is why a sum does not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import Node, TreeSum
from distgrad.compile.passes.shards import Merges
from distgrad.core.tape import GradientTape
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.data.loader import Batch
from distgrad.launcher import environ
from distgrad.ops import random
from distgrad.ops.tree_sums import in_tree
from distgrad.training.buckets import BUCKET_BYTES, Bucket, GradientBuckets
from distgrad.training.overlap import Courier, Job
from distgrad.training.programs import ExecutorName, ShardProgram, ShardPrograms
from distgrad.training.state import StateMean, shard


class ShardResult(NamedTuple):
    """What one shard's forward pass gives."""

    loss: Tensor  # a scalar, to differentiate
    sums: Any  # a float64 vector: additive statistics of the metrics
    over: Any = 0.0  # what its mean is over, a scalar, where that is not its samples


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
    ``executor`` says what runs a shard: a tape ("eager"), or its program on one of
    `distgrad.compile.executors`; with ``strict`` what cannot be captured raises CaptureError.
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
        executor: ExecutorName = "eager",
        strict: bool = False,
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
        self.state = list(state)
        self._state = StateMean(state, virtual_shards)
        self.programs: ShardPrograms | None = None
        if executor != "eager":
            self.programs = ShardPrograms(
                lambda arrays, training: self.compute(arrays, training),
                self.variables,
                self.state,
                [bucket.positions for bucket in self.buckets.buckets],
                executor,
                several=virtual_shards > 1,
                strict=strict,
                say=communicator.rank == 0,
            )
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
        runs: Any = (self._start(step, batch, index, arrays) for index, arrays in batch.shards)
        total = 0.0
        if self.counted:  # what a shard weighs depends on all of them
            runs = list(runs)
            total = self._count(batch, runs)
        left = len(batch.shards)
        for group in _together(runs):
            shares = [run.part if self.mean_loss else 1.0 for run in group]
            if self.counted:
                shares = [run.over / total if total else 0.0 for run in group]
            left -= len(group)
            group[0].finish(group, shares, scale, None if left else send)

    def _count(self, batch: Batch, runs: Iterable[_Eager | _Captured]) -> float:
        self._count_tree.start(batch.present)
        for run in runs:
            self._count_tree.push(run.index, np.array([run.over]))
        total = np.zeros(1)
        self.communicator.reduce_tree(self._count_tree, total)
        return float(total[0])

    def _start(self, step: int, batch: Batch, index: int, arrays: tuple) -> _Eager | _Captured:
        part = batch.sizes[index] / batch.size
        if self.programs is not None:
            program = self.programs.find(
                arrays, part, lambda: random.stream(self.seed, step, index)
            )
            if program is not None:
                return _Captured(self, step, index, part, arrays, program)
        return _Eager(self, step, index, part, arrays)

    def _note(
        self,
        runs: Sequence[_Eager | _Captured],
        losses: np.ndarray,
        sums: np.ndarray,
        present: Sequence[bool],
        written: Sequence[dict[int, Any]],
    ) -> None:
        """The statistics of some shards, of which there are as many rows; losses are weighed."""
        rows = np.empty((len(runs), self._stats.size))
        rows[:, 0] = losses
        rows[:, 1] = self.stop_requested
        rows[:, 2 : self._sums_end] = sums
        rows[:, self._sums_end : self._flags_end] = present
        if self.state:
            rows[:, self._flags_end :] = [
                self._state.propose(run.index, run.part, own)
                for run, own in zip(runs, written, strict=True)
            ]
        start = 0
        for node, merges in self._trees(runs):
            stop = start + len(merges)
            row = self._stats_tree.buffer()
            row[...] = in_tree(rows[start:stop], merges)
            self._stats_tree.push_tree(node, row)
            start = stop

    def _trees(self, runs: Sequence[_Eager | _Captured]) -> list[tuple[Node, Merges]]:
        """The largest complete subtrees of some shards that follow each other."""
        tree = self._stats_tree.tree
        nodes = tree.maximal(range(runs[0].index, runs[-1].index + 1))
        return [(node, tree.merges(node)) for node in nodes]

    def _send(self, bucket: Bucket, index: int, buffer: Any) -> None:
        bucket.tree.push(index, buffer)
        self.buckets.reduce_bucket(bucket)


class _Eager:
    """A shard that runs under a tape; its forward pass is done when it is made."""

    def __init__(
        self, total: GradientSum, step: int, index: int, part: float, arrays: tuple
    ) -> None:
        self._sum, self.index, self.part = total, index, part
        self._stream = random.stream(total.seed, step, index)
        with self._stream, shard(part, total.state) as own, GradientTape() as self._tape:
            self._result = total.compute(arrays, True)
        self._written = own.written

    @property
    def over(self) -> float:
        return float(self._result.over)

    def finish(
        self,
        group: Sequence[_Eager],
        shares: Sequence[float],
        scale: float,
        send: Callable[[Job], None] | None,
    ) -> None:
        """The backward pass, of its share times ``scale`` times the loss; it is a group of one."""
        (share,) = shares
        buckets, loss, factor = self._sum.buckets, self._result.loss, share * scale
        weight = None if factor == 1.0 else np.asarray(factor, loss._data.dtype)
        if send is not None:

            def full(bucket: Bucket, buffer: Any) -> None:
                send(partial(self._sum._send, bucket, self.index, buffer))

            self._tape._told = buckets.fill(self.index, full).put
        variables = self._sum.variables
        with self._stream:
            gradients = self._tape.gradient(loss, variables, output_gradients=weight)
        if send is None:
            buckets.push(self.index, gradients)
        present = [g is not None for g in gradients]
        sums = np.asarray(self._result.sums)[None]
        self._sum._note([self], np.array([share * float(loss)]), sums, present, [self._written])


class _Captured:
    """A shard that its program runs, forward and backward at once."""

    def __init__(
        self,
        total: GradientSum,
        step: int,
        index: int,
        part: float,
        arrays: tuple,
        program: ShardProgram,
    ) -> None:
        self._sum, self.index, self.part = total, index, part
        self._step, self._arrays, self._program = step, arrays, program

    @property
    def over(self) -> float:
        with random.stream(self._sum.seed, self._step, self.index):
            return self._program.over(self._arrays)

    def joins(self, group: Sequence[_Eager | _Captured]) -> bool:
        """Whether it can run at once with the others."""
        first = group[0]
        return (
            isinstance(first, _Captured)
            and first._program is self._program
            and len(group) < self._program.at_once
        )

    def finish(
        self,
        group: Sequence[_Captured],
        shares: Sequence[float],
        scale: float,
        send: Callable[[Job], None] | None,
    ) -> None:
        """Runs the shards of a group, each with its share times ``scale`` times its loss."""
        total, program = self._sum, self._program
        buckets = total.buckets
        shards = [run._arrays for run in group]
        weights = [share * scale for share in shares]
        nodes, trees = zip(*total._trees(group), strict=True)

        def streams() -> list[random.stream]:
            return [random.stream(total.seed, self._step, run.index) for run in group]

        if len(group) > 1 and not program.joins(shards, weights, trees, streams):
            for number, run in enumerate(group, 1):
                last = send if number == len(group) else None
                run.finish([run], [shares[number - 1]], scale, last)
            return
        buffers = [buckets.buffers(node) for node in nodes]

        def push(number: int) -> None:
            for node, own in zip(nodes, buffers, strict=True):
                buckets.buckets[number].tree.push_tree(node, own[number])

        def job(number: int) -> None:
            push(number)
            buckets.reduce_bucket(buckets.buckets[number])

        def told(number: int) -> None:
            send(partial(job, number))  # type: ignore[misc]

        done = program.run(
            shards, weights, trees, streams, buffers, buckets.cut, None if send is None else told
        )
        if send is None:
            for number in range(len(buckets.buckets)):
                push(number)
        total._note(group, done.losses * shares, done.sums, program.present, done.written)


def _together(runs: Iterable[_Eager | _Captured]) -> Iterable[list[Any]]:
    """Runs in their order, those in one list that can run at once."""
    group: list[Any] = []
    for run in runs:
        if group and not (isinstance(run, _Captured) and run.joins(group)):
            yield group
            group = []
        group.append(run)
        if isinstance(run, _Eager):  # holds a tape: nothing is gained by waiting
            yield group
            group = []
    if group:
        yield group


def _pays() -> bool:
    """Whether a core is free for a second thread beside the workers of this machine.

    With two workers on two cores it changed nothing within the noise (0.97 and 0.98 of the time).
    """
    return environ.usable_cores() > environ.detect().local_size
