"""What one batch adds up to: loss, gradients, statistics, over all shards of all workers.

Every virtual shard of a worker runs its own tape; what the shards give is added in one fixed
order. That is why a sum does not depend on the number of workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import Node, ShardTree, TreeSum
from distgrad.compile.passes.shards import Merges
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.data.loader import Batch
from distgrad.launcher import environ
from distgrad.ops import streams
from distgrad.ops.tree_sums import in_tree
from distgrad.training.buckets import GradientBuckets
from distgrad.training.frames import Pending, on_host
from distgrad.training.meeting import SPARE, Meeting
from distgrad.training.overlap import Courier, Job
from distgrad.training.programs import ExecutorName, ShardPrograms, fall_back
from distgrad.training.runs import CapturedShards, EagerShard, MeetingShard
from distgrad.training.state import StateMean


class ShardResult(NamedTuple):
    """What one shard's forward pass gives."""

    loss: Tensor  # a scalar, to differentiate
    sums: Any  # a float64 vector: additive statistics of the metrics
    over: Any = 0.0  # what its mean is over, a scalar, where that is not its samples


# ``compute(arrays, training)`` of one shard.
Compute = Callable[[tuple, bool], ShardResult]


Overlap = bool | Literal["auto"]

_PLANS = 8  # shapes of batches whose plans are kept


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
    With ``lends`` ``compute`` is given large arrays as tensors, which are not copied.
    ``executor`` says what runs a shard: a tape ("eager"), or its program on one of
    `distgrad.compile.executors`; with ``strict`` what cannot be captured raises CaptureError. With
    ``meets`` the shards add up numbers as they run (`meeting.over_shards`): eagerly, each in a
    thread of its own.
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
        bucket_bytes: int | None = None,
        scatter: bool = False,
        lends: bool = False,
        meets: bool = False,
        executor: ExecutorName = "eager",
        strict: bool = False,
    ) -> None:
        self.compute = compute
        self.lends = lends
        self.variables = list(variables)
        self.communicator = communicator
        self.virtual_shards = virtual_shards
        self.seed = seed
        self.mean_loss = mean_loss
        self.counted = counted and mean_loss
        self.stop_requested = False
        self.waited = 0.0  # seconds for other workers, and what they send, in all steps so far
        # For the size, the shards, and the shapes and dtypes of arrays of a batch.
        self._plans: deque[tuple[Any, Sequence[CapturedShards | None]]] = deque(maxlen=_PLANS)
        self.later: deque[Callable[[], None]] = deque()  # notes of shards that are not done
        self.buckets = GradientBuckets(
            self.variables,
            virtual_shards,
            communicator,
            bucket_bytes=bucket_bytes,
            scatter=scatter,
        )
        # One bucket is full when the backward pass has ended: nothing to run beside.
        several = communicator.world_size > 1 and len(self.buckets.buckets) > 1
        self.overlap = several and (self._pays() if overlap == "auto" else overlap)
        self._trained = {id(variable) for variable in self.variables}
        self.state = list(state)
        self._state = StateMean(state, virtual_shards)
        self.programs: ShardPrograms | None = None
        self._meeting = Meeting(communicator) if meets and virtual_shards > 1 else None
        if executor != "eager" and self._meeting is not None:
            fall_back("its shards add up numbers as they run", strict, communicator.rank == 0)
        elif executor != "eager":
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
        # Where one program may run all shards there are, so that its sums are the whole ones.
        captured = self.programs is not None
        self._alone = communicator.world_size == 1 and captured and not self.counted
        self._latest: CapturedShards | None = None
        # Loss, stop request, metric sums, per variable the number of shards with a gradient, and
        # per state variable the number of shards that wrote it.
        self._sums_end = 2 + sums_size
        self._flags_end = self._sums_end + len(self.variables)
        self._stats = np.zeros(self._flags_end + len(self._state.variables))
        self._presence = self._stats[self._sums_end : self._flags_end]
        self._present: tuple[bytes, list[bool]] = b"", []
        self._nothing_written = bytes(self._stats[self._flags_end :].nbytes)
        self._stats_tree = TreeSum(virtual_shards, self._stats.size, np.float64)
        self._count_tree = TreeSum(virtual_shards, 1, np.float64)

    def _pays(self) -> bool:
        """Whether a core is free for a second thread beside the workers of this machine.

        With two workers on two cores it changed nothing within the noise (0.97 and 0.98 of the
        time). What NCCL moves needs next to nothing of a core.
        """
        if self.buckets.on_devices:
            return True
        return environ.usable_cores() > environ.detect().local_size

    def __call__(
        self,
        step: int,
        batch: Batch,
        scale: float = 1.0,
        accept: Callable[[float], None] = lambda loss: None,
        ahead: Callable[[Pending], None] | None = None,
    ) -> Reduced:
        """The sums of step number ``step``; gradients are those of ``scale`` times the loss.

        ``accept`` is told the loss before anything has been changed, and may raise. Where all else
        has been asked of a GPU, ``ahead`` is told before that.
        """
        if self._alone:
            found = self._all_at_once(step, batch, scale, accept, ahead)
            if found is not None:
                return found
        self._latest = None
        self.later.clear()  # of a step that has failed
        self.buckets.start(batch.present)
        self._stats_tree.start(batch.present)
        self._state.start()
        before = self.communicator.seconds
        if self._meeting is not None:
            self._hold(self._meeting, step, batch, scale)
            self.buckets.reduce(beside=(self._stats_tree, self._stats))
        elif self.overlap and batch.shards:
            with Courier() as courier:
                self._run(step, batch, scale, courier.send)
            self.waited += courier.waited  # what it moved meanwhile cost nothing
            before = self.communicator.seconds
            self.communicator.reduce_tree(self._stats_tree, self._stats)
            self.buckets.settle()
        else:
            self._run(step, batch, scale)
            self.buckets.reduce(beside=(self._stats_tree, self._stats))
        loss = float(self._stats[0])
        accept(loss)
        written = self._stats[self._flags_end :]
        if written.tobytes() != self._nothing_written:
            self._state.reduce(written > 0, self.communicator, batch.present)
        self.waited += self.communicator.seconds - before
        return Reduced(loss, self._stats[2 : self._sums_end].copy(), bool(self._stats[1] > 0))

    @property
    def present(self) -> list[bool]:
        """Which variables have got a gradient from any shard; the same list while it holds."""
        counts = self._presence.tobytes()
        if counts != self._present[0]:
            self._present = counts, (self._presence > 0).tolist()
        return self._present[1]

    @property
    def gradients(self) -> list[Any]:
        """One array for each variable; None for those without a gradient."""
        return self.buckets.gradients(self.present)

    def _all_at_once(
        self,
        step: int,
        batch: Batch,
        scale: float,
        accept: Callable[[float], None],
        ahead: Callable[[Pending], None] | None,
    ) -> Reduced | None:
        """All shards in one run of one program, which adds them up; None where there is none."""
        runs = self._planned(step, batch)
        run = runs[0] if len(runs) == 1 else None
        if run is None:
            return None
        self._stats_tree.start(batch.present)
        share, count = run.part if self.mean_loss else 1.0, len(run.indices)
        run.start(step, [arrays for _, arrays in batch.shards], batch.whole)
        totals = [bucket.total for bucket in self.buckets.buckets]
        found = run.whole([share * scale] * count, totals)
        if found is None:
            return None
        done, merges = found
        if run is not self._latest:  # else it had the same gradients
            self._latest = run
            np.multiply(run.program.there, count, out=self._presence)
        assigned: dict[int, Any] | None = None  # by the only shard
        if isinstance(done, Pending):  # a GPU goes on while its losses are on their way
            assigned = done.assigned
            if assigned is None:
                done.bring()
            elif ahead is not None and self._trained.isdisjoint(assigned):
                ahead(done)
            done = done()
        elif count == 1:
            (assigned,) = done.written
        sums = done.sums.astype(float)
        loss = in_tree([loss * share for loss in done.losses], merges)
        accept(loss)
        if assigned:
            self._state.take(assigned)
        elif assigned is None and any(done.written):
            self._state.start()
            for index, written in zip(run.indices, done.written, strict=True):
                self._state.propose(index, run.part, written)
            self._state.reduce(self._state.among(done.written[0]), self.communicator, batch.present)
        total = in_tree(sums, merges) if sums.size else sums[0]
        return Reduced(loss, total, self.stop_requested)

    def _run(
        self, step: int, batch: Batch, scale: float, send: Callable[[Job], None] | None = None
    ) -> None:
        """Runs all shards; the gradients of the last one go through ``send``, where given."""
        runs: Any = self._start(step, batch)
        total = 0.0
        if self.counted:  # what a shard weighs depends on all of them
            runs = list(runs)
            total = self._count(batch, runs)
        left = len(batch.shards)
        for run in runs:
            count = len(run.indices)
            if self.counted:
                shares = [over / total if total else 0.0 for over in run.over()]
            else:
                shares = [run.part if self.mean_loss else 1.0] * count
            left -= count
            run.finish(shares, scale, None if left else send)
        while self.later:
            self.later.popleft()()

    def _hold(self, meeting: Meeting, step: int, batch: Batch, scale: float) -> None:
        """Runs all shards from one meeting to the next; a worker without one runs along."""
        shards = batch.shards or [(SPARE, batch.spare)]
        seats = [MeetingShard(self, step, batch, i, arrays, scale) for i, arrays in shards]
        meeting.hold(seats)

    def _count(self, batch: Batch, runs: Iterable[EagerShard | CapturedShards]) -> float:
        self._count_tree.start(batch.present)
        for run in runs:
            for index, over in zip(run.indices, run.over(), strict=True):
                self._count_tree.push(index, np.array([over]))
        total = np.zeros(1)
        self.communicator.reduce_tree(self._count_tree, total)
        return float(total[0])

    def _start(self, step: int, batch: Batch) -> Iterable[EagerShard | CapturedShards]:
        """The shards in their order, those together that one program runs at once."""
        shards = iter(batch.shards)
        for captured in self._planned(step, batch):
            if captured is None:
                index, arrays = next(shards)
                arrays = arrays if self.programs is None else on_host(arrays)
                part = batch.sizes[index] / batch.size
                yield EagerShard(self, step, index, part, arrays).forward()
            else:
                captured.start(step, [next(shards)[1] for _ in captured.indices])
                yield captured

    def _planned(self, step: int, batch: Batch) -> Sequence[CapturedShards | None]:
        """What runs the shards of a batch, None for one that is eager; kept for the next ones."""
        if self.programs is None:
            return [None] * len(batch.shards)
        try:
            if batch.whole:  # its parts follow from it
                kinds: Any = [(a.shape, a.dtype) for a in batch.whole]
            else:
                kinds = [(i, [(a.shape, a.dtype) for a in arrays]) for i, arrays in batch.shards]
        except AttributeError:  # nests of arrays, or none
            return self._plan(self.programs, step, batch)
        like = batch.size, kinds
        for known, runs in self._plans:
            if known == like:
                return runs
        runs = self._plan(self.programs, step, batch)
        self._plans.appendleft((like, runs))
        return runs

    def _plan(
        self, programs: ShardPrograms, step: int, batch: Batch
    ) -> Sequence[CapturedShards | None]:
        plan: list[CapturedShards | None] = []
        last: CapturedShards | None = None
        for index, arrays in batch.shards:
            part = batch.sizes[index] / batch.size
            stream = partial(streams.stream, self.seed, step, index)
            program = programs.find(arrays, part, stream)
            if program is None:
                last = None
            elif last is not None and last.program is program and last.has_room():
                last.indices.append(index)
                continue
            else:
                last = CapturedShards(self, part, program, index)
            plan.append(last)
        return plan

    def note(
        self,
        run: EagerShard | CapturedShards,
        trees: Iterable[tuple[Node, Merges]],
        losses: list[float],
        sums: np.ndarray,
        present: np.ndarray,
        written: Sequence[dict[int, Any]],
    ) -> None:
        """The statistics of some shards: of each a weighed loss, and a row of sums."""
        proposed = None
        if self.state:
            for index, own in zip(run.indices, written, strict=True):
                self._state.propose(index, run.part, own)
            if any(written):
                proposed = np.array([self._state.among(own) for own in written], np.float64)
        start = 0
        for node, merges in trees:
            stop = start + len(merges)
            row = self._stats_tree.buffer()
            row[0] = in_tree(losses[start:stop], merges)
            row[1] = self.stop_requested
            if self._sums_end > 2:
                row[2 : self._sums_end] = in_tree(sums[start:stop], merges)
            flags = row[self._sums_end : self._flags_end]
            flags[:] = present
            if stop > start + 1:
                flags *= stop - start  # whole numbers have one sum
            if proposed is not None:
                row[self._flags_end :] = proposed[start:stop].sum(axis=0)
            self._stats_tree.push_tree(node, row)
            start = stop

    @property
    def tree(self) -> ShardTree:
        """The one over the shards that are present."""
        return self._stats_tree.tree
