"""Steps of a `Dataset` that put elements together, or look at those before: the rarer ones."""

from __future__ import annotations

import inspect
import itertools
import operator
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from distgrad.core.errors import InvalidArgumentError, OpError
from distgrad.core.user_line import warn
from distgrad.data import cardinality, nest, specs
from distgrad.data.calling import as_of_now, as_tensors, call, holds
from distgrad.data.cardinality import UNKNOWN_CARDINALITY
from distgrad.data.options import Elsewhere, Options
from distgrad.data.padding import padded, padded_spec
from distgrad.data.rows import Rows, each_row


class Grouping:
    """What `Dataset` inherits these steps from."""

    _elements: Callable[[Any], Iterator[Any]]
    _size: int
    element_spec: Any
    _same: Callable[[], Any]
    _next_pass: Callable[[], Iterator[Any]]
    __iter__: Callable[[], Iterator[Any]]
    sparse_batch = Elsewhere("datasets make no sparse batches: use padded_batch")
    fingerprint = Elsewhere("give your files a checksum")
    make_one_shot_iterator = Elsewhere("use iter(dataset)")
    make_initializable_iterator = Elsewhere("use iter(dataset)")

    def options(self) -> Options:
        """Settings that nobody has set."""
        return Options()

    def with_options(self, options: Options, name: str | None = None) -> Any:
        """The same data, whatever the settings."""
        return self

    def _made(
        self,
        make: Callable[[Iterator[Any]], Iterator[Any]],
        size: int = UNKNOWN_CARDINALITY,
        spec: Any = None,
    ) -> Any:
        """A dataset of what ``make`` gives of the elements of a pass."""
        made: Any = type(self)
        return made(lambda this: make(self._elements(this)), size, spec=spec)

    def padded_batch(
        self,
        batch_size: int,
        padded_shapes: Any = None,
        padding_values: Any = None,
        drop_remainder: bool = False,
        name: str | None = None,
    ) -> Any:
        """Batches of elements of different sizes, filled up at the end of each axis.

        ``padded_shapes`` is a shape for each array of an element, None or -1 where the largest of
        the batch counts, as on all axes by default; ``padding_values`` is one value, or one for
        each array (0 by default). Raises ValueError for shapes or values that are no nest like the
        elements, InvalidArgumentError for an element that is larger than its shape.
        """
        at_least_one("batch_size", batch_size)

        def batches(elements: Iterator[Any]) -> Iterator[Any]:
            while group := list(itertools.islice(elements, batch_size)):
                if len(group) == batch_size or not drop_remainder:
                    yield padded(group, padded_shapes, padding_values)

        size = cardinality.batched(self._size, batch_size, drop_remainder)
        length = batch_size if drop_remainder else None
        return self._made(
            batches, size, lambda: padded_spec(self.element_spec, padded_shapes, length)
        )

    def bucket_by_sequence_length(
        self,
        element_length_func: Callable[..., Any],
        bucket_boundaries: Sequence[int],
        bucket_batch_sizes: Sequence[int],
        padded_shapes: Any = None,
        padding_values: Any = None,
        pad_to_bucket_boundary: bool = False,
        no_padding: bool = False,
        drop_remainder: bool = False,
        name: str | None = None,
    ) -> Any:
        """Padded batches of elements of about the same length, by the bucket of their length.

        Bucket i holds lengths below boundary i, the last one the rest; each has its batch size.
        ``pad_to_bucket_boundary`` fills up to one less than the bucket's boundary. Raises
        ValueError unless there is one batch size more than boundaries, for boundaries that do not
        grow, and for an element too long to be filled up.
        """
        element_length_func = as_of_now(element_length_func)
        bounds, sizes = list(bucket_boundaries), list(bucket_batch_sizes)
        if len(sizes) != len(bounds) + 1 or sorted(set(bounds)) != bounds:
            raise ValueError(
                f"bucket_boundaries {bounds} must grow, and bucket_batch_sizes {sizes} be one more"
            )
        for batch_size in sizes:
            at_least_one("bucket_batch_sizes", batch_size)

        def together(group: list[Any], bucket: int) -> Any:
            if no_padding:
                return nest.stack(group)
            shapes = padded_shapes
            if pad_to_bucket_boundary:
                if bucket == len(bounds):
                    raise InvalidArgumentError(
                        f"an element is as long as the last boundary, {bounds[-1]}, or longer, and "
                        "pad_to_bucket_boundary knows no length for it"
                    )
                shapes = nest.map_leaves(
                    lambda array: (bounds[bucket] - 1, *(None,) * (array.ndim - 1)), group[0]
                )
            return padded(group, shapes, padding_values)

        def batches(elements: Iterator[Any]) -> Iterator[Any]:
            waiting: dict[int, list[Any]] = {}
            for element in elements:
                length = int(np.asarray(call(element_length_func, element)))
                bucket = int(np.searchsorted(bounds, length, side="right"))
                group = waiting.setdefault(bucket, [])
                group.append(element)
                if len(group) == sizes[bucket]:
                    yield together(waiting.pop(bucket), bucket)
            for bucket in sorted(waiting) if not drop_remainder else ():
                yield together(waiting[bucket], bucket)

        shapes = None if no_padding else padded_shapes
        return self._made(batches, spec=lambda: padded_spec(self.element_spec, shapes, None))

    def group_by_window(
        self,
        key_func: Callable[..., Any],
        reduce_func: Callable[[Any, Any], Any],
        window_size: int | None = None,
        window_size_func: Callable[[Any], Any] | None = None,
        name: str | None = None,
    ) -> Any:
        """What a function makes of each key and a dataset of so many elements with that key.

        Raises ValueError unless one of the two window sizes is given.
        """
        if (window_size is None) == (window_size_func is None):
            raise ValueError("give one of window_size and window_size_func")
        key_func, reduce_func = as_of_now(key_func), as_of_now(reduce_func)

        def size_of(key: int) -> int:
            size = window_size if window_size_func is None else window_size_func(np.int64(key))
            return at_least_one("window_size", int(np.asarray(size)))

        def groups(elements: Iterator[Any]) -> Iterator[Any]:
            waiting: dict[int, list[Any]] = {}

            def reduced(key: int) -> Iterator[Any]:
                group = waiting.pop(key)
                made = reduce_func(np.int64(key), type(self)(lambda _: iter(group), len(group)))  # type: ignore[call-arg]
                yield from made.iterate(0)

            for element in elements:
                key = int(np.asarray(call(key_func, element)))
                waiting.setdefault(key, []).append(element)
                if len(waiting[key]) == size_of(key):
                    yield from reduced(key)
            for key in sorted(waiting):
                yield from reduced(key)

        def spec() -> Any:
            group = type(self)(lambda _: iter(()), spec=self._same)  # type: ignore[call-arg]
            return reduce_func(np.int64(0), group).element_spec

        return self._made(groups, spec=spec)

    def window(
        self,
        size: int,
        shift: int | None = None,
        stride: int = 1,
        drop_remainder: bool = False,
        name: str | None = None,
    ) -> Any:
        """Datasets of ``size`` elements, one of ``stride`` taken, begun ``shift`` after each other.

        A window is a dataset in place of each array of an element: use
        ``flat_map(lambda window: window.batch(size))``. Raises InvalidArgumentError for sizes
        below 1.
        """
        shift = size if shift is None else shift
        for word, value in (("size", size), ("shift", shift), ("stride", stride)):
            at_least_one(word, value)
        reach = (size - 1) * stride + 1

        def opened(kept: list[Any]) -> Any:
            def column(*rows: Any) -> Any:
                return type(self)(lambda _: iter(rows), len(rows))  # type: ignore[call-arg]

            return nest.map_leaves(column, *kept[:reach:stride])

        def windows(elements: Iterator[Any]) -> Iterator[Any]:
            kept = list(itertools.islice(elements, reach))
            while kept:
                if len(kept) == reach or not drop_remainder:
                    yield opened(kept)
                following = list(itertools.islice(elements, shift))
                skipped = shift - len(kept)
                kept = [*kept[shift:], *(following if skipped <= 0 else following[skipped:])]
                kept += list(itertools.islice(elements, reach - len(kept)))

        begun = self._size
        if begun >= 0 and drop_remainder:
            begun = max(begun - reach + 1, 0)
        spec = lambda: nest.map_leaves(specs.DatasetSpec, self.element_spec)  # noqa: E731
        return self._made(windows, cardinality.batched(begun, shift, False), spec)

    def rebatch(self, batch_size: Any, drop_remainder: bool = False, name: Any = None) -> Any:
        """The rows of the batches in batches of another size, or of several sizes in turns, of
        which some may be 0. Raises InvalidArgumentError for sizes below."""
        sizes = [operator.index(size) for size in np.atleast_1d(np.asarray(batch_size))]
        at_least_one("the largest batch_size", max(sizes))
        at_least_one("batch_size + 1", min(sizes) + 1)

        def batches(elements: Iterator[Any]) -> Iterator[Any]:
            rows = itertools.chain.from_iterable(each_row(Rows(e, None)) for e in elements)
            first = list(itertools.islice(rows, 1))
            rows = itertools.chain(first, rows)
            for size in itertools.cycle(sizes if first else ()):
                group = list(itertools.islice(rows, size))
                if group and (len(group) == size or not drop_remainder):
                    yield nest.stack(group)
                if len(group) < size:
                    return
                if not size:
                    yield nest.map_leaves(lambda array: array[:0], nest.stack(first))

        def spec() -> Any:
            before = self.element_spec
            length = sizes[0] if len(set(sizes)) == 1 else None
            if length and not drop_remainder:
                known = [leaf.shape[0] for leaf in nest.leaves(before)]
                length = length if None not in known and known[0] % length == 0 else None
            return specs.stacked(specs.unstacked(before), length)

        return self._made(batches, spec=spec)

    def take_while(self, predicate: Callable[..., Any], name: str | None = None) -> Any:
        """The elements up to the first one for which the predicate is false.

        Raises ValueError where it gives no bool.
        """
        predicate = as_of_now(predicate)
        return self._made(
            lambda elements: itertools.takewhile(lambda e: holds(predicate, e), elements),
            spec=self._same,
        )

    def scan(
        self, initial_state: Any, scan_func: Callable[[Any, Any], Any], name: str | None = None
    ) -> Any:
        """``scan_func(state, element)`` gives the next state and an element of the new dataset.

        Raises TypeError where it gives no pair, or a state of another form or dtype.
        """
        scan_func = as_of_now(scan_func)

        def scanned(elements: Iterator[Any]) -> Iterator[Any]:
            state = nest.to_arrays(initial_state)
            for element in elements:
                state, made = following(state, element)
                yield made

        def following(state: Any, element: Any) -> tuple[Any, Any]:
            pair = scan_func(as_tensors(state), as_tensors(element))
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise TypeError(f"scan_func gives a state and an element, not {pair!r}")
            following, made = nest.to_arrays(tuple(pair))
            return _state_like(state, following), made

        def one(element: Any) -> Any:
            return following(nest.to_arrays(initial_state), element)[1]

        return self._made(scanned, self._size, lambda: specs.through(one, self.element_spec))

    def reduce(
        self, initial_state: Any, reduce_func: Callable[[Any, Any], Any], name: str | None = None
    ) -> Any:
        """The last state, where ``reduce_func(state, element)`` gives the next one: as tensors.

        Raises TypeError for a state of another form or dtype than the one before.
        """
        state = nest.to_arrays(initial_state)
        for element in self._next_pass():
            following = nest.to_arrays(reduce_func(as_tensors(state), as_tensors(element)))
            state = _state_like(state, following)
        return as_tensors(state)

    def unique(self, name: str | None = None) -> Any:
        """Each element once, where it comes first."""

        def once(elements: Iterator[Any]) -> Iterator[Any]:
            seen = set()
            for element in elements:
                key = tuple((a.dtype.str, a.shape, a.tobytes()) for a in nest.leaves(element))
                if key not in seen:
                    seen.add(key)
                    yield element

        return self._made(once, spec=self._same)

    def get_single_element(self, name: str | None = None) -> Any:
        """The only element, as tensors. Raises InvalidArgumentError for none, or for another."""
        found = list(itertools.islice(iter(self), 2))
        if len(found) != 1:
            raise InvalidArgumentError(
                f"the dataset has {'more than one' if found else 'no'} element"
            )
        return found[0]

    def ignore_errors(self, log_warning: bool = False, name: str | None = None) -> Any:
        """The elements without those at which the functions before raise an error of data.

        That is one of ``tf.errors``, an OSError or a ValueError. It comes right after ``map``,
        ``filter`` or records, which go on with the next file, or after ``concatenate`` of such:
        other steps cannot go on, and raise the error.
        """

        def spared(elements: Iterator[Any]) -> Iterator[Any]:
            while True:
                try:
                    element = next(elements)
                except StopIteration:
                    return
                except (OpError, OSError, ValueError) as error:
                    if _has_ended_a_step(error):
                        raise
                    if log_warning:
                        warn(f"an element is left out: {error}")
                else:
                    yield element

        return self._made(spared, spec=self._same)


