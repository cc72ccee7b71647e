"""Event files for TensorBoard, through the optional package tensorboardX."""

from __future__ import annotations

import os
from typing import Any

from distgrad.keras.callbacks.base import Callback
from distgrad.training.tensorboard import summary_writer


class TensorBoard(Callback):
    """Writes the logs of each epoch below ``log_dir``, in ``train`` and ``validation``.

    ``update_freq`` is "epoch", "batch", or a number of batches after which those of the epoch so
    far are written, too; every ``histogram_freq`` epochs the distribution of each weight is.
    Graphs, images of weights, profiles and embeddings are not written: the arguments on them are
    taken for the sake of Keras's scripts. Raises MissingExtraError where tensorboardX is not
    installed.
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
        self.log_dir = os.fspath(log_dir)
        self.histogram_freq = histogram_freq
        self.update_freq = update_freq
        self._every = update_freq if isinstance(update_freq, int) else int(update_freq == "batch")
        self._writer_class = summary_writer()
        self._writers: dict[str, Any] = {}
        self._step = 0

    @property
    def wants_batch_logs(self) -> bool:
        return bool(self._every)

    def _writer(self, part: str) -> Any:
        if part not in self._writers:
            self._writers[part] = self._writer_class(os.path.join(self.log_dir, part))
        return self._writers[part]

    def on_train_begin(self, logs: Any = None) -> None:
        self._step = int(self.model.optimizer.calls)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._step += 1
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
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
