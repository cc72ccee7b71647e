"""What ``fit`` and ``evaluate`` print."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from distgrad.keras import settings
from distgrad.training.loop import Logs, Observer, TrainingLoop
from distgrad.training.progress import shown


class ProgressPrinter(Observer):
    """One line per epoch; on a terminal it also shows how far the epoch has come."""

    def __init__(self, epochs: int, loop: TrainingLoop, live: bool | None = None) -> None:
        self.epochs = epochs
        self.loop = loop
        shown = settings.interactive_logging and sys.stdout.isatty()
        self.live = shown if live is None else live
        self._began = self._shown = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = time.monotonic()
        if self.epochs > 1:
            print(f"Epoch {epoch + 1}/{self.epochs}", flush=True)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.live and time.monotonic() - self._shown > 0.1:
            self._shown = time.monotonic()
            self._line(batch + 1, self.loop.logs(), end="\r")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        done = self.loop.cursor.step_in_epoch
        self._line(done, logs or {}, end="\n", total=self.loop.loader.steps_per_epoch or done)

    def _line(self, done: int, logs: Logs, end: str, total: int | None = None) -> None:
        total = total or self.loop.loader.steps_per_epoch
        print(progress_line(done, total, time.monotonic() - self._began, logs), end=end, flush=True)


def progress_line(done: int, total: int | None, seconds: float, logs: Logs) -> str:
    """``100/100 - 2s - 20ms/step - accuracy: 0.9 - loss: 0.1``; Unknown for a total of None."""
    each = seconds / max(done, 1)
    pace = f"{each * 1e3:.0f}ms" if each >= 1e-3 else f"{each * 1e6:.0f}us"
    values = "".join(f" - {name}: {_shown(value)}" for name, value in logs.items())
    return f"{done}/{total or 'Unknown'} - {seconds:.0f}s - {pace}/step{values}"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return shown(float(np.mean(value)))  # as Keras shows an array
