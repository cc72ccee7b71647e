"""What every model can do with data: compile, evaluate, predict."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.core import recording
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import is_floating, is_number
from distgrad.core.tensor import Tensor
from distgrad.data import nest
from distgrad.keras import optimizers
from distgrad.keras.backend import floatx
from distgrad.keras.callbacks import Callback, progress_line
from distgrad.keras.layers.base import Layer, quiet
from distgrad.keras.layers.tracking import settled
from distgrad.keras.metrics.base import one_by_one
from distgrad.keras.models import arguments
from distgrad.keras.models.feed import Feed, as_arrays, unpack_x_y_sample_weight
from distgrad.keras.models.objective import CompiledMetrics, Objective, output_names
from distgrad.ops.casting import cast
from distgrad.ops.host import on_host
from distgrad.training import state, world
from distgrad.training.evaluation import evaluate
from distgrad.training.loop import Logs
from distgrad.training.programs import Jit
from distgrad.training.reduction import ShardResult
from distgrad.training.returned import Returned
from distgrad.training.turns import CustomStep


class Evaluator(Layer):
    """A layer that is compiled with losses and metrics, evaluated, and asked to predict."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.optimizer: optimizers.Optimizer | None = None
        self.loss: Any = None
        self.stop_training = False
        self.objective: Objective | None = None
        self.adds_losses = False  # whether its layers do, in a call
        self._class_weight: dict[int, float] | None = None
        self._counted = False
        self.run_eagerly = False
        self._of_arrays = True
        self.jit_compile: Any = "auto"

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

        ``metrics`` count all samples alike, ``weighted_metrics`` by their weights.
        ``jit_compile``: "auto" captures training steps and runs them eagerly where that cannot be
        done, True raises CaptureError there, False runs them eagerly, as ``run_eagerly`` does.
        ``steps_per_execution`` is taken for the sake of Keras's signature. Raises ValueError for
        an unknown name, and for a step that is to be eager and compiled.
        """
        if jit_compile not in ("auto", True, False, None):
            raise ValueError(f"jit_compile must be True, False or 'auto', not {jit_compile!r}")
        if run_eagerly and jit_compile is True:
            raise ValueError("a step cannot run both eagerly and compiled: choose one")
        self.run_eagerly, self.jit_compile = bool(run_eagerly), jit_compile
        self._compiled_with = {
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        self.optimizer = optimizers.get(optimizer)
        if auto_scale_loss and getattr(self, "dtype_policy", None) is not None:
            self.optimizer = optimizers.scaled_for(self.dtype_policy, self.optimizer)
        self.loss, self.steps_per_execution = loss, steps_per_execution
        self.objective = Objective(loss, loss_weights, metrics, weighted_metrics)
        # Not `reset_metrics`: metrics of one's own may be made after this, and asked for there.
        for metric in (self.objective.loss_tracker, *self.objective.metrics):
            metric.reset_state()

    @property
    def compiled(self) -> bool:
        """Whether ``compile`` was called."""
        return self.objective is not None

    @property
    def _jit(self) -> Jit:
        if self.run_eagerly or not self.jit_compile:
            return "off"
        return "strict" if self.jit_compile is True else "auto"

    @property
    def metrics(self) -> list[Any]:
        """The mean of the loss, as one all those of ``compile``, and metrics that are attributes of
        the model or of layers below it.

        Steps of one's own give them the loss of a batch, and targets and predictions.
        """
        if self.objective is None:
            return super().metrics
        compiled = [CompiledMetrics(self.objective)] if self.objective.metrics else []
        return [self.objective.loss_tracker, *compiled, *self._own_metrics()]

    def _own_metrics(self) -> list[Any]:
        """Those that are attributes of the model or of layers below it."""
        compiled = [] if self.objective is None else self.objective.metrics
        return [m for m in super().metrics if not any(m is each for each in compiled)]

    def _each_metric(self) -> list[Any]:
        return one_by_one(self.metrics)

    @property
    def metrics_names(self) -> list[str]:
        """The names of what ``evaluate`` returns, once the model has seen data."""
        if self.objective is None:
            return []
        return self._in_order([*self.objective.shown, *(m.name for m in self._own_metrics())])

    def _in_order(self, shown: Iterable[str]) -> list[str]:
        """Names as ``evaluate`` lists them: the loss, metrics by names of their own, the rest."""
        goal = self._goal
        first = ["loss", *goal.own_names, *(m.name for m in self._each_metric())]
        known = [name for name in dict.fromkeys(first) if name in shown]
        return known + sorted(set(shown).difference(known))

    def reset_metrics(self) -> None:
        """Lets all metrics forget what they were given."""
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

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Gives a batch to the metrics of ``compile``; the results of all metrics, by name."""
        self._goal.update_metrics(y, y_pred, sample_weight)
        return self.get_metrics_result()

    def get_metrics_result(self) -> dict[str, Any]:
        """What all metrics say of the batches that they were given, by name."""
        compiled = {} if self.objective is None else self.objective.named()
        shown = {id(metric): name for name, metric in compiled.items()}
        return {shown.get(id(m), m.name): m.result() for m in self._each_metric()}

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
            weight = on_host(by_class, y, self._class_weight)
        self._values, self._count = [None] * len(self._goal.losses), 0.0
        prediction = self(x, training=training)
        loss = self.compute_loss(x, y, prediction, weight, training)
        sums = self._goal.sums(y, prediction, weight, self._values)
        return ShardResult(loss, sums, self._count)

    def results(self, loss: float, sums: np.ndarray) -> Logs:
        """The loss and the metrics by name, for their summed statistics, which they then have."""
        self._goal.keep(loss, sums)
        return self._goal.results(loss, sums)

    @property
    def _goal(self) -> Objective:
        if self.objective is None:
            raise ValueError("call compile(optimizer=..., loss=...) before training or evaluating")
        return self.objective

    def prepare(self, first: tuple[Any, ...], *, of_arrays: bool = True) -> None:
        """Makes the weights by a look at one ``(x, ...)``, and learns what outputs there are.

        ``of_arrays``: whether they come from arrays, whose floats steps of one's own get as floatx.
        A model with a step of its own need not have a ``call`` that takes what its step does.
        """
        x, _, weight = unpack_x_y_sample_weight(first)
        self._of_arrays = of_arrays
        try:
            with recording.paused(), quiet(self):
                prediction = self(x, training=False)
                self.adds_losses = bool(self.losses)
        except Exception:
            own_steps = [name for name in ("train_step", "test_step") if self._overrides(name)]
            if not own_steps:
                raise
            if not all(layer.built for layer in self._below() if layer is not self):
                self._build_by(getattr(self, own_steps[0]), first)
            return
        self._goal.bind(output_names(prediction, getattr(self, "output_names", ())))
        outputs = self._goal.outputs(prediction)
        self._goal.expect(outputs)
        masked = any(getattr(each, "_keras_mask", None) is not None for each in outputs)
        self._counted = self._goal.counted(masked, weight is not None)

    def look_at(self, feed: Feed) -> None:
        """``prepare`` by one sample of a feed of arrays, else by its first batch.

        A batch is tried, too, where one sample does not do: shapes in a model may name its size.
        """
        if feed.parts is None:
            return self.prepare(feed.first, of_arrays=False)
        for rows in (feed.first, feed.first_batch):
            try:
                return self.prepare(rows)
            except Exception as error:
                failed = error
        raise failed

    def _build_by(self, step: Callable[[Any], dict[str, Any]], first: tuple[Any, ...]) -> None:
        """Makes the weights by a rehearsal of a user's step.

        One that asks for batches of another size makes them when it comes to it; with several
        workers, whose weights would differ then, it raises.
        """
        run = self._on_arrays(step, self._of_arrays)
        rehearsal = CustomStep(run, Communicator(), 1, 0, metrics=self._each_metric)
        try:
            rehearsal.build(tuple(first))
        except Exception:
            if world.communicator().world_size > 1:
                raise

    # Steps that a model may define in place of the built-in ones.

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
        goal = self._goal
        goal.loss_tracker.update_state(loss, len(goal.outputs(prediction)[0]))
        return {**self.compute_metrics(None, y, prediction, weight), **goal.own(self._values)}

    # The functions that Keras makes of the steps. A model that makes its own trains by them.

    def make_test_function(self, force: bool = False) -> Any:
        """Sets ``test_function``, which runs ``test_step`` on the next batch of an iterator."""
        self.test_function = lambda iterator: self.test_step(next(iterator))
        return self.test_function

    def make_predict_function(self, force: bool = False) -> Any:
        """Sets ``predict_function``, which runs ``predict_step`` on the next batch."""
        self.predict_function = lambda iterator: self.predict_step(next(iterator))
        return self.predict_function

    def _step(self, what: str) -> Callable[[Any], Any]:
        """``train_step`` or its like, by way of the function that a model makes of it itself."""
        if not self._defines(f"make_{what}_function"):
            return getattr(self, f"{what}_step")
        made = getattr(self, f"make_{what}_function")() or getattr(self, f"{what}_function")
        return lambda data: made(iter([data]))

    def _runs_steps(self, name: str) -> bool:
        """Whether ``train_step`` or its like runs as it stands: where a model defines its own, or
        layers give batches to metrics when they are called."""
        return self._overrides(name) or bool(self._own_metrics())

    def _overrides(self, name: str) -> bool:
        made = f"make_{name.removesuffix('_step')}_function"
        return self._defines(name) or (name.endswith("_step") and self._defines(made))

    def _defines(self, name: str) -> bool:
        built_in = next(vars(c)[name] for c in reversed(type(self).__mro__) if name in vars(c))
        return getattr(type(self), name) is not built_in

    def _on_arrays(
        self, step: Callable[[Any], dict[str, Any]], of_arrays: bool
    ) -> Callable[[tuple], dict[str, Any]]:
        """A user's step on the arrays of one shard, in the form in which Keras gives them."""
        floats = floatx() if of_arrays else None

        def given(array: Any) -> Any:
            if not is_number(array.dtype):
                return array
            tensor = as_tensor(array)
            return cast(tensor, floats) if floats and is_floating(tensor._data.dtype) else tensor

        def run(arrays: tuple) -> dict[str, Any]:
            if self._class_weight is not None:
                arrays = (*arrays[:2], by_class(arrays[1], self._class_weight))
            tensors = tuple(None if a is None else nest.map_leaves(given, a) for a in arrays)
            return step(tensors if len(tensors) > 1 else tensors[0])

        return run

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Loss and metrics on one batch."""
        feed = Feed(x, y, sample_weight, None)
        feed.batch_size = feed.size
        self.look_at(feed)
        if self._runs_steps("test_step"):
            logs, _ = self._evaluate(feed, None, ())
            return self._returned(logs, return_dict)
        loss, sums = self._sums_over(feed, None, ())
        return self._returned(self.results(loss, sums), return_dict)

    def _returned(self, logs: Logs, as_dict: bool) -> Any:
        """Sorted by name as a dict, else a list in order, or its only value."""
        if as_dict:
            return dict(sorted(logs.items()))
        values = [logs[name] for name in self._in_order(logs)]
        return values if len(values) > 1 else values[0]

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
        steps = arguments.whole_or_none("steps", steps, "steps")
        callbacks = arguments.callbacks_of(callbacks)
        feed = Feed(x, y, sample_weight, batch_size)
        self.look_at(feed)
        began = time.monotonic()
        communicator = world.communicator()
        _set_up(self, callbacks, verbose, feed, steps)
        logs, steps = self._evaluate(feed, steps, callbacks)
        if verbose not in (0, False) and communicator.rank == 0:
            print(progress_line(steps, steps, time.monotonic() - began, logs), flush=True)
        return self._returned(logs, return_dict)

    def _evaluate(
        self, feed: Feed, steps: int | None, callbacks: Iterable[Callback]
    ) -> tuple[Logs, int]:
        """Named values over a feed, and the number of its batches."""
        if self._runs_steps("test_step"):
            return self._run_test_steps(feed, steps, callbacks)
        count = _Counter(callbacks)
        loss, sums = self._sums_over(feed, steps, count)
        logs = self.results(loss, sums)
        count.end(logs)
        return logs, count.batches

    def _sums_over(self, feed: Feed, steps: int | None, watch: Any) -> tuple[float, np.ndarray]:
        communicator, shards, own = world.share()
        watch = watch if isinstance(watch, _Counter) else _Counter(watch)
        with settled(self):
            loss, sums = evaluate(
                self.compute,
                self.sums_size,
                watch(feed.loader(shards, own, steps=steps).epoch(0)),
                communicator,
                shards,
                mean_loss=self.mean_loss,
                counted=self.counted,
                after=lambda loss, sums: watch.tell(self.results, loss, sums),
            )
        return loss, sums

    def _run_test_steps(
        self, feed: Feed, steps: int | None, callbacks: Iterable[Callback]
    ) -> tuple[Logs, int]:
        """A user's own ``test_step`` on every shard: what it returns over all samples, by name."""
        communicator, shards, own = world.share()
        run = self._on_arrays(self._step("test"), feed.parts is not None)
        watch = _Counter(callbacks)
        returned = Returned(self._each_metric)
        total: Any = 0.0
        for batch in watch(feed.loader(shards, own, steps=steps).epoch(0)):
            found = {}
            for index, arrays in batch.shards:
                for metric in self.metrics:
                    metric.reset_state()
                with state.shard(batch.sizes[index] / batch.size):
                    found[index] = returned.of_shard(run(arrays))
            total = total + returned.together(communicator.allgather_object(found), batch)
            watch.tell(returned.values, total)
        logs = returned.values(total)
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
        steps = arguments.whole_or_none("steps", steps, "steps")
        callbacks = arguments.callbacks_of(callbacks)
        feed = Feed(x, batch_size=batch_size)
        parts: list[Any] = []
        _set_up(self, callbacks, verbose, feed, steps)
        for callback in callbacks:
            callback.on_predict_begin({})
        for number, batch in enumerate(feed.loader(1, range(1), steps=steps).epoch(0)):
            for callback in callbacks:
                callback.on_predict_batch_begin(number, {})
            ((_, arrays),) = batch.shards
            parts.append(_host(self.predict_step(arrays)))
            for callback in callbacks:
                callback.on_predict_batch_end(number, {"outputs": parts[-1]})
        for callback in callbacks:
            callback.on_predict_end({})
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
        self.batches = 0
        self.logs: Logs = {}  # of the batches so far

    def tell(self, values: Callable[..., Logs], *sums: Any) -> None:
        """Takes the sums so far, for the callbacks that come after a batch."""
        if self.callbacks:
            self.logs = dict(sorted(values(*sums).items()))

    def __call__(self, batches: Iterable[Any]) -> Iterable[Any]:
        for callback in self.callbacks:
            callback.on_test_begin({})
        for batch in batches:
            for callback in self.callbacks:
                callback.on_test_batch_begin(self.batches, {})
            yield batch
            for callback in self.callbacks:
                callback.on_test_batch_end(self.batches, self.logs)
            self.batches += 1

    def end(self, logs: Logs) -> None:
        for callback in self.callbacks:
            callback.on_test_end(dict(sorted(logs.items())))


def _set_up(
    model: Any, callbacks: Iterable[Callback], verbose: Any, feed: Feed, steps: int | None
) -> None:
    """Tells callbacks of the model, and of what they will see."""
    steps = steps or feed.loader(1, range(1)).steps_per_epoch
    rank = world.communicator().rank
    for callback in callbacks:
        callback.set_model(model)
        callback.set_params({"verbose": verbose, "epochs": 1, "steps": steps, "rank": rank})


def by_class(y: Any, weights: dict[int, float]) -> np.ndarray:
    """The weight of each sample: 1 for classes that have none."""
    labels = np.asarray(y)
    if labels.ndim > 1 and labels.shape[-1] > 1:
        labels = labels.argmax(axis=-1)
    labels = labels.reshape(len(labels), -1)[:, 0]
    return np.array([weights.get(int(label), 1.0) for label in labels], np.float32)


def _host(outputs: Any) -> Any:
    if isinstance(outputs, dict):
        return {name: _host(part) for name, part in outputs.items()}
    if isinstance(outputs, (list, tuple)):
        return tuple(map(_host, outputs))
    return as_tensor(outputs)._host()
