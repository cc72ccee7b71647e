"""A file of trace events, as chrome://tracing and ui.perfetto.dev read them, that ranks share.

Each process adds its events by itself, under a lock, and leaves whole JSON behind: whoever is
killed, what has been added can be looked at, and the others go on. An event is a line.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distgrad.core import files
from distgrad.core.errors import UsageError

_BEGIN, _BETWEEN, _END = b"[\n", b",\n", b"\n]\n"
_ORIGIN = "origin"  # the name of the first event, which says when the time of all others begins
_AHEAD = 3600 * 10**9  # nanoseconds of that time before the file is made: a span may have begun
_TAIL = 1 << 16  # bytes, more than a line has
_PATIENCE = 1.0  # seconds for another process, which takes milliseconds

Event = dict[str, Any]


class TraceFile:
    """The file at ``path``, whose events count from ``origin``, in nanoseconds since 1970.

    It is made ``now`` where it is missing, or was made before ``since``: by another run. Raises
    UsageError where it is something else, OSError where it cannot be written.
    """

    def __init__(self, path: Path, since: int, now: int) -> None:
        self.path, self.origin = path, now - _AHEAD
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opened(path) as file:
            head = file.read(_TAIL)
            if head:
                origin = _origin(head)
                if origin is None:
                    raise UsageError(f"{path} is no timeline, and is left as it is: name another.")
                if origin + _AHEAD < since:
                    file.truncate(0)
                else:
                    self.origin = origin
            self._add(file, [])

    def add(self, lines: Sequence[str]) -> None:
        """Adds events, each the text of a line. Raises OSError, and then has added none."""
        with _opened(self.path) as file:
            self._add(file, lines)

    def events(self) -> Iterator[Event]:
        """All events of all processes so far."""
        for line in self.path.read_text(encoding="utf-8").split("\n"):
            with contextlib.suppress(ValueError):  # the brackets, and what is being written
                yield json.loads(line.removesuffix(","))

    def _add(self, file: io.FileIO, lines: Sequence[str]) -> None:
        start = _end_of_events(file)
        if not start:  # new, or somebody has deleted it
            first = {"ph": "M", "pid": 0, "name": _ORIGIN, "args": {"unix_ns": self.origin}}
            lines = [json.dumps(first), *lines]
        before = _BETWEEN if start else _BEGIN
        text = before + _BETWEEN.join([line.encode() for line in lines]) if lines else b""
        _write(file, start, text + _END)


def _origin(head: bytes) -> int | None:
    """When the time of a file begins; None for what is no such file."""
    try:
        first = json.loads(head.removeprefix(_BEGIN).partition(b"\n")[0].rstrip(b","))
        return int(first["args"]["unix_ns"]) if first["name"] == _ORIGIN else None
    except (ValueError, TypeError, KeyError):
        return None


def _end_of_events(file: io.FileIO) -> int:
    """Where the last whole event ends, 0 for none; what is half-written behind it goes."""
    size = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    if tail.endswith(_END):
        return size - len(_END)
    end = start + tail.rfind(b"}" + _BETWEEN) + 1
    file.truncate(end)
    return end


def _write(file: io.FileIO, start: int, text: bytes) -> None:
    """Writes over what is behind ``start``; a disk that does not take it leaves what was before."""
    try:
        file.seek(start)
        left = memoryview(text)
        while left:
            left = left[file.write(left) :]
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(start)
            file.seek(start)
            file.write(_END)
        raise


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.FileIO]:
    """Context that gives the file, made where it is missing, and keeps other processes out."""
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0) as file:
        end = time.monotonic() + _PATIENCE
        while files.lock is not None:
            try:
                files.lock(file.fileno())
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise
                time.sleep(1e-3)
            except OSError:  # a file system without locks
                break
        yield file