def _has_ended_a_step(error: Exception) -> bool:
    """Whether an error has come through a generator, which can give no more elements then."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    next(frames)  # that which asks
    for frame in frames:
        if frame.f_code is call.__code__:  # what comes now is a user's
            return False
        if frame.f_code.co_flags & inspect.CO_GENERATOR:
            return True
    return False


def _state_like(state: Any, following: Any) -> Any:
    """``following``. Raises TypeError where it has not the form and dtypes of ``state``."""
    try:
        same = all(nest.leaves(nest.map_leaves(_alike, state, following)))
    except ValueError:
        same = False
    if not same:
        raise TypeError(f"the state {following!r} has not the form and dtypes of {state!r}")
    return following


def _alike(one: Any, other: Any) -> bool:
    return one.dtype == other.dtype or one.dtype.kind == other.dtype.kind == "U"


def at_least_one(name: str, value: int) -> int:
    """``value``. Raises InvalidArgumentError (a ValueError) below 1."""
    if value < 1:
        raise InvalidArgumentError(f"{name} is {value}; it must be at least 1")
    return value


def one_of(name: str, value: int, count: int) -> int:
    """``value``. Raises InvalidArgumentError (a ValueError) outside ``range(count)``."""
    if not 0 <= value < count:
        raise InvalidArgumentError(f"{name} {value} is not in range(0, {count})")
    return value
