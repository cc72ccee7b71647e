"""The stack of recorders: whoever is on it sees every primitive that this thread binds.

Tapes, the capture, profilers and checks are recorders. With none active anywhere, ``bind`` does
one integer test and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol


class Recorder(Protocol):
    """What a recorder must answer to."""

    def record(self, primitive: Any, args: tuple, params: dict, out: Any) -> None:
        """One primitive was run: ``out`` is a Tensor, or a tuple of them."""

    def read_variable(self, variable: Any, value: Any) -> None:
        """A variable was read: ``value`` is the Tensor that lends its buffer."""


class _PerThread(threading.local):
    def __init__(self) -> None:
        self.stack: list[Recorder] = []
        self.capture: Any = None  # the capture in progress, which is on the stack as well
        self.rehearsing = False  # a program is being made: no other process shall notice
        self.left_out = False  # something that others would notice has been left out meanwhile


per_thread = _PerThread()
_lock = threading.Lock()
# Recorders on the stacks of all threads together: a cheap first test for bind. Ctrl-C may come
# between any two lines, and may leave it too high, which costs time; were it too low, a tape would
# see nothing. So it rises before a stack does, and falls after.
active = 0


def stack() -> list[Recorder]:
    """The recorders of this thread, outermost first."""
    return per_thread.stack


def push(recorder: Recorder) -> None:
    """Makes a recorder the innermost of this thread."""
    global active
    with _lock:
        active += 1
    per_thread.stack.append(recorder)


def remove(recorder: Recorder) -> None:
    """Takes a recorder off, wherever it stands: an exception may unwind out of order."""
    global active
    recorders = per_thread.stack
    for position in range(len(recorders) - 1, -1, -1):
        if recorders[position] is recorder:
            del recorders[position]
            with _lock:
                active -= 1
            return


def call(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Runs ``fn``, Python code that looks at values or changes state, and gives nothing back.

    A capture keeps the call instead, and makes it at each replay on the values of that time. An
    attribute ``apart`` of ``fn`` says that it writes only what no operation reads or writes.
    """
    if active and per_thread.capture is not None:
        per_thread.capture.call(fn, args, kwargs, writes=True)
    else:
        fn(*args, **kwargs)


def check(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """As ``call``, for code that only looks at values and may raise: it writes no variable.

    An attribute ``any_shape`` of ``fn`` says that it may be told of several shards at once, along
    a further axis in front.
    """
    if active and per_thread.capture is not None:
        per_thread.capture.call(fn, args, kwargs, writes=False)
    else:
        fn(*args, **kwargs)


def tell(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """As ``check``, for code that shows values to somebody: a capture makes it at replays alone.

    Gives what ``fn`` gives, None from a capture.
    """
    if active and per_thread.capture is not None:
        per_thread.capture.call(fn, args, kwargs, writes=False, traced=False)
        return None
    return fn(*args, **kwargs)


def slot(fn: Callable[[], Any], state: dict | None = None) -> Any:
    """``fn()``, a tensor that Python makes anew each time; a capture asks again at each replay.

    ``state`` is what ``fn`` changes; a capture puts it back, since it throws its results away.
    """
    if active and per_thread.capture is not None:
        return per_thread.capture.slot(fn, state)
    return fn()


def in_parts() -> bool:
    """Whether to record the parts of what eager operations do in one: a capture fuses them."""
    return bool(active) and per_thread.capture is not None and per_thread.capture.in_parts


def look(operand: Any) -> None:
    """Says that the host looks at the value of a tensor or variable."""
    if per_thread.capture is not None:
        per_thread.capture.look(operand)


def hides(operand: Any) -> bool:
    """Whether a tensor or variable has no value to show: a capture makes it anew at each replay."""
    return per_thread.capture is not None and per_thread.capture.hides(operand)


def outlive() -> None:
    """Says that a tensor is kept for after the call of a function that makes it."""
    if active and per_thread.capture is not None:
        per_thread.capture.outlived = True


def refuse(reason: str) -> None:
    """Says that what follows cannot be captured, and why."""
    if active and per_thread.capture is not None:
        per_thread.capture.refuse(reason)


class paused:
    """Context in which the recorders of this thread (all, or those of one class) see nothing.

    A capture sees all there is: it must know where each value comes from.
    """

    def __init__(self, kind: type | None = None) -> None:
        self._kind = kind

    def __enter__(self) -> None:
        kind = self._kind
        self._saved = per_thread.stack
        kept = [
            r
            for r in self._saved
            if (kind is not None and not isinstance(r, kind)) or r is per_thread.capture
        ]
        self._replace(kept)

    def __exit__(self, *exc: object) -> None:
        self._replace(self._saved)

    @staticmethod
    def _replace(recorders: list[Recorder]) -> None:
        global active
        more = len(recorders) - len(per_thread.stack)
        if more > 0:
            with _lock:
                active += more
        per_thread.stack = recorders
        if more < 0:
            with _lock:
                active += more


class rehearsal:
    """Context in which collectives give back what they are given."""

    def __enter__(self) -> rehearsal:
        self._before = per_thread.rehearsing
        per_thread.rehearsing, per_thread.left_out = True, False
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()

    def end(self) -> None:
        """From here on it is none, unless it is within another one."""
        per_thread.rehearsing = self._before


class suspended:
    """Context in which no recorder of this thread sees anything, a capture included."""

    def __enter__(self) -> None:
        self._saved = per_thread.stack, per_thread.capture
        paused._replace([])
        per_thread.capture = None

    def __exit__(self, *exc: object) -> None:
        recorders, per_thread.capture = self._saved
        paused._replace(recorders)
