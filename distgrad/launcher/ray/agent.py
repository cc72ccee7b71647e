"""The worker's end: starts one rank as a child, and is its link with the driver."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from distgrad.comm.rendezvous import knock
from distgrad.launcher import environ, process
from distgrad.launcher.environ import World
from distgrad.launcher.ray.wire import BEGUN, ENDED, ERR, KILL, OUT, SIGNAL, Wire

_LAST_LINES = 2.0  # seconds for reading what an ended rank has still written


@dataclass(frozen=True)
class Errand:
    """What the agents of one start of a job have to do.

    Args:
        driver: ``host:port`` where the driver awaits them.
        token: the secret that opens it.
        arguments: of Python, in each rank.
        settings: variables of every rank, beside those that say who it is.
        folder: where the ranks run, if this machine has it.
        restart: how often the job has been started before.
        timeout: seconds for reaching the driver.
    """

    driver: str
    token: str
    arguments: Sequence[str]
    settings: dict[str, str]
    folder: str
    restart: int
    timeout: float


def run(errand: Errand, world: World, token: str) -> int:
    """Runs one rank to its end, and returns its exit code (negative: the signal that killed it).

    The rank is killed when the driver asks for it or is gone, and dies with this process.

    Args:
        errand: what to do.
        world: who the rank is, and where the ranks meet.
        token: the secret of that place.
    """
    end = time.monotonic() + errand.timeout
    wire = Wire(knock(errand.driver, errand.token, world.rank, end))
    # Ray blocks SIGINT in its processes, and a child inherits what is blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, process.FORWARDED)
    variables = environ.rank_variables(world, token, errand.restart)
    child = process.start(
        [sys.executable, *errand.arguments],
        environ.child_environment({**errand.settings, **variables}),
        piped=True,
        cwd=errand.folder if os.path.isdir(errand.folder) else None,
    )
    try:
        wire.send(BEGUN, {"pid": child.pid, "host": socket.gethostname()})
        assert child.stdout is not None and child.stderr is not None
        threads = [
            threading.Thread(target=_pump, args=(child.stdout, wire, OUT), daemon=True),
            threading.Thread(target=_pump, args=(child.stderr, wire, ERR), daemon=True),
        ]
        obeying = threading.Thread(target=_obey, args=(wire, child), daemon=True)
        for thread in (*threads, obeying):
            thread.start()
        code = child.wait()
        for thread in threads:
            thread.join(_LAST_LINES)
        wire.send(ENDED, {"code": code, "said": child.said()})
        # The driver hangs up once it has read that: closing first could lose what is under way.
        obeying.join(_LAST_LINES)
    except OSError:  # the driver has gone
        pass
    finally:
        process.kill_session(child)
        code = child.wait()
        wire.close()
    return code


def _pump(pipe: IO[bytes], wire: Wire, kind: int) -> None:
    try:
        while data := pipe.read1(65536):  # type: ignore[attr-defined]
            wire.send(kind, data)
    except (OSError, ValueError):  # the driver has gone, and the rank goes with it
        pass


def _obey(wire: Wire, child: subprocess.Popen[bytes]) -> None:
    while (frame := wire.receive()) is not None:
        kind, value = frame
        if kind == SIGNAL and child.poll() is None:
            child.send_signal(value)
        elif kind == KILL:
            break
    process.kill_session(child)
