"""``tf.data.Dataset`` on arrays: lazy, restartable, and the same on every rank.

A dataset is a function from a pass, that is an epoch and a seed, to an iterator. A step of a chain
wraps that function; nothing runs before iteration, and any pass can be run again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.core.op_errors import FailedPreconditionError
from distgrad.data import cardinality, composites, nest, specs
from distgrad.data.calling import as_of_now, as_tensors, call, holds
from distgrad.data.cardinality import INFINITE_CARDINALITY, UNKNOWN_CARDINALITY
from distgrad.data.composites import Composites
from distgrad.data.drawing import Drawing
from distgrad.data.grouping import Grouping, at_least_one, one_of
from distgrad.data.iterating import DatasetIterator
from distgrad.data.mixing import Mixing
from distgrad.data.origins import Origins
from distgrad.data.prefetch import Prefetcher
from distgrad.data.rows import Numbers, Pass, Rows, drawn, each_row, shuffled
from distgrad.data.specs import Specified

AUTOTUNE = -1

_unseeded = Numbers()


class Dataset(Specified, Origins, Grouping, Composites, Mixing):
    """Elements, each an array or a nest of tuples and dicts of arrays; methods as in ``tf.data``.

    Iterating gives tensors, ``as_numpy_iterator`` arrays, read-only where they are views of the
    data; functions given to ``map`` and its like get tensors. Every iteration starts anew, with
    another order where a ``shuffle`` reshuffles. Orders depend on seeds alone, so that all ranks
    see the same; a shuffle without a seed takes the training's.

    ``size`` counts the elements, or is one of the two constants for infinite and unknown; ``spec``
    is what ``element_spec`` says of them, or a function that gives it.
    """

    batch_size: int | None = None  # of what ``batch`` has just made
    _shuffled = False  # whether its rows, if it has any, lie in an order of their own

    def __init__(
        self,
        elements: Callable[[Pass], Iterator[Any]],
        size: int = UNKNOWN_CARDINALITY,
        rows: Callable[[Pass], Rows] | None = None,
        spec: Any = None,
    ) -> None:
        self._elements = elements
        self._size = size
        self._rows = rows
        self._spec = spec
        self._passes = 0

    # Steps

    def map(
        self,
        map_func: Callable[..., Any],
        num_parallel_calls: int | None = None,
        deterministic: bool | None = None,
        synchronous: bool | None = None,
        use_unbounded_threadpool: bool = False,
        name: str | None = None,
    ) -> Dataset:
        """Each element through a function; the parts of a tuple are its arguments.

        A list that the function returns is a tuple. Calls are made in order, one at a time: the
        arguments on parallel calls and threads change nothing.
        """
        map_func = as_of_now(map_func)

        def mapped(element: Any) -> Any:
            made = call(map_func, element)
            return nest.to_arrays(tuple(made) if isinstance(made, list) else made)

        # Python's own map goes on after an error, as ignore_errors needs it to.
        return Dataset(
            lambda this: map(mapped, self._elements(this)),
            self._size,
            spec=lambda: specs.through(mapped, self.element_spec),
        )

    def filter(self, predicate: Callable[..., Any], name: str | None = None) -> Dataset:
        """The elements for which the predicate is true; ValueError where it gives no bool."""
        predicate = as_of_now(predicate)
        return Dataset(
            lambda this: filter(lambda element: holds(predicate, element), self._elements(this)),
            spec=self._same,
        )

    def interleave(
        self,
        map_func: Callable[..., Dataset],
        cycle_length: int | None = None,
        block_length: int | None = None,
        num_parallel_calls: int | None = None,
        deterministic: bool | None = None,
        name: str | None = None,
    ) -> Dataset:
        """The datasets that a function makes of the elements, ``cycle_length`` of them in turns.

        Without a cycle length, or with AUTOTUNE for it, one after the other, on every machine: in
        TensorFlow it follows the number of CPUs. Each gives ``block_length`` elements in its turn,
        1 by default. Raises InvalidArgumentError below 1.
        """
        alone = cycle_length is None or cycle_length == AUTOTUNE
        cycle = 1 if alone else at_least_one("cycle_length", cycle_length)  # type: ignore[arg-type]
        map_func = as_of_now(map_func)
        block = at_least_one("block_length", 1 if block_length is None else block_length)

        def opened(element: Any) -> Dataset:
            made = call(map_func, element)
            if not isinstance(made, Dataset):
                raise TypeError(
                    f"functions given to interleave and flat_map return a Dataset, not {made!r}"
                )
            return made

        def elements(this: Pass) -> Iterator[Any]:
            waiting = (opened(element)._elements(this) for element in self._elements(this))
            open_now = list(itertools.islice(waiting, cycle))
            turn = 0
            while open_now:
                turn %= len(open_now)
                taken = list(itertools.islice(open_now[turn], block))
                yield from taken
                if len(taken) == block:
                    turn += 1
                    continue
                following = list(itertools.islice(waiting, 1))
                open_now[turn : turn + 1] = following
                turn += len(following)

        return Dataset(
            elements,
            spec=lambda: specs.through(opened, self.element_spec).element_spec,
        )

    def flat_map(self, map_func: Callable[..., Dataset], name: str | None = None) -> Dataset:
        """The datasets that a function makes of the elements, one after the other."""
        return self.interleave(map_func, 1)

    def shuffle(
        self,
        buffer_size: int,
        seed: int | None = None,
        reshuffle_each_iteration: bool | None = None,
        name: str | None = None,
    ) -> Dataset:
        """A random order: of all elements where the buffer holds them, else drawn from the buffer.

        Raises InvalidArgumentError (a ValueError) for an empty buffer.
        """
        at_least_one("buffer_size", buffer_size)
        number = 0 if seed is not None else next(_unseeded)
        again = reshuffle_each_iteration is not False

        def key(this: Pass) -> tuple[int, int, int]:
            own = this.seed if seed is None else int(seed)
            return own, number, this.epoch if again else 0

        if self._rows is not None:
            order = lambda this: shuffled(self._rows(this), buffer_size, key(this))  # noqa: E731
            return _of_rows(order, self._size, self._same, shuffled=True)
        return Dataset(
            lambda this: drawn(self._elements(this), buffer_size, key(this)),
            self._size,
            spec=self._same,
        )

    def batch(
        self,
        batch_size: int,
        drop_remainder: bool = False,
        num_parallel_calls: int | None = None,
        deterministic: bool | None = None,
        name: str | None = None,
    ) -> Dataset:
        """``batch_size`` elements stacked into one; the last batch may be short.

        Raises InvalidArgumentError (a ValueError), when it comes to them, for elements of
        different shapes.
        """
        at_least_one("batch_size", batch_size)

        def from_rows(this: Pass) -> Iterator[Any]:
            rows = self._rows(this)  # type: ignore[misc]
            stop = len(rows) // batch_size * batch_size if drop_remainder else len(rows)
            for start in range(0, stop, batch_size):
                yield rows.cut(slice(start, start + batch_size)).gathered()

        def from_elements(this: Pass) -> Iterator[Any]:
            elements = self._elements(this)
            while group := list(itertools.islice(elements, batch_size)):
                if len(group) == batch_size or not drop_remainder:
                    yield nest.stack(group)

        length = batch_size if drop_remainder else None
        make = from_elements if self._rows is None else from_rows
        size = cardinality.batched(self._size, batch_size, drop_remainder)
        made = Dataset(make, size, spec=lambda: specs.stacked(self.element_spec, length))
        made.batch_size = batch_size
        return made

    def unbatch(self, name: str | None = None) -> Dataset:
        """The rows of the elements, one by one."""

        def elements(this: Pass) -> Iterator[Any]:
            for element in self._elements(this):
                rows = composites.each_row(element) if composites.has(element) else None
                yield from each_row(Rows(element, None)) if rows is None else rows

        size = self._size if self._size in (0, INFINITE_CARDINALITY) else UNKNOWN_CARDINALITY
        if self._rows is not None:  # no function of a user's must run for what they look like
            shape = next(nest.leaves(self.element_spec)).shape
            size = self._size * shape[0] if len(shape) else size
        return Dataset(elements, size, spec=lambda: specs.unstacked(self.element_spec))

    def repeat(self, count: int | None = None, name: str | None = None) -> Dataset:
        """The elements ``count`` times over, each time as another pass; None or -1: without end."""
        times = None if count is None or count < 0 else int(count)

        def elements(this: Pass) -> Iterator[Any]:
            first = this.epoch * (2**32 if times is None else times)
            for time in itertools.count() if times is None else range(times):
                empty = True
                for element in self._elements(Pass(first + time, this.seed)):
                    empty = False
                    yield element
                if empty:
                    return  # or an endless repetition of nothing would never come back

        return Dataset(elements, cardinality.repeated(self._size, times), spec=self._same)

    def take(self, count: int, name: str | None = None) -> Dataset:
        """The first ``count`` elements; all of them for -1."""
        return self if count < 0 else self._cut(slice(0, int(count)))

    def skip(self, count: int, name: str | None = None) -> Dataset:
        """What comes after the first ``count`` elements; nothing for -1."""
        return self.take(0) if count < 0 else self._cut(slice(int(count), None))

    def shard(self, num_shards: int, index: int, name: str | None = None) -> Dataset:
        """Every ``num_shards``-th element, from number ``index`` on. Raises InvalidArgumentError.

        Training does not need it: the batches of a dataset are those of all ranks together.
        """
        one_of("index", index, num_shards)
        return self._cut(slice(int(index), None, int(num_shards)))

    def _cut(self, where: slice) -> Dataset:
        size = cardinality.cut(self._size, where)
        if self._rows is not None:
            cut = lambda this: self._rows(this).cut(where)  # noqa: E731
            return _of_rows(cut, size, self._same, self._shuffled)
        bounds = (where.start, where.stop, where.step)

        def elements(this: Pass) -> Iterator[Any]:  # a generator, as ignore_errors expects it
            yield from itertools.islice(self._elements(this), *bounds)

        return Dataset(elements, size, spec=self._same)

    def concatenate(self, dataset: Dataset, name: str | None = None) -> Dataset:
        """The elements of this dataset, then those of another.

        Raises TypeError for elements of another form or dtype; shapes may differ.
        """
        specs.agree([self, dataset], "Incompatible dataset elements:\n  {first} vs.\n  {other}")
        return Dataset(
            lambda this: itertools.chain(self._elements(this), dataset._elements(this)),
            cardinality.joined([self._size, dataset._size]),
            spec=lambda: specs.joined([self.element_spec, dataset.element_spec]),
        )

    def enumerate(self, start: int = 0, name: str | None = None) -> Dataset:
        """Pairs of an int64 number and the element."""
        return Dataset(
            lambda this: (
                (np.asarray(number, np.int64), element)
                for number, element in enumerate(self._elements(this), start)
            ),
            self._size,
            spec=lambda: (specs.of_array(np.asarray(start, np.int64)), self.element_spec),
        )

    def cache(self, filename: str = "", name: str | None = None) -> Dataset:
        """The elements of the first iteration that takes them all, kept in memory.

        With a ``filename`` they are kept in that file, and read from it, by later runs as well:
        delete it where the data, or the steps before, have changed.
        """
        if filename:
            return self._kept(Path(filename))
        whole: list[list[Any]] = []

        def elements(this: Pass) -> Iterator[Any]:
            if whole:
                yield from whole[0]
                return
            seen = []
            for element in self._elements(this):
                seen.append(element)
                if len(seen) == self._size:  # who takes no more than there are, never sees the end
                    whole[:] = [seen]
                yield element
            whole[:] = [seen]

        return Dataset(elements, self._size, spec=self._same)

    def snapshot(
        self,
        path: Any,
        compression: str | None = "AUTO",
        reader_func: Any = None,
        shard_func: Any = None,
        name: str | None = None,
    ) -> Dataset:
        """``cache`` in a folder. The last three settings of its files change nothing."""
        from distgrad.data import kept

        return self._kept(kept.path_in(path))

    def _kept(self, path: Path) -> Dataset:
        from distgrad.data import kept  # which few scripts need

        def elements(this: Pass) -> Iterator[Any]:
            yield from kept.read(path) if path.exists() else kept.keep(self._elements(this), path)

        return Dataset(elements, self._size, spec=self._same)

    def save(
        self,
        path: Any,
        compression: str | None = None,
        shard_func: Any = None,
        checkpoint_args: Any = None,
    ) -> None:
        """Writes the elements to a folder, from which ``load`` reads them; replaces those in it.

        The last three settings of its files change nothing. Raises ValueError for elements of
        different forms.
        """
        from distgrad.data import kept

        for _ in kept.keep(self._next_pass(), kept.path_in(path)):
            pass

    def prefetch(self, buffer_size: int = AUTOTUNE, name: str | None = None) -> Dataset:
        """The same elements, made in advance by a thread: two for AUTOTUNE, none for 0.

        Raises InvalidArgumentError for other numbers below 0.
        """
        at_least_one("buffer_size", 1 if buffer_size in (0, AUTOTUNE) else buffer_size)
        depth = 2 if buffer_size < 0 else int(buffer_size)
        if depth == 0:
            return self

        def elements(this: Pass) -> Iterator[Any]:
            with Prefetcher(Drawing(self._elements(this)), depth) as items:
                yield from items

        return Dataset(elements, self._size, spec=self._same)

    def apply(self, transformation_func: Callable[[Dataset], Dataset]) -> Dataset:
        """What a function makes of this dataset. Raises TypeError if that is no dataset."""
        made = transformation_func(self)
        if not isinstance(made, Dataset):
            raise TypeError(
                f"the function given to apply must return a Dataset, not a {type(made).__name__}"
            )
        return made

    # Use

    def __iter__(self) -> DatasetIterator:
        """The elements of the next pass, as tensors, which is what a user's loop gets."""
        return DatasetIterator(self, self._passes)

    def _next_pass(self) -> Iterator[Any]:
        elements = self.iterate(self._passes)
        self.begun(self._passes)
        return elements

    def begun(self, epoch: int) -> None:
        """Says that the next pass comes after this one."""
        self._passes = max(self._passes, epoch + 1)

    def iterate(self, epoch: int, seed: int = 0) -> Iterator[Any]:
        """The elements of pass number ``epoch``; ``seed`` is for shuffles that were given none."""
        return self._elements(Pass(epoch, seed))

    def as_numpy_iterator(self) -> Iterator[Any]:
        """The elements, with NumPy numbers in place of arrays without a dimension.

        Texts are bytes, in UTF-8, as in TensorFlow.
        """
        return (nest.map_leaves(_plain, each) for each in self._next_pass())

    def cardinality(self) -> Any:
        """The number of elements, INFINITE_CARDINALITY or UNKNOWN_CARDINALITY: an int64 tensor."""
        return as_tensors(np.asarray(self._size, np.int64))

    def of_size(self, size: int) -> Dataset:
        """The same elements, said to be so many.

        Raises FailedPreconditionError at the end if they are not.
        """
        at_least_one("size", size + 1)

        def elements(this: Pass) -> Iterator[Any]:
            count = 0
            for element in self._elements(this):
                count += 1
                if count > size:
                    break
                yield element
            if count != size:
                found = f"only {count}" if count < size else "more"
                raise FailedPreconditionError(f"{size} elements were announced, there are {found}")

        return Dataset(elements, size, spec=self._same)

    def __len__(self) -> int:
        """The number of elements. Raises TypeError where it is infinite or unknown."""
        if self._size < 0:
            kind = "infinite" if self._size == INFINITE_CARDINALITY else "of unknown length"
            raise TypeError(f"the dataset is {kind}")
        return self._size

    def __bool__(self) -> bool:
        return True  # as in TensorFlow, and without a question about the length

    def __repr__(self) -> str:
        size = {INFINITE_CARDINALITY: "infinite", UNKNOWN_CARDINALITY: "unknown"}
        return f"<Dataset, cardinality {size.get(self._size, self._size)}>"


def _plain(leaf: Any) -> Any:
    return leaf if isinstance(leaf, Dataset) else nest.plain(leaf)


def _of_rows(rows: Callable[[Pass], Rows], size: int, spec: Any, shuffled: bool) -> Dataset:
    made = Dataset(lambda this: each_row(rows(this)), size, rows, spec)
    made._shuffled = shuffled
    return made
