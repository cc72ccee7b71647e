"""BackupAndRestore: a fit that is started again goes on where it was cut off."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distgrad.core.user_line import warn
from distgrad.keras.callbacks.base import Callback
from distgrad.training import checkpoint
from distgrad.training.loop import Cursor, TrainingLoop

Known = dict[str, dict[str, Any]]  # the state of callbacks, by their places and classes


class Begun(NamedTuple):
    """Where a run was when its last checkpoint was written."""

    seed: int
    cursor: dict[str, Any]
    metrics: list[np.ndarray]  # what those of a user's own had found in the epoch
    callbacks: Known
    stopped: bool  # whether a callback had ended the training


class BackupAndRestore(Callback):
    """Keeps a checkpoint in ``backup_dir``, from which the same ``fit`` goes on after a crash.

    It is written after every epoch, or every ``save_freq`` batches, whole or not at all, by one
    worker; a damaged one is named, and the one before it is used (``double_checkpoint`` keeps two).
    It holds weights, the optimizer's state, the place in the data, the seed of the shuffles, and
    what other callbacks know (their ``state_names``): the run goes on to the bits of one that was
    not cut off. Wherever it stands among the callbacks, it comes last. At the end the checkpoint is
    removed (``delete_checkpoint``). Raises ValueError for no folder and for another ``save_freq``.
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
        self._others: Sequence[Callback] = ()
        self._known: Known = {}

    # What fit asks, before and once it has made its loop.

    def restore(self, model: Any) -> Begun | None:
        """Gives a built model what the newest checkpoint holds, and returns the rest of it.

        That is None where there is no checkpoint. Raises DataError where none is whole, ValueError
        for one of another model.
        """
        from distgrad.keras.models import saving, weights_h5

        found = checkpoint.load_newest(Path(self.backup_dir), lambda text: warn(text))
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
        told, arrays = found.state, found.arrays.get("callbacks", {})
        known = {
            key: {name: _unpacked(value, arrays) for name, value in values.items()}
            for key, values in told.get("callbacks", {}).items()
        }
        stopped = told.get("stopped", False)
        if stopped:
            warn(
                f"a callback had ended the training whose backup is {self.backup_dir}: it does not "
                "go on; remove the folder to begin anew"
            )
        return Begun(told["seed"], told["cursor"], own, known, stopped)

    def watch(
        self, loop: TrainingLoop, seed: int, others: Sequence[Callback], known: Known
    ) -> None:
        """Says which loop runs, its seed, and beside which callbacks, with what they knew."""
        self._loop, self._seed, self._others, self._known = loop, seed, others, known

    @property
    def wants_batch_logs(self) -> bool:
        return False

    def on_train_begin(self, logs: Any = None) -> None:
        for key, callback in self._named():  # they have begun: each has forgotten what it knew
            for name, value in self._known.get(key, {}).items():
                setattr(callback, name, value)
        self._known = {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._batches += 1
        if self.save_freq != "epoch" and self._batches >= int(self.save_freq):
            assert self._loop is not None
            self._save(self._loop.cursor, stopped=False)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.save_freq == "epoch":
            assert self._loop is not None
            following = replace(self._loop.cursor)
            following.start_epoch(epoch + 1)
            self._save(following, stopped=self.model.stop_training)

    def _named(self) -> Iterator[tuple[str, Callback]]:
        for place, callback in enumerate(self._others):
            if getattr(callback, "state_names", ()):
                yield f"{place} {type(callback).__name__}", callback

    def _save(self, cursor: Cursor, *, stopped: bool) -> None:
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
        kept: dict[str, np.ndarray] = {}
        known = {
            key: {name: _packed(getattr(each, name), kept) for name in each.state_names}
            for key, each in self._named()
        }
        if kept:
            arrays["callbacks"] = kept
        state = {
            "seed": self._seed,
            "cursor": asdict(cursor),
            "callbacks": known,
            "stopped": stopped,
        }
        keep = 2 if self.double_checkpoint else 1
        checkpoint.save(Path(self.backup_dir), cursor.step, arrays, state, keep)

    def on_train_end(self, logs: Any = None) -> None:
        if self.delete_checkpoint and self._writes:
            checkpoint.remove(Path(self.backup_dir))


def _packed(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A value as JSON takes it; arrays in it are put among the others."""
    if isinstance(value, (list, tuple)):
        return [_packed(each, arrays) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    array, number = np.asarray(value), str(len(arrays))
    if array.dtype.kind == "O":
        raise TypeError(
            "state_names of a callback name None, numbers, texts, arrays and lists of them, which "
            f"a backup can keep, not {value!r}"
        )
    arrays[number] = array
    return {"array": number}


def _unpacked(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_unpacked(each, arrays) for each in value]
    return arrays[value["array"]] if isinstance(value, dict) else value
