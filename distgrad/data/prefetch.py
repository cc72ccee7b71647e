"""Reads an iterator ahead of its consumer, in one thread that never outlives its use."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

# Told when the making of each item began and ended, where somebody records a timeline.
told: Callable[[float, float], None] | None = None

_PATIENCE = 5.0  # seconds that closing waits for an item that is being made


class Prefetcher(Generic[T]):
    """The items of an iterator, up to ``depth`` of them made in advance by a thread.

    An exception of the iterator is raised where its item would have come. ``close`` ends the
    thread; so do the last item, the end of the ``with`` block, the loss of the last reference, and
    the end of the process.
    """

    def __init__(self, items: Iterator[T], depth: int = 2) -> None:
        if depth < 1:
            raise ValueError(f"depth is {depth}; it must be at least 1")
        # The thread must not know this object: it would keep it, and so itself, alive.
        self._queue = _Queue(depth)
        thread = threading.Thread(
            target=_fill, args=(self._queue, items), name="distgrad-prefetch", daemon=True
        )
        self._finalizer = weakref.finalize(self, _end, self._queue, thread)
        thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        item, error = self._queue.get()
        if error is not None:
            self.close()
            raise error
        return item

    def close(self) -> None:
        """Ends the thread and drops what it has made. May be called again."""
        self._finalizer()

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class _Queue:
    """A bounded queue of ``(item, error)`` that can be closed from either side."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.entries: deque[tuple] = deque()
        self.closed = False
        self.changed = threading.Condition()

    def put(self, item: object, error: BaseException | None = None) -> bool:
        """Waits for room; false once the queue is closed."""
        with self.changed:
            self.changed.wait_for(lambda: self.closed or len(self.entries) < self.depth)
            if not self.closed:
                self.entries.append((item, error))
                self.changed.notify_all()
            return not self.closed

    def get(self) -> tuple:
        with self.changed:
            self.changed.wait_for(lambda: self.entries or self.closed)
            if not self.entries:
                return None, StopIteration()
            entry = self.entries.popleft()
            self.changed.notify_all()
            return entry

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.entries.clear()
            self.changed.notify_all()


def _fill(queue: _Queue, items: Iterator) -> None:
    try:
        begun = time.perf_counter()
        for item in items:
            if (tell := told) is not None:
                tell(begun, time.perf_counter())
            if not queue.put(item):
                break
            del item  # a big one must not wait here for the next
            begun = time.perf_counter()
        else:
            queue.put(None, StopIteration())
    except BaseException as error:
        queue.put(None, error)
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def _end(queue: _Queue, thread: threading.Thread) -> None:
    queue.close()
    if thread is not threading.current_thread():  # the garbage collector runs in any thread
        thread.join(_PATIENCE)
