"""What every model can do with data: compile, fit, evaluate, predict."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import worker_shards
from distgrad.core import recording
from distgrad.core.tensor import Tensor
from distgrad.data.loader import Loader
from distgrad.data.source import ArraySource
from distgrad.keras import losses, metrics, optimizers
from distgrad.keras.callbacks import Callback, History, ProgressPrinter, progress_line
from distgrad.keras.layers.base import Layer
from distgrad.ops import random
from distgrad.training.loop import Cursor, Logs, TrainingLoop
from distgrad.training.step import TrainStep, evaluate


class Trainer(Layer):
    """A layer with a training loop."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.optimizer: optimizers.Optimizer | None = None
        self.loss: Any = None
        self.metrics: list[metrics.Metric] = []
        self.stop_training = False
        self._compiled = False

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        metrics: Sequence[Any] | None = None,
    ) -> None:
        """Chooses optimizer, loss and metrics, by name or object.

        Raises ValueError for an unknown name.
        """
        from distgrad.keras import metrics as metric_room

        self.optimizer = optimizers.get(optimizer)
        self.loss = losses.get(loss)
        self.metrics = [metric_room.get(metric, self.loss) for metric in metrics or ()]
        self._compiled = True

    # What the training loop asks for.

    @property
    def mean_loss(self) -> bool:
        return self.loss.reduction != "sum"

    @property
    def sums_size(self) -> int:
        return sum(metric.size for metric in self.metrics)

    def compute(self, arrays: tuple, training: bool) -> tuple[Tensor, np.ndarray]:
        """Loss and metric sums of one shard: ``(x, y)`` or ``(x, y, sample_weight)``."""
        x, y, *weight = arrays
        prediction = self(x, training=training)
        loss = self.loss(y, prediction, *weight)
        with recording.paused():
            sums = [metric.sums(y, prediction, *weight) for metric in self.metrics]
        return loss, np.concatenate(sums) if sums else np.zeros(0)

    def results(self, sums: np.ndarray) -> Logs:
        """Named metric values for their summed statistics."""
        named, start = {}, 0
        for metric in self.metrics:
            named[metric.name] = metric.value(sums[start : start + metric.size])
            start += metric.size
        return named

    def _need_compiled(self) -> None:
        if not self._compiled or self.optimizer is None or self.loss is None:
            raise ValueError("call compile(optimizer=..., loss=...) before training or evaluating")

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Sequence[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
    ) -> History:
        """Trains on arrays for a number of epochs; returns the history of losses and metrics.

        Raises ValueError where the model is not compiled or the lengths of the arrays differ.
        """
        self._need_compiled()
        arrays = _arrays(x, y, sample_weight, class_weight)
        if validation_split:
            if not 0 < validation_split < 1:
                raise ValueError(f"validation_split must lie in (0, 1), not {validation_split}")
            cut = int(len(arrays[0]) * (1 - validation_split))
            validation_data = tuple(array[cut:] for array in arrays)
            arrays = tuple(array[:cut] for array in arrays)
        source = ArraySource(*arrays)
        self.build((None, *arrays[0].shape[1:]))
        communicator = Communicator()
        shards = communicator.world_size
        own = worker_shards(shards, communicator.rank, communicator.world_size)
        seed = int(random.uniform((), 0, 2**31 - 1, dtype="int64"))
        loader = Loader(source, batch_size or 32, shards, own, seed, shuffle)
        step = TrainStep(
            self.compute,
            self.sums_size,
            self.trainable_variables,
            self.optimizer,  # type: ignore[arg-type]
            communicator,
            shards,
            seed,
            mean_loss=self.mean_loss,
            stop_on_nan=False,
        )
        self.stop_training = False
        loop = TrainingLoop(
            step,
            loader,
            self.results,
            cursor=Cursor(epoch=initial_epoch, step=int(self.optimizer.iterations._buffer)),  # type: ignore[union-attr]
            validate=self._validation(validation_data, batch_size or 32),
            should_stop=lambda: self.stop_training,
            should_cut=lambda: self.stop_training,
        )
        history = History()
        params = {
            "epochs": epochs,
            "steps": loader.steps_per_epoch,
            "verbose": verbose,
            "rank": communicator.rank,
        }
        for callback in (*(callbacks or ()), history):  # in this order: callbacks may add to logs
            callback.set_model(self)
            callback.set_params(dict(params))
            loop.observers.append(callback)
        if verbose not in (0, False):
            live = False if verbose == 2 else None
            loop.observers.append(ProgressPrinter(epochs, loop, live))
        loop.run(epochs)
        self.optimizer.finalize_variable_values(self.trainable_variables)  # type: ignore[union-attr]
        return history

    def _validation(self, data: Any, batch_size: int) -> Any:
        if data is None:
            return None

        def validate() -> Logs:
            x, y, weight = (*data, None)[:3]
            logs = self.evaluate(x, y, weight, batch_size, verbose=0, return_dict=True)
            return {f"val_{name}": value for name, value in logs.items()}

        return validate

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        sample_weight: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        return_dict: bool = False,
    ) -> Any:
        """Loss and metrics on arrays: a list (a float where there is only the loss), or a dict."""
        self._need_compiled()
        arrays = _arrays(x, y, sample_weight, None)
        self.build((None, *arrays[0].shape[1:]))
        began = time.monotonic()
        loader = Loader(ArraySource(*arrays), batch_size or 32, 1, range(1), 0, shuffle=False)
        loss, sums = evaluate(
            self.compute,
            self.sums_size,
            loader.epoch(0),
            Communicator(),
            1,
            mean_loss=self.mean_loss,
        )
        logs = {"loss": loss, **self.results(sums)}
        if verbose not in (0, False):
            steps = loader.steps_per_epoch
            print(progress_line(steps, steps, time.monotonic() - began, logs), flush=True)
        if return_dict:
            return logs
        return list(logs.values()) if len(logs) > 1 else loss

    def predict(self, x: Any, batch_size: int | None = None, verbose: Any = "auto") -> np.ndarray:
        """Outputs for the samples of ``x``, in order, as one array."""
        (data,) = _arrays(x, None, None, None)
        size = batch_size or 32
        parts = [
            self(data[start : start + size], training=False)._host()
            for start in range(0, max(len(data), 1), size)
        ]
        return np.concatenate(parts)


def _arrays(x: Any, y: Any, sample_weight: Any, class_weight: Any) -> tuple[np.ndarray, ...]:
    if x is None:
        raise ValueError("no data: x is None")
    arrays = [np.asarray(x)]
    if y is not None:
        arrays.append(np.asarray(y))
        if class_weight is not None:
            by_class = np.array([class_weight.get(int(c), 1.0) for c in arrays[1].ravel()])
            given = 1.0 if sample_weight is None else np.asarray(sample_weight)
            sample_weight = by_class.reshape(len(arrays[1]), -1)[:, 0] * given
    if sample_weight is not None:
        arrays.append(np.asarray(sample_weight, dtype=np.float32))
    lengths = {len(array) for array in arrays}
    if len(lengths) > 1:
        raise ValueError(f"x, y and weights differ in length: {sorted(lengths)}")
    return tuple(arrays)
