"""Loss and metrics over a data set, in the same fixed order as in training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import TreeSum
from distgrad.data.loader import Batch
from distgrad.training.reduction import Compute
from distgrad.training.state import shard


def evaluate(
    compute: Compute,
    sums_size: int,
    batches: Iterable[Batch],
    communicator: Communicator,
    virtual_shards: int,
    *,
    mean_loss: bool = True,
    counted: bool = False,
    after: Callable[[float, np.ndarray], None] = lambda loss, sums: None,
) -> tuple[float, np.ndarray]:
    """Loss and metric sums over all batches; the arguments are those of `GradientSum`.

    ``after`` is told those so far after every batch.
    A mean loss is the mean over samples (in each batch over what ``compute`` says,
    where ``counted``); a sum loss, whose mean over samples says little, is weighed the same way.
    """
    # Loss, what it is weighed by, metric sums.
    tree = TreeSum(virtual_shards, 2 + sums_size, np.float64)
    stats, sums, loss, samples = np.zeros(tree.size), np.zeros(sums_size), 0.0, 0
    for batch in batches:
        tree.start(batch.present)
        for index, arrays in batch.shards:
            part = batch.sizes[index] / batch.size
            with shard(part):
                result = compute(arrays, False)
            share = float(result.over) if counted and mean_loss else part
            row = tree.buffer()
            row[0] = (share if mean_loss else 1.0) * float(result.loss)
            row[1], row[2:] = share, np.asarray(result.sums)
            tree.push(index, row)
        communicator.reduce_tree(tree, stats)
        if counted and mean_loss:
            loss += (stats[0] / stats[1] if stats[1] else 0.0) * batch.size
        else:
            loss += stats[0] * batch.size
        sums += stats[2:]
        samples += batch.size
        after(float(loss / samples), sums)
    return (float(loss / samples) if samples else math.nan), sums
