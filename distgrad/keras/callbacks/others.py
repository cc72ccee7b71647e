"""Callbacks that log, set the learning rate, or end a training that has failed."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.core.user_line import warn
from distgrad.keras.callbacks.base import Callback


class LearningRateScheduler(Callback):
    """Sets the learning rate at the start of each epoch: ``schedule(epoch, learning_rate)``.

    A function of the epoch alone will do, too. Raises ValueError where it gives no number.
    """

    state_names = ("_set_in",)

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        super().__init__()
        self.schedule = schedule
        self.verbose = verbose
        self._set_in: int | None = None  # the epoch that it has set the rate of, and runs

    def on_train_begin(self, logs: Any = None) -> None:
        self._set_in = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == self._set_in:  # a run that was lost amid it has set its rate
            return
        self._set_in = epoch
        for name, optimizer in self._by_rate().items():
            try:
                rate = self.schedule(epoch, float(optimizer.learning_rate))
            except TypeError:  # it takes the epoch alone
                rate = self.schedule(epoch)
            if isinstance(rate, bool) or not hasattr(rate, "__float__"):
                raise ValueError(f"the schedule must give a number, not {rate!r}")
            optimizer.learning_rate = float(rate)
            if self.verbose:
                what = name.replace("_", " ", 2)
                self._say(f"Epoch {epoch + 1}: LearningRateScheduler setting {what} to {rate}.")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._set_in = None
        if logs is not None:
            logs.update(self._learning_rates())


class TerminateOnNaN(Callback):
    """Ends the training, or with ``raise_error`` raises RuntimeError, at a loss that is no number.

    The loss is that of the epoch so far.
    """

    def __init__(self, raise_error: bool = False) -> None:
        super().__init__()
        self.raise_error = raise_error

    def on_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = (logs or {}).get("loss")
        if loss is None or math.isfinite(loss):
            return
        if self.raise_error:
            raise RuntimeError(f"the loss is {loss} at batch {batch}")
        self._say(f"Batch {batch}: Invalid loss, terminating training")
        self.model.stop_training = True


class RemoteMonitor(Callback):
    """Posts the logs of each epoch to a server, as JSON: in a form field, or with
    ``send_as_json`` as they are. One that is not reached is warned of."""

    def __init__(
        self,
        root: str = "http://localhost:9000",
        path: str = "/publish/epoch/end/",
        field: str = "data",
        headers: dict[str, str] | None = None,
        send_as_json: bool = False,
    ) -> None:
        super().__init__()
        self.root, self.path, self.field = root, path, field
        self.headers, self.send_as_json = headers, send_as_json

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        import urllib.parse  # here, since they would double the time of `import distgrad`
        import urllib.request

        if not self._writes:
            return
        arrays = {name: np.asarray(value) for name, value in (logs or {}).items()}
        values = {
            n: array.item() if array.size == 1 else array.tolist() for n, array in arrays.items()
        }
        text = json.dumps({"epoch": epoch, **values})
        headers = dict(self.headers or {})
        if self.send_as_json:
            headers["Content-Type"] = "application/json"
        else:
            text = urllib.parse.urlencode({self.field: text})
        request = urllib.request.Request(self.root + self.path, text.encode(), headers)
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except (OSError, ValueError) as error:
            warn(f"Could not reach RemoteMonitor root server at {self.root}: {error}")


def _cell(value: Any) -> Any:
    """A value as Keras has it in a CSV file: of several, a list in quotation marks."""
    several = not isinstance(value, str) and np.ndim(value)
    return f'"[{", ".join(map(str, value))}]"' if several else value


class CSVLogger(Callback):
    """Writes the logs of each epoch as a line of a CSV file, the epoch first.

    ``append`` adds to a file that is there. A value that an epoch does not have is ``NA``.
    """

    state_names = ("_keys", "_size")

    def __init__(
        self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False
    ) -> None:
        super().__init__()
        self.filename = os.fspath(filename)
        self.separator = separator
        self.append = append
        self._keys: list[str] | None = None
        self._size: int | None = None  # of the file, as far as this run has written it
        self._begun = False

    def on_train_begin(self, logs: Any = None) -> None:
        self._keys = self._size = None
        self._begun = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._begun or not self._writes:
            return
        self._begun = True
        with open(self.filename, "ab") as file:
            # A run that goes on writes the lines anew that were written after its backup.
            if self._size is not None or not self.append:
                file.truncate(min(self._size or 0, file.tell()))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs = logs or {}
        if not self._writes:
            return
        path = Path(self.filename)
        begun = path.exists() and path.stat().st_size > 0
        if self._keys is None:
            self._keys = sorted(logs)
            if self._keys and not any(key.startswith("val_") for key in self._keys):
                self._keys += [f"val_{key}" for key in self._keys]
        with path.open("a", newline="") as file:
            writer = csv.writer(file, delimiter=self.separator)
            if not begun:
                writer.writerow(["epoch", *self._keys])
            writer.writerow([epoch, *(_cell(logs.get(key, "NA")) for key in self._keys)])
            self._size = file.tell()
