"""Callbacks: what they are told, what they do, and in which order."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

import distgrad as tf
from distgrad.core.errors import MissingExtraError

callbacks = tf.keras.callbacks
STORED = json.loads((Path(__file__).parents[1] / "reference" / "keras_callbacks.json").read_text())
X = np.linspace(-1, 1, 12, dtype=np.float32)[:, None]
Y = 3 * X


def model(learning_rate=0.1, **options) -> tf.keras.Model:
    made = tf.keras.Sequential([tf.keras.layers.Dense(1, use_bias=False, input_shape=(1,))])
    made.set_weights([np.array([[0.0]])])
    options = {"loss": "mse", "metrics": ["mae"], **options}
    made.compile(tf.keras.optimizers.SGD(learning_rate), **options)
    return made


def fit(made, *used, epochs=3, **options):
    options = {"batch_size": 4, "verbose": 0, "shuffle": False, **options}
    return made.fit(X, Y, epochs=epochs, callbacks=list(used), **options)


class Told(callbacks.Callback):
    """Writes down every event, with the names in the logs."""

    def __init__(self) -> None:  # without the base class's, as users do
        self.events: list[tuple] = []

    def on_train_begin(self, logs=None):
        self.events.append(("train_begin",))

    def on_train_end(self, logs=None):
        self.events.append(("train_end",))

    def on_epoch_begin(self, epoch, logs=None):
        self.events.append(("epoch_begin", epoch))

    def on_epoch_end(self, epoch, logs=None):
        self.events.append(("epoch_end", epoch, *logs))

    def on_train_batch_begin(self, batch, logs=None):
        self.events.append(("batch_begin", batch))

    def on_train_batch_end(self, batch, logs=None):
        self.events.append(("batch_end", batch, *logs))


def test_events_and_sorted_logs():
    told, made = Told(), model(metrics=["mse", "mae"])
    fit(made, told, epochs=1, batch_size=8, validation_data=(X, Y))
    assert told.events == [
        ("train_begin",),
        ("epoch_begin", 0),
        ("batch_begin", 0),
        ("batch_end", 0, "loss", "mae", "mse"),
        ("batch_begin", 1),
        ("batch_end", 1, "loss", "mae", "mse"),
        ("epoch_end", 0, "loss", "mae", "mse", "val_loss", "val_mae", "val_mse"),
        ("train_end",),
    ]
    assert told.model is made
    assert told.params == {"epochs": 1, "steps": 2, "verbose": 0, "rank": 0}


def test_batch_logs_are_those_of_the_epoch_so_far():
    losses = []
    history = fit(
        model(learning_rate=0.0),
        callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: losses.append(logs["loss"])
        ),
        epochs=1,
    )
    parts = [np.mean(Y[: 4 * (i + 1)] ** 2) for i in range(3)]
    np.testing.assert_allclose(losses, parts, rtol=1e-6)
    assert history.history["loss"] == [losses[-1]]


def test_a_callback_may_add_to_the_logs_of_those_after_it_and_of_the_history():
    class Adds(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["extra"] = epoch + 0.5

    told = Told()
    history = fit(model(), Adds(), told, epochs=2)
    assert history.history["extra"] == [0.5, 1.5]
    assert "extra" in told.events[-2]


def test_stop_training_in_a_batch_ends_the_epoch_there():
    class Stop(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    told = Told()
    history = fit(model(), Stop(), told, validation_data=(X, Y))
    assert history.epoch == [0] and "val_loss" in history.history
    assert [e for e in told.events if e[0] == "batch_begin"] == [
        ("batch_begin", 0),
        ("batch_begin", 1),
    ]
    assert told.events[-1] == ("train_end",)


@pytest.mark.parametrize(
    "monitor, mode, rises",
    [("loss", "auto", False), ("val_f1", "auto", True), ("mae", "max", True), ("f1", "min", False)],
)
def test_what_compares_values_and_a_list_of_one(monitor, mode, rises):
    net = tf.keras.Sequential(
        [tf.keras.Input((2,)), tf.keras.layers.Dense(1, activation="sigmoid")]
    )
    net.compile("sgd", "mse", metrics=["mae", tf.keras.metrics.F1Score(name="f1")])
    x, y = np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)
    stop = callbacks.EarlyStopping(monitor, mode=mode, patience=3)
    assert stop.monitor_op is None
    net.fit(x, y, validation_data=(x, y), epochs=2, verbose=0, callbacks=[stop])
    assert stop.monitor_op(1, 0) is rises and np.ndim(stop.best) == 0
    with pytest.raises(ValueError, match="whether 'val_recall' should rise or fall"):
        net.fit(x, y, verbose=0, callbacks=[callbacks.EarlyStopping("val_recall")])


def test_a_subclass_may_watch_another_value():
    class Still(callbacks.EarlyStopping):
        def get_monitor_value(self, logs):
            return 1.0

    assert len(fit(model(), Still("loss", patience=2), epochs=6).history["loss"]) == 3


# EarlyStopping. A schedule of losses is played by setting the weight.


class Played(callbacks.Callback):
    """Puts values into the logs before the others see them."""

    def __init__(self, name, values):
        super().__init__()
        self.name, self.values = name, values

    def on_epoch_end(self, epoch, logs=None):
        logs[self.name] = self.values[epoch]
        self.model.set_weights([np.array([[float(epoch)]])])


def stopped(values, name="val_loss", **options):
    made = model(0.0)
    stop = callbacks.EarlyStopping(name, **options)
    history = fit(made, Played(name, values), stop, epochs=len(values))
    return stop, history.epoch[-1], float(made.get_weights()[0].item())


@pytest.mark.parametrize("case", STORED["early_stopping"], ids=lambda case: str(case["options"]))
def test_early_stopping_is_that_of_keras(case):
    stop, epoch, _ = stopped(case["values"], **case["options"])
    assert [epoch, stop.stopped_epoch, stop.best, stop.wait] == case["found"]


def test_early_stopping_restores_the_best_weights():
    stop, epoch, weight = stopped([5, 3, 4, 6], patience=2, restore_best_weights=True)
    assert (stop.stopped_epoch, stop.best_epoch, weight) == (3, 1, 1.0) and epoch == 3
    _, _, weight = stopped([5, 3, 4, 6], patience=2)
    assert weight == 3


def test_auto_mode_knows_losses_and_metrics_and_asks_about_others():
    assert stopped([1, 2, 3], "mae")[1] == 1  # less is better
    made = model(0.0, metrics=["accuracy"])
    stop = callbacks.EarlyStopping("val_accuracy")
    fit(made, Played("val_accuracy", [0.1, 0.2, 0.1]), stop)
    assert stop.stopped_epoch == 2
    with pytest.raises(ValueError, match="mode='max'"):
        stopped([1, 2, 3], "speed")
    with pytest.warns(UserWarning, match="not 'best': auto is taken"):
        callbacks.EarlyStopping(mode="best")
    with pytest.warns(UserWarning, match="'val_loss'.*loss"):
        fit(model(), callbacks.EarlyStopping(), epochs=1)


def test_verbose_callbacks_say_what_they_do(capsys):
    made = model(0.0)
    fit(
        made,
        Played("val_loss", [2, 3, 4]),
        callbacks.EarlyStopping(verbose=1, patience=2, restore_best_weights=True),
        callbacks.ReduceLROnPlateau(verbose=1, patience=1, min_lr=-1),
        callbacks.LearningRateScheduler(lambda epoch, rate: 0.5, verbose=1),
    )
    said = capsys.readouterr().out
    assert "Epoch 1: LearningRateScheduler setting learning rate to 0.5." in said
    assert "Epoch 2: ReduceLROnPlateau reducing learning rate to 0.05." in said
    assert "Epoch 3: early stopping" in said and "best epoch: 1." in said


# Learning rates


@pytest.mark.parametrize(
    "case", STORED["reduce_lr_on_plateau"], ids=lambda case: str(case["options"])
)
def test_reduce_lr_on_plateau_is_that_of_keras(case):
    made, rates = model(1.0), []
    note = callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: rates.append(float(made.optimizer.learning_rate))
    )
    reduce = callbacks.ReduceLROnPlateau("val_loss", **case["options"])
    played = Played("val_loss", case["values"])
    history = fit(made, played, reduce, note, epochs=len(case["values"]))
    assert rates == case["rates"]
    assert history.history["learning_rate"] == [1.0, *rates[:-1]]  # that of the epoch itself


def test_reduce_lr_on_plateau_needs_a_factor_below_1():
    with pytest.raises(ValueError, match="factor"):
        callbacks.ReduceLROnPlateau(factor=1.0)


def test_every_event_comes_with_logs():
    """Keras's guides define the methods without a default for them."""

    class Strict(callbacks.Callback):
        def __init__(self):
            self.got = []

    def event(self, *args):
        self.got.append(args)
        assert isinstance(args[-1], dict)

    events = ["train_begin", "train_end", "epoch_begin", "epoch_end", "train_batch_begin"]
    events += ["train_batch_end", "test_begin", "test_end", "test_batch_begin", "test_batch_end"]
    events += ["predict_begin", "predict_end", "predict_batch_begin", "predict_batch_end"]
    for name in events:
        setattr(Strict, f"on_{name}", event)
    made, told = model(), Strict()
    fit(made, told, epochs=1, validation_data=(X, Y))
    made.predict(X, callbacks=[told], verbose=0)
    assert len(told.got) == 4 + 2 * 3 + 2 + 2 * 3 + 2 + 2 * 1


