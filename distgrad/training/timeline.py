"""The timeline of a run: where the time of each rank goes, for ui.perfetto.dev to show.

While one is recorded, each process keeps its spans for a second at most and then adds them to the
file, in which every rank is a row. Their times are those of the wall clock, less what the hosts
are known to be apart: on one host exact to a microsecond, between hosts to half the time of a small
exchange. Whoever is late in a reduction is told from the spans of all ranks, by rank 0 at the end.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distgrad.comm import communicator as comm
from distgrad.comm.communicator import Communicator
from distgrad.core import timeline
from distgrad.core.errors import UsageError
from distgrad.core.op_errors import AlreadyExistsError, UnavailableError
from distgrad.data import prefetch
from distgrad.launcher import environ
from distgrad.training.trace_file import Event, TraceFile

NAME = "timeline.json"  # in a folder
_EVERY = 1.0  # seconds between two writes,
_AT_ONCE = 5000  # or spans
_MOST = 400_000  # spans of all ranks together, some 40 MB
_PATIENCE = 2.0  # seconds that rank 0 waits at the end for the last spans of the others
_SHORTEST = 10.0  # microseconds: a shorter wait gets no span of its own
_ROWS = {
    "MainThread": "main",
    "courier": "communication",
    "distgrad-prefetch": "read ahead",
    "checkpoint_0": "checkpoints",
}
_CALL = "call"  # the detail of a collective that tells which one it is, the same on all ranks

_started = time.time_ns()  # before this process has joined others: what they write is younger

Span = tuple[threading.Thread, str, float, float, dict[str, Any] | None]


class Timeline:
    """Records the spans of this process, from ``start`` to ``stop``, into the file at ``path``.

    Raises UsageError where that is something else, OSError where it cannot be written.
    """

    def __init__(self, path: Path, communicator: Communicator) -> None:
        self.path = path
        self._communicator = communicator
        begin = _wall_clock_at_0() - communicator.clock_ahead
        self._file = TraceFile(path, _started, begin + time.perf_counter_ns())
        # From seconds of ``perf_counter``, in which spans are told, to microseconds in the file.
        self._shift = (begin - self._file.origin) / 1e3
        self._spans: deque[Span] = deque()
        self._left = _MOST // communicator.world_size
        self._due = 0.0
        self._rows: dict[tuple[str, int | None], int] = {}  # by name and number of a thread
        self._lines: list[str] = []  # that the file has not taken yet
        self._writing = threading.RLock()
        self._last_call: tuple[str, Any] | None = None
        self._named: set[tuple[str, Any]] = set()  # collectives whose waits have been named
        rank = communicator.rank
        name = _about(rank, 0, "process_name", name=f"rank {rank} on {platform.node()}")
        self._file.add([name, _about(rank, 0, "process_sort_index", sort_index=rank)])
        communicator.at_end.append(self._end)

    def start(self) -> None:
        """Begins to record, or goes on."""
        global _recording
        if self._left:
            _recording, self._due = self, time.perf_counter() + _EVERY
            timeline.told, comm.told, prefetch.told = self._tell, self._tell_call, self._tell_item

    def stop(self) -> None:
        """Records no more; what was recorded is in the file then."""
        if _recording is self:
            _listen_no_more()
            self._write()

    def name_waits(self) -> bool:
        """Tells in the file for whom ranks have waited, in collectives that all of them have told.

        Whether the last one of this rank was among them, or not all ranks record.
        """
        ranks = self._communicator.world_size
        try:
            events = list(self._file.events())
        except OSError:  # somebody has deleted it
            return True
        if self._last_call is None or len({event["pid"] for event in events}) < ranks:
            return True
        self._add(_waits(events, ranks, self._named))
        return self._last_call in self._named

    def _end(self, in_peace: bool) -> None:
        """This process leaves the others: what they still have to write comes soon, or never."""
        self.stop()
        end = time.monotonic() + (_PATIENCE if in_peace else 0.0)
        while self._communicator.rank == 0 and not self.name_waits() and time.monotonic() < end:
            time.sleep(0.05)

    def _tell(self, name: str, begun: float, ended: float, details: Any = None) -> None:
        self._spans.append((threading.current_thread(), name, begun, ended, details))
        if ended > self._due or len(self._spans) >= _AT_ONCE:
            begun = time.perf_counter()
            self._due = begun + _EVERY
            self._write()
            span = threading.current_thread(), "timeline", begun, time.perf_counter(), None
            self._spans.append(span)

    def _tell_call(self, whose: Communicator, name: str, begun: float, ended: float) -> None:
        if whose.world_size > 1:
            call = f"{whose.calls} of GPUs" if whose.on_devices else whose.calls
            self._last_call = name, call
            self._tell(name, begun, ended, {_CALL: call})

    def _tell_item(self, begun: float, ended: float) -> None:
        self._tell("read a batch", begun, ended)

    def _write(self) -> None:
        with self._writing:
            count = min(len(self._spans), self._left)
            self._add(self._events([self._spans.popleft() for _ in range(count)]))
            if self._left:
                self._left -= count
                if not self._left:
                    self._give_up(f"is full, with {_MOST:,} spans of all ranks")

    def _add(self, lines: Iterable[str]) -> None:
        self._lines += lines
        try:
            self._file.add(self._lines)
        except BlockingIOError:
            return  # others are at work on it: next time
        except OSError as error:
            self._give_up(f"cannot be written: {error}")
        self._lines = []

    def _give_up(self, why: str) -> None:
        if _recording is self:
            _listen_no_more()
        self._left = 0
        self._spans.clear()
        if self._communicator.rank == 0:
            print(f"warning: {self.path} {why}; the run goes on.", file=sys.stderr, flush=True)

    def _events(self, spans: list[Span]) -> Iterable[str]:
        """The lines of spans, those around others before them, and of rows that are new."""
        rank, shift = self._communicator.rank, self._shift
        for thread, name, begun, ended, details in sorted(spans, key=lambda s: (s[2], -s[3])):
            # There is one courier at a time, anew in each step; of others there may be several.
            key = thread.name, None if thread.name == "courier" else thread.ident
            row = self._rows.get(key)
            if row is None:
                row = self._rows[key] = len(self._rows) + 1
                yield _about(rank, row, "thread_name", name=_ROWS.get(thread.name, thread.name))
                yield _about(rank, row, "thread_sort_index", sort_index=row)
            start, end = (math.floor(8e6 * t + 8 * shift) / 8 for t in (begun, ended))
            yield _complete(rank, row, name, start, end - start, details)


def _wall_clock_at_0() -> int:
    """Nanoseconds since 1970 when ``perf_counter`` was 0: of some looks at both the quickest."""
    looks = [(time.perf_counter_ns(), time.time_ns(), time.perf_counter_ns()) for _ in range(20)]
    before, wall, after = min(looks, key=lambda look: look[2] - look[0])
    return wall - (before + after) // 2


def _waits(events: Iterable[Event], ranks: int, named: set[tuple[str, Any]]) -> Iterable[str]:
    """A span in each collective, from when a rank begins it to when the last one does."""
    calls: dict[tuple[str, Any], dict[int, Event]] = {}
    for event in events:
        call = event.get("args", {}).get(_CALL)
        if call is not None:
            calls.setdefault((event["name"], call), {})[event["pid"]] = event
    for key, by_rank in calls.items():
        if len(by_rank) < ranks or key in named:
            continue
        named.add(key)
        late = max(by_rank, key=lambda rank: by_rank[rank]["ts"])
        for rank, event in by_rank.items():
            begun = event["ts"]
            waited = min(by_rank[late]["ts"] - begun, event["dur"])
            if waited >= _SHORTEST:
                yield _complete(rank, event["tid"], f"wait for rank {late}", begun, waited)


def _complete(
    rank: int, row: int, name: str, begun: float, took: float, details: Any = None
) -> str:
    """The line of a span, in microseconds.

    Viewers make whole nanoseconds of them. Eighths come out exactly: what nests and adjoins goes on
    to do so, without which they would show it elsewhere, or not at all.
    """
    args = f', "args": {_shown(details)}' if details else ""
    return (
        f'{{"ph": "X", "pid": {rank}, "tid": {row}, "ts": {begun:.3f}, "dur": {took:.3f}, '
        f'"name": {json.dumps(name)}{args}}}'
    )


def _shown(details: dict[str, Any]) -> str:
    try:
        return json.dumps(details, default=str, allow_nan=False)
    except ValueError:  # JSON has no word for infinity
        return json.dumps({name: str(value) for name, value in details.items()})


def _about(rank: int, row: int, what: str, **args: Any) -> str:
    """The line that says something of a row."""
    return json.dumps({"ph": "M", "pid": rank, "tid": row, "name": what, "args": args})


_recording: Timeline | None = None  # the one in force
# Each goes on where it is asked for again.
_known: dict[tuple[Path, Communicator], Timeline] = {}


def _listen_no_more() -> None:
    global _recording
    timeline.told = comm.told = prefetch.told = _recording = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_listen_no_more)  # a fork is no rank


def start(place: str | os.PathLike[str], communicator: Communicator) -> Timeline:
    """Records a timeline of this process into a file, or into ``timeline.json`` in a folder.

    Raises AlreadyExistsError where one is being recorded, UsageError where it cannot be written.
    """
    if _recording is not None:
        raise AlreadyExistsError(f"a timeline is being recorded already, {_recording.path}")
    path = Path(place).absolute()
    if path.is_dir() or os.fspath(place).endswith(("/", os.sep)):
        path = path / NAME
    key = path, communicator
    if key not in _known:
        try:
            _known[key] = Timeline(path, communicator)
        except OSError as error:
            raise UsageError(f"the timeline {path} cannot be written: {error}") from None
    _known[key].start()
    return _known[key]


def stop() -> None:
    """Ends what ``start`` has begun. Raises UnavailableError where nothing is recorded."""
    if _recording is None:
        raise UnavailableError("no timeline is being recorded")
    _recording.stop()


def end() -> None:
    """Ends what is being recorded, if anything is."""
    if _recording is not None:
        _recording.stop()


def ask_environment(communicator: Communicator) -> None:
    """Records all of this process where DISTGRAD_TIMELINE names a file, or a folder."""
    place = environ.timeline()
    if place is not None and _recording is None:
        start(place, communicator)


class Window:
    """Records the steps ``first`` to ``last`` of a loop, whose numbers it is told.

    Where it cannot, or a timeline is being recorded already, that is a warning.
    """

    def __init__(self, first: int, last: int, place: Path, communicator: Communicator) -> None:
        self._steps = range(first, last + 1)
        self._place, self._communicator = place, communicator
        self._timeline: Timeline | None = None

    def before(self, step: int) -> None:
        """A step begins."""
        if step in self._steps and self._timeline is None:
            try:
                self._timeline = start(self._place, self._communicator)
            except (UsageError, AlreadyExistsError) as error:
                self._steps = range(0)
                if self._communicator.rank == 0:
                    print(f"warning: no {self._place}: {error}", file=sys.stderr, flush=True)

    def after(self, step: int) -> None:
        """A step has ended."""
        if self._timeline is not None and step >= self._steps.stop - 1:
            if step < self._steps.stop:
                self._timeline.stop()
                return
            # All ranks have begun this step, and so have written what they have of the last.
            self.end()

    def end(self) -> None:
        """There are no more steps."""
        if self._timeline is not None:
            self._timeline.stop()
            if self._communicator.rank == 0:
                self._timeline.name_waits()
            self._timeline = None
