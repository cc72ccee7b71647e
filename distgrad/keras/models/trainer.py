"""Training: fit, on shards of the batch, and the steps that it runs."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.comm.communicator import Communicator
from distgrad.core import recording, tree
from distgrad.core.errors import (
    DesyncError,
    OutOfStepError,
    UsageError,
)
from distgrad.core.tape import TrainingTape
from distgrad.keras import settings
from distgrad.keras.callbacks import Callback, History, ProgressPrinter
from distgrad.keras.callbacks.backup import Begun
from distgrad.keras.described import described, of_optimizer
from distgrad.keras.layers.tracking import settled
from distgrad.keras.models import arguments
from distgrad.keras.models.evaluator import Evaluator
from distgrad.keras.models.feed import Feed, unpack_x_y_sample_weight
from distgrad.keras.models.watching import Watched
from distgrad.ops import random
from distgrad.training import world
from distgrad.training.digest import DesyncAlarm
from distgrad.training.handshake import (
    check_data,
    check_environment,
    check_executor,
    check_variables,
    difference,
    give,
)
from distgrad.training.loop import Cursor, Logs, Observer, TrainingLoop
from distgrad.training.programs import executor_for
from distgrad.training.returned import begin_pass
from distgrad.training.staging import link
from distgrad.training.step import TrainStep
from distgrad.training.stragglers import Stragglers
from distgrad.training.turns import CustomStep


class Trainer(Evaluator):
    """An evaluator with a training loop."""

    @property
    def distribute_strategy(self) -> Any:
        """The strategy whose scope this is, or the one that stands for none."""
        # Its room is above this one, and only who asks for it needs it.
        return importlib.import_module("distgrad.distribute").get_strategy()

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step on one shard; a model may define its own, on ``data`` as fit was given it.

        Returns named values: the results of metrics are those over all samples, other numbers are
        averaged over them. Gradients that it applies are those of the whole batch: the shards of
        all workers meet there.
        """
        x, y, weight = unpack_x_y_sample_weight(data)
        optimizer = self.optimizer
        assert optimizer is not None
        with TrainingTape() as tape:
            prediction = self(x, training=True)
            loss = self._loss_of_batch(x, y, prediction, weight, True)
            scaled = optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.trainable_variables)
        optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return self._shard_values(loss, x, y, prediction, weight)

    def make_train_function(self, force: bool = False) -> Any:
        """Sets ``train_function``, which runs ``train_step`` on the next batch of an iterator."""
        self.train_function = lambda iterator: self.train_step(next(iterator))
        return self.train_function

    @property
    def _steps_itself(self) -> bool:
        """Whether a user's code takes the whole step, or updates the weights."""
        return self._runs_steps("train_step") or bool(getattr(self.optimizer, "applies_itself", 0))

    def _make_training_step(self, communicator: Communicator, shards: int, seed: int) -> Any:
        if self.optimizer is None or (
            not self._overrides("train_step")
            and not self._compiled_goal.has_loss
            and not self._overrides("compute_loss")
            and not self.adds_losses
        ):
            raise ValueError("there is no loss to train with: give one to compile")
        if self._steps_itself:
            return CustomStep(
                self._passes_for(self._of_composites).train,
                communicator,
                shards,
                seed,
                state=self.variables,
                given=self._given_batch(self._of_arrays, trains=True),
                metrics=self._each_metric,
                mean_loss=self.mean_loss,
            )
        return TrainStep.of(
            self,
            communicator,
            shards,
            seed,
            stop_on_nan=False,
            executor=executor_for(self._jit_asked),
            strict=self._jit_asked == "strict",
            paths={path: weight for path, weight, _ in self._all_weights()},
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
        of every batch. Raises ValueError where the model is not compiled, data do not fit or an
        argument has a value that means nothing, TypeError for an argument of another type.
        """
        self._compiled_goal  # noqa: B018  raises where the model is not compiled
        epochs = arguments.whole("epochs", epochs, 0, "epochs")
        initial_epoch = arguments.whole("initial_epoch", initial_epoch, 0, "epochs")
        steps_per_epoch = arguments.whole_or_none("steps_per_epoch", steps_per_epoch, "steps")
        validation_steps = arguments.whole_or_none("validation_steps", validation_steps, "steps")
        frequency = arguments.frequency_of("validation_freq", validation_freq)
        validation_split = arguments.fraction_of("validation_split", validation_split)
        held_size = arguments.batch_size_of("validation_batch_size", validation_batch_size)
        given = arguments.callbacks_of(callbacks)
        epochs = min(epochs, settings.max_epochs or epochs)
        steps_per_epoch = _at_most(settings.max_steps_per_epoch, steps_per_epoch)
        feed = Feed(x, y, sample_weight, batch_size)
        class_weight = arguments.class_weight_of(class_weight, feed.first)
        held: Feed | None = None
        if validation_split and validation_data is None:
            held = feed.split(validation_split)
            held.batch_size = held_size or held.batch_size
        elif validation_data is not None:
            held = _held_out(validation_data, held_size or batch_size)
        self._class_weight_of_fit = class_weight  # before a step of the user's own is tried
        self.look_at(feed)
        self.weigh_classes(class_weight)
        communicator, shards, own = self._share_of_shards()
        optimizer = self.optimizer
        assert optimizer is not None
        seed = random.drawn_seed()
        if not self._runs_steps("train_step"):
            optimizer.build(self.trainable_variables)
        backup = next((each for each in given if getattr(each, "resumes_fit", False)), None)
        self._compare_settings(  # before rank 0 restores what a backup has
            communicator,
            "fit",
            {
                "epochs": epochs,
                "initial_epoch": initial_epoch,
                "steps_per_epoch": steps_per_epoch,
                "shuffle": described(shuffle),
                "class_weight": described(class_weight),
                "validation_split": validation_split,
                "x": feed.describe(),
                "validation_data": None if held is None else held.describe(),
                "validation_steps": validation_steps,
                "validation_freq": described(frequency),
                "BackupAndRestore": backup is not None,
            },
        )
        cursor = Cursor(epoch=initial_epoch, step=int(optimizer.calls._buffer))
        begun: Begun | None = None
        if backup is not None:
            begun = backup.restore(self) if communicator.rank == 0 else None
            begun = communicator.broadcast_object(begun)
            if begun is not None:
                optimizer.build(self.trainable_variables)
                seed, cursor = begun.seed, Cursor(**begun.cursor)
                epochs = cursor.epoch if begun.stopped else epochs
        seed = _agree(communicator, seed, self)
        if communicator.world_size > 1:
            check_data(communicator, feed.digest(), strict=feed.parts is not None)
        loader = feed.loader(shards, own, seed, shuffle, steps_per_epoch, initial_epoch)
        step = self._step_of_fit(feed, communicator, shards, class_weight, seed)
        validate = None
        if held is not None:
            chosen = held

            def validate(epoch: int) -> Logs:
                due = (
                    (epoch + 1) % frequency == 0
                    if isinstance(frequency, int)
                    else epoch + 1 in frequency
                )
                if not due:
                    return {}
                logs = self._run_evaluation(chosen, validation_steps, Watched(self, "test", given))
                return {f"val_{name}": value for name, value in logs.items()}

        self.stop_training = False
        loop = TrainingLoop(
            step,
            loader,
            step.results if isinstance(step, CustomStep) else self.results,
            cursor=cursor,
            validate=validate,
            should_stop=lambda: self._all_agree(communicator, loop.cursor),
            should_cut=lambda: self.stop_training,
        )
        if communicator.world_size > 1:
            loop.observers.append(Stragglers(loop, communicator))
        if backup is not None:
            backup.watch(loop, seed, given, begun.callbacks if begun else {})
            given = [*(each for each in given if each is not backup), backup]
        # Before callbacks that may restore weights:
        metrics = begun.metrics if begun else []
        step.alarm.first = cursor.step + _FIRST
        loop.observers.append(_Comparer(step.alarm, loop))
        loop.observers += [_Finalizer(optimizer, given), _Beginner(self, loop, metrics)]
        kept = [each for each in given if isinstance(each, History)]
        added = [] if kept else [History()]
        (history,) = kept[-1:] or added
        self.history = history  # before callbacks may look at it
        params = {
            "verbose": verbose,
            "epochs": epochs,
            "steps": steps_per_epoch or loader.steps_per_epoch,
            "rank": communicator.rank,
        }
        for callback in (*given, *added):  # in this order: callbacks may add to logs
            callback.set_model(self)
            callback.set_params(dict(params))
            loop.observers.append(callback)
        shows = any(getattr(each, "shows_progress", False) for each in given)
        if verbose not in (0, False) and communicator.rank == 0 and not shows:
            live = False if verbose == 2 else None
            loop.observers.append(ProgressPrinter(epochs, loop, live))
        try:
            with settled(self):
                loop.run(epochs)
        except BaseException as error:
            self._kept_step = None, None  # it is in the middle of what it does
            if isinstance(error, OutOfStepError):
                error.add_note(_PARTED)
            # That sizes do not fit is a ValueError of operations and layers alike.
            if isinstance(error, ValueError) and isinstance(step, CustomStep) and shards > 1:
                error.add_note(_SHARDED.format(shards))
            if isinstance(error, DesyncError):  # on all ranks at once
                found = difference(communicator, {"optimizer": of_optimizer(optimizer)})
                if found is not None:
                    error.add_note(f"{found}.")
            raise
        finally:
            self._class_weight_of_fit = None
        return history

    def _all_agree(self, communicator: Communicator, cursor: Cursor) -> bool:
        """Whether any rank's callbacks want to stop: all ranks then do.

        Raises UsageError where the batches of another rank had other numbers of samples.
        """
        samples = cursor.samples
        found = np.array([self.stop_training, samples, -samples], np.int64)
        communicator.allreduce(found, "max")
        asked, most, least = found.tolist()
        if most != -least:
            everyone = communicator.allgather_object(samples)
            odd = next(rank for rank, each in enumerate(everyone) if each != everyone[0])
            raise UsageError(
                f"rank {odd} was given {everyone[odd]} samples in epoch {cursor.epoch + 1}, rank 0 "
                f"{everyone[0]}: every worker needs the whole data, in the same batches."
            )
        self.stop_training = bool(asked)
        return self.stop_training

    def weigh_classes(self, weights: dict[int, float] | None) -> None:
        """What the loss of a sample counts from now on in training, by its class; None: 1."""
        self._class_weight_of_fit = weights
        if weights is not None:
            self._loss_counted = self._compiled_goal.counted(False, True)

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: dict[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """One step on one batch; its loss and metrics, by the weights before it."""
        feed = Feed(x, y, sample_weight)
        class_weight = arguments.class_weight_of(class_weight, feed.first)
        feed.batch_size = feed.size
        self._class_weight_of_fit = class_weight
        self.look_at(feed)
        self.weigh_classes(class_weight)
        communicator, shards, own = self._share_of_shards()
        step = self._batch_step(communicator, shards, class_weight, feed)
        own_step = isinstance(step, CustomStep)
        begin_pass(
            self._each_metric() if own_step else self._compiled_goal.metrics,
            self._compiled_goal.alone,
        )
        (batch,) = feed.loader(shards, own).epoch(0)
        assert self.optimizer is not None
        result = step(int(self.optimizer.calls._buffer), batch)
        self._class_weight_of_fit = None
        results = step.results if own_step else self.results
        return self._returned_logs(results(result.loss, result.sums), return_dict)

    def _batch_step(
        self, communicator: Communicator, shards: int, class_weight: Any, feed: Feed
    ) -> Any:
        """The step of the last call, where it still does what is asked for; else a new one."""
        key = self._kind_of_step(communicator, shards, class_weight)
        known, step = self._kept_step
        if known != key:
            seed = random.drawn_seed()
            given = {"class_weight": described(class_weight), "x": feed.describe()}
            self._compare_settings(communicator, "train_on_batch", given)
            if communicator.world_size > 1:
                check_data(communicator, feed.digest(), strict=False)
            seed = _agree(communicator, seed, self)
            step = self._keep_step(key, self._make_training_step(communicator, shards, seed))
            assert self.optimizer is not None
            step.alarm.first = int(self.optimizer.calls._buffer) + _FIRST
        return step

    def _step_of_fit(
        self, feed: Feed, communicator: Communicator, shards: int, class_weight: Any, seed: int
    ) -> Any:
        """As ``_batch_step``; a step of the user's own, which nothing is captured of, is new.

        It is new, too, for samples or batches of other sizes: programs of the old ones go.
        """
        if self._steps_itself:
            return self._make_training_step(communicator, shards, seed)
        sizes = [tuple(getattr(leaf, "shape", ())[1:]) for leaf in tree.flatten(feed.first)]
        kind = self._kind_of_step(communicator, shards, class_weight)
        key = (*kind, "fit", feed.batch_size, *sizes)
        known, step = self._kept_step
        if known != key:
            step = self._keep_step(key, self._make_training_step(communicator, shards, seed))
        step.start_anew(seed)
        return step

    def _keep_step(self, key: tuple, step: Any) -> Any:
        step.layers = list(self._layers_below())  # no other is to have the identity of one of them
        self._kept_step = key, step
        return step

    def _kind_of_step(self, communicator: Communicator, shards: int, class_weight: Any) -> tuple:
        """What a step depends on: while this is equal, what was captured can be run again."""
        parts = *map(id, self.trainable_variables), *map(id, self._layers_below())
        loss = self.mean_loss, self._loss_counted, repr(class_weight)
        recorded = bool(recording.stack())
        return (
            shards,
            self._of_composites,
            id(communicator),
            id(self.optimizer),
            self.optimizer and self.optimizer.wanted_slots(),
            self._jit_asked,
            recorded,
            parts,
            *loss,
        )


class _Comparer(Observer):
    """Compares the weights of all ranks at the end."""

    def __init__(self, alarm: DesyncAlarm, loop: TrainingLoop) -> None:
        self._alarm, self._loop = alarm, loop

    def on_train_end(self, logs: Any = None) -> None:
        self._alarm.compare(self._loop.cursor.step)


class _Beginner(Observer):
    """Resets metrics of a user's own for each epoch, or has them go on in one that was begun."""

    def __init__(self, model: Trainer, loop: TrainingLoop, begun: Sequence[np.ndarray]) -> None:
        self._model, self._loop, self._begun = model, loop, begun

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        own = self._model.metrics_that_go_on()
        for metric in own:
            metric.reset_state()
        if self._loop.cursor.step_in_epoch:
            for metric, found in zip(own, self._begun, strict=False):
                metric.keep(found)
        self._begun = ()


class _Finalizer(Observer):
    """Puts the averages that an optimizer keeps in the place of weights at the end."""

    def __init__(self, optimizer: Any, callbacks: Sequence[Any]) -> None:
        self._optimizer, self._callbacks = optimizer, callbacks

    def on_train_end(self, logs: Any = None) -> None:
        done = any(getattr(each, "holds_averages", False) for each in self._callbacks)
        if self._optimizer.built and not done:
            self._optimizer.finalize_variable_values(self._optimizer.trained)


_FIRST = 2  # steps after which the weights of all ranks are compared, too
_PARTED = (
    "In fit that is so where the data of one rank end earlier, or where one alone stops between "
    "two batches (model.stop_training), calls evaluate or fit, or ends."
)
_SHARDED = (
    "train_step is called with each of {} shards of a batch: where it needs the number of samples, "
    "tf.shape(x)[0] has that of its data; the size of the whole batch does not fit them."
)


def _agree(communicator: Communicator, seed: int, model: Trainer) -> int:
    """Gives every rank the seed and the values of rank 0.

    Raises UsageError where a rank has another model or other libraries.
    """
    if communicator.world_size == 1:
        return seed
    check_environment(communicator)
    check_executor(communicator, executor_for(model._jit_asked))
    link(communicator, deterministic=world.is_deterministic())
    check_variables({path: variable for path, variable, _ in model._all_weights()}, communicator)
    state = [] if model.optimizer is None else model.optimizer.variables
    give((*model.variables, *state), communicator)
    return communicator.broadcast_object(seed)


def _at_most(limit: int | None, steps: int | None) -> int | None:
    return limit if steps is None else min(steps, limit or steps)


def _held_out(data: Any, batch_size: int | None) -> Feed:
    if isinstance(data, (tuple, list)):
        x, y, weight = unpack_x_y_sample_weight(data)
        return Feed(x, y, weight, batch_size)
    return Feed(data)
