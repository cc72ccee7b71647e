"""What a run shows on rank 0: a live bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from typing import Any

from distgrad.training.loop import Observer, TrainingLoop

_EVERY = 10.0  # seconds between two plain lines within an epoch


class PlainProgress(Observer):
    """One line per epoch, and one every ten seconds within a long one."""

    def __init__(self, loop: TrainingLoop, epochs: int) -> None:
        self.loop = loop
        self.epochs = epochs
        self._said = self._began = 0.0
        self._began_at = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._said = self._began = time.monotonic()
        self._began_at = self.loop.cursor.samples

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if time.monotonic() - self._said > _EVERY:
            self._said = time.monotonic()
            print(self._line(f"step {batch + 1}/{self.loop.loader.steps_per_epoch}"), flush=True)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        print(self._line("", logs), flush=True)

    def _line(self, step: str, logs: Any = None) -> str:
        width = len(str(self.epochs))
        head = f"epoch {self.loop.cursor.epoch + 1:>{width}}/{self.epochs}"
        return "  ".join([head, *([step] if step else []), self._values(logs), self._pace()])

    def _values(self, logs: Any = None) -> str:
        values = logs or self.loop.logs()  # only the end of an epoch knows of validation
        return "  ".join(f"{name} {shown(value)}" for name, value in values.items())

    def _pace(self) -> str:
        seconds = time.monotonic() - self._began
        done = self.loop.cursor.samples - self._began_at
        return f"{done / seconds:,.0f} samples/s" if seconds > 0 and done else ""


class LiveProgress(PlainProgress):
    """A bar over the steps of the run, with the values of the epoch beside it."""

    def __init__(self, loop: TrainingLoop, epochs: int) -> None:
        super().__init__(loop, epochs)
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
        )
        self._shown = 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        total = self.epochs * self.loop.loader.steps_per_epoch
        self._task = self._bar.add_task("", total=total, values="")
        self._bar.start()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if time.monotonic() - self._shown > 0.1:
            self._shown = time.monotonic()
            self._show()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._show()

    def on_train_end(self, logs: Any = None) -> None:
        self._bar.stop()

    def _show(self) -> None:
        self._bar.update(
            self._task,
            completed=self.loop.cursor.step,
            description=f"epoch {self.loop.cursor.epoch + 1}/{self.epochs}",
            values=f"{self._values()}  {self._pace()}",
        )


def shown(value: float) -> str:
    """Four decimals, or four digits of a small number, as Keras prints both."""
    return f"{value:.4f}" if value == 0 or abs(value) > 1e-3 else f"{value:.4e}"


def progress(loop: TrainingLoop, epochs: int, mode: str, terminal: bool) -> Observer:
    """The observer for ``mode`` (auto, plain or off)."""
    if mode == "off":
        return Observer()
    if mode == "auto" and terminal and sys.stdout.isatty():
        return LiveProgress(loop, epochs)
    return PlainProgress(loop, epochs)
