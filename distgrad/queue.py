"""``tf.queue``: elements that threads of one process hand to each other.

An element is a tensor or text, or several of given dtypes. Whoever puts into a full queue, or takes
from one that holds too little, waits for another thread. What runs in a captured function would be
done once: a function that uses a queue runs eagerly.
"""

from __future__ import annotations

import heapq
import itertools
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.core import recording
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import DType, of_input, string
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.op_errors import CancelledError, DeadlineExceededError, OutOfRangeError
from distgrad.core.shapes import TensorShape
from distgrad.core.tensor import Tensor
from distgrad.core.texts import as_bytes, as_strings
from distgrad.ops.random import drawn_seed

__all__ = ["FIFOQueue", "PaddingFIFOQueue", "PriorityQueue", "QueueBase", "RandomShuffleQueue"]

PATIENCE = 3600.0  # seconds that a queue waits for another thread
Element = list[np.ndarray]


class QueueBase:
    """What the queues have in common: waiting, closing, and the parts of an element.

    Raises InvalidArgumentError for another number of shapes, or of names, than of dtypes.
    """

    def __init__(self, capacity: int, dtypes: Any, shapes: Any, names: Any, name: str) -> None:
        kinds = dtypes if isinstance(dtypes, (list, tuple)) else [dtypes]
        self.dtypes: list[DType] = [of_input(dtype) for dtype in kinds]
        self.shapes = _shapes(shapes)
        self.names = [names] if isinstance(names, str) else names and list(names)
        self.name = name
        for what in (self.shapes, self.names):
            if what and len(what) != len(self.dtypes):
                raise InvalidArgumentError(f"{name}: {what} for {len(self.dtypes)} dtypes")
        self._capacity = capacity if capacity >= 0 else sys.maxsize
        self._awaited: list[int] = []  # as many as are waited for fit in, however small it is
        self._spared = 0  # how many are left in while the queue is open
        self._items: list[Any] = []
        self._closed = self._cancelled = False
        self._changed = threading.Condition()

    # What the kinds differ in

    def _add(self, element: Element) -> None:
        self._items.append(element)

    def _next(self) -> Element:
        return self._items.pop(0)

    def _together(self, parts: list[np.ndarray]) -> np.ndarray:
        return np.stack(parts)

    # Putting in

    def enqueue(self, vals: Any, name: str | None = None) -> None:
        """Puts in one element: its parts as a list, or a dict by ``names``; one alone as it is.

        Raises ValueError for other parts or shapes, TypeError for another dtype, CancelledError
        where the queue is closed, and DeadlineExceededError where it stays full.
        """
        self._put(self._parts(vals))

    def enqueue_many(self, vals: Any, name: str | None = None) -> None:
        """Puts in elements one after the other: the rows of each part. Raises as ``enqueue``, and
        InvalidArgumentError for parts of other lengths."""
        parts = self._parts(vals)
        if len({part.shape[:1] for part in parts}) != 1 or not parts[0].ndim:
            shapes = [part.shape for part in parts]
            raise InvalidArgumentError(f"{self.name}: parts of shapes {shapes} have no equal rows")
        for row in range(len(parts[0])):
            self._put([part[row, ...] for part in parts])

    def _put(self, element: Element) -> None:
        def room() -> bool:
            return self._cancelled or len(self._items) < max(self._capacity, *self._awaited, 0)

        for part, shape in zip(element, self.shapes or (), strict=bool(self.shapes)):
            TensorShape(part.shape).assert_is_compatible_with(shape)
        with self._changed:
            if self._closed:
                raise CancelledError(f"{self.name} is closed: nothing can be put in")
            self._wait(room, "is full")
            if self._cancelled:
                raise CancelledError(f"{self.name} was closed: what waits is not put in")
            self._add(element)
            self._changed.notify_all()

    # Taking out

    def dequeue(self, name: str | None = None) -> Any:
        """Takes out one element: its parts as a list, or a dict by ``names``; one alone as it is.

        Raises OutOfRangeError where the queue is closed and empty, and DeadlineExceededError where
        nothing comes.
        """
        (element,) = self._take(1)
        return self._packed([_tensor(part) for part in element])

    def dequeue_many(self, n: Any, name: str | None = None) -> Any:
        """Takes out ``n`` elements, each part along a new first axis. Raises as ``dequeue``, where
        there are fewer left; and InvalidArgumentError where the shapes were not given."""
        return self._rows(self._take(self._count(n)))

    def dequeue_up_to(self, n: Any, name: str | None = None) -> Any:
        """As ``dequeue_many``, and fewer, but one at least, where the queue is closed."""
        return self._rows(self._take(self._count(n), at_least=1))

    def _take(self, count: int, at_least: int | None = None) -> list[Element]:
        def enough() -> bool:
            return self._closed or len(self._items) - self._spared >= count

        with self._changed:
            self._awaited.append(count + self._spared)
            self._changed.notify_all()
            try:
                self._wait(enough, f"holds {len(self._items)}, not {count + self._spared}")
            finally:
                self._awaited.remove(count + self._spared)
            held = len(self._items)
            if held < min(count, count if at_least is None else at_least):
                raise OutOfRangeError(
                    f"{self.name} is closed and has insufficient elements (requested {count}, "
                    f"current size {held})"
                )
            self._changed.notify_all()
            return [self._next() for _ in range(min(count, held))]

    def _wait(self, ready: Callable[[], bool], why: str) -> None:
        recording.refuse("a queue is used")
        alone = threading.active_count() == 1
        if not self._changed.wait_for(ready, 0 if alone else PATIENCE):
            reason = "there is no other thread" if alone else f"{PATIENCE:g} s have passed"
            raise DeadlineExceededError(f"{self.name} {why}, and {reason}")

    # The rest

    def close(self, cancel_pending_enqueues: bool = False, name: str | None = None) -> None:
        """Says that nothing more is put in; with ``cancel_pending_enqueues`` by those who wait to,
        neither."""
        recording.refuse("a queue is used")
        with self._changed:
            self._closed, self._cancelled = True, self._cancelled or cancel_pending_enqueues
            self._changed.notify_all()

    def is_closed(self, name: str | None = None) -> Tensor:
        """Whether it was closed: a bool."""
        recording.refuse("a queue is used")
        return as_tensor(self._closed)

    def size(self, name: str | None = None) -> Tensor:
        """How many elements it holds: int32."""
        recording.refuse("a queue is used")
        return as_tensor(len(self._items), "int32")

    def _parts(self, vals: Any) -> Element:
        if isinstance(vals, Mapping) != bool(self.names):
            raise ValueError(
                f"{self.name} has {'names' if self.names else 'no names'}: elements are "
                f"{'dicts by them' if self.names else 'no dicts'}, not {vals!r}"
            )
        if self.names:
            if sorted(vals) != sorted(self.names):
                raise ValueError(f"{self.name} has parts {self.names}, not {sorted(vals)}")
            vals = [vals[name] for name in self.names]
        elif not isinstance(vals, (list, tuple)):
            vals = [vals]
        if len(vals) != len(self.dtypes):
            raise ValueError(f"{self.name} takes {len(self.dtypes)} parts, not {len(vals)}")
        return [_array(*pair) for pair in zip(vals, self.dtypes, strict=True)]

    def _count(self, n: Any) -> int:
        if self.shapes is None:
            raise InvalidArgumentError(f"{self.name} needs shapes to take several together")
        return int(n)

    def _rows(self, elements: Sequence[Element]) -> Any:
        if not elements:
            shapes = [(0, *(n or 0 for n in shape)) for shape in self.shapes or ()]
            kinds = [object if d is string else d.numpy_dtype for d in self.dtypes]
            empty = [np.empty(*pair) for pair in zip(shapes, kinds, strict=True)]
            return self._packed([_tensor(part) for part in empty])
        parts = [self._together(list(part)) for part in zip(*elements, strict=True)]
        return self._packed([_tensor(part) for part in parts])

    def _packed(self, parts: list[Any]) -> Any:
        if self.names:
            return dict(zip(self.names, parts, strict=True))
        return parts[0] if len(parts) == 1 else parts


