"""Datasets as the replicas of a strategy see them: each has its rows of every batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from distgrad.core import tree
from distgrad.core.composite import Composite
from distgrad.core.dispatch import as_tensor
from distgrad.data import loader, nest
from distgrad.data.drawing import Drawing
from distgrad.data.iterating import Elements
from distgrad.data.loader import Batch
from distgrad.data.rows import numbered_apart, seed_of
from distgrad.ops import random
from distgrad.ops.streams import stream
from distgrad.training.replicas import PerReplica, Replicas


@dataclass(frozen=True)
class InputContext:
    """What a function that makes a replica's dataset is told: each replica reads its own."""

    num_input_pipelines: int = 1
    input_pipeline_id: int = 0
    num_replicas_in_sync: int = 1

    def get_per_replica_batch_size(self, global_batch_size: int) -> int:
        """A replica's part of a batch. Raises ValueError where it is no whole number."""
        size, rest = divmod(global_batch_size, self.num_replicas_in_sync)
        if rest:
            raise ValueError(
                f"a batch of {global_batch_size} cannot be divided by "
                f"{self.num_replicas_in_sync} replicas"
            )
        return size


@dataclass(frozen=True)
class ValueContext:
    """What a function that makes a replica's value is told."""

    replica_id_in_sync_group: int = 0
    num_replicas_in_sync: int = 1


class ReplicaIterator(Elements):
    """The elements of one pass over a dataset of replicas."""

    def __init__(self, dataset: DistributedDataset | DatasetOfEach) -> None:
        self._dataset = dataset
        self._elements = dataset._elements()

    @property
    def element_spec(self) -> Any:
        """That of the dataset."""
        return self._dataset.element_spec

    def _following(self) -> Any:
        return next(self._elements)


class DistributedDataset:
    """A dataset of whole batches, the same on every worker, cut into the rows of each replica."""

    def __init__(self, dataset: Iterable[Any], replicas: Replicas) -> None:
        self._dataset = dataset
        self._replicas = replicas

    def __len__(self) -> int:
        return len(self._dataset)  # type: ignore[arg-type]

    def cardinality(self) -> Any:
        """How many batches there are, where that is known."""
        return self._dataset.cardinality()  # type: ignore[attr-defined]

    @property
    def element_spec(self) -> Any:
        """Shapes and dtypes of whole batches."""
        return self._dataset.element_spec  # type: ignore[attr-defined]

    def __iter__(self) -> ReplicaIterator:
        """Nests of `PerReplica`, or of the tensors of one replica alone.

        Raises ValueError for a batch of unequal lengths.
        """
        return ReplicaIterator(self)

    def _elements(self) -> Iterator[Any]:
        read = getattr(self._dataset, "_next_pass", None)  # arrays
        for element in read() if read is not None else self._dataset:
            yield self._cut(element)

    def _cut(self, element: Any) -> Any:
        leaves = tree.flatten(element)
        arrays = [leaf if isinstance(leaf, Composite) else np.asarray(leaf) for leaf in leaves]
        sizes = sorted({max(nest.rows(array), 0) for array in arrays})
        if len(sizes) != 1 or not sizes[0]:
            raise ValueError(f"the arrays of a batch need one first dimension; they have {sizes}")

        def rows(first: int, last: int) -> tuple[Any, ...]:
            return tuple(array[first:last] for array in arrays)

        replicas = self._replicas
        batch = loader.cut(0, sizes[0], replicas.virtual_shards, replicas.own, rows)
        return _together(element, batch, replicas)


class DatasetOfEach:
    """A dataset for each replica, which reads it alone; it ends when those of all have ended."""

    def __init__(self, make: Callable[[InputContext], Iterable[Any]], replicas: Replicas) -> None:
        number = replicas.virtual_shards
        self._replicas = replicas
        self._datasets: dict[int, Iterable[Any]] = {}
        # Apart, so that no replica's orders and draws depend on which others this worker has.
        place, seed = seed_of(None), random.drawn_seed()
        for i in replicas.own:
            with numbered_apart(place * number + i), stream(seed, shard=i):
                self._datasets[i] = make(InputContext(number, i, number))

    def __iter__(self) -> ReplicaIterator:
        """Nests of `PerReplica`, or of the tensors of one replica alone."""
        return ReplicaIterator(self)

    def _elements(self) -> Iterator[Any]:
        seed = random.drawn_seed()
        readers = {i: Drawing(iter(dataset), seed, i) for i, dataset in self._datasets.items()}
        latest: Any = None
        while True:
            read = {index: next(reader, None) for index, reader in readers.items()}
            own = {index: each for index, each in read.items() if each is not None}
            flat = {index: tree.flatten(each) for index, each in own.items()}
            latest = next(iter(own.values()), latest)
            sizes: dict[int, int] = {}
            for found in self._replicas.communicator.allgather_object(
                {index: len(leaves[0]) for index, leaves in flat.items()}
            ):
                sizes.update(found)
            if not sizes:
                return
            shards = [(index, tuple(leaves)) for index, leaves in flat.items()]
            spare = () if shards else tuple(tree.flatten(latest))
            present = sorted(sizes)
            batch = Batch(0, sum(sizes.values()), present, shards, sizes, spare)
            yield _together(latest, batch, self._replicas)

    @property
    def element_spec(self) -> Any:
        """Shapes and dtypes of what a replica reads."""
        return next(iter(self._datasets.values())).element_spec  # type: ignore[attr-defined]


def _together(element: Any, batch: Batch, replicas: Replicas) -> Any:
    """A nest like ``element``, of what each replica of this worker has of its leaves.

    Where there is one replica alone, these are tensors, as what its ``run`` returns.
    """
    if replicas.virtual_shards == 1:
        arrays = batch.shards[0][1]
        alone = [a if isinstance(a, Composite) else as_tensor(a) for a in arrays]
        return tree.pack_sequence_as(element, alone)
    places = []
    for position in range(len(tree.flatten(element))):
        own = {index: arrays[position] for index, arrays in batch.shards}
        places.append(PerReplica(own, batch, batch.spare[position] if batch.spare else None))
    return tree.pack_sequence_as(element, places)
