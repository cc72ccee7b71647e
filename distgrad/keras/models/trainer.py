"""What every model can do with data: compile, fit, evaluate, predict."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import worker_shards
from distgrad.core import recording
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import UsageError
from distgrad.core.tape import GradientTape
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.data import nest
from distgrad.keras import losses, metrics, optimizers
from distgrad.keras.callbacks import Callback, History, ProgressPrinter, progress_line
from distgrad.keras.layers.base import Layer, quiet
from distgrad.keras.models.feed import Feed, as_arrays, unpack_x_y_sample_weight
from distgrad.keras.models.objective import Objective, output_names
from distgrad.ops import random
from distgrad.training import world
from distgrad.training.evaluation import evaluate
from distgrad.training.loop import Cursor, Logs, TrainingLoop
from distgrad.training.reduction import ShardResult
from distgrad.training.step import TrainStep
from distgrad.training.turns import CustomStep, as_number, mean_values


class Trainer(Layer):
    """A layer with a training loop."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.optimizer: optimizers.Optimizer | None = None
        self.loss: Any = None
        self.stop_training = False
        self.objective: Objective | None = None
        self._class_weight: dict[int, float] | None = None
        self._counted = False
        self._running: list[Any] = []  # of train_on_batch: samples, loss, metric sums

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Chooses optimizer, losses and metrics, by name or object, for one output or several.

        ``metrics`` count all samples alike, ``weighted_metrics`` by their weights. The last four
        are taken for the sake of Keras's signature: how a step is run never changes what it gives.
        Raises ValueError for an unknown name.
        """
        self.optimizer = optimizers.get(optimizer)
        if auto_scale_loss and getattr(self, "dtype_policy", None) is not None:
            self.optimizer = optimizers.scaled_for(self.dtype_policy, self.optimizer)
        self.loss = losses.get(loss) if not isinstance(loss, (dict, list, tuple)) else loss
        self.objective = Objective(loss, loss_weights, metrics, weighted_metrics)
        self.reset_metrics()

    @property
    def metrics(self) -> list[metrics.Metric]:
        """The metrics of ``compile``, and those that are attributes of the model."""
        own = [m for value in vars(self).values() for m in _metrics_in(value)]
        compiled = [] if self.objective is None else self.objective.metrics
        return [*compiled, *(m for m in own if m not in compiled)]

    def reset_metrics(self) -> None:
        """Forgets the batches given to ``train_on_batch`` and ``test_on_batch``."""
        self._running = [0, 0.0, None]
        for metric in self.metrics:
            metric.reset_state()

    # What the training loop asks for.

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """The loss of a batch, with those that layers have added; models may define their own."""
        total, self._values, self._count = self._goal.total(y, y_pred, sample_weight, self.losses)
        return total

    @property
    def mean_loss(self) -> bool:
        return self._goal.is_mean

    @property
    def counted(self) -> bool:
        return self._counted

    @property
    def sums_size(self) -> int:
        return self._goal.sums_size

    def compute(self, arrays: tuple, training: bool) -> ShardResult:
        """Loss and metric sums of one shard: ``(x, y)`` or ``(x, y, sample_weight)``."""
        x, y, weight = unpack_x_y_sample_weight(arrays)
        if training and self._class_weight is not None:
            weight = _by_class(y, self._class_weight)
        self._values, self._count = [None] * len(self._goal.losses), 0.0
        prediction = self(x, training=training)
        loss = self.compute_loss(x, y, prediction, weight, training)
        sums = self._goal.sums(y, prediction, weight, self._values)
        return ShardResult(loss, sums, self._count)

    def results(self, loss: float, sums: np.ndarray) -> Logs:
        """The loss and the metrics by name, for their summed statistics."""
        return self._goal.results(loss, sums)

    @property
    def _goal(self) -> Objective:
        if self.objective is None:
            raise ValueError("call compile(optimizer=..., loss=...) before training or evaluating")
        return self.objective

    def prepare(self, first: tuple[Any, ...]) -> None:
        """Makes the weights by a look at one ``(x, ...)``, and learns what outputs there are."""
        x, _, weight = unpack_x_y_sample_weight(first)
        with recording.paused(), quiet(self):
            prediction = self(x, training=False)
        self._goal.bind(output_names(prediction, getattr(self, "output_names", ())))
        masked = any(
            getattr(each, "_keras_mask", None) is not None
            for each in self._goal.outputs(prediction)
        )
        self._counted = self._goal.counted(masked, weight is not None)

    # Steps that a model may define in place of the built-in ones.

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step on one shard; a model may define its own, on ``data`` as fit was given it.

        Returns named values, which are averaged over the samples. Gradients that it applies are
        those of the whole batch: the shards of all workers meet there.
        """
        x, y, weight = unpack_x_y_sample_weight(data)
        with GradientTape() as tape:
            prediction = self(x, training=True)
            loss = self.compute_loss(x, y, prediction, weight, True)
        optimizer = self.optimizer
        assert optimizer is not None
        gradients = tape.gradient(optimizer.scale_loss(loss), self.trainable_variables)
        optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return self._shard_values(loss, y, prediction, weight)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Named values of one shard in ``evaluate``; a model may define its own."""
        x, y, weight = unpack_x_y_sample_weight(data)
        prediction = self(x, training=False)
        loss = self.compute_loss(x, y, prediction, weight, False)
        return self._shard_values(loss, y, prediction, weight)

    def predict_step(self, data: Any) -> Any:
        """The outputs for a batch of inputs; a model may define its own."""
        x, _, _ = unpack_x_y_sample_weight(data)
        return self(x, training=False)

    def _shard_values(self, loss: Tensor, y: Any, prediction: Any, weight: Any) -> Logs:
        sums = self._goal.sums(y, prediction, weight, self._values)
        return self._goal.results(float(loss), sums)

    def _overrides(self, name: str) -> bool:
        return getattr(type(self), name) is not getattr(Trainer, name)

    def _numbers(
        self, step: Callable[[Any], dict[str, Any]]
    ) -> Callable[[tuple], dict[str, float]]:
        """A user's step on one shard, the values that it returns as numbers."""

        def run(arrays: tuple) -> dict[str, float]:
            if self._class_weight is not None:
                arrays = (*arrays[:2], _by_class(arrays[1], self._class_weight))
            values = step(arrays if len(arrays) > 1 else arrays[0])
            return {name: as_number(name, value) for name, value in values.items()}

        return run

    def _make_step(self, communicator: Communicator, shards: int, seed: int) -> Any:
        if self.optimizer is None or (
            not self._overrides("train_step")
            and not self._goal.has_loss
            and not self._overrides("compute_loss")
            and not self.losses
        ):
            raise ValueError("there is no loss to train with: give one to compile")
        if self._overrides("train_step"):
            return CustomStep(
                self._numbers(self.train_step),
                communicator,
                shards,
                seed,
                state=self.variables,
                metrics=lambda: self.metrics,
                mean_loss=self.mean_loss,
            )
        return TrainStep(
            self.compute,
            self.sums_size,
            self.trainable_variables,
            self.optimizer,
            communicator,
            shards,
            seed,
            state=self.non_trainable_variables,
            mean_loss=self.mean_loss,
            counted=self.counted,
            stop_on_nan=False,
        )

    # Training

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
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Sequence[int] = 1,
    ) -> History:
        """Trains for a number of epochs; returns the history of losses and metrics.

        ``x`` is an array, a nest of them, or a dataset, generator or sequence of whole batches.
        Where several workers run the script, each is given all of it, and trains on its own shards
        of every batch. Raises ValueError where the model is not compiled, or data do not fit.
        """
        self._goal  # noqa: B018  raises where the model is not compiled
        if class_weight is not None and sample_weight is not None:
            raise ValueError("class_weight and sample_weight cannot be given together")
        feed = Feed(x, y, sample_weight, batch_size)
        held: Feed | None = None
        if validation_split and validation_data is None:
            held = feed.split(validation_split)
        elif validation_data is not None:
            held = _held_out(validation_data, validation_batch_size or batch_size)
        self._class_weight = class_weight
        self.prepare(feed.first)
        if class_weight is not None:
            self._counted = self._goal.counted(False, True)
        communicator, shards = world.communicator(), world.virtual_shards()
        own = worker_shards(shards, communicator.rank, communicator.world_size)
        optimizer = self.optimizer
        assert optimizer is not None
        seed = int(random.uniform((), 0, 2**31 - 1, dtype="int64"))
        if not self._overrides("train_step"):
            optimizer.build(self.trainable_variables)
        said = (*feed.describe(), epochs, steps_per_epoch, shards)
        seed = _agree(communicator, said, seed, [*self.variables, *optimizer.variables])
        loader = feed.loader(shards, own, seed, shuffle, steps_per_epoch)
        step = self._make_step(communicator, shards, seed)
        given = list(getattr(callbacks, "callbacks", callbacks) or ())
        validate = None
        if held is not None:
            chosen = held
            frequency = validation_freq

            def validate(epoch: int) -> Logs:
                due = (
                    (epoch + 1) % frequency == 0
                    if isinstance(frequency, int)
                    else epoch + 1 in frequency
                )
                if not due:
                    return {}
                logs, _ = self._evaluate(chosen, validation_steps, given)
                return {f"val_{name}": value for name, value in logs.items()}

        self.stop_training = False
        loop = TrainingLoop(
            step,
            loader,
            step.results if isinstance(step, CustomStep) else self.results,
            cursor=Cursor(epoch=initial_epoch, step=int(optimizer.iterations._buffer)),
            validate=validate,
            should_stop=lambda: self._all_agree(communicator),
            should_cut=lambda: self.stop_training,
        )
        history = History()
        params = {
            "epochs": epochs,
            "steps": loader.steps_per_epoch,
            "verbose": verbose,
            "rank": communicator.rank,
        }
        for callback in (*given, history):  # in this order: callbacks may add to logs
            callback.set_model(self)
            callback.set_params(dict(params))
            loop.observers.append(callback)
        if verbose not in (0, False) and communicator.rank == 0:
            live = False if verbose == 2 else None
            loop.observers.append(ProgressPrinter(epochs, loop, live))
        try:
            loop.run(epochs)
        finally:
            self._class_weight = None
        if optimizer.built:
            optimizer.finalize_variable_values(optimizer.trained)
        self.history = history
        return history

    def _all_agree(self, communicator: Communicator) -> bool:
        """Whether any rank's callbacks want to stop: all ranks then do."""
        asked = np.array([int(self.stop_training)], np.int64)
        communicator.allreduce(asked, "max")
        self.stop_training = bool(asked[0])
        return self.stop_training

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: dict[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """One step on one batch; loss and metrics over all batches since ``reset_metrics``."""
        if class_weight is not None and sample_weight is not None:
            raise ValueError("class_weight and sample_weight cannot be given together")
        feed = Feed(x, y, sample_weight)
        feed.batch_size = feed.size
        self._class_weight = class_weight
        self.prepare(feed.first)
        communicator, shards = world.communicator(), world.virtual_shards()
        own = worker_shards(shards, communicator.rank, communicator.world_size)
        step = self._batch_step(communicator, shards)
        (batch,) = feed.loader(shards, own).epoch(0)
        assert self.optimizer is not None
        result = step(int(self.optimizer.iterations._buffer), batch)
        self._class_weight = None
        results = step.results if isinstance(step, CustomStep) else self.results
        return self._batch_logs(result.loss, result.sums, batch.size, results, return_dict)

    def _batch_step(self, communicator: Communicator, shards: int) -> Any:
        key = (id(self.optimizer), shards, tuple(map(id, self.trainable_variables)))
        if getattr(self, "_kept_step", (None,))[0] != key:
            seed = int(random.uniform((), 0, 2**31 - 1, dtype="int64"))
            seed = _agree(communicator, key[1:2], seed, self.variables)
            self._kept_step = key, self._make_step(communicator, shards, seed)
        return self._kept_step[1]

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Loss and metrics on one batch, over all batches since ``reset_metrics``."""
        feed = Feed(x, y, sample_weight, None)
        feed.batch_size = feed.size
        self.prepare(feed.first)
        if self._overrides("test_step"):
            logs, _ = self._evaluate(feed, None, ())
            return logs if return_dict else _as_list(logs)
        loss, sums, size = self._sums_over(feed, None, ())
        return self._batch_logs(loss, sums, size, self.results, return_dict)

    def _batch_logs(
        self, loss: float, sums: np.ndarray, size: int, results: Any, return_dict: bool
    ) -> Any:
        seen, total, known = self._running
        sums = sums if known is None else known + sums
        self._running = [seen + size, total + loss * size, sums]
        logs = results(self._running[1] / self._running[0], sums)
        return logs if return_dict else _as_list(logs)

    # Evaluating

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Sequence[Callback] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """Loss and metrics: a list (a float where there is only the loss), or a dict.

        Where several workers run the script all of them must call it: each takes its shards.
        """
        self._goal  # noqa: B018
        feed = Feed(x, y, sample_weight, batch_size)
        self.prepare(feed.first)
        began = time.monotonic()
        communicator = world.communicator()
        for callback in callbacks or ():
            callback.set_model(self)
            callback.set_params({"verbose": verbose, "rank": communicator.rank, "steps": steps})
        logs, steps = self._evaluate(feed, steps, callbacks or ())
        if verbose not in (0, False) and communicator.rank == 0:
            print(progress_line(steps, steps, time.monotonic() - began, logs), flush=True)
        return dict(logs) if return_dict else _as_list(logs)

    def _evaluate(
        self, feed: Feed, steps: int | None, callbacks: Iterable[Callback]
    ) -> tuple[Logs, int]:
        """Named values over a feed, and the number of its batches."""
        if self._overrides("test_step"):
            return self._run_test_steps(feed, steps, callbacks)
        count = _Counter(callbacks)
        loss, sums, _ = self._sums_over(feed, steps, count)
        logs = self.results(loss, sums)
        count.end(logs)
        return logs, count.batches

    def _sums_over(
        self, feed: Feed, steps: int | None, watch: Any
    ) -> tuple[float, np.ndarray, int]:
        communicator, shards = world.communicator(), world.virtual_shards()
        own = worker_shards(shards, communicator.rank, communicator.world_size)
        watch = watch if isinstance(watch, _Counter) else _Counter(watch)
        loss, sums = evaluate(
            self.compute,
            self.sums_size,
            watch(feed.loader(shards, own, steps=steps).epoch(0)),
            communicator,
            shards,
            mean_loss=self.mean_loss,
            counted=self.counted,
        )
        return loss, sums, watch.samples

    def _run_test_steps(
        self, feed: Feed, steps: int | None, callbacks: Iterable[Callback]
    ) -> tuple[Logs, int]:
        """A user's own ``test_step`` on every shard: means over the samples, by name."""
        communicator, shards = world.communicator(), world.virtual_shards()
        own = worker_shards(shards, communicator.rank, communicator.world_size)
        run, watch = self._numbers(self.test_step), _Counter(callbacks)
        totals: Logs = {}
        for batch in watch(feed.loader(shards, own, steps=steps).epoch(0)):
            found = {}
            for index, arrays in batch.shards:
                for metric in self.metrics:
                    metric.reset_state()
                found[index] = run(arrays)
            everyone = communicator.allgather_object(found)
            for name, value in mean_values(everyone, batch).items():
                totals[name] = totals.get(name, 0.0) + value * batch.size
        logs = {name: total / watch.samples for name, total in totals.items()}
        watch.end(logs)
        return logs, watch.batches

    # Predicting

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Sequence[Callback] | None = None,
    ) -> Any:
        """Outputs for all samples, in order: an array, or a nest of them. Each worker does all."""
        feed = Feed(x, batch_size=batch_size)
        parts: list[Any] = []
        for callback in callbacks or ():
            callback.set_model(self)
            callback.on_predict_begin()
        for number, batch in enumerate(feed.loader(1, range(1), steps=steps).epoch(0)):
            for callback in callbacks or ():
                callback.on_predict_batch_begin(number)
            ((_, arrays),) = batch.shards
            parts.append(_host(self.predict_step(arrays)))
            for callback in callbacks or ():
                callback.on_predict_batch_end(number, {"outputs": parts[-1]})
        for callback in callbacks or ():
            callback.on_predict_end()
        found = nest.map_leaves(lambda *arrays: np.concatenate(arrays), *parts)
        return list(found) if type(found) is tuple else found

    def predict_on_batch(self, x: Any) -> Any:
        """Outputs for one batch of inputs, as arrays."""
        found = _host(self.predict_step((as_arrays(x),)))
        return list(found) if type(found) is tuple else found


