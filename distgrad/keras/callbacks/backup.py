"""BackupAndRestore: a fit that is started again goes on where it was cut off."""

from __future__ import annotations

import os
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.keras.callbacks.base import Callback
from distgrad.training import checkpoint
from distgrad.training.loop import Cursor, TrainingLoop


class BackupAndRestore(Callback):
    """Keeps a checkpoint in ``backup_dir``, from which the same ``fit`` goes on after a crash.

    It is written after every epoch, or every ``save_freq`` batches, whole or not at all, by one
    worker; a damaged one is named, and the one before it is used (``double_checkpoint`` keeps two).
    It holds weights, the optimizer's state, the place in the data and the seed of the shuffles: the
    run goes on to the bits of one that was not cut off. At the end it is removed
    (``delete_checkpoint``). Raises ValueError for no folder and for another ``save_freq``.
    """

    resumes_fit = True

    def __init__(
        self,
        backup_dir: str | os.PathLike[str],
        save_freq: str | int = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ) -> None:
        super().__init__()
        if not backup_dir:
            raise ValueError("Empty `backup_dir` argument passed")
        if save_freq != "epoch" and (not isinstance(save_freq, int) or save_freq < 1):
            raise ValueError(
                f"Invalid value for argument `save_freq`. Received: save_freq={save_freq}. "
                "Expected either 'epoch' or an integer value."
            )
        self.backup_dir = os.fspath(backup_dir)
        self.save_freq = save_freq
        self.double_checkpoint = double_checkpoint
        self.delete_checkpoint = delete_checkpoint
        self._loop: TrainingLoop | None = None
        self._seed = self._batches = 0

    # What fit asks, before and once it has made its loop.

    def restore(self, model: Any) -> tuple[int, dict[str, Any], list[np.ndarray]] | None:
        """Gives a built model what the newest checkpoint holds.

        Returns the seed and cursor of its run, and what metrics of a user's own had found in the
        epoch; None where there is none. Raises DataError where none is whole, ValueError for one of
        another model.
        """
        from distgrad.keras.models import saving, weights_h5

        found = checkpoint.load_newest(
            Path(self.backup_dir), lambda text: warnings.warn(text, stacklevel=2)
        )
        if found is None:
            return None
        optimizer = model.optimizer
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        state = {int(number): value for number, value in found.arrays["optimizer"].items()}
        pairs = saving.by_path(model, found.arrays["model"])
        pairs += weights_h5.optimizer_assignments(model, {"optimizer": state})
        for variable, array in pairs:
            variable._store(array)
        metrics = found.arrays.get("metrics", {})
        own = [metrics[name] for name in sorted(metrics, key=int)]
        return found.state["seed"], found.state["cursor"], own

    def watch(self, loop: TrainingLoop, seed: int) -> None:
        """Says which loop is running, and what its shuffles and its dropout follow from."""
        self._loop, self._seed = loop, seed

    @property
    def wants_batch_logs(self) -> bool:
        return False

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._batches += 1
        if self.save_freq != "epoch" and self._batches >= int(self.save_freq):
            assert self._loop is not None
            self._save(self._loop.cursor)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.save_freq == "epoch":
            assert self._loop is not None
            following = replace(self._loop.cursor)
            following.start_epoch(epoch + 1)
            self._save(following)

    def _save(self, cursor: Cursor) -> None:
        self._batches = 0
        if not self._writes:
            return
        slots = self.model.optimizer.variables
        arrays = {
            "model": {p: np.asarray(v.numpy()) for p, v in self.model.variable_paths().items()},
            "optimizer": {str(i): np.asarray(v.numpy()) for i, v in enumerate(slots)},
        }
        own = self.model.metrics_that_go_on()
        if own:
            arrays["metrics"] = {str(i): metric.statistics() for i, metric in enumerate(own)}
        state = {"seed": self._seed, "cursor": asdict(cursor)}
        keep = 2 if self.double_checkpoint else 1
        checkpoint.save(Path(self.backup_dir), cursor.step, arrays, state, keep)

    def on_train_end(self, logs: Any = None) -> None:
        if self.delete_checkpoint and self._writes:
            checkpoint.remove(Path(self.backup_dir))
