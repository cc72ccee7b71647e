"""What every model can do with data: evaluate, predict, and run steps of its own."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.core import recording, tree
from distgrad.core.composite import Composite
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import is_floating, is_number
from distgrad.core.gradients import recorded
from distgrad.core.tensor import Tensor
from distgrad.core.user_line import warn
from distgrad.core.variable import Variable
from distgrad.data import composites, nest
from distgrad.data.loader import Batch
from distgrad.keras.backend import floatx
from distgrad.keras.callbacks import Callback, progress_line
from distgrad.keras.described import of_model
from distgrad.keras.layers.calling import quiet
from distgrad.keras.layers.tracking import settled
from distgrad.keras.models import arguments
from distgrad.keras.models.compiled import Compiled, Look, by_class
from distgrad.keras.models.feed import Feed, as_arrays, unpack_x_y_sample_weight
from distgrad.keras.models.gathered import Gathered, on_host
from distgrad.keras.models.objective import output_names
from distgrad.keras.models.watching import Watched
from distgrad.ops.casting import cast
from distgrad.training import state, world
from distgrad.training.digest import DesyncAlarm
from distgrad.training.evaluation import evaluate
from distgrad.training.feeding import device_of, epochs
from distgrad.training.forward import Captured, Forward
from distgrad.training.handshake import check_alike, check_data, check_variables, give
from distgrad.training.loop import Logs
from distgrad.training.programs import Jit, executor_for
from distgrad.training.returned import Returned, begin_pass, goes_on, marked
from distgrad.training.turns import CustomStep


class Evaluator(Compiled):
    """A compiled layer that looks at data, is evaluated on it, and asked to predict."""

    def prepare(self, first: tuple[Any, ...], *, of_arrays: bool = True) -> None:
        """Makes the weights by a look at one ``(x, ...)``, and learns what outputs there are.

        ``of_arrays``: whether they come from arrays, whose floats steps of one's own get as floatx.
        A model with a step of its own need not have a ``call`` that takes what its step does, or
        gives what its step compares.
        What was learnt is remembered until the model, or the form of ``x``, is another one.
        """
        x, _, weight = unpack_x_y_sample_weight(first)
        self._of_arrays = of_arrays
        known = self._last_look
        if known is not None and known.kind == self._kind_of_look(x, weight)[0]:
            self.adds_losses, self._loss_counted = known.adds_losses, known.counted
            return
        try:
            with recording.paused(), quiet(self):
                prediction = self(x, training=False)
                self.adds_losses = bool(self.losses)
            names = output_names(prediction, getattr(self, "output_names", ()))
            self._compiled_goal.bind(names, by_name=isinstance(prediction, dict))
        except Exception:
            own_steps = [name for name in ("train_step", "test_step") if self._overrides(name)]
            if not own_steps:
                raise
            if not all(layer.built for layer in self._layers_below() if layer is not self):
                self._build_by(getattr(self, own_steps[0]), first)
            return
        outputs = self._compiled_goal.outputs(prediction)
        self._compiled_goal.expect(outputs)
        masked = any(getattr(each, "_keras_mask", None) is not None for each in outputs)
        self._loss_counted = self._compiled_goal.counted(masked, weight is not None)
        kind, parts = self._kind_of_look(x, weight)  # it may have made layers and weights
        self._last_look = Look(kind, self.adds_losses, self._loss_counted, parts)

    def _kind_of_look(self, x: Any, weight: Any) -> tuple[tuple, list[Any]]:
        """What a look at ``x`` depends on; layers and weights, by whose identity it knows them."""
        parts, leaves = self._layers_and_weights(), tree.flatten(x)
        form = [(getattr(a, "shape", type(a)), getattr(a, "dtype", None)) for a in leaves]
        nest = repr(tree.map_structure(lambda a: None, x))
        return (
            *map(id, parts),
            *form,
            nest,
            weight is None,
            *self._settings_to_compare().items(),
        ), parts

    def look_at(self, feed: Feed) -> None:
        """``prepare`` by one sample of a feed of arrays, else by its first batch.

        A batch is tried, too, where one sample does not do: shapes in a model may name its size.
        """
        self._of_composites = feed.composite
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
        given = self._given_batch(self._of_arrays, trains=True)
        rehearsal = CustomStep(step, Communicator(), 1, 0, given=given, metrics=self._each_metric)
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
        loss = self._loss_of_batch(x, y, prediction, weight, False)
        return self._shard_values(loss, x, y, prediction, weight)

    def predict_step(self, data: Any) -> Any:
        """The outputs for a batch of inputs; a model may define its own."""
        x, _, _ = unpack_x_y_sample_weight(data)
        return self(x, training=False)

    def _shard_values(self, loss: Tensor, x: Any, y: Any, prediction: Any, weight: Any) -> Logs:
        goal = self._compiled_goal
        goal.loss_tracker.update_state(loss, len(goal.outputs(prediction)[0]))
        return {
            **self.compute_metrics(x, y, prediction, weight),
            **goal.own(self._last_loss_values),
        }

    # The functions that Keras makes of the steps. A model that makes its own trains by them.

    def make_test_function(self, force: bool = False) -> Any:
        """Sets ``test_function``, which runs ``test_step`` on the next batch of an iterator."""
        self.test_function = lambda iterator: self.test_step(next(iterator))
        return self.test_function

    def make_predict_function(self, force: bool = False) -> Any:
        """Sets ``predict_function``, which runs ``predict_step`` on the next batch."""
        self.predict_function = lambda iterator: self.predict_step(next(iterator))
        return self.predict_function

    def _step_method(self, what: str) -> Callable[[Any], Any]:
        """``train_step`` or its like, by way of the function that a model makes of it itself."""
        if not self._defines(f"make_{what}_function"):
            return getattr(self, f"{what}_step")
        made = getattr(self, f"make_{what}_function")() or getattr(self, f"{what}_function")
        return lambda data: made(iter([data]))

    def _runs_steps(self, name: str) -> bool:
        """Whether ``train_step`` or its like runs as it stands: where a model defines its own, or
        what it shows, or layers give batches to metrics when they are called."""
        shows = self._defines("compute_metrics") or self._defines("get_metrics_result")
        return self._overrides(name) or shows or bool(self._own_metrics())

    def _overrides(self, name: str) -> bool:
        made = f"make_{name.removesuffix('_step')}_function"
        return self._defines(name) or (name.endswith("_step") and self._defines(made))

    def _defines(self, name: str) -> bool:
        built_in = next(vars(c)[name] for c in reversed(type(self).__mro__) if name in vars(c))
        return getattr(type(self), name) is not built_in

    def _settings_to_compare(self) -> dict[str, Any]:
        """The numbers and texts among the attributes of a user's own class.

        What is captured looks at them: where one has changed it is captured anew.
        """
        if type(self).__module__.startswith("distgrad.keras.models."):
            return {}
        return {
            name: value
            for name, value in vars(self).items()
            if type(value) in _PLAIN and name[0] != "_" and name != "stop_training"
        }

    def _given_batch(self, of_arrays: bool, trains: bool = False) -> Callable[[tuple], Any]:
        """Makes what a user's step is given of the arrays of a shard: that which Keras gives it.

        A step that ``trains`` is given the weights of the classes as well.
        """
        floats = floatx() if of_arrays else None

        def one(array: Any) -> Any:
            if isinstance(array, Composite):
                cast_to = floats and is_floating(array.dtype.numpy_dtype)
                return cast(array, floats) if cast_to else array
            if type(array) is not Tensor and not is_number(array.dtype):
                return array
            tensor = as_tensor(array)
            return cast(tensor, floats) if floats and is_floating(tensor._data.dtype) else tensor

        def given(arrays: tuple) -> Any:
            if trains and self._class_weight_of_fit is not None:
                arrays = (*arrays[:2], by_class(arrays[1], self._class_weight_of_fit))
            tensors = tuple(None if a is None else nest.map_leaves(one, a) for a in arrays)
            # Of several inputs alone a step gets (x,), since (a, b) would be inputs and targets.
            alone = len(tensors) == 1 and not isinstance(tensors[0], (tuple, list))
            return tensors[0] if alone else tensors

        return given

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Loss and metrics on one batch."""
        feed = Feed(x, y, sample_weight, None)
        feed.batch_size = feed.size
        self.look_at(feed)
        if self._runs_steps("test_step"):
            logs = self._run_evaluation(feed, None, Watched(self, "test", ()))
            return self._returned_logs(logs, return_dict)
        loss, sums = self._sums_over(feed, None, Watched(self, "test", ()))
        return self._returned_logs(self.results(loss, sums), return_dict)

    def _returned_logs(self, logs: Logs, as_dict: bool) -> Any:
        """Sorted by name as a dict, else a list in order, or its only value."""
        if as_dict:
            return dict(sorted(logs.items()))
        values = [logs[name] for name in self._in_order(logs)]
        return values if len(values) > 1 else values[0]

    # Evaluating

    def passes(self, jit: Jit | None = None) -> Passes:
        """What evaluates the model and predicts by it: captured, as ``jit`` says of its steps.

        They are kept while the model has the same layers and weights, and trains the same of them.
        """
        jit = self._jit_asked if jit is None else jit
        if not self.built:
            jit = "off"
        parts = self._layers_and_weights()
        key = jit, *map(id, parts), *[part.trainable for part in parts]
        known, passes = self._kept_passes
        if known != key:
            passes = Passes(self, parts, jit)
            self._kept_passes = key, passes
        return passes

    def _passes_for(self, composite: bool) -> Passes:
        """``passes``, eager for ragged and sparse data, each batch of which lies its own way."""
        return self.passes("off" if composite else None)

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
        self._compiled_goal  # noqa: B018
        steps = arguments.whole_or_none("steps", steps, "steps")
        callbacks = arguments.callbacks_of(callbacks)
        feed = Feed(x, y, sample_weight, batch_size)
        self.look_at(feed)
        self._meet_to_evaluate(feed, steps)
        began = time.monotonic()
        watched = Watched(self, "test", callbacks)
        watched.set_up(verbose, feed, steps)
        logs = self._run_evaluation(feed, steps, watched)
        _say(verbose, watched.batches, began, dict(sorted(logs.items())))
        return self._returned_logs(logs, return_dict)

    def _meet_to_evaluate(self, feed: Feed, steps: int | None) -> None:
        """All ranks must do the same, with one model: the weights of rank 0 where they differ."""
        communicator = world.communicator()
        if communicator.world_size == 1:
            return
        self._compare_settings(communicator, "evaluate", {"x": feed.describe(), "steps": steps})
        check_data(communicator, feed.digest(), strict=feed.parts is not None)
        paths = {path: variable for path, variable, _ in self._all_weights()}
        check_variables(paths, communicator)
        found = DesyncAlarm(list(paths.values()), communicator, paths=paths).difference()
        if found is not None:
            give(paths.values(), communicator)
            if communicator.rank == 0:
                warn(f"the ranks had other weights: {found}. All go on with those of rank 0.")

    def _compare_settings(
        self, communicator: Communicator, name: str, given: Mapping[str, Any]
    ) -> None:
        """Raises UsageError where another rank was given something else, or was made otherwise."""
        if communicator.world_size > 1:
            check_alike(
                communicator,
                {**given, **of_model(self)},
                f"every worker must give {name} the same model and settings, and the whole data; "
                "it takes its own part of them.",
            )

    def _run_evaluation(self, feed: Feed, steps: int | None, watched: Watched) -> Logs:
        """Named values over a feed."""
        if self._runs_steps("test_step"):
            return self._run_test_steps(feed, steps, watched)
        loss, sums = self._sums_over(feed, steps, watched)
        logs = self.results(loss, sums)
        watched.end(logs)
        return logs

    def _sums_over(
        self, feed: Feed, steps: int | None, watched: Watched
    ) -> tuple[float, np.ndarray]:
        communicator, shards, own = self._share_of_shards()
        begin_pass(self._compiled_goal.metrics, self._compiled_goal.alone)
        passes = self._passes_for(feed.composite)
        with settled(self):
            loss, sums = evaluate(
                passes.compute,
                self.sums_size,
                watched(passes.batches(feed.loader(shards, own, steps=steps))),
                communicator,
                shards,
                mean_loss=self.mean_loss,
                counted=self.counted,
                after=functools.partial(watched.note, self.results) if watched.callbacks else None,
            )
        return loss, sums

    def _share_of_shards(self) -> tuple[Communicator, int, range]:
        """`world.share`, of which metrics are told whether there is anybody else."""
        communicator, shards, own = world.share()
        self._compiled_goal.alone = shards == 1
        return communicator, shards, own

    def metrics_that_go_on(self) -> list[Any]:
        """Those of a user's own that are given batch after batch, as they stand."""
        return [m for m in self._each_metric() if goes_on(m, self._compiled_goal.alone)]

    def _run_test_steps(self, feed: Feed, steps: int | None, watched: Watched) -> Logs:
        """A user's own ``test_step`` on every shard: what it returns over all samples, by name."""
        communicator, shards, own = self._share_of_shards()
        begin_pass(self._each_metric(), self._compiled_goal.alone)
        given, passes = self._given_batch(feed.parts is not None), self._passes_for(feed.composite)
        returned = Returned(self._each_metric, self._compiled_goal.alone)
        total: Any = 0.0
        batches = passes.batches(feed.loader(shards, own, steps=steps), tensors=True)
        for batch in watched(batches):
            found = {}
            for index, arrays in batch.shards:
                returned.begin_shard()
                with state.shard(batch.sizes[index] / batch.size):
                    found[index] = returned.of_shard(passes.test(given(arrays)))
            total = total + returned.together(communicator.allgather_object(found), batch)
            watched.note(returned.values, total)
        logs = returned.values(total)
        watched.end(logs)
        return logs

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
        passes, built = self._passes_for(feed.composite), self.built
        step = self._prediction_of_batch(passes, feed.parts is not None)
        found = Gathered()
        began = time.monotonic()
        watched = Watched(self, "predict", callbacks)
        watched.set_up(verbose, feed, steps)
        own_step = self._overrides("predict_step")
        batches = passes.batches(feed.loader(1, range(1), steps=steps), tensors=own_step)
        for batch in watched(batches):
            ((_, arrays),) = batch.shards
            outputs = step(arrays)
            found.add(outputs)
            if not built:  # the first batch has made the weights
                passes, built = self._passes_for(feed.composite), True
                step = self._prediction_of_batch(passes, feed.parts is not None)
            if watched.callbacks:
                watched.logs = {"outputs": on_host(outputs)}
        watched.end({})
        _say(verbose, watched.batches, began, {})
        return found.whole()

    def predict_on_batch(self, x: Any) -> Any:
        """Outputs for one batch of inputs, as arrays."""
        arrays = (as_arrays(x, texts=True),)
        passes = self._passes_for(composites.has(arrays))
        return on_host(self._prediction_of_batch(passes, True)(arrays))

    def _prediction_of_batch(self, passes: Passes, of_arrays: bool) -> Callable[[tuple], Any]:
        """``predict_step`` on the arrays of a batch, a user's in the form in which Keras does."""
        if not self._overrides("predict_step"):
            return passes.predict
        given = self._given_batch(of_arrays)
        return lambda arrays: passes.predict(given(arrays))


