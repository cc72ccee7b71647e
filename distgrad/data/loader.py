"""One worker's batches: its own shards of every global batch, in the order of the epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count, islice
from typing import Any

import numpy as np

from distgrad.core.user_line import warn
from distgrad.data import nest, shard
from distgrad.data.dataset import Dataset
from distgrad.data.drawing import Drawing
from distgrad.data.prefetch import Prefetcher
from distgrad.data.source import ArraySource

_WORTH_A_THREAD = 1 << 22  # bytes of a worker's part of a batch: below, the hand-over costs more


@dataclass(frozen=True)
class Batch:
    """One step's samples, as one worker sees them.

    ``size``, ``present`` (the indices of the shards that hold a sample) and ``sizes`` (how many
    samples each of them holds) describe the whole batch and are the same on every worker;
    ``shards`` are this worker's own, none of them empty, each with the rows of every array of the
    source. A worker that has none gets the rows of somebody else's as ``spare``. Where its shards
    are parts of one size of some arrays, one behind the other, those are ``whole``; a batch with
    other shards, made by ``dataclasses.replace``, does not have them.
    """

    step_in_epoch: int
    size: int
    present: list[int]
    shards: list[tuple[int, tuple[Any, ...]]]
    sizes: dict[int, int]
    spare: tuple[Any, ...] = ()
    whole: tuple[np.ndarray, ...] = field(default=(), init=False)


class Loader:
    """Cuts a source into batches and batches into virtual shards; yields one worker's shards.

    ``shards`` is the worker's contiguous range of ``range(virtual_shards)``. Over all workers each
    sample comes exactly once per epoch, and what a shard holds depends on (seed, epoch, step)
    alone. Shuffled shards are copies, others views of the source. ``prefetch`` batches are made in
    advance by a thread; None decides by the size of a batch and by where the source lies. Raises
    ValueError for an empty source, or shards outside of the batch.

    Where ``steps_per_epoch`` is set to fewer than there are batches, an epoch goes on where the one
    before it ended; that which reaches the end of the data is as short as what was left. The first
    of them is then number ``first_epoch``.
    """

    first_epoch = 0

    def __init__(
        self,
        source: ArraySource,
        global_batch_size: int,
        virtual_shards: int,
        shards: range,
        seed: int,
        shuffle: bool = True,
        prefetch: int | None = None,
    ) -> None:
        if len(source) == 0:
            raise ValueError("the source holds no samples")
        _check_shards(shards, virtual_shards)
        self.source = source
        self.global_batch_size = global_batch_size
        self.virtual_shards = virtual_shards
        self.shards = shards
        self.seed = seed
        self.shuffle = shuffle
        self.steps_per_epoch = shard.steps_per_epoch(len(source), global_batch_size)
        self.prefetch = (2 if self._worth_a_thread() else 0) if prefetch is None else prefetch

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from ``start_step`` on, as a resumed run needs them."""
        batches = self._batches(epoch, start_step)
        if self.prefetch and self.steps_per_epoch - start_step > 1:
            with Prefetcher(batches, self.prefetch) as ahead:
                yield from ahead
        else:
            yield from batches

    def _batches(self, epoch: int, start_step: int) -> Iterator[Batch]:
        n = len(self.source)
        batches = shard.steps_per_epoch(n, self.global_batch_size)
        epochs = -(-batches // self.steps_per_epoch)  # that one pass over the data takes
        passes, part = divmod(epoch - self.first_epoch, epochs)
        begun = part * self.steps_per_epoch
        take: Callable[[slice], tuple[np.ndarray, ...]] = self.source.take
        if self.shuffle:
            take = self.source.ordered(shard.epoch_order(n, self.seed, passes))
        for step in range(begun + start_step, min(begun + self.steps_per_epoch, batches)):
            start, stop = shard.batch_bounds(n, self.global_batch_size, step)

            def rows(first: int, last: int, start: int = start) -> tuple[np.ndarray, ...]:
                return take(slice(start + first, start + last))

            yield cut(step - begun, stop - start, self.virtual_shards, self.shards, rows)

    def _worth_a_thread(self) -> bool:
        if self.source.slow:
            return True
        sample = sum(array.nbytes for array in self.source.arrays) // len(self.source)
        own = self.global_batch_size * len(self.shards) // self.virtual_shards
        return self.shuffle and own * sample >= _WORTH_A_THREAD


class Repeatable:
    """Base of sequences of batches that follow from a seed and the number of the epoch alone."""

    def iterate(self, epoch: int, seed: int = 0) -> Iterator[Any]:
        """The batches of an epoch; ``seed`` is for what was given none of its own."""
        raise NotImplementedError(f"{type(self).__name__} does not define iterate")


def is_stream(batches: Any) -> bool:
    """Whether nobody can put these back: a generator, but no sequence that ``next`` takes, too."""
    return isinstance(batches, Iterator) and not hasattr(batches, "__getitem__")


class BatchLoader:
    """The same for batches that come ready-made: each is the whole step's, of all workers together.

    ``batches`` is a `Dataset` that was batched, an iterable, a sequence with ``__getitem__`` and
    ``__len__`` or, as in Keras, ``num_batches`` (None: without end), ``on_epoch_begin`` and
    ``on_epoch_end``, or a generator. A batch is an array, a dict, or a tuple or list of up to three
    of them (inputs, targets, weights); every worker reads all of them, in the same order, and keeps
    the rows of its own shards, views of the batch.

    ``steps_per_epoch`` is the number of batches in an epoch, None where only reading can tell.
    Where it was given, an epoch goes on where the one before it ended; that which reaches the end
    of the data is as short as what was left, and the next one begins again; the first of them is
    number ``first_epoch``. Otherwise an epoch is all that there is. A generator, which nobody can
    put back, goes on from where it stands.

    Raises TypeError for something that is none of these, ValueError for an endless dataset without
    ``steps_per_epoch``, for a batch of unequal lengths, and for an epoch without any.
    """

    def __init__(
        self,
        batches: Any,
        virtual_shards: int,
        shards: range,
        seed: int = 0,
        steps_per_epoch: int | None = None,
        first_epoch: int = 0,
    ) -> None:
        _check_shards(shards, virtual_shards)
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise ValueError(f"steps_per_epoch is {steps_per_epoch}; it must be at least 1")
        self.virtual_shards = virtual_shards
        self.shards = shards
        self.seed = seed
        self.once = is_stream(batches)
        told = hasattr(batches, "__getitem__") and not isinstance(batches, (Dataset, Repeatable))
        self._events = batches if told else None
        self._read = _reader(batches, seed)
        self._given_steps, self._first_epoch = steps_per_epoch, first_epoch
        self.steps_per_epoch = steps_per_epoch or _length(batches)
        # Of given steps: the epochs to come, and the number of the next one.
        self._pieces: Iterator[Iterator[Any]] = iter(())
        self._next_epoch = -1

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from ``start_step`` on: those before are read and dropped."""
        step, last = start_step, self._given_steps
        if last is not None and step >= last:
            return
        self._tell("on_epoch_begin")
        batches = self._read(epoch) if last is None else self._piece(epoch, last)
        for batch in islice(batches, 0 if self.once else start_step, None):
            yield self._batch(step, batch)
            step += 1
        self._next_epoch = epoch + 1
        if step == 0 or (step == start_step and last is not None):
            raise ValueError(
                f"the data gave no batch in epoch {epoch + 1}: give a Dataset or a sequence, which "
                "can be read again, or a generator that goes on"
            )
        if last is not None and step < last:
            warn(f"the data ended after {step} of {last} steps of epoch {epoch + 1}")
        self._tell("on_epoch_end")

    def first(self) -> tuple[Any, ...] | None:
        """The parts of the first batch, None where there is none; no epoch begins."""
        for batch in self._read(0):
            return self._batch(0, batch).shards[0][1]
        return None

    def _tell(self, event: str) -> None:
        getattr(self._events, event, lambda: None)()

    def _piece(self, epoch: int, steps: int) -> Iterator[Any]:
        """The batches of an epoch of given steps, of those that follow each other."""
        if self._next_epoch != epoch:
            self._pieces = self._cut_up(steps)
            for _ in range(0 if self.once else epoch - self._first_epoch):
                for _ in next(self._pieces, ()):
                    pass
        self._next_epoch = -1  # until this one has ended
        return next(self._pieces, iter(()))

    def _cut_up(self, steps: int) -> Iterator[Iterator[Any]]:
        """Each reading of the data in epochs of given steps; the last of one may be shorter."""
        for again in count():
            batches, empty = iter(self._read(again)), True
            for first in batches:
                empty = False
                yield chain([first], islice(batches, steps - 1))
            if empty:
                return

    def _batch(self, step: int, batch: Any) -> Batch:
        parts = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
        if not 1 <= len(parts) <= 3:
            raise ValueError(
                f"a batch has {len(parts)} parts; it needs inputs, targets and weights at most"
            )
        parts = nest.to_arrays(tuple(map(_nested, parts)))
        # Batches of two datasets, zipped for a step of one's own, and the atoms and bonds of graphs
        # may differ in number: kept whole.
        uneven, alone = nest.is_uneven(parts[0]), self.virtual_shards == 1
        whole = alone and (uneven or all(isinstance(part, tuple) for part in parts))
        if uneven and not alone:
            raise ValueError(
                f"the inputs of batch {step} differ in their number of samples, so that nobody can "
                "cut them into shards: use one process, without virtual shards"
            )
        size = nest.length(next(nest.leaves(parts)) if whole else parts)
        if size == 0:
            raise ValueError(f"batch {step} has no samples")

        def rows(first: int, last: int) -> tuple[Any, ...]:
            if whole:
                return parts
            return nest.map_leaves(lambda array: array[first:last], parts)

        return cut(step, size, self.virtual_shards, self.shards, rows)


def _nested(part: Any) -> Any:
    """A list of arrays, such as the several inputs of a model, as a tuple."""
    arrays = isinstance(part, list) and part and all(hasattr(each, "shape") for each in part)
    return tuple(part) if arrays else part


def cut(
    step: int,
    size: int,
    virtual_shards: int,
    shards: range,
    rows: Callable[[int, int], tuple[Any, ...]],
) -> Batch:
    """A batch of ``size`` samples with a worker's shards, each the rows between its bounds."""
    bounds = shard.shard_bounds(size, virtual_shards)
    sizes = {index: last - first for index, (first, last) in enumerate(bounds) if first < last}
    mine = [index for index in sizes if index in shards]
    own: list[tuple[int, tuple[Any, ...]]] = []
    whole: tuple[np.ndarray, ...] = ()
    if mine:  # read at once, so that shards lie side by side
        start = bounds[mine[0]][0]
        held = rows(start, bounds[mine[-1]][1])
        flat = all([type(array) is np.ndarray for array in held])
        if flat and len({sizes[index] for index in mine}) == 1:
            whole = held
        for index in mine:
            where = slice(bounds[index][0] - start, bounds[index][1] - start)
            if len(mine) == 1:
                part = held
            elif flat:
                part = tuple([array[where] for array in held])
            else:
                part = nest.map_leaves(partial(_part, where=where), held)
            own.append((index, part))
    spare = () if own else rows(*bounds[next(iter(sizes))])
    batch = Batch(step, size, list(sizes), own, sizes, spare)
    object.__setattr__(batch, "whole", whole)
    return batch


def _part(array: Any, where: slice) -> Any:
    return None if array is None else array[where]


def _check_shards(shards: range, virtual_shards: int) -> None:
    if shards.step != 1 or not 0 <= shards.start <= shards.stop <= virtual_shards:
        raise ValueError(f"{shards} is not a contiguous part of range(0, {virtual_shards})")


def _reader(batches: Any, seed: int) -> Callable[[int], Iterator[Any]]:
    """A function from the number of a pass to its batches, whose random numbers follow from both.

    Those of a generator, which goes on, and of a pass without a seed are the next of the program.
    """
    read = _passes(batches, seed)
    if is_stream(batches) or not seed:
        return read
    return lambda epoch: Drawing(read(epoch), seed, epoch)


def _passes(batches: Any, seed: int) -> Callable[[int], Iterator[Any]]:
    if isinstance(batches, (Dataset, Repeatable)):
        return lambda epoch: batches.iterate(epoch, seed)
    if is_stream(batches):
        return lambda _epoch: batches
    if hasattr(batches, "__getitem__") and (_counted(batches) or hasattr(batches, "__len__")):
        return lambda _epoch: map(batches.__getitem__, _indices(batches))
    if isinstance(batches, Iterable):
        return lambda _epoch: iter(batches)
    raise TypeError(
        f"{type(batches).__name__} gives no batches; give arrays, a Dataset, a generator, or a "
        "sequence of batches"
    )


def _counted(batches: Any) -> bool:
    """Whether ``num_batches`` says how many there are."""
    return hasattr(type(batches), "num_batches") and not isinstance(batches, Dataset)


def _indices(batches: Any) -> Iterable[int]:
    number = batches.num_batches if _counted(batches) else len(batches)
    return count() if number is None else range(number)


def _length(batches: Any) -> int | None:
    if _counted(batches):
        if batches.num_batches is None:
            raise ValueError("its num_batches is None, which is endless: give steps_per_epoch")
        return batches.num_batches
    if is_stream(batches) or not hasattr(batches, "__len__"):
        return None
    try:
        return len(batches)
    except TypeError:
        if isinstance(batches, Dataset) and batches.cardinality() == -1:
            raise ValueError("the dataset is infinite: give steps_per_epoch") from None
        return None
