"""A second stream while one is captured: what is put there has no order with what follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Branch:
    """Leaves of the work that ``stream`` captures, on a stream ``beside`` it.

    Each begins when all that stands before it is done, and after the one before it. They have a
    workspace of cuBLAS of their own.
    """

    def __init__(self, stream: Any, beside: Any, blas: Any) -> None:
        self._stream, self._beside, self._blas = stream, beside, blas
        self._forked = False  # from where the stream is now
        self._waiting = False  # for what lies beside

    def run(self, do: Callable[[], None]) -> None:
        if not self._forked:
            self._beside.wait_event(self._stream.record())
            self._forked = self._waiting = True
        with self._beside, self._blas.beside():
            do()

    def goes_on(self) -> None:
        """Told that more has been put on the stream."""
        self._forked = False

    def join(self) -> None:
        """The stream goes on when the leaves are done."""
        if self._waiting:
            self._stream.wait_event(self._beside.record())
            self._forked = self._waiting = False
