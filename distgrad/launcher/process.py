"""Child processes that never outlive their parent: signals passed on, always reaped."""

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

_PR_SET_PDEATHSIG = 1
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_LAST_WORDS = 10.0  # seconds between asking a child to stop and killing it


def die_with_parent(signum: int = signal.SIGKILL) -> None:
    """Asks Linux to send this process ``signum`` when its parent dies; elsewhere does nothing."""
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)


def supervise(command: Sequence[str], env: Mapping[str, str]) -> int:
    """Runs ``command`` to its end and returns its exit code (128 + n for signal n).

    SIGTERM, SIGINT and SIGUSR1 are passed on to it; a second SIGTERM or SIGINT kills it. Whatever
    ends this function, the child is reaped; if this process is killed, the child is told to stop.
    """
    parent = os.getpid()
    received: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def in_child() -> None:
        die_with_parent(signal.SIGTERM)
        if os.getppid() != parent:  # the parent died before the line above
            os._exit(1)

    def forward(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        if child is None:
            return  # passed on below, once there is a child
        if len([s for s in received if s != signal.SIGUSR1]) > 1:
            _kill_session(child)
        else:
            child.send_signal(signum)

    with _handlers(forward):
        # A session of its own: ctrl-C in a terminal then arrives once, through us.
        child = subprocess.Popen(
            list(command),
            env=dict(env),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=in_child if sys.platform == "linux" else None,
        )
        try:
            for signum in tuple(received):
                child.send_signal(signum)
            code = child.wait()
        finally:
            _end(child)
    return 128 - code if code < 0 else code


@contextlib.contextmanager
def _handlers(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handles the forwarded signals with ``handler`` meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = {signum: signal.signal(signum, handler) for signum in _FORWARDED}
    try:
        yield
    finally:
        for signum, old in before.items():
            signal.signal(signum, signal.SIG_DFL if old is None else old)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Stops and reaps a child that is still running, first politely."""
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(_LAST_WORDS)
    except subprocess.TimeoutExpired:
        _kill_session(child)
        child.wait()


def _kill_session(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


# Looked up once: between fork and exec nothing may be loaded.
if sys.platform == "linux":
    _prctl = ctypes.CDLL(None, use_errno=True).prctl
