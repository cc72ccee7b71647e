"""What a function sees of the replica that runs it (``tf.distribute.ReplicaContext``)."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core import tree
from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.ops.constants import zeros
from distgrad.ops.padding import pad
from distgrad.ops.shape import one_axis
from distgrad.training import meeting
from distgrad.training.meeting import over_shards


class ReduceOp(enum.Enum):
    """How the values of replicas become one: "SUM" or "MEAN"."""

    SUM = "SUM"
    MEAN = "MEAN"

    @classmethod
    def of(cls, given: Any) -> ReduceOp:
        """The one that is given, or named. Raises ValueError for another name."""
        name = given.name if isinstance(given, cls) else str(given).upper()
        if name not in cls.__members__:
            raise ValueError(f"reduce_op must be SUM or MEAN, not {given!r}")
        return cls[name]


class ReplicaContext:
    """One replica, of ``num_replicas_in_sync``."""

    def __init__(self, seat: meeting.Seat | None = None) -> None:
        self.replica_id_in_sync_group = 0 if seat is None else max(seat.index, 0)
        self.num_replicas_in_sync = 1 if seat is None else seat.shards

    def all_reduce(self, reduce_op: Any, value: Any, options: Any = None) -> Any:
        """The sum or mean of a nest of tensors over all replicas, alike in all of them.

        Its gradient is that of the sum: what comes back from all replicas is added up, too. Each
        replica must call it equally often. A layer that calls it needs ``meets = True`` where it
        is trained by ``fit``; RuntimeError without.
        """
        op = ReduceOp.of(reduce_op)
        totals = over_shards([as_tensor(leaf) for leaf in tree.flatten(value)])
        if op is ReduceOp.MEAN:
            totals = [total / self.num_replicas_in_sync for total in totals]
        return tree.pack_sequence_as(value, totals)

    def all_gather(self, value: Any, axis: int, options: Any = None) -> Any:
        """The tensors of a nest beside those of all replicas along an axis, in their order.

        Elsewhere their sizes are the same. Its gradient, and who may call it: as of `all_reduce`.
        """
        return tree.map_structure(lambda leaf: self._gathered(as_tensor(leaf), axis), value)

    def _gathered(self, part: Tensor, axis: int) -> Tensor:
        seat = meeting.current()
        if seat is None or self.num_replicas_in_sync == 1:
            return part
        axis = one_axis("all_gather", axis, part.shape.rank)
        own = np.zeros(self.num_replicas_in_sync, np.int64)
        own[self.replica_id_in_sync_group] = part.shape[axis]
        sizes = over_shards([as_tensor(own)])[0].numpy()
        total, first = int(sizes.sum()), int(sizes[: self.replica_id_in_sync_group].sum())
        if seat.is_spare:
            shape = [total if i == axis else size for i, size in enumerate(part.shape)]
            framed = zeros(shape, part.dtype)
        else:
            room = [(0, 0)] * part.shape.rank
            room[axis] = first, total - first - part.shape[axis]
            framed = pad(part, room)
        return over_shards([framed])[0]

    @property
    def strategy(self) -> Any:
        """The strategy that runs it."""
        from distgrad.distribute.strategy import get_strategy

        return get_strategy()

    def merge_call(self, merge_fn: Callable[..., Any], args: Any = (), kwargs: Any = None) -> Any:
        """What ``merge_fn(strategy, *args, **kwargs)`` returns outside of the replica.

        Raises RuntimeError where there are several replicas.
        """
        if self.num_replicas_in_sync > 1:
            raise RuntimeError(
                f"merge_call is for one replica, not {self.num_replicas_in_sync}: use all_reduce "
                "or all_gather, or call the function outside of strategy.run"
            )
        before, _merging.inside = _merging.inside, True
        try:
            return merge_fn(self.strategy, *args, **(kwargs or {}))
        finally:
            _merging.inside = before


class _Merging(threading.local):
    inside = False


_merging = _Merging()


def merges() -> bool:
    """Whether this is within a function given to ``merge_call``."""
    return _merging.inside


def get_replica_context() -> ReplicaContext | None:
    """The replica that runs; None within a strategy's scope, or ``merge_call``, where none does."""
    from distgrad.distribute import strategy

    seat = meeting.current()
    if merges() or (seat is None and strategy.has_strategy()):
        return None
    return ReplicaContext(seat)
