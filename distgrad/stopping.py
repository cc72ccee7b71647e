"""Signals that ask a run to save and stop, as Slurm sends them before the time is up."""

from __future__ import annotations

import signal
import sys
import threading
import time
from typing import Any

from distgrad.launcher import environ
from distgrad.training.step import TrainStep

# Seconds in which a second signal is the first, once more: who stops all processes of a job, as
# Slurm does, reaches a rank directly and through whatever has started it.
_ECHO = 2.0


class stop_on_signal:
    """Context in which SIGTERM and SIGUSR1 ask for a stop at the next step boundary.

    So does a terminal that has gone, unless ``nohup`` is there for that.
    Behind the last step the run comes to its end instead, which is near.
    """

    def __init__(self, step: TrainStep) -> None:
        self._step = step
        self._before: dict[int, Any] = {}
        self._asked = 0.0

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            hang_up = (signal.SIGHUP,) if environ.hangs_up() else ()
            for number in (signal.SIGTERM, signal.SIGUSR1, *hang_up):
                self._before[number] = signal.signal(number, self._ask)

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        if not self._step.stop_requested:
            self._step.stop_requested, self._asked = True, time.monotonic()
        elif number != signal.SIGHUP and time.monotonic() > self._asked + _ECHO:
            sys.exit(128 + number)  # the second time: at once
