"""What a function sees of the replica that runs it (``tf.distribute.ReplicaContext``)."""

from __future__ import annotations

import enum
from typing import Any

from distgrad.core import tree
from distgrad.core.dispatch import as_tensor
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


def get_replica_context() -> ReplicaContext | None:
    """The replica that runs; None within a strategy's scope where none does."""
    from distgrad.distribute import strategy

    seat = meeting.current()
    if seat is None and strategy.has_strategy():
        return None
    return ReplicaContext(seat)
