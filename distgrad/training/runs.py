"""Shards at work: one under a tape, or several of a shape by their program.

What they give goes to the `GradientSum` that runs them: gradients into its buckets, the rest into
its notes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from distgrad.comm.tree import Node, ShardTree
from distgrad.compile.passes.shards import Merges
from distgrad.core import timeline
from distgrad.core.tape import TrainingTape
from distgrad.core.tensor import Tensor
from distgrad.data.loader import Batch
from distgrad.ops.streams import stream
from distgrad.training.buckets import Bucket
from distgrad.training.frames import NO_SHARDS, Outcome, Pending, Shards
from distgrad.training.lending import Lender
from distgrad.training.meeting import Seat
from distgrad.training.overlap import Job
from distgrad.training.shard_program import ShardProgram
from distgrad.training.state import shard

if TYPE_CHECKING:
    from distgrad.training.reduction import GradientSum


class EagerShard:
    """A shard that runs under a tape."""

    def __init__(
        self, total: GradientSum, step: int, index: int, part: float, arrays: tuple
    ) -> None:
        self._sum, self.indices, self.part = total, [index], part
        self._stream = stream(total.seed, step, index)
        self._lender = Lender()
        self._arrays = self._lender.tensors(arrays) if total.lends else arrays
        self.state = shard(part, total.state)

    @timeline.timed("forward")
    def forward(self) -> EagerShard:
        """The forward pass; the shard itself."""
        arrays, self._arrays = self._arrays, ()  # whatever keeps them, it is not the shard
        with self._stream, self.state, TrainingTape() as self._tape:
            self._result = self._sum.compute(arrays, True)
        return self

    def over(self) -> list[float]:
        return [float(self._result.over)]

    def backward(self, factor: float) -> list[Any]:
        """The gradients of ``factor`` times the loss."""
        loss = self._result.loss
        weight = None if factor == 1.0 else np.asarray(factor, loss._data.dtype)
        with self._stream:
            return self._tape.gradient(loss, self._sum.variables, output_gradients=weight)

    def finish(
        self, shares: Sequence[float], scale: float, send: Callable[[Job], None] | None
    ) -> None:
        """The backward pass, of its share times ``scale`` times the loss."""
        ((share,), (index,)) = shares, self.indices
        buckets, loss = self._sum.buckets, self._result.loss
        buffers = buckets.buffers((0, index))
        self._tape._buffers = buckets.places(buffers)
        if send is not None:

            def job(bucket: Bucket, buffer: Any) -> None:
                bucket.tree.push(index, buffer)
                buckets.reduce_bucket(bucket)

            def full(bucket: Bucket, buffer: Any) -> None:
                send(partial(job, bucket, buffer))

            self._tape._told = buckets.fill(buffers, full).put
        gradients = self.backward(share * scale)
        if send is None:
            buckets.push(index, gradients, buffers)
        present = np.array([g is not None for g in gradients], np.float64)
        sums = self._result.sums
        sums = (sums._host() if type(sums) is Tensor else np.asarray(sums))[None]
        trees = [((0, index), (0,))]
        self._sum.note(self, trees, [share * float(loss)], sums, present, [self.state.written])
        self._lender.recall()


class MeetingShard(Seat):
    """An eager shard that meets those of all workers as it runs, forwards and backwards."""

    def __init__(
        self, total: GradientSum, step: int, batch: Batch, index: int, arrays: tuple, scale: float
    ) -> None:
        super().__init__(index, total.virtual_shards)  # its gradients are weighed at their begin
        self._sum, self._scale = total, scale
        part = batch.sizes.get(index, 1) / batch.size
        self._shard = EagerShard(total, step, max(index, 0), part, arrays)
        self._forward = False

    def work(self) -> None:
        total, run = self._sum, self._shard
        self._forward = True
        run.forward()
        self._forward = False
        share = run.part if total.mean_loss else 1.0
        if total.counted:
            own = run.over()
            (over,) = self.add_up([np.array(own)])
            share = own[0] / float(over[0]) if over[0] else 0.0
        if self.is_spare:
            run.backward(share * self._scale)
        else:
            run.finish([share], self._scale, None)

    def pause(self) -> None:
        if self._forward:
            self._shard.state.pause()

    def resume(self) -> None:
        if self._forward:
            self._shard.state.resume()


class CapturedShards:
    """Shards of one shape, which their program runs, forward and backward at once."""

    def __init__(self, total: GradientSum, part: float, program: ShardProgram, index: int) -> None:
        self._sum, self.part, self.program = total, part, program
        self.indices = [index]
        self._step = 0
        self._shards = NO_SHARDS
        # How they add up among the shards that are present, which mostly stay the same.
        self._tree: ShardTree | None = None
        self._parts: tuple[tuple[Node, Merges], ...] = ()

    def has_room(self) -> bool:
        return len(self.indices) < self.program.at_once

    def start(self, step: int, shards: Sequence[tuple], whole: Sequence[np.ndarray] = ()) -> None:
        """Takes the arrays of its shards in this step, equal parts of those of the ``whole``."""
        self._step = step
        self._shards = Shards(shards, whole)

    def streams(self) -> list[stream]:
        """The contexts that the shards draw in."""
        return [stream(self._sum.seed, self._step, index) for index in self.indices]

    def over(self) -> list[float]:
        found = []
        for drawn, arrays in zip(self.streams(), self._shards, strict=True):
            with drawn:
                found.append(self.program.over(arrays))
        return found

    def _trees(self) -> tuple[tuple[Node, Merges], ...]:
        """The largest complete subtrees of its shards."""
        tree = self._sum.tree
        if tree is not self._tree:
            shards = range(self.indices[0], self.indices[-1] + 1)
            self._tree, self._parts = tree, tree.parts(shards)
        return self._parts

    def outcome(
        self,
        weights: Sequence[float],
        trees: tuple[Merges, ...],
        buffers: Sequence[Sequence[Any]],
        told: Callable[[int], None] | None = None,
    ) -> Outcome | Pending:
        """What the program gives of them, as ``ShardProgram.run`` says; they are let go of."""
        cut, shards = self._sum.buckets.cut, self._shards
        self._shards = NO_SHARDS
        given = shards, weights, trees, self.streams, buffers, cut, told
        if timeline.told is None:
            return self.program.run(*given)
        with timeline.span("program"):
            return self.program.run(*given)

    def whole(
        self, weights: Sequence[float], totals: Sequence[Any]
    ) -> tuple[Outcome | Pending, Merges] | None:
        """What they give where they are all shards there are, and how they are added up.

        The sums of gradients are in ``totals``, one for each bucket. None where the program cannot
        run them at once.
        """
        ((_, merges),) = self._trees()
        trees = (merges,)
        if len(weights) > 1 and not self.program.joins(self._shards, weights, trees, self.streams):
            return None
        return self.outcome(weights, trees, [totals]), merges

    def finish(
        self, shares: Sequence[float], scale: float, send: Callable[[Job], None] | None
    ) -> None:
        """Runs them, each with its share times ``scale`` times its loss."""
        total, program, shards = self._sum, self.program, self._shards
        buckets = total.buckets
        weights = [share * scale for share in shares]
        parts = self._trees()
        nodes = [node for node, _ in parts]
        trees = tuple([merges for _, merges in parts])
        if len(shards) > 1 and not program.joins(shards, weights, trees, self.streams):
            self._shards = NO_SHARDS
            for index, arrays, share in zip(self.indices, shards, shares, strict=True):
                alone = CapturedShards(total, self.part, program, index)
                alone.start(self._step, [tuple(arrays)])
                alone.finish([share], scale, send if index == self.indices[-1] else None)
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

        done = self.outcome(weights, trees, buffers, None if send is None else told)
        if send is None:
            for number in range(len(buckets.buckets)):
                push(number)

        def note(done: Outcome) -> None:
            losses = [loss * share for loss, share in zip(done.losses, shares, strict=True)]
            total.note(self, parts, losses, done.sums, program.there, done.written)

        if isinstance(done, Outcome):
            note(done)
        else:  # on its way from a GPU, which goes on meanwhile
            outcome = done
            outcome.bring()
            total.later.append(lambda: note(outcome()))
