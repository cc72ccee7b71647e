"""Output that may be lost: a log on a full disk, or a reader that has gone, ends no training."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


@contextlib.contextmanager
def streams() -> Iterator[None]:
    """Context in which what ``sys.stdout`` and ``sys.stderr`` do not take is dropped.

    It is said once, on the other one.
    """
    before = sys.stdout, sys.stderr
    patient = _Patient(sys.stdout, "stdout", sys.stderr), _Patient(sys.stderr, "stderr", sys.stdout)
    sys.stdout, sys.stderr = patient
    try:
        yield
    finally:
        for stream in patient:
            stream.end()
        sys.stdout, sys.stderr = before


class _Patient:
    def __init__(self, stream: TextIO, name: str, other: TextIO) -> None:
        self._stream, self._name, self._other = stream, name, other
        self._lost = False

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def end(self) -> None:
        """Drops what is left: Python would fail on it as it ends."""
        self.flush()
        if self._lost:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def _lose(self, error: OSError) -> None:
        if self._lost:
            return
        self._lost = True
        with contextlib.suppress(OSError):
            text = f"warning: {self._name} cannot be written ({error}); the job goes on without it"
            print(text, file=self._other, flush=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