def test_a_batch_of_an_evaluation_comes_with_the_logs_so_far():
    class Batches(callbacks.Callback):
        def __init__(self):
            self.logs = []

        def on_test_batch_end(self, batch, logs=None):
            self.logs.append(logs)

    class Own(tf.keras.Sequential):
        def test_step(self, data):
            return {"size": tf.reduce_mean(tf.abs(data[1]))}

    made, told = model(), Batches()
    logs = made.evaluate(X, Y, batch_size=5, callbacks=[told], verbose=0, return_dict=True)
    assert told.logs[-1] == logs
    first = made.evaluate(X[:5], Y[:5], verbose=0, return_dict=True)
    assert told.logs[0] == pytest.approx(first)
    own, told = Own([tf.keras.layers.Dense(1)]), Batches()
    own.compile(loss="mse")
    own.evaluate(X, Y, batch_size=6, callbacks=[told], verbose=0)
    assert [each["size"] for each in told.logs] == pytest.approx(
        [np.abs(Y[:6]).mean(), np.abs(Y).mean()]
    )


def test_learning_rate_scheduler():
    for schedule in (lambda epoch, rate: rate / 2, lambda epoch: 0.5 ** (epoch + 1)):
        made = model(1.0)
        history = fit(made, callbacks.LearningRateScheduler(schedule))
        assert history.history["learning_rate"] == [0.5, 0.25, 0.125]
    with pytest.raises(ValueError, match="'fast'"):
        fit(model(), callbacks.LearningRateScheduler(lambda epoch: "fast"))


