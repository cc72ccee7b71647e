"""The loop: what it tells its observers, and that a run taken up again is the same run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import distgrad as tf
from distgrad.comm.communicator import Communicator
from distgrad.core.errors import PreemptedError
from distgrad.data.loader import Loader
from distgrad.data.source import ArraySource
from distgrad.training import checkpoint
from distgrad.training.loop import Cursor, Observer, TrainingLoop
from distgrad.training.reduction import ShardResult
from distgrad.training.step import TrainStep

SEED, SHARDS, BATCH, SAMPLES, EPOCHS = 5, 4, 10, 47, 3
STEPS_PER_EPOCH = 5  # the last one with 7 samples
STEPS = EPOCHS * STEPS_PER_EPOCH


class Training:
    """A model with dropout and its loop, from the start or from where ``commit`` left it."""

    def __init__(self, commit: checkpoint.Commit | None = None, **options) -> None:
        layers = tf.keras.layers
        tf.random.set_seed(SEED)
        self.model = tf.keras.Sequential(
            [layers.Dense(8, activation="relu"), layers.Dropout(0.3), layers.Dense(1)]
        )
        self.model.compile(tf.keras.optimizers.Adam(0.05), "mse")
        self.model.build((None, 4))
        rng = np.random.default_rng(SEED)
        x = rng.normal(size=(SAMPLES, 4)).astype(np.float32)
        source = ArraySource(x, x.sum(axis=1, keepdims=True))
        self.step = TrainStep(
            self.compute,
            1,
            self.model.trainable_variables,
            self.model.optimizer,
            Communicator(),
            SHARDS,
            SEED,
        )
        cursor = None
        if commit is not None:
            for name, variable in self.variables().items():
                variable.assign(commit.arrays["all"][name])
            cursor = Cursor(**commit.state)
        self.losses: list[float] = []
        self.epoch_logs: list[dict[str, float]] = []
        loader = Loader(source, BATCH, SHARDS, range(SHARDS), SEED)
        self.loop = TrainingLoop(
            self.step,
            loader,
            lambda loss, sums: {"loss": loss, "mean_size": float(sums[0]) / SAMPLES},
            [Log(self)],
            cursor=cursor,
            **options,
        )

    def compute(self, arrays: tuple, training: bool) -> ShardResult:
        """The model's loss, and as a metric the sum of the sizes of its targets."""
        loss = self.model.compute(arrays, training).loss
        return ShardResult(loss, np.array([float(np.abs(arrays[1]).sum())]))

    def variables(self) -> dict[str, tf.Variable]:
        model = self.model.variable_paths()
        optimizer = {f"optimizer/{i}": v for i, v in enumerate(self.model.optimizer.variables)}
        return {**model, **optimizer}

    def save(self, folder: Path) -> None:
        arrays = {name: np.asarray(v.numpy()) for name, v in self.variables().items()}
        step = self.loop.cursor.step
        checkpoint.save(folder, step, {"all": arrays}, vars(self.loop.cursor), keep_last=2)

    def bits(self) -> dict[str, bytes]:
        return {name: np.asarray(v.numpy()).tobytes() for name, v in self.variables().items()}


class Log(Observer):
    def __init__(self, training: Training) -> None:
        self.training = training

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        self.training.losses.append(self.training.loop.last_loss)

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        self.training.epoch_logs.append(logs)


class StopAfter(Observer):
    """Asks for a stop during the step before ``step``, which that step then answers."""

    def __init__(self, training: Training, step: int) -> None:
        self.training, self.step = training, step

    def on_train_batch_begin(self, batch: int, logs=None) -> None:
        if self.training.loop.cursor.step == self.step - 1:
            self.training.step.stop_requested = True


@pytest.fixture(scope="module")
def undisturbed() -> Training:
    training = Training()
    training.loop.run(EPOCHS)
    assert len(training.losses) == STEPS and len(training.epoch_logs) == EPOCHS
    assert training.losses[-1] < training.losses[0] / 2, "it learns nothing"
    return training


