"""What rank 0 writes of a run while it goes on: status, metrics, timing, and to trackers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distgrad.training.loop import Observer, TrainingLoop
from distgrad.training.run_files import Lines, Status, rewind
from distgrad.training.run_folder import point_latest
from distgrad.training.timing import Timing
from distgrad.training.trackers import Trackers


class Journal(Observer):
    """Keeps ``status.json``, ``metrics.jsonl`` and ``timing.jsonl`` of a loop; its first observer.

    Args:
        folder: of the run; what a killed one wrote there of steps to be done again is dropped.
        loop: what goes on.
        trackers: are told, too.
        rate: gives the learning rate of the last step.
        communication: as for `Timing`.
        command: the words that started this.
        status: what stands in ``status.json`` from the start.
    """

    def __init__(
        self,
        folder: Path,
        loop: TrainingLoop,
        trackers: Trackers,
        rate: Callable[[], float],
        communication: Callable[[], float] | None,
        *,
        command: str,
        **status: Any,
    ) -> None:
        self.folder = folder
        self.loop = loop
        self.rate = rate
        metrics, timing = folder / "metrics.jsonl", folder / "timing.jsonl"
        cursor = loop.cursor
        for path in (metrics, timing):
            rewind(path, cursor.step, cursor.epoch)
        self.status = Status(folder, state="running", **status, **self._at())
        self.metrics, self.times = Lines(metrics), Lines(timing)
        self.timing = Timing(loop, self.times, trackers, rate, communication)
        self.trackers = trackers
        self._values: dict[str, Any] = {}  # of the last epoch
        self._is_latest = False
        facts: dict[str, Any] = {
            name: status[name] for name in ("world_size", "launcher") if name in status
        }
        start: dict[str, Any] = {
            **self._at(),
            "time": round(time.time(), 3),
            **facts,
            "command": command,
        }
        # Told of with the first step: a run that has ended is left as it is.
        self._start: dict[str, Any] | None = start
        trackers.start(cursor.step)

    def _at(self) -> dict[str, int]:
        return {"step": self.loop.cursor.step, "epoch": self.loop.cursor.epoch}

    def on_train_begin(self, logs: Any = None) -> None:
        self.timing.on_train_begin()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._start is not None:
            self.times.log("start", **self._start)
            self._start = None
        self.timing.on_train_batch_begin(batch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.timing.on_train_batch_end(batch)
        cursor = self.loop.cursor
        # Written out, since this is done at every step: both numbers are finite.
        self.metrics.write(
            f'{{"kind": "step", "step": {cursor.step}, "epoch": {cursor.epoch}, '
            f'"loss": {self.loop.last_loss!r}, "learning_rate": {self.rate()!r}}}'
        )
        self.status.update(step=cursor.step, epoch=cursor.epoch)
        self._point_latest()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        values = self._values = dict(logs or {})
        self.metrics.log("epoch", **self._at(), **values)
        self.status.update(metrics=values)
        self.trackers.log(
            self.loop.cursor.step,
            {n if n.startswith("val_") else f"epoch_{n}": v for n, v in values.items()},
        )

    def restore(self) -> None:
        """Writes the lines of this process anew where their files were deleted."""
        for lines in (self.metrics, self.times):
            lines.restore()

    def missed_save(self, error: str) -> None:
        """The disk has not taken a checkpoint."""
        self.metrics.log("missed_save", **self._at(), error=error)

    def final(self, results: Mapping[str, Any]) -> None:
        """The values at the end of the run, those on test samples among them."""
        self._point_latest()
        self.metrics.log("final", **self._at(), **results)
        self.status.update(metrics={**self._values, **results})
        tested = {name: value for name, value in results.items() if name.startswith("test_")}
        self.trackers.log(self.loop.cursor.step, tested)

    def _point_latest(self) -> None:
        """Now that a step has been done: a run that fails at its first is of no use to anybody."""
        if not self._is_latest:
            self._is_latest = True
            point_latest(self.folder)

    def close(self, state: str, **fields: Any) -> None:
        """Writes the last state. Call it however the run has ended."""
        self.timing.tell()
        self.trackers.finish(state)
        for lines in (self.metrics, self.times):
            lines.close()
        self.status.close(state=state, **fields)
