"""Ends what Ray has started for a driver that was killed: a program of its own, on Linux.

Ray's main processes die with their driver, but its agents and idle workers try for a minute or two
to find them again. This program waits for the end of its stdin, which the driver holds open, and
then kills every process that has a file of the session open, and removes the driver's folder. It
imports nothing of ours and next
to nothing else, so that it costs little while it waits.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

_PATIENCE = 8.0  # seconds; Ray may still start a process after the death of its driver
_QUIET = 1.0
_LOOK = 0.1


def start(folder: str, session: str = "") -> subprocess.Popen[bytes] | None:
    """A watchdog over a folder of ours, and over the Ray session in another; None without a /proc.

    It barks when this process has died; ``close`` sends it home before.
    """
    if sys.platform != "linux":
        return None
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, folder, session],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def close(watchdog: subprocess.Popen[bytes] | None) -> None:
    """Ends the watchdog: there is nothing left to watch."""
    if watchdog is not None:
        watchdog.kill()
        watchdog.wait()
        assert watchdog.stdin is not None
        watchdog.stdin.close()


def _of_session(session: str) -> list[int]:
    """The processes that have a file in the folder open: all of Ray's write their logs there."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it has just ended, or belongs to somebody else
            files = os.scandir(f"/proc/{name}/fd")
            if any(_leads_to(file.path, session) for file in files):
                found.append(int(name))
    return found


def _leads_to(link: str, folder: str) -> bool:
    with contextlib.suppress(OSError):
        return os.readlink(link).startswith(folder + os.sep)
    return False


def _main(folder: str, session: str) -> None:
    sys.stdin.buffer.read()
    if session:
        _end_session(session)
    shutil.rmtree(folder, ignore_errors=True)


def _end_session(session: str) -> None:
    end = time.monotonic() + _PATIENCE
    quiet = time.monotonic() + _QUIET
    while time.monotonic() < min(end, quiet):
        for pid in _of_session(session):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            quiet = time.monotonic() + _QUIET
        time.sleep(_LOOK)


if __name__ == "__main__":
    _main(*sys.argv[1:])