class FIFOQueue(QueueBase):
    """A queue of at most ``capacity`` elements: those that came first leave first."""

    def __init__(
        self,
        capacity: int,
        dtypes: Any,
        shapes: Any = None,
        names: Any = None,
        shared_name: str | None = None,
        name: str = "fifo_queue",
    ) -> None:
        super().__init__(capacity, dtypes, shapes, names, name)


class PaddingFIFOQueue(QueueBase):
    """A FIFOQueue with None for sizes that vary: several together are filled up with 0 or ""."""

    def __init__(
        self,
        capacity: int,
        dtypes: Any,
        shapes: Any,
        names: Any = None,
        shared_name: str | None = None,
        name: str = "padding_fifo_queue",
    ) -> None:
        super().__init__(capacity, dtypes, shapes, names, name)

    def _together(self, parts: list[np.ndarray]) -> np.ndarray:
        sizes = np.max([part.shape for part in parts], axis=0).astype(int)
        whole = np.full((len(parts), *sizes), b"" if parts[0].dtype == object else 0)
        whole = whole.astype(parts[0].dtype)
        for row, part in zip(whole, parts, strict=True):
            row[tuple(map(slice, part.shape))] = part
        return whole


class RandomShuffleQueue(QueueBase):
    """A queue that gives any of its elements, and keeps ``min_after_dequeue`` until it is closed.

    Which those are follows from ``seed``, else from that of `tf.random.set_seed`.
    """

    def __init__(
        self,
        capacity: int,
        min_after_dequeue: int,
        dtypes: Any,
        shapes: Any = None,
        names: Any = None,
        seed: int | None = None,
        shared_name: str | None = None,
        name: str = "random_shuffle_queue",
    ) -> None:
        super().__init__(capacity, dtypes, shapes, names, name)
        self._spared = min_after_dequeue
        self._draws = np.random.default_rng(drawn_seed() if seed is None else seed)

    def _next(self) -> Element:
        return self._items.pop(int(self._draws.integers(len(self._items))))


