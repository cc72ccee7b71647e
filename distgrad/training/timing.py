"""How long steps take, and where the time goes: ``timing.jsonl``, and what trackers are told.

``metrics.jsonl`` holds what a job computes, the same in every run of it; this file the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from distgrad.training.loop import Observer, TrainingLoop
from distgrad.training.run_files import Lines
from distgrad.training.trackers import Trackers

# Between two lines: seconds, or that part of the time since the start, whichever is more. A line
# and its point in TensorBoard take some 50 µs together; a week of training gives 10,000 of them.
_EVERY = 0.05
_PART = 1e-3


class Timing(Observer):
    """Sums up what steps take, and tells of it now and then; the first observer of its loop.

    Args:
        loop: what is measured.
        lines: where a line goes for some steps together: how many, their samples, their seconds
            and those of them that went by waiting for data and for communication.
        trackers: are told at the same time.
        rate: gives the learning rate of the last step.
        communication: seconds in communication so far; None where it goes on beside the rest.
    """

    def __init__(
        self,
        loop: TrainingLoop,
        lines: Lines,
        trackers: Trackers,
        rate: Callable[[], float],
        communication: Callable[[], float] | None,
    ) -> None:
        self.loop = loop
        self.lines = lines
        self.trackers = trackers
        self.rate = rate
        self.communication = communication
        self._began = self._due = self._step_began = 0.0
        self._communicated, self._before = 0.0, 0
        self._clear()

    def _clear(self) -> None:
        self._steps = self._samples = 0
        self._seconds = self._data = self._communication = 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        self._began = time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.communication is not None:
            self._communicated = self.communication()
        self._before = self.loop.cursor.samples
        self._step_began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.perf_counter()
        waited = self.loop.waited
        self._steps += 1
        self._samples += self.loop.cursor.samples - self._before
        self._data += waited
        self._seconds += now - self._step_began + waited
        if self.communication is not None:
            self._communication += self.communication() - self._communicated
        if now >= self._due:
            self._due = now + max(_EVERY, _PART * (now - self._began))
            self.tell()

    def tell(self) -> None:
        """Tells of the steps that it has not yet told of."""
        if not self._steps:
            return
        cursor = self.loop.cursor
        phases = {"data": round(self._data, 6)}
        if self.communication is not None:
            phases["communication"] = round(self._communication, 6)
        self.lines.log(
            "steps",
            step=cursor.step,
            epoch=cursor.epoch,
            time=round(time.time(), 3),
            steps=self._steps,
            samples=self._samples,
            seconds=round(self._seconds, 6),
            **phases,
        )
        self.trackers.log(
            cursor.step,
            {
                "batch_loss": self.loop.last_loss,
                "learning_rate": self.rate(),
                "samples_per_second": self._samples / self._seconds,
                "milliseconds_per_step": 1e3 * self._seconds / self._steps,
            },
        )
        self._clear()