class _Counter:
    """Batches as they pass, told to callbacks."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self.callbacks = list(callbacks)
        self.batches = self.samples = 0

    def __call__(self, batches: Iterable[Any]) -> Iterable[Any]:
        for callback in self.callbacks:
            callback.on_test_begin()
        for batch in batches:
            for callback in self.callbacks:
                callback.on_test_batch_begin(self.batches)
            yield batch
            for callback in self.callbacks:
                callback.on_test_batch_end(self.batches)
            self.batches += 1
            self.samples += batch.size

    def end(self, logs: Logs) -> None:
        for callback in self.callbacks:
            callback.on_test_end(logs)


def _agree(
    communicator: Communicator, said: Sequence[Any], seed: int, variables: Sequence[Variable]
) -> int:
    """Gives every rank the seed and the values of rank 0, once all say that they do the same.

    Raises UsageError where a rank was given something else.
    """
    if communicator.world_size == 1:
        return seed
    told = (tuple(said), [tuple(variable.shape) for variable in variables])
    for rank, other in enumerate(communicator.allgather_object(told)):
        if other != told:
            raise UsageError(
                f"rank {rank} trains on {other}, rank {communicator.rank} on {told}: every worker "
                "must give fit the same model and the whole data; it takes its own part of them"
            )
    for variable in variables:
        value = np.array(variable.numpy())
        communicator.broadcast(value)
        variable.assign(value)
    return communicator.broadcast_object(seed)


def _held_out(data: Any, batch_size: int | None) -> Feed:
    if isinstance(data, (tuple, list)):
        x, y, weight = unpack_x_y_sample_weight(data)
        return Feed(x, y, weight, batch_size)
    return Feed(data)


def _as_list(logs: Logs) -> Any:
    """As Keras orders them: the loss, those of the outputs, the metrics."""
    return list(logs.values()) if len(logs) > 1 else next(iter(logs.values()))


def _by_class(y: Any, weights: dict[int, float]) -> np.ndarray:
    """The weight of each sample: 1 for classes that have none."""
    labels = np.asarray(y)
    if labels.ndim > 1 and labels.shape[-1] > 1:
        labels = labels.argmax(axis=-1)
    labels = labels.reshape(len(labels), -1)[:, 0]
    return np.array([weights.get(int(label), 1.0) for label in labels], np.float32)


def _metrics_in(value: Any) -> Iterable[metrics.Metric]:
    if isinstance(value, metrics.Metric):
        return [value]
    if isinstance(value, (list, tuple)):
        return [each for each in value if isinstance(each, metrics.Metric)]
    return []


def _host(outputs: Any) -> Any:
    if isinstance(outputs, dict):
        return {name: _host(part) for name, part in outputs.items()}
    if isinstance(outputs, (list, tuple)):
        return tuple(map(_host, outputs))
    return as_tensor(outputs)._host()