class PriorityQueue(QueueBase):
    """A queue whose elements begin with an int64: those with the smallest leave first."""

    def __init__(
        self,
        capacity: int,
        types: Any,
        shapes: Any = None,
        names: Any = None,
        shared_name: str | None = None,
        name: str = "priority_queue",
    ) -> None:
        kinds = types if isinstance(types, (list, tuple)) else [types]
        given = _shapes(shapes)
        super().__init__(
            capacity, ["int64", *kinds], None if given is None else [(), *given], names, name
        )
        self._number = itertools.count()

    def _add(self, element: Element) -> None:
        heapq.heappush(self._items, (int(element[0]), next(self._number), element))

    def _next(self) -> Element:
        return heapq.heappop(self._items)[-1]


def _shapes(shapes: Any) -> list[TensorShape] | None:
    """One for each part; of a single part it may stand alone."""
    if shapes is None:
        return None
    sizes = (int, np.integer, type(None))
    alone = isinstance(shapes, TensorShape) or all(isinstance(each, sizes) for each in shapes)
    return [TensorShape(each) for each in ([shapes] if alone else shapes)]


def _array(value: Any, dtype: DType) -> np.ndarray:
    if dtype is not string:
        return as_tensor(value, dtype).numpy()
    try:
        return np.asarray(as_bytes(value))
    except ValueError as error:
        raise TypeError(str(error)) from None


def _tensor(array: np.ndarray) -> Any:
    return as_strings(array) if array.dtype == object else as_tensor(array)
