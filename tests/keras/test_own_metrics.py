"""Metrics of users that stand on those of Keras: by inheritance, or in attributes."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

keras, layers = tf.keras, tf.keras.layers
rng = np.random.default_rng(0)
X = rng.normal(size=(30, 4)).astype(np.float32)
CLASSES = rng.integers(0, 3, 30)
YES = (X[:, :1] > 0.3).astype(np.float32)


class ArgmaxIoU(keras.metrics.MeanIoU):
    """Changes what the built-in metric is given."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(y_true, tf.argmax(y_pred, axis=-1), sample_weight)


class SquaredError(keras.metrics.Mean):
    """Gives the mean values of its own."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state((y_true - y_pred) ** 2, sample_weight)


class Percent(keras.metrics.SparseCategoricalAccuracy):
    """Says it otherwise."""

    def result(self):
        return 100 * super().result()


class F1(keras.metrics.Metric):
    """Two metrics in attributes, one of them in a list."""

    def __init__(self, name="f1", **kwargs):
        super().__init__(name=name, **kwargs)
        self.precision, self.others = keras.metrics.Precision(), [keras.metrics.Recall()]

    def update_state(self, y_true, y_pred, sample_weight=None):
        for metric in (self.precision, *self.others):
            metric.update_state(y_true, y_pred, sample_weight)

    def result(self):
        precision, recall = self.precision.result(), self.others[0].result()
        return 2 * precision * recall / (precision + recall + 1e-7)


def classifier():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])


def yes_or_no(kind=keras.Sequential):
    keras.utils.set_random_seed(0)
    return kind([keras.Input((4,)), layers.Dense(1, activation="sigmoid")])


@pytest.mark.parametrize("shards", ["1", "4"])
@pytest.mark.parametrize("eager", [True, False])
def test_fit_and_evaluate_go_by_an_update_state_and_a_result_of_ones_own(
    eager, shards, monkeypatch
):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", shards)
    model = classifier()
    metrics = [ArgmaxIoU(3, name="iou"), Percent(name="percent"), "accuracy"]
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=metrics, run_eagerly=eager)
    history = model.fit(X, CLASSES, batch_size=8, epochs=2, verbose=0).history
    np.testing.assert_allclose(history["percent"], 100 * np.array(history["accuracy"]), rtol=1e-6)
    found = model.evaluate(X, CLASSES, batch_size=8, verbose=0, return_dict=True)
    expected = keras.metrics.MeanIoU(3)
    expected.update_state(CLASSES, model.predict(X, verbose=0).argmax(axis=-1))
    assert found["iou"] == pytest.approx(float(expected.result()), rel=1e-6)
    assert float(metrics[0].result()) == pytest.approx(found["iou"], rel=1e-6)


@pytest.mark.parametrize("shards", ["1", "4"])
@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_metrics_in_attributes_of_a_metric_are_those_of_all_samples(
    weighted, eager, shards, monkeypatch
):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", shards)
    model = yes_or_no()
    metrics = [F1(), keras.metrics.F1Score("micro", 0.5, name="f"), "mse", SquaredError(name="s")]
    model.compile("sgd", "bce", weighted_metrics=metrics, run_eagerly=eager)
    weight = rng.random(30) if weighted else None
    logs = model.fit(X, YES, 8, 2, sample_weight=weight, verbose=0).history
    found = model.evaluate(X, YES, 8, 0, sample_weight=weight, return_dict=True)
    for each in (logs, found):
        np.testing.assert_allclose(each["f1"], each["f"], rtol=1e-6)
        np.testing.assert_allclose(each["s"], each["mse"], rtol=1e-6)
    assert float(metrics[0].result()) == pytest.approx(found["f1"], rel=1e-6)


def test_a_metric_of_metrics_forgets_with_them_and_alone():
    metric = F1()
    metric.update_state([[1], [0]], [[0.9], [0.8]])
    assert float(metric.result()) == pytest.approx(2 / 3, rel=1e-6)
    state = metric.stateless_update_state([], [[1]], [[0.9]])
    assert float(metric.stateless_result(state)) == pytest.approx(1, rel=1e-6)
    assert float(metric.result()) == pytest.approx(2 / 3, rel=1e-6)
    metric.reset_state()
    assert float(metric.result()) == float(metric.precision.result()) == 0


@pytest.mark.parametrize("shards", ["1", "3"])
def test_steps_of_ones_own_get_what_a_result_of_ones_own_says(shards, monkeypatch):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", shards)

    class Own(keras.Sequential):
        def test_step(self, data):
            x, y = data
            y_pred = self(x, training=False)
            for metric in self.scores:
                metric.update_state(y, y_pred)
            return {metric.name: metric.result() for metric in self.scores}

    model = yes_or_no(Own)
    model.scores = [F1(), keras.metrics.F1Score("micro", 0.5, name="f")]
    model.compile("sgd", "bce")
    found = model.evaluate(X, YES, batch_size=30, verbose=0, return_dict=True)
    assert found["f1"] == pytest.approx(found["f"], rel=1e-6) and 0 < found["f"] < 1


def test_one_value_of_a_masked_batch_weighs_what_its_mask_does() -> None:
    layers = tf.keras.layers
    model = tf.keras.Sequential([layers.Embedding(5, 4, mask_zero=True), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[lambda y_true, y_pred: tf.reduce_max(y_true)])
    x = np.array([[1, 2, 0], [3, 0, 0], [1, 1, 1]])
    found = model.evaluate(x, np.arange(9.0).reshape(3, 3, 1), batch_size=2, verbose=0)
    assert found[1] == 6.5  # 5 of three steps, 8 of three others


def test_metrics_that_a_library_puts_beside_those_of_attributes():
    keras = tf.keras
    dense = keras.layers.Dense(1)
    model = keras.Sequential([keras.Input((2,)), dense])
    assert model.metrics == []
    dense._metrics.append(keras.metrics.Mean(name="own"))
    assert [metric.name for metric in model.metrics] == ["own"]
