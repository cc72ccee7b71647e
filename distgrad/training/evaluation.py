"""Loss and metrics over a data set, in the same fixed order as in training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import TreeSum
from distgrad.core import timeline
from distgrad.core.dispatch import backend_of
from distgrad.data.loader import Batch
from distgrad.training.forward import Forward, Packed
from distgrad.training.reduction import Compute, ShardResult
from distgrad.training.state import shard

AT_ONCE = 32  # batches whose results are left on a device until they are read together


@timeline.timed("evaluate")
def evaluate(
    compute: Compute | Forward,
    sums_size: int,
    batches: Iterable[Batch],
    communicator: Communicator,
    virtual_shards: int,
    *,
    mean_loss: bool = True,
    counted: bool = False,
    after: Callable[[float, np.ndarray], None] | None = None,
) -> tuple[float, np.ndarray]:
    """Loss and metric sums over all batches; the arguments are those of `GradientSum`.

    ``after``, if given, is told those so far after every batch.
    A mean loss is the mean over samples (in each batch over what ``compute`` says,
    where ``counted``); a sum loss, whose mean over samples says little, is weighed the same way.
    """
    # Loss, what it is weighed by, metric sums.
    tree = TreeSum(virtual_shards, 2 + sums_size, np.float64)
    stats, sums, loss, samples = np.zeros(tree.size), np.zeros(sums_size), 0.0, 0

    def add(batch: Batch, results: Sequence[ShardResult]) -> None:
        nonlocal loss, sums, samples
        tree.start(batch.present)
        for (index, _), (own, parts, over) in zip(batch.shards, results, strict=True):
            share = float(over) if counted and mean_loss else batch.sizes[index] / batch.size
            row = tree.buffer()
            row[0] = (share if mean_loss else 1.0) * float(own)
            row[1], row[2:] = share, np.asarray(parts)
            tree.push(index, row)
        communicator.reduce_tree(tree, stats)
        if counted and mean_loss:
            loss += (stats[0] / stats[1] if stats[1] else 0.0) * batch.size
        else:
            loss += stats[0] * batch.size
        sums += stats[2:]
        samples += batch.size

    waiting: list[tuple[Batch, list[Packed]]] = []

    def add_waiting() -> None:
        found = iter(_read([result for _, results in waiting for result in results]))
        for batch, results in waiting:
            add(batch, list(islice(found, len(results))))
        waiting.clear()

    for batch in batches:
        results: list[Any] = []
        for index, arrays in batch.shards:
            with shard(batch.sizes[index] / batch.size):
                results.append(compute(arrays, False))
        if results and type(results[0]) is Packed:
            waiting.append((batch, results))
            if len(waiting) == AT_ONCE or after is not None:
                add_waiting()
        else:
            if waiting:
                add_waiting()
            add(batch, results)
        if after is not None:
            after(float(loss / samples), sums)
    if waiting:
        add_waiting()
    return (float(loss / samples) if samples else math.nan), sums


def _read(results: Sequence[Packed]) -> Sequence[ShardResult]:
    """The same on the host, by one copy."""
    arrays = [result.numbers._data for result in results]
    backend = backend_of(arrays[0])
    return list(map(Packed.read, backend.to_numpy(backend.xp.stack(arrays))))
