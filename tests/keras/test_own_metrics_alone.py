"""Metrics of a user's own where a batch is one shard: given batch after batch, whatever they keep.

Numbers are those of Keras 3.15 on TensorFlow 2.21.
"""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad import keras

from .killing import Kill, Killed

X = np.linspace(-1, 1, 28, dtype=np.float32).reshape(14, 2)
Y = X[:, :1] * 2


class Largest(keras.metrics.Metric):
    def __init__(self, name="largest", **kwargs):
        super().__init__(name=name, **kwargs)
        self.most = self.add_weight(name="most", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.most.assign(tf.maximum(self.most, tf.reduce_max(y_pred)))

    def result(self):
        return self.most

    def reset_state(self):
        self.most.assign(-1e9)


class Recent(keras.metrics.Metric):
    """A moving average."""

    def __init__(self, name="recent", **kwargs):
        super().__init__(name=name, **kwargs)
        self.mean = self.add_weight(name="mean", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.mean.assign(0.9 * self.mean + 0.1 * tf.reduce_mean(y_pred))

    def result(self):
        return self.mean


class Listed(keras.metrics.Metric):
    """Keeps all predictions in a list, as scores of ranks do."""

    def __init__(self, name="listed", **kwargs):
        super().__init__(name=name, **kwargs)
        self.seen = []

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.seen.append(np.asarray(y_pred))

    def result(self):
        return float(np.concatenate(self.seen).size) if self.seen else 0.0

    def reset_state(self):
        self.seen = []


class Calls(keras.metrics.Metric):
    def __init__(self, name="calls", **kwargs):
        super().__init__(name=name, **kwargs)
        self.number = self.add_weight(name="number", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.number.assign(self.number * 1 + 1)

    def result(self):
        return self.number


def linear(*metrics, **options) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(1, kernel_initializer="ones", bias_initializer="zeros"),
        ]
    )
    model.compile("sgd", "mse", metrics=list(metrics), **options)
    return model


def fit(model, *data, epochs=2, **options) -> dict:
    data = data or (X, Y)
    options = {"batch_size": 4, "shuffle": False, "verbose": 0, **options}
    return model.fit(*data, epochs=epochs, **options).history


@pytest.mark.parametrize("eager", [False, True])
def test_what_they_keep_need_not_be_a_sum(eager: bool) -> None:
    model = linear(Largest(), Recent(), "mae", Calls(), run_eagerly=eager)
    history = fit(model, validation_data=(X, Y))
    for name, expected in {
        "largest": [1.9228240251541138, 1.9161458015441895],
        "calls": [4.0, 4.0],
        "val_calls": [4.0, 4.0],
        "val_largest": [1.9189757108688354, 1.912655234336853],
    }.items():
        np.testing.assert_allclose(history[name], expected, rtol=1e-6)
    by_hand, weight = 0.0, np.ones((2, 1))
    for start in range(0, 14, 4):
        x, y = X[start : start + 4].astype(float), Y[start : start + 4].astype(float)
        if not start:
            bias = 0.0
        predicted = x @ weight + bias
        by_hand = 0.9 * by_hand + 0.1 * predicted.mean()
        slope = 2 * (predicted - y) / len(x)
        weight, bias = weight - 0.01 * x.T @ slope, bias - 0.01 * slope.sum()
    assert history["recent"][0] == pytest.approx(by_hand, abs=1e-6)
    found = model.evaluate(X, Y, batch_size=3, verbose=0, return_dict=True)
    assert found["calls"] == 5.0 and found["largest"] == pytest.approx(1.912655234336853)


@pytest.mark.filterwarnings("error:the training step runs eagerly")
def test_a_step_that_keeps_averages_is_captured_beside_them() -> None:
    histories = []
    for eager in (False, True):
        keras.utils.set_random_seed(0)
        parts = [keras.Input((2,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
        model = keras.Sequential(parts)
        model.compile("sgd", "mse", metrics=[Largest(), Calls()], run_eagerly=eager)
        histories.append(fit(model, validation_data=(X, Y)))
        assert np.abs(model.layers[0].moving_mean.numpy()).max() > 0
    captured, eagerly = histories
    assert captured["calls"] == [4.0, 4.0] and captured.keys() == eagerly.keys()
    for name, values in captured.items():
        np.testing.assert_allclose(values, eagerly[name], rtol=1e-6)


def test_a_list_of_python_is_one_too() -> None:
    """Each batch is given once: nothing is given while a step is captured."""
    model = linear(Listed())
    assert fit(model, epochs=3)["listed"] == [14.0] * 3
    assert model.evaluate(X, Y, batch_size=5, verbose=0)[1] == 14.0
    assert model.train_on_batch(X[:3], Y[:3])[1] == 3.0
    assert model.test_on_batch(X[:5], Y[:5])[1] == 5.0


def test_weights_reach_those_that_are_weighted() -> None:
    model = linear(Largest())
    weighed = Weighed()
    model.compile("sgd", "mse", metrics=[Largest()], weighted_metrics=[weighed, "mae"])
    history = fit(model, X, Y, sample_weight=np.arange(14.0) + 1)
    np.testing.assert_allclose(
        history["largest"], [1.8942022323608398, 1.8528704643249512], rtol=1e-6
    )
    np.testing.assert_allclose(
        history["mae"], [0.06113617867231369, 0.022318707779049873], rtol=1e-5
    )
    assert history["weighed"] == [14.0, 14.0]  # the largest weight


class Weighed(Largest):
    def __init__(self, name="weighed", **kwargs):
        super().__init__(name=name, **kwargs)

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(y_true, tf.cast(sample_weight, "float32"))


def test_a_metric_of_the_second_output_alone() -> None:
    x = keras.Input((2,))
    first, second = (
        keras.layers.Dense(1, kernel_initializer="ones", name=name)(x) for name in ("a", "b")
    )
    model = keras.Model(x, [first, second])
    model.compile("sgd", loss=["mse", None], metrics=[None, "mae"])
    with pytest.warns(UserWarning, match="no gradient for b/"):
        history = fit(model, X, [Y, Y * 3])
    np.testing.assert_allclose(history["b_mae"], [2.0740740299224854] * 2, rtol=1e-6)
    np.testing.assert_allclose(
        history["loss"], [0.005271051544696093, 0.004478100221604109], rtol=1e-5
    )


class OwnStep(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1, kernel_initializer="ones")
        self.largest, self.mean = Largest(), keras.metrics.Mean("mean")

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            predicted = self(x, training=True)
            loss = tf.reduce_mean((predicted - y) ** 2)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return self.shown(y, predicted, loss)

    def test_step(self, data):
        x, y = data
        predicted = self(x, training=False)
        return self.shown(y, predicted, tf.reduce_mean((predicted - y) ** 2))

    def shown(self, y, predicted, loss):
        self.largest.update_state(y, predicted)
        self.mean.update_state(loss)
        return {"largest": self.largest.result(), "mean": self.mean.result()}


def test_steps_of_ones_own_go_on_with_them() -> None:
    model = OwnStep()
    model.compile("sgd")
    history = fit(model, validation_data=(X[:6] * 0.5, Y[:6]))
    np.testing.assert_allclose(
        history["largest"], [1.9228240251541138, 1.9161458015441895], rtol=1e-6
    )
    np.testing.assert_allclose(
        history["mean"], [0.005240052938461304, 0.0044349562376737595], rtol=1e-5
    )
    np.testing.assert_allclose(
        history["val_largest"], [-0.22788846492767334, -0.2331084907054901], rtol=1e-5
    )
    found = model.evaluate(X, Y, batch_size=4, verbose=0, return_dict=True)
    assert found["largest"] == pytest.approx(1.912655234336853)


class Watching(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.largest = Largest()
        self.dense = keras.layers.Dense(1, kernel_initializer="ones")

    def call(self, x):
        h = self.dense(x)
        self.largest.update_state(None, h)
        return h


def test_those_of_layers_too() -> None:
    model = keras.Sequential([keras.Input((2,)), Watching()])
    model.compile("sgd", "mse")
    history = fit(model)
    np.testing.assert_allclose(
        history["largest"], [1.9228240251541138, 1.9161458015441895], rtol=1e-6
    )


def test_a_fit_that_was_cut_off_goes_on_with_them(tmp_path) -> None:
    """Amid an epoch, of whose batches the checkpoint has what they had found."""

    def run(folder, *more) -> dict:
        backup = keras.callbacks.BackupAndRestore(folder, save_freq=3)
        return fit(linear(Largest(), Calls(), Recent()), epochs=3, callbacks=[backup, *more])

    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "cut", Kill(7))  # the second batch of the second epoch was kept
    resumed = run(tmp_path / "cut")
    assert resumed["calls"] == [4.0, 4.0]
    assert resumed == {name: values[1:] for name, values in whole.items()}


def test_with_several_shards_it_is_said_that_they_mean_little(monkeypatch) -> None:
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", "2")
    with pytest.warns(UserWarning, match="Largest 'largest' keeps is no sum"):
        fit(linear(Largest()))
    with pytest.raises(
        ValueError, match="Listed 'listed' keeps what it finds outside of variables"
    ):
        fit(linear(Listed()))

    class Total(Largest):
        def update_state(self, y_true, y_pred, sample_weight=None):
            self.most.assign_add(tf.reduce_sum(y_pred))

        def reset_state(self):
            self.most.assign(0.0)

    total = Total("total")
    assert fit(linear(total))["total"]  # no warning, which would be an error here
    assert total._adds is True
