"""What a script sees of the processes that run it together."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from itertools import count as counting
from typing import Any, NamedTuple

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.core import recording, timeline, tree
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import OutOfStepError
from distgrad.core.user_line import warn
from distgrad.core.variable import Variable
from distgrad.ops.collective import collective
from distgrad.training import applied
from distgrad.training import world as _world
from distgrad.training.digest import DesyncAlarm
from distgrad.training.handshake import check_variables, give


class World(NamedTuple):
    """The processes that run a script together, as one of them sees it."""

    rank: int
    size: int
    virtual_shards: int


def world() -> World:
    """This process's rank, how many there are, and the shards that a batch is cut into."""
    return World(rank(), world_size(), virtual_shards())


def rank() -> int:
    """This process's number, from 0."""
    return _world.communicator().rank


def world_size() -> int:
    """How many processes train together."""
    return _world.communicator().world_size


def is_chief() -> bool:
    """Whether this is rank 0, the one that prints and writes files."""
    return rank() == 0


def virtual_shards() -> int:
    """Into how many shards a batch is cut: DISTGRAD_VIRTUAL_SHARDS, or one for each process."""
    return _world.virtual_shards()


def barrier() -> None:
    """Returns once every process has called it."""
    recording.refuse("distribute.barrier")
    _world.communicator().barrier()


def broadcast(variables: Iterable[Variable], root: int = 0) -> None:
    """Gives every process the values that ``variables`` have on rank ``root``.

    Raises UsageError where another process has variables of other shapes or dtypes, in this order.
    """
    recording.refuse("distribute.broadcast")
    listed = list(variables)
    if not listed:
        warn(
            "distribute.broadcast was given no variables; a model has none before it is built: "
            "call it on a batch first"
        )
    # Names count what a process has made, and rank 0 may have made more.
    check_variables({f"{i}:": v for i, v in enumerate(listed)}, _world.communicator())
    give(listed, _world.communicator(), root)


def broadcast_object(obj: Any, root: int = 0) -> Any:
    """The object of rank ``root``, on every process."""
    recording.refuse("distribute.broadcast_object")
    return _world.communicator().broadcast_object(obj, root)


def allgather_object(obj: Any) -> list[Any]:
    """The objects of all processes, by rank."""
    recording.refuse("distribute.allgather_object")
    return _world.communicator().allgather_object(obj)


@timeline.timed("mean of gradients")
def mean(values: Any) -> Any:
    """Tensors averaged over the processes, as with Horovod: the gradients of a plain tape.

    ``values`` is a nest of tensors, numbers and None, alike on every process; the result has
    tensors in their places, float64 for integers and booleans. Each process counts the same: for
    parts of unequal size, and the same bits at any number of processes, use
    ``gradients(loss_fn, batch)``.

    Raises OutOfStepError where another process averages something else in one of these places.
    """
    communicator = _world.communicator()
    places = counting()

    def averaged(value: Any) -> Any:
        place = next(places)

        def over_all(total: np.ndarray) -> np.ndarray:
            if place == 0 and communicator.world_size > 1:
                _compare(communicator)
            # Arrays of one size that are not the same tensor must not be added up.
            mark = zlib.crc32(repr((place, total.shape)).encode()) & 0xFFFF
            if total.dtype.kind in "biu":  # their sum could be too large, or no number
                total = total.astype(np.float64)
            try:
                communicator.allreduce(total, bucket=mark)
            except OutOfStepError as error:
                raise OutOfStepError(
                    f"{error} In rank {communicator.rank} it is tensor {place} of "
                    f"distribute.mean, of shape {total.shape}."
                ) from None
            return np.asarray(total / total.dtype.type(communicator.world_size))

        return None if value is None else collective(over_all, as_tensor(value))

    found = tree.map_structure(averaged, values)
    if communicator.world_size > 1:
        applied.brought(found)
    return found


def _compare(communicator: Communicator) -> None:
    """What optimizers have made of the means of the calls before."""
    variables = applied.compare(communicator)
    if not variables or applied.known.warned:
        return
    found = DesyncAlarm(variables, communicator).difference()
    if found is not None:
        applied.known.warned = True
        if communicator.rank == 0:
            warn(
                f"the ranks apply the same gradients to other values: {found}. Give all of them "
                "those of one first: distribute.broadcast(model.variables)."
            )


def mean_by_count(values: Any, count: int) -> Any:
    """Numbers averaged over the processes, each by its ``count`` of samples: exact metrics.

    ``values`` is a nest of numbers, alike on every process; the result has floats.
    """
    recording.refuse("distribute.mean_by_count")
    leaves = tree.flatten(values)
    total = np.array([*(float(leaf) * count for leaf in leaves), count], np.float64)
    _world.communicator().allreduce(total)
    means = total[:-1] / total[-1] if total[-1] else np.full(len(leaves), np.nan)
    return tree.pack_sequence_as(values, means.tolist())