_PLAIN = frozenset((bool, int, float, str, type(None)))


class Passes:
    """The passes of a model without gradients, and steps of a user's own.

    It keeps the layers and weights: no others are to have their identity.
    """

    def __init__(self, model: Evaluator, parts: list[Any], jit: Jit) -> None:
        self._parts = parts
        self._device = device_of([part for part in parts if isinstance(part, Variable)])
        if any(getattr(part, "meets", False) for part in parts):
            jit = "off"
        self._lends = executor_for(jit) == "cuda"
        settings = model._settings_to_compare

        def own(what: str, step: Callable[[Any], Any]) -> Captured:
            """A user's step has an eager run's bits: some of its shards may be eager."""
            as_it_is = jit == "off" or model._defines(f"make_{what}_function")
            return Captured(step, "off" if as_it_is else "numpy", settings)

        self.compute = Forward(model.compute, jit, settings, packed=self._lends)
        if model._overrides("predict_step"):
            self.predict = own("predict", model._step_method("predict"))
        else:
            self.predict = Captured(model.predict_step, jit, settings)
        self.train = own("train", _marking(model._step_method("train"), model._each_metric))
        self.test = own("test", _marking(model._step_method("test"), model._each_metric))

    def batches(self, loader: Any, *, tensors: bool = False) -> Iterable[Batch]:
        """One epoch, on the device of the weights; ``tensors`` for steps of a user's own."""
        return epochs(loader, self._device, captured=self._lends and not tensors)(0, 0)


def _marking(
    step: Callable[[Any], Any], metrics: Callable[[], Sequence[Any]]
) -> Callable[[Any], Any]:
    @functools.wraps(step)
    def marking(data: Any) -> Any:
        # A trace holds on to what is done in any case: it may be asked for gradients of that.
        traced = recording.per_thread.capture is not None
        with recorded() if traced else contextlib.nullcontext():
            return marked(step(data), metrics())

    return marking


def _say(verbose: Any, batches: int, began: float, logs: Logs) -> None:
    """Prints, on rank 0, how many batches were done since a time, and what they gave."""
    if verbose not in (0, False) and world.communicator().rank == 0:
        print(progress_line(batches, batches, time.monotonic() - began, logs), flush=True)