# Files


class Saving:
    """Model with the two methods that ModelCheckpoint calls."""

    def __init__(self):
        self.saved, self.metrics = [], []

    def save(self, path, overwrite):
        self.saved.append(path)

    save_weights = save


def checkpointed(path, epochs, batches=0, **options):
    made, keep = Saving(), callbacks.ModelCheckpoint(path, **options)
    keep.set_model(made)
    for epoch, logs in enumerate(epochs):
        keep.on_epoch_begin(epoch)
        for batch in range(batches):
            keep.on_train_batch_end(batch, {"loss": 1.0})
        keep.on_epoch_end(epoch, logs)
    return made.saved, keep


@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5"])
@pytest.mark.parametrize("frequency", ["epoch", 2])
def test_what_is_saved_during_training_can_be_loaded(functional, name, frequency, tmp_path):
    made, path = model(), tmp_path / name
    if functional:
        inputs = tf.keras.Input((1,))
        made = tf.keras.Model(inputs, tf.keras.layers.Dense(1)(inputs))
        made.compile("sgd", "mse")
    weights_only = name == "m.weights.h5"
    fit(
        made,
        callbacks.ModelCheckpoint(path, save_weights_only=weights_only, save_freq=frequency),
        epochs=2,
        batch_size=6,
    )
    expected = made.get_weights()
    if weights_only:
        for weight in made.weights:
            weight.assign(weight * 0.0 - 1.0)
        made.load_weights(path)
    else:
        made = tf.keras.models.load_model(path)
    for mine, theirs in zip(made.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_model_checkpoint(tmp_path, capsys):
    logs = [{"val_loss": v} for v in (3.0, 2.0, 2.5, 1.0)]
    place = tmp_path / "deep" / "m-{epoch:02d}-{val_loss:.1f}.keras"
    saved, _ = checkpointed(place, logs)
    assert [s.rpartition("/")[2] for s in saved] == [
        "m-01-3.0.keras",
        "m-02-2.0.keras",
        "m-03-2.5.keras",
        "m-04-1.0.keras",
    ]
    assert (tmp_path / "deep").is_dir()
    saved, keep = checkpointed(
        str(tmp_path / "{epoch}.weights.h5"),
        logs,
        save_best_only=True,
        save_weights_only=True,
        initial_value_threshold=2.2,
        verbose=1,
    )
    assert [s.rpartition("/")[2] for s in saved] == ["2.weights.h5", "4.weights.h5"]
    assert keep.best == 1
    said = capsys.readouterr().out
    assert "Epoch 1: val_loss did not improve from 2.20000" in said
    assert "Epoch 2: val_loss improved from 2.20000 to 2.00000, saving model to" in said
    assert said.count(": finished saving model to") == 2
    several = [{"val_loss": np.ones(2)}] * 2
    with pytest.warns(UserWarning, match="several values"):
        saved, _ = checkpointed(tmp_path / "{epoch}.keras", several, save_best_only=True)
    assert [s.rpartition("/")[2] for s in saved] == ["1.keras", "2.keras"]
    saved, _ = checkpointed(tmp_path / "{epoch}-{batch}.keras", logs[:2], batches=3, save_freq=2)
    assert [s.rpartition("/")[2] for s in saved] == ["1-2.keras", "2-1.keras", "2-3.keras"]


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: callbacks.ModelCheckpoint("m.h6"), ValueError, ".keras"),
        (lambda: callbacks.ModelCheckpoint("m.h5", save_weights_only=True), ValueError, "weights"),
        (lambda: callbacks.ModelCheckpoint("m.keras", save_freq="day"), ValueError, "day"),
        (lambda: checkpointed("{val_acc}.keras", [{"val_loss": 1.0}]), KeyError, "val_acc"),
    ],
)
def test_model_checkpoint_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_only_rank_0_prints_and_writes(tmp_path, capsys):
    used = [
        callbacks.ModelCheckpoint(tmp_path / "m.keras", verbose=1, monitor="loss"),
        callbacks.CSVLogger(tmp_path / "log.csv"),
    ]
    for callback in used:
        callback.set_model(Saving())
        callback.set_params({"rank": 1})
        callback.on_train_begin()
        callback.on_epoch_end(0, {"loss": 1.0})
    assert used[0].model.saved == [] and list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_csv_logger(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("what was there before\n")
    history = fit(model(), callbacks.CSVLogger(path), epochs=2, validation_data=(X, Y))
    fit(model(), callbacks.CSVLogger(path, append=True), epochs=1)
    rows = list(csv.reader(path.open()))
    assert rows[0] == ["epoch", "loss", "mae", "val_loss", "val_mae"] and len(rows) == 4
    assert [float(row[1]) for row in rows[1:3]] == history.history["loss"]
    assert rows[3][0] == "0" and rows[3][3:] == ["NA", "NA"]
    fit(model(), callbacks.CSVLogger(path, separator=";"), epochs=1)
    assert path.read_text().splitlines()[0] == "epoch;loss;mae;val_loss;val_mae"


def test_csv_logger_of_several_values(tmp_path):
    logger = callbacks.CSVLogger(tmp_path / "log.csv")
    logger.on_train_begin()
    for epoch, value in enumerate([np.array([0.5, 1.0]), "x", np.float32(2.0)]):
        logger.on_epoch_end(epoch, {"f1": value})
    rows = list(csv.reader((tmp_path / "log.csv").open()))
    assert [row[1] for row in rows] == ["f1", '"[0.5, 1.0]"', "x", "2.0"]


def test_terminate_on_nan(capsys):
    made = model(1e30)
    history = fit(made, callbacks.TerminateOnNaN(), epochs=5)
    assert history.epoch == [0] and not math.isfinite(history.history["loss"][0])
    assert "Invalid loss, terminating training" in capsys.readouterr().out
    with pytest.raises(RuntimeError, match="at batch"):
        fit(model(1e30), callbacks.TerminateOnNaN(raise_error=True), epochs=5)


def test_tensorboard(tmp_path):
    reader = pytest.importorskip("tensorboardX.proto.event_pb2")
    fit(
        model(0.5),
        callbacks.TensorBoard(tmp_path, histogram_freq=1, update_freq=2),
        epochs=2,
        validation_data=(X, Y),
    )

    def tags(part):
        (path,) = (tmp_path / part).iterdir()
        data, at, found = path.read_bytes(), 0, []
        while at < len(data):  # records: length, its checksum, an event, its checksum
            length = int.from_bytes(data[at : at + 8], "little")
            event = reader.Event.FromString(data[at + 12 : at + 12 + length])
            found += [(value.tag, event.step) for value in event.summary.value]
            at += 16 + length
        return found

    train = tags("train")
    for tag in ("epoch_loss", "epoch_mae", "epoch_learning_rate", "dense/kernel"):
        assert [step for name, step in train if name == tag] == [0, 1], tag
    assert [step for name, step in train if name == "batch_loss"] == [2, 4, 6]
    assert tags("validation") == [(f"epoch_{n}", e) for e in (0, 1) for n in ("loss", "mae")]


def test_tensorboard_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'distgrad\[tb\]'"):
        callbacks.TensorBoard()
    with pytest.raises(ValueError, match="update_freq"):
        callbacks.TensorBoard(update_freq="day")


def test_a_history_of_ones_own_is_that_of_fit():
    """Numbers of Keras 3.15, where it goes on with its values and lists the epochs of the last."""
    own, made = callbacks.History(), model()
    assert fit(made, own, epochs=2) is own and made.history is own
    assert fit(made, own, epochs=2) is own and own.epoch == [0, 1]
    assert own.history["loss"] == pytest.approx([3.1287203, 1.8958158, 1.1487502, 0.6960732])


def test_callbacks_see_the_history_so_far():
    seen = []

    class Look(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(len(self.model.history.history.get("loss", ())))

    made = model()
    fit(made, Look())
    fit(made, Look(), epochs=2)
    assert seen == [0, 1, 2, 0, 1]
