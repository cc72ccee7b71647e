"""Buckets: slices of the flat gradient arrays, each summed over all shards as soon as it is full.

They are cut in the order in which a backward pass fills them: the last variables come first. How
large they are, and when they are sent, changes no bit: every element has its own fixed tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import Node, TreeSum
from distgrad.core import timeline
from distgrad.core.dispatch import as_tensor, backend_of, beside
from distgrad.core.indexed_slices import IndexedSlices
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.training.arena import Layout, layouts
from distgrad.training.staging import Carrier, carrier

_HOST_BYTES = 1 << 20  # stays in a core's cache between the backward pass and the sum
# Each bucket ends a launch of a captured step, and the ranks meet on their hosts before NCCL moves
# it: some 50 microseconds, in which a link of 300 GB/s moves these bytes. With fewer, larger ones
# more is left to be sent when the backward pass has ended. A guess, until somebody has run
# `benchmarks/gpu.py --buckets`; `parallel.bucket_mib` sets another.
_DEVICE_BYTES = 16 << 20


class Bucket:
    """Variables ``first`` to ``last - 1`` of a layout, and the sum of their gradients.

    The sum lies in ``total``, the slice ``where`` of ``flat``.
    """

    def __init__(
        self, layout: Layout, first: int, last: int, flat: Any, virtual_shards: int
    ) -> None:
        self.number = 0  # its turn among all buckets
        self.layout = layout
        self.positions = layout.positions[first:last]
        start = layout.slices[first].start
        stop = layout.slices[last].start if last < len(layout.slices) else layout.size
        self.where = slice(start, stop)
        self.total = flat[self.where]
        self.backend = backend_of(flat)
        size, xp = stop - start, self.backend.xp
        self.tree = TreeSum(virtual_shards, size, layout.dtype, out=self.total, xp=xp)
        shapes = [tuple(variable.shape) for variable in layout.variables[first:last]]
        inner = [slice(w.start - start, w.stop - start) for w in layout.slices[first:last]]
        self._places = list(zip(self.positions, inner, shapes, strict=True))
        self._views: dict[int, tuple[Any, dict[int, Any]]] = {}

    def buffer(self, node: Node, alone: bool) -> Any:
        """Where the gradients under a node go; those of the first one become the sum of a world
        of one.
        """
        tree = self.tree.tree
        if alone and tree.under(node) >> tree.present[0] & 1:
            return self.total
        return self.tree.buffer()

    def views(self, buffer: Any) -> dict[int, Any]:
        """The same as ``cut``, of a buffer that comes again and again."""
        known = self._views.get(id(buffer))
        if known is None:  # keeps the buffer, so that its id stays its own
            known = self._views[id(buffer)] = (buffer, self.cut(buffer))
        return known[1]

    def cut(self, array: Any) -> dict[int, Any]:
        """The variables' places in an array of the bucket's size, by position, in their shapes."""
        return {p: array[where].reshape(shape) for p, where, shape in self._places}


class GradientBuckets:
    """Gradients of a list of variables, added up over the shards of all workers.

    ``start``, ``push`` for each shard of this worker, ``reduce``: then ``flats`` hold the sums,
    one flat array for each dtype, laid out by ``layouts``. With ``scatter`` a rank gets only the
    part of each bucket that the communicator says is its own. ``bucket_bytes`` is about the size
    of a bucket; None takes what fits where the variables lie.
    """

    def __init__(
        self,
        variables: Sequence[Variable],
        virtual_shards: int,
        communicator: Communicator,
        *,
        bucket_bytes: int | None = None,
        scatter: bool = False,
    ) -> None:
        self.communicator = communicator
        self.scatter = scatter
        self.layouts: list[Layout] = layouts(variables)
        self.flats = [layout.empty() for layout in self.layouts]
        self._views = [layout.views(f) for layout, f in zip(self.layouts, self.flats, strict=True)]
        self.buckets = [
            Bucket(layout, first, last, flat, virtual_shards)
            for layout, flat in zip(self.layouts, self.flats, strict=True)
            for first, last in _cut(layout, bucket_bytes or _fitting(flat))
        ]
        self.buckets.sort(key=lambda bucket: -bucket.positions[-1])
        for number, bucket in enumerate(self.buckets):
            bucket.number = number
        self._alone = communicator.world_size == 1

    @property
    def on_devices(self) -> bool:
        """Whether the sums stay on devices."""
        return all(self._carrier(bucket).on_devices for bucket in self.buckets)

    def start(self, present: Sequence[int]) -> None:
        for bucket in self.buckets:
            bucket.tree.start(present)

    def push(
        self, shard: int, gradients: Sequence[Any], buffers: Sequence[Any] | None = None
    ) -> None:
        """Takes the gradients of one shard, one for each variable; None counts as zeros.

        Those that were computed in their ``places`` in ``buffers`` are not copied.
        """
        for bucket, buffer in zip(self.buckets, buffers or self.buffers((0, shard)), strict=True):
            for position, view in bucket.views(buffer).items():
                _write(gradients[position], view)
            bucket.tree.push(shard, buffer)

    def buffers(self, node: Node) -> list[Any]:
        """Where the gradients under a node go, for each bucket."""
        return [bucket.buffer(node, self._alone) for bucket in self.buckets]

    def cut(self, number: int, buffer: Any) -> dict[int, Any]:
        """The places of the variables of a bucket in one of its ``buffers``, by position."""
        return self.buckets[number].views(buffer)

    def places(self, buffers: Sequence[Any]) -> dict[int, Any]:
        """The places of all variables in ``buffers``, by position."""
        found: dict[int, Any] = {}
        for bucket, buffer in zip(self.buckets, buffers, strict=True):
            found.update(bucket.views(buffer))
        return found

    def fill(self, buffers: Sequence[Any], full: Callable[[Bucket, Any], None]) -> Filling:
        """Takes the gradients of one shard one by one, and passes buckets on in their order."""
        return Filling(self.buckets, buffers, full)

    def reduce(self, beside: tuple[TreeSum, np.ndarray] | None = None) -> None:
        """Sums all buckets, and ``beside`` into its array: a single bucket and it go together."""
        if beside is not None and len(self.buckets) == 1 and not (self._alone or self.scatter):
            (bucket,) = self.buckets
            if self._carrier(bucket) is self.communicator:
                both = (bucket.tree, bucket.total), beside
                if timeline.told is None:
                    self.communicator.reduce_trees(both)
                    return
                with timeline.span("reduce bucket 0"):
                    self.communicator.reduce_trees(both)
                return
        for bucket in self.buckets:
            self.reduce_bucket(bucket)
        if beside is not None:
            tree, out = beside
            if self._alone:
                tree.move(out)
            else:
                self.communicator.reduce_tree(tree, out)
        self.settle()

    @timeline.timed(lambda self, bucket: f"reduce bucket {bucket.number}")
    def reduce_bucket(self, bucket: Bucket) -> None:
        """Sums one bucket; good after ``settle``."""
        if self._alone:
            bucket.tree.take()  # is ``bucket.total`` already
        else:
            self._carrier(bucket).reduce_tree(
                bucket.tree, bucket.total, bucket=bucket.number, scatter=self.scatter
            )

    def gather(self, bucket: Bucket, values: Any) -> None:
        """Gives everyone the parts of all ranks of an array of a bucket's size; see ``settle``."""
        self._carrier(bucket).allgather(values, bucket=bucket.number)

    def settle(self) -> None:
        """Returns when devices have done what was begun. Raises PeerLostError where one hangs."""
        if not self._alone:
            for bucket in self.buckets:
                self._carrier(bucket).settle()

    def _carrier(self, bucket: Bucket) -> Carrier:
        return carrier(self.communicator, bucket.backend)

    def gradients(self, present: Sequence[bool]) -> list[Any]:
        """One array for each variable, a view into ``flats``; None for those not present."""
        found: list[Any] = [None] * len(present)
        for layout, views in zip(self.layouts, self._views, strict=True):
            for position, view in zip(layout.positions, views, strict=True):
                found[position] = view if present[position] else None
        return found


