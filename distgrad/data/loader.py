"""One worker's batches: its own shards of every global batch, in the order of the epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from distgrad.data import shard
from distgrad.data.source import ArraySource


@dataclass(frozen=True)
class Batch:
    """One step's samples, as one worker sees them.

    ``size`` and ``present`` (the indices of the shards that hold a sample) describe the whole
    batch and are the same on every worker; ``shards`` are this worker's own, none of them empty,
    each with the rows of every array of the source.
    """

    step_in_epoch: int
    size: int
    present: list[int]
    shards: list[tuple[int, tuple[np.ndarray, ...]]]


class Loader:
    """Cuts a source into batches and batches into virtual shards; yields one worker's shards.

    ``shards`` is the worker's contiguous range of ``range(virtual_shards)``. Over all workers each
    sample comes exactly once per epoch, and what a shard holds depends on (seed, epoch, step)
    alone. Raises ValueError for an empty source, or shards outside of the batch.
    """

    def __init__(
        self,
        source: ArraySource,
        global_batch_size: int,
        virtual_shards: int,
        shards: range,
        seed: int,
        shuffle: bool = True,
    ) -> None:
        if len(source) == 0:
            raise ValueError("the source holds no samples")
        if shards.step != 1 or not 0 <= shards.start <= shards.stop <= virtual_shards:
            raise ValueError(f"{shards} is not a contiguous part of range(0, {virtual_shards})")
        self.source = source
        self.global_batch_size = global_batch_size
        self.virtual_shards = virtual_shards
        self.shards = shards
        self.seed = seed
        self.shuffle = shuffle
        self.steps_per_epoch = shard.steps_per_epoch(len(source), global_batch_size)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from ``start_step`` on, as a resumed run needs them."""
        n = len(self.source)
        order = shard.epoch_order(n, self.seed, epoch, self.shuffle)
        for step in range(start_step, self.steps_per_epoch):
            start, stop = shard.batch_bounds(n, self.global_batch_size, step)
            indices = order[start:stop]
            bounds = shard.shard_bounds(len(indices), self.virtual_shards)
            present = [index for index, (first, last) in enumerate(bounds) if first < last]
            own = [
                (index, self.source.take(indices[slice(*bounds[index])]))
                for index in present
                if index in self.shards
            ]
            yield Batch(step, len(indices), present, own)
