"""Child processes that never outlive their parent, and signals that are passed on to them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Literal

from distgrad.launcher import environ
from distgrad.launcher.farewell import Farewell, Floor

_PR_SET_PDEATHSIG = 1
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def die_with_parent(signum: int = signal.SIGKILL) -> None:
    """Asks Linux to send this process ``signum`` when its parent dies; elsewhere does nothing."""
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)


class Started(subprocess.Popen[bytes]):
    """A child process, and what it tells of its end."""

    farewell: Farewell

    def said(self) -> bool | None:
        """Whether it has said why it ends; None where that is not known."""
        return self.farewell.said()


def start(
    command: Sequence[str],
    env: Mapping[str, str],
    *,
    piped: bool | Literal["stdout"] = False,
    death_signal: int = signal.SIGKILL,
    cwd: str | None = None,
    floor: Floor | None = None,
) -> Started:
    """Starts a child in a session of its own, without stdin.

    Args:
        command: the program and its arguments.
        env: its whole environment.
        piped: whether its stdout and stderr, or the first, are pipes to this process, not ours.
        death_signal: what the child gets when this process dies (Linux).
        cwd: where it runs; None is here.
        floor: what it shares with the other ranks of a start.
    """
    parent = os.getpid()

    def in_child() -> None:
        die_with_parent(death_signal)
        if os.getppid() != parent:  # the parent died before the line above
            os._exit(1)

    farewell = Farewell()
    pipes, settings = [farewell.writing], farewell.settings()
    if floor is not None:
        pipes.append(floor.pipe)
        settings |= floor.settings()
    # A session of its own: ctrl-C in a terminal then arrives once, through us.
    child = Started(
        list(command),
        env={**env, **settings},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if piped else None,
        stderr=subprocess.PIPE if piped is True else None,
        start_new_session=True,
        preexec_fn=in_child if sys.platform == "linux" else None,
        pass_fds=pipes,
    )
    farewell.begun()
    child.farewell = farewell
    return child


@contextlib.contextmanager
def handled_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handles SIGTERM, SIGINT and SIGUSR1 with ``handler`` meanwhile.

    A terminal that has gone is a SIGTERM, unless ``nohup`` has the process ignore it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    came: list[int] = []

    def handle(signum: int, frame: FrameType | None) -> None:
        hung_up = signum == signal.SIGHUP  # by the shell, and by the system once more
        if not (hung_up and came):
            came.append(signum)
            handler(signal.SIGTERM if hung_up else signum, frame)

    handled = (*FORWARDED, signal.SIGHUP) if environ.hangs_up() else FORWARDED
    before = {signum: signal.signal(signum, handle) for signum in handled}
    try:
        yield
    finally:
        for signum, old in before.items():
            signal.signal(signum, signal.SIG_DFL if old is None else old)


def kill_session(child: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a child and whatever it has started that is still in its session's group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


# Looked up once: between fork and exec nothing may be loaded.
if sys.platform == "linux":
    _prctl = ctypes.CDLL(None, use_errno=True).prctl
