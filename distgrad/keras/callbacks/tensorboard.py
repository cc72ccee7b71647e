"""Event files for TensorBoard, through the optional package tensorboardX."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from distgrad.keras.callbacks.base import Callback
from distgrad.training import timeline, world
from distgrad.training.tensorboard import summary_writer


class TensorBoard(Callback):
    """Writes the logs of each epoch below ``log_dir``, in ``train`` and ``validation``.

    ``update_freq`` is "epoch", "batch", or a number of batches after which those of the epoch so
    far are written, too; every ``histogram_freq`` epochs the distribution of each weight is.
    ``profile_batch``, the number of a batch since the begin of ``fit`` or the first and the last of
    several, writes ``timeline.json`` in ``log_dir``, which ui.perfetto.dev shows. Graphs, images of
    weights and embeddings are not written: the arguments on them are taken for the sake of Keras's
    scripts. Raises MissingExtraError where tensorboardX is not installed.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] = "logs",
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: str | int = "epoch",
        profile_batch: Any = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: Any = None,
    ) -> None:
        super().__init__()
        if update_freq not in ("epoch", "batch") and not isinstance(update_freq, int):
            raise ValueError(
                f"update_freq is 'epoch', 'batch' or a number of batches, not {update_freq!r}"
            )
        self._profiled = _first_and_last(profile_batch)
        self._window: timeline.Window | None = None
        self.log_dir = os.fspath(log_dir)
        self.histogram_freq = histogram_freq
        self.update_freq = update_freq
        self._every = update_freq if isinstance(update_freq, int) else int(update_freq == "batch")
        self._writer_class = summary_writer()
        self._writers: dict[str, Any] = {}
        self._step = self._batches = 0

    @property
    def wants_batch_logs(self) -> bool:
        return bool(self._every)

    def _writer(self, part: str) -> Any:
        if part not in self._writers:
            self._writers[part] = self._writer_class(os.path.join(self.log_dir, part))
        return self._writers[part]

    def on_train_begin(self, logs: Any = None) -> None:
        self._step = int(self.model.optimizer.calls)
        self._batches = 0
        if self._profiled != (0, 0):
            path = Path(self.log_dir, timeline.NAME)
            self._window = timeline.Window(*self._profiled, path, world.communicator())

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._batches += 1
        if self._window is not None:
            self._window.before(self._batches)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._step += 1
        if self._window is not None:
            self._window.after(self._batches)
        if self._every and self._step % self._every == 0 and self._writes:
            for name, value in (logs or {}).items():
                self._writer("train").add_scalar(f"batch_{name}", value, self._step)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not self._writes:
            return
        for name, value in (logs or {}).items():
            part = "validation" if name.startswith("val_") else "train"
            self._writer(part).add_scalar(f"epoch_{name.removeprefix('val_')}", value, epoch)
        for name, rate in self._learning_rates().items():
            if name not in (logs or {}):
                self._writer("train").add_scalar(f"epoch_{name}", rate, epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            for path, variable in self.model.variable_paths().items():
                self._writer("train").add_histogram(path, variable.numpy(), epoch)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs: Any = None) -> None:
        if self._window is not None:
            self._window.end()
            self._window = None
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


def _first_and_last(batches: Any) -> tuple[int, int]:
    """The batches that ``profile_batch`` means; (0, 0) are none."""
    if isinstance(batches, str):
        batches = [int(number) for number in batches.split(",")]
    found = (batches, batches) if isinstance(batches, int) else tuple(batches)
    if len(found) == 1:
        found *= 2
    if len(found) != 2 or not 0 <= found[0] <= found[1]:
        raise ValueError(
            f"profile_batch is the number of a batch, or that of a first and a last one, not "
            f"{batches!r}"
        )
    return found