class Filling:
    """The gradients of one shard, as they come in.

    ``full(bucket, buffer)`` is called as soon as a bucket and all before it are full: every rank
    sends them in the same order, whatever becomes final first.
    """

    def __init__(
        self,
        buckets: Sequence[Bucket],
        buffers: Sequence[Any],
        full: Callable[[Bucket, Any], None],
    ) -> None:
        self._full = full
        self._buckets = buckets
        self._of = {position: bucket for bucket in buckets for position in bucket.positions}
        self._buffers = buffers
        self._missing = [len(bucket.positions) for bucket in buckets]
        self._next = 0

    def put(self, position: int, gradient: Any) -> None:
        """The gradient of one variable; None counts as zeros."""
        bucket = self._of[position]
        _write(gradient, bucket.views(self._buffers[bucket.number])[position])
        self._missing[bucket.number] -= 1
        while self._next < len(self._buckets) and not self._missing[self._next]:
            self._full(self._buckets[self._next], self._buffers[self._next])
            self._next += 1


def _write(gradient: Any, view: Any) -> None:
    if type(gradient) is Tensor and gradient._data is view:
        return  # it was computed there
    if type(gradient) is IndexedSlices and gradient._write(view):
        return
    view[...] = 0 if gradient is None else beside(view, as_tensor(gradient)._data)


def _fitting(flat: Any) -> int:
    return _HOST_BYTES if isinstance(flat, np.ndarray) else _DEVICE_BYTES


def _cut(layout: Layout, bucket_bytes: int) -> Iterable[tuple[int, int]]:
    """Runs of variables of about ``bucket_bytes``, from the last variable on."""
    last, nbytes = len(layout.slices), 0
    for number in reversed(range(len(layout.slices))):
        where = layout.slices[number]
        size = (where.stop - where.start) * np.dtype(layout.dtype).itemsize
        if nbytes and nbytes + size > bucket_bytes:
            yield number + 1, last
            last, nbytes = number + 1, 0
        nbytes += size
    yield 0, last
