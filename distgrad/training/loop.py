"""The training loop under both ``Model.fit`` and the worker of a job."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distgrad.core import timeline
from distgrad.core.errors import PreemptedError
from distgrad.data.loader import Loader
from distgrad.training.feeding import epochs
from distgrad.training.step import TrainStep

Logs = dict[str, Any]  # numbers, or a list of them where a metric has several


@dataclass
class Cursor:
    """Where a run stands, between two steps: all that a resumed run needs beside the arrays."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0  # steps done since the start of the run
    samples: int = 0  # seen in this epoch
    loss: float = 0.0  # of this epoch: sum over samples
    sums: list[float] = field(default_factory=list)  # of this epoch: metric statistics

    def start_epoch(self, epoch: int) -> None:
        self.epoch, self.step_in_epoch = epoch, 0
        self.samples, self.loss, self.sums = 0, 0.0, []


class Observer:
    """Told of everything that happens in a loop; Keras callbacks are observers too.

    The end of a batch comes with the logs of the epoch so far to those that want them. Every event
    comes with logs, if only with none: users define the methods without a default for them.
    """

    @property
    def wants_batch_logs(self) -> bool:
        return False

    def on_train_begin(self, logs: Any = None) -> None: ...

    def on_train_end(self, logs: Any = None) -> None: ...

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None: ...

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None: ...

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None: ...

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None: ...


class TrainingLoop:
    """Runs a step over the batches of a loader, epoch by epoch, from wherever the cursor stands.

    ``results(loss, sums)`` gives the mean loss and metric statistics their names;
    ``validate(epoch)``, if given, adds its own at the end of an epoch. ``should_stop()`` is asked
    after every epoch, ``should_cut()`` after every batch: whether to go on to the end of the epoch
    at once.
    """

    def __init__(
        self,
        step: TrainStep,
        loader: Loader,
        results: Callable[[float, np.ndarray], Logs],
        observers: Sequence[Observer] = (),
        *,
        cursor: Cursor | None = None,
        validate: Callable[[int], Logs] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        should_cut: Callable[[], bool] = lambda: False,
    ) -> None:
        self.step = step
        self.loader = loader
        self.results = results
        self.observers = list(observers)
        self.cursor = cursor or Cursor()
        self.validate = validate
        self.should_stop = should_stop
        self.should_cut = should_cut
        self.last_loss = 0.0  # of the last batch
        self.waited = 0.0  # seconds for the last batch
        self._epoch = epochs(
            loader, getattr(step, "input_device", None), captured=getattr(step, "captured", False)
        )

    def run(self, epochs: int) -> None:
        """Trains up to ``epochs`` epochs in all. Raises PreemptedError when asked to stop."""
        self._tell("on_train_begin", {})
        logs: Logs = {}
        for epoch in range(self.cursor.epoch, epochs):
            if epoch != self.cursor.epoch:
                self.cursor.start_epoch(epoch)
            self._tell("on_epoch_begin", epoch, {})
            self._run_epoch(epoch)
            logs = self.logs()
            if self.validate is not None:
                logs = dict(sorted((logs | self.validate(epoch)).items()))
            with timeline.span("callbacks"):
                self._tell("on_epoch_end", epoch, dict(logs))  # to which observers may add
            if self.should_stop():
                break
        self._tell("on_train_end", logs)

    def logs(self) -> Logs:
        """Loss and metrics over the epoch so far, by name."""
        cursor = self.cursor
        if not cursor.samples:
            return {}
        logs = self.results(cursor.loss / cursor.samples, np.array(cursor.sums))
        return dict(sorted(logs.items()))

    def _run_epoch(self, epoch: int) -> None:
        cursor = self.cursor
        asked = time.perf_counter()
        for batch in self._epoch(epoch, cursor.step_in_epoch):
            begun = time.perf_counter()
            self.waited = begun - asked
            self._tell("on_train_batch_begin", batch.step_in_epoch, {})
            result = self.step(cursor.step, batch)
            sums = np.array(cursor.sums) + result.sums if cursor.sums else result.sums
            cursor.sums = sums.tolist()
            cursor.loss += result.loss * batch.size
            cursor.samples += batch.size
            cursor.step_in_epoch += 1
            cursor.step += 1
            self.last_loss = result.loss
            if (tell := timeline.told) is None:
                self._tell_batch_end(batch.step_in_epoch)
            else:
                ended = time.perf_counter()
                tell("wait for data", asked, begun, None)
                tell(f"step {cursor.step}", begun, ended, None)
                with timeline.span("callbacks"):
                    self._tell_batch_end(batch.step_in_epoch)
            if result.stop:
                raise PreemptedError(f"asked to stop after step {cursor.step}")
            if self.should_cut():
                break
            asked = time.perf_counter()

    def _tell_batch_end(self, batch: int) -> None:
        wanted = any(getattr(each, "wants_batch_logs", False) for each in self.observers)
        logs = self.logs() if wanted else None
        for observer in self.observers:
            observer.on_train_batch_end(batch, logs)

    def _tell(self, event: str, *args: Any) -> None:
        for observer in self.observers:
            getattr(observer, event)(*args)
