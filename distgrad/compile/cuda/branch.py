"""A second stream while one is captured: what is put there has no order with what follows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

AT_ONCE = 2  # leaves that are not waited for: what they read takes memory until they are


class Branch:
    """Leaves of the work that ``stream`` captures, on a stream ``beside`` it.

    Each begins when all that stands before it is done, and after the one before it; the stream
    itself goes on behind the third of them when the first is done. They have a workspace of cuBLAS
    of their own.
    """

    def __init__(self, stream: Any, beside: Any, blas: Any) -> None:
        self._stream, self._beside, self._blas = stream, beside, blas
        self._forked = False  # from where the stream is now
        self._ends: deque[Any] = deque()  # events behind leaves that nobody has waited for

    def run(self, do: Callable[[], None]) -> None:
        while len(self._ends) >= AT_ONCE:
            self._stream.wait_event(self._ends.popleft())
            self._forked = False
        if not self._forked:
            self._beside.wait_event(self._stream.record())
            self._forked = True
        with self._beside, self._blas.beside():
            do()
        self._ends.append(self._beside.record())

    def goes_on(self) -> None:
        """Told that more has been put on the stream."""
        self._forked = False

    def join(self) -> None:
        """The stream goes on when the leaves are done."""
        if self._ends:
            self._stream.wait_event(self._ends[-1])
            self._ends.clear()
            self._forked = False
