"""Callbacks that act on whether a value has become better."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.user_line import warn
from distgrad.keras.callbacks.base import Callback
from distgrad.keras.metrics.base import one_by_one


class MonitorCallback(Callback):
    """Base of callbacks that watch one value of the logs: ``monitor``.

    ``mode`` is "min", "max", or "auto": the loss is to fall, a metric to go where its
    ``direction`` says. Another mode is taken for "auto", with a warning. ``monitor_op`` is what
    compares two values, once the first one is there: ``operator.lt`` or ``operator.gt``.
    """

    state_names: tuple[str, ...] = ("best",)

    def __init__(
        self,
        monitor: str = "val_loss",
        mode: str = "auto",
        baseline: float | None = None,
        min_delta: float = 0,
    ) -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            warn(f"mode is auto, min or max, not {mode!r}: auto is taken")
            mode = "auto"
        self.monitor = monitor
        self.mode = mode
        self.best = baseline
        self.min_delta = abs(min_delta)
        self.monitor_op: Any = None

    def _is_improvement(self, value: float, reference: float | None) -> bool:
        if self.monitor_op is None:
            self.monitor_op = self._better()
        if reference is None:
            return True
        least = -self.min_delta if self.monitor_op is operator.gt else self.min_delta
        return self.monitor_op(value + least, reference)

    def _better(self) -> Callable[[Any, Any], Any]:
        """What is true of a better value and one before it."""
        if self.mode != "auto":
            return operator.gt if self.mode == "max" else operator.lt
        name = self.monitor.removeprefix("val_")
        if name == "loss":
            return operator.lt
        named = {metric.name: metric for metric in one_by_one(getattr(self.model, "metrics", ()))}
        objective = getattr(self.model, "objective", None)
        named |= objective.named() if objective is not None else {}
        if name in named and named[name].direction is not None:
            return operator.gt if named[name].direction == "up" else operator.lt
        raise ValueError(
            f"{type(self).__name__}: whether {self.monitor!r} should rise or fall is not known; "
            "give mode='max' or mode='min'"
        )

    def _current(self, logs: Any) -> float | None:
        if self.monitor_op is None:
            self.monitor_op = self._better()
        value = (logs or {}).get(self.monitor)
        if value is None:
            known = ", ".join(logs or {})
            warn(f"{type(self).__name__}: there is no {self.monitor!r} in the logs, only {known}")
        return value[0] if isinstance(value, list) and len(value) == 1 else value


class EarlyStopping(MonitorCallback):
    """Ends the training once the value has not become better for ``patience`` epochs.

    Better is by more than ``min_delta``, and with a ``baseline`` than that. ``stopped_epoch`` is
    the epoch, from 0, in which it did so. ``restore_best_weights`` goes back to those of the best
    epoch.
    """

    state_names = ("best", "best_epoch", "best_weights", "stopped_epoch", "wait")

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, None, min_delta)
        self.patience = patience
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self.on_train_begin()

    def get_monitor_value(self, logs: Any) -> float | None:
        """The value to watch, None where there is none; a subclass may take another one."""
        return self._current(logs)

    def on_train_begin(self, logs: Any = None) -> None:
        self.wait = 0
        self.stopped_epoch = 0
        self.best = None
        self.best_weights: Any = None
        self.best_epoch = 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        current = self.get_monitor_value(logs)
        if current is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self._keep(epoch)  # even if nothing ever becomes better
        self.wait += 1
        if self._is_improvement(current, self.best):
            self.best = current
            self._keep(epoch)
            if self.baseline is None or self._is_improvement(current, self.baseline):
                self.wait = 0
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def _keep(self, epoch: int) -> None:
        self.best_epoch = epoch
        if self.restore_best_weights:
            self.best_weights = self.model.get_weights()

    def on_train_end(self, logs: Any = None) -> None:
        if self.stopped_epoch > 0 and self.verbose:
            self._say(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.best_weights is not None:
            if self.verbose:
                best = self.best_epoch + 1
                self._say(f"Restoring model weights from the end of the best epoch: {best}.")
            self.model.set_weights(self.best_weights)


class ModelCheckpoint(MonitorCallback):
    """Saves the model, or its weights, after every epoch or every ``save_freq`` batches.

    ``filepath`` may hold ``{epoch}``, ``{batch}`` and the names of the logs. It must end in
    ``.keras`` or ``.h5``, with ``save_weights_only`` in ``.weights.h5``. Raises ValueError
    otherwise, and KeyError for a name that the logs do not have.
    """

    state_names = ("best", "_batches")

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode, initial_value_threshold)
        self.filepath = os.fspath(filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = save_freq
        if save_freq != "epoch" and not isinstance(save_freq, int):
            raise ValueError(f"save_freq is 'epoch' or a number of batches, not {save_freq!r}")
        endings = (".weights.h5",) if save_weights_only else (".keras", ".h5")
        if not self.filepath.endswith(endings):
            raise ValueError(f"filepath must end in {endings[0]}, not {self.filepath!r}")
        self._epoch = 0
        self._batches = 0  # since the last save

    @property
    def wants_batch_logs(self) -> bool:
        return self.save_freq != "epoch"

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._batches += 1
        if isinstance(self.save_freq, int) and self._batches >= self.save_freq:
            self._batches = 0
            self._save(logs, batch=batch + 1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.save_freq == "epoch":
            self._save(logs)

    def _save(self, logs: Any, **place: int) -> None:
        values = {**(logs or {}), **place, "epoch": self._epoch + 1}
        try:
            path = self.filepath.format(**values)
        except KeyError as error:
            raise KeyError(
                f"the filepath {self.filepath!r} names {error}; there are {', '.join(values)}"
            ) from None
        if not self._is_due(logs, path):
            return
        if self._writes:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            save = self.model.save_weights if self.save_weights_only else self.model.save
            save(path, overwrite=True)
            if self.verbose:
                self._say(f"Epoch {self._epoch + 1}: finished saving model to {path}")

    def _is_due(self, logs: Any, path: str) -> bool:
        start = f"Epoch {self._epoch + 1}:"
        if not self.save_best_only:
            if self.verbose:
                self._say(f"{start} saving model to {path}")
            return True
        current = self._current(logs)
        if current is None:
            return True
        if np.ndim(current):
            warn(
                f"ModelCheckpoint: {self.monitor!r} has several values, of which none is best: the "
                "model is saved"
            )
            return True
        before = "None" if self.best is None else f"{self.best:.5f}"
        better = self._is_improvement(current, self.best)
        if self.verbose and better:
            self._say(
                f"{start} {self.monitor} improved from {before} to {current:.5f}, saving model to "
                f"{path}"
            )
        elif self.verbose:
            self._say(f"{start} {self.monitor} did not improve from {before}")
        if better:
            self.best = current
        return better


class ReduceLROnPlateau(MonitorCallback):
    """Multiplies the learning rate by ``factor`` after ``patience`` epochs without improvement.

    It never goes below ``min_lr``, and waits ``cooldown`` epochs after each time. Raises ValueError
    for a factor of 1 or more.
    """

    state_names = ("best", "cooldown_counter", "wait")

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, None, min_delta)
        if factor >= 1:
            raise ValueError(f"factor must be below 1, not {factor!r}")
        self.factor = factor
        self.patience = patience
        self.verbose = verbose
        self.cooldown = cooldown
        self.min_lr = min_lr
        self.on_train_begin()

    def on_train_begin(self, logs: Any = None) -> None:
        self.best = None
        self.wait = 0
        self.cooldown_counter = 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs = {} if logs is None else logs
        logs.update(self._learning_rates())
        current = self._current(logs)
        if current is None:
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self._is_improvement(current, self.best):
            self.best = current
            self.wait = 0
        elif self.cooldown_counter == 0:
            self.wait += 1
            if self.wait >= self.patience:
                self._reduce(epoch)

    def _reduce(self, epoch: int) -> None:
        for name, optimizer in self._by_rate().items():
            rate = float(optimizer.learning_rate)
            if rate <= self.min_lr:
                continue
            optimizer.learning_rate = max(rate * self.factor, self.min_lr)
            if self.verbose:
                what, now = name.replace("_", " ", 2), float(optimizer.learning_rate)
                self._say(f"Epoch {epoch + 1}: ReduceLROnPlateau reducing {what} to {now}.")
            self.cooldown_counter = self.cooldown
            self.wait = 0