@pytest.mark.parametrize("stop", range(1, STEPS + 1))
def test_stopped_after_any_step_and_taken_up_again(
    undisturbed: Training, tmp_path: Path, stop: int
) -> None:
    first = Training()
    first.loop.observers.append(StopAfter(first, stop))
    with pytest.raises(PreemptedError, match=f"after step {stop}"):
        first.loop.run(EPOCHS)
    first.save(tmp_path)

    second = Training(checkpoint.load_newest(tmp_path, pytest.fail))
    assert second.loop.cursor == first.loop.cursor
    second.loop.run(EPOCHS)
    assert second.bits() == undisturbed.bits()
    assert first.losses + second.losses == undisturbed.losses
    # The end of an epoch is told by whoever got there; a stop on its last step leaves it to the
    # second run.
    assert first.epoch_logs + second.epoch_logs == undisturbed.epoch_logs
    assert second.loop.cursor == undisturbed.loop.cursor


def test_a_finished_run_has_nothing_left_to_do(undisturbed: Training, tmp_path: Path) -> None:
    undisturbed.save(tmp_path)
    again = Training(checkpoint.load_newest(tmp_path, pytest.fail))
    again.loop.run(EPOCHS)
    assert again.losses == []
    assert again.bits() == undisturbed.bits()
    assert again.loop.logs() == undisturbed.epoch_logs[-1]
    again.loop.run(EPOCHS + 1)
    assert again.loop.cursor.step == STEPS + STEPS_PER_EPOCH


def test_a_cursor_survives_json_bit_by_bit(undisturbed: Training) -> None:
    cursor = undisturbed.loop.cursor
    assert Cursor(**json.loads(json.dumps(vars(cursor)))) == cursor
    assert cursor.step == STEPS and cursor.samples == SAMPLES


def test_the_metrics_of_an_epoch_are_over_all_of_its_samples(undisturbed: Training) -> None:
    rng = np.random.default_rng(SEED)
    sizes = np.abs(rng.normal(size=(SAMPLES, 4)).astype(np.float32).sum(axis=1))
    for logs in undisturbed.epoch_logs:
        assert logs["mean_size"] == pytest.approx(sizes.mean(), rel=1e-6)
    weights = [BATCH] * (STEPS_PER_EPOCH - 1) + [SAMPLES % BATCH]
    losses = undisturbed.losses[:STEPS_PER_EPOCH]
    assert undisturbed.epoch_logs[0]["loss"] == pytest.approx(np.average(losses, weights=weights))


class Told(Observer):
    def __init__(self) -> None:
        self.events: list[tuple] = []

    def __getattribute__(self, name: str):
        if not name.startswith("on_"):
            return super().__getattribute__(name)
        return lambda *args: self.events.append((name.removeprefix("on_"), *args[:-1]))


def test_observers_are_told_of_everything_in_order() -> None:
    training = Training(validate=lambda epoch: {"val_loss": 0.25})
    told = Told()
    training.loop.observers.append(told)
    training.loop.run(2)
    batches = [
        (event, batch)
        for batch in range(STEPS_PER_EPOCH)
        for event in ("train_batch_begin", "train_batch_end")
    ]
    assert told.events == [
        ("train_begin",),
        *[
            event
            for epoch in range(2)
            for event in [("epoch_begin", epoch), *batches, ("epoch_end", epoch)]
        ],
        ("train_end",),
    ]
    assert [logs["val_loss"] for logs in training.epoch_logs] == [0.25, 0.25]


def test_should_stop_is_asked_after_every_epoch() -> None:
    answers = iter([False, True])
    training = Training(should_stop=lambda: next(answers))
    training.loop.run(EPOCHS)
    assert len(training.epoch_logs) == 2


def test_an_error_in_an_observer_is_not_swallowed() -> None:
    class Broken(Observer):
        def on_epoch_end(self, epoch: int, logs=None) -> None:
            raise ZeroDivisionError

    training = Training()
    training.loop.observers.append(Broken())
    with pytest.raises(ZeroDivisionError):
        training.loop.run(1)
    assert training.loop.cursor.step == STEPS_PER_EPOCH
