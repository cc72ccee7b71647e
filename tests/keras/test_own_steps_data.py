"""What steps of one's own are given: inputs, targets, weights, and how much of a batch."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

from .own_steps import Guide, X, Y, made

keras, layers = tf.keras, tf.keras.layers


@pytest.mark.parametrize("given, dtype", [("arrays", "float32"), ("dataset", "float64")])
def test_steps_and_metrics_of_ones_own_get_tensors_as_in_keras(given, dtype):
    """Floats of arrays as floatx, whole numbers as they are; batches of a dataset untouched."""
    seen = []

    class Seen(keras.metrics.Metric):
        def __init__(self):
            super().__init__()
            self.total = self.add_weight(shape=())

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.total.assign_add(tf.reduce_sum(y_true - y_pred))

        def result(self):
            return self.total

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(1)

        def call(self, x):
            return self.dense(x)

        def train_step(self, data):
            seen.extend(data)
            return {"loss": tf.constant(0.0)}

    x, y, counts = np.ones((4, 3)), np.ones((4, 1)), np.arange(4)
    model = Own()
    model.compile("sgd", "mse")
    data = (x, counts)
    if given == "dataset":
        model.fit(tf.data.Dataset.from_tensor_slices(data).batch(4), verbose=0)
    else:
        model.fit(*data, verbose=0)
    assert all(isinstance(each, tf.Tensor) for each in seen)
    assert [each.dtype.name for each in seen[-2:]] == [dtype, "int64"]
    plain = keras.Sequential([layers.Dense(1, kernel_initializer="zeros")])
    plain.compile("sgd", "mse", metrics=[Seen()])
    assert plain.evaluate(x, y, verbose=0)[1] == 4.0


class Counting(layers.Layer):
    """Its loss is all there is to train by, and it keeps a metric."""

    def __init__(self):
        super().__init__()
        self.seen = keras.metrics.Mean(name="seen")

    def call(self, targets, outputs):
        self.seen.update_state(targets)
        self.add_loss(tf.reduce_mean(tf.square(targets - outputs)))
        return outputs


def test_several_inputs_without_targets():
    inputs, targets = keras.Input((4,), name="inputs"), keras.Input((1,), name="targets")
    model = keras.Model([inputs, targets], Counting()(targets, layers.Dense(1)(inputs)))
    model.compile("sgd")
    start = model.get_weights()
    histories = []
    for data in ([X, Y], {"inputs": X, "targets": Y}):
        model.set_weights(start)
        histories.append(model.fit(data, batch_size=40, shuffle=False, verbose=0).history)
        np.testing.assert_allclose(histories[-1]["seen"], Y.mean(), rtol=1e-6)
    assert histories[0] == histories[1]
    assert model.evaluate([X, Y], verbose=0) == model.evaluate(data, verbose=0)


def test_a_step_gets_several_inputs_alone_in_a_tuple():
    class Told(keras.Model):
        def train_step(self, data):
            (x,) = data
            return {"inputs": tf.cast(len(x), "float32")}

    inputs = [keras.Input((4,)), keras.Input((1,))]
    model = Told(inputs, layers.Concatenate()(inputs))
    model.compile("sgd")
    assert model.fit([X, Y], verbose=0).history == {"inputs": [2.0]}


def test_weights_of_classes_are_for_training_alone():
    class Own(keras.Model):
        def test_step(self, data):
            return super().test_step(data)

    model = made(Own)
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    history = model.fit(
        X, Y, class_weight={0: 1.0, 1: 9.0}, validation_data=(X, Y), verbose=0
    ).history
    assert history["val_loss"][0] == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-5)


@pytest.mark.parametrize(
    "given, form",
    [
        (X, "a tensor"),
        ([X, X], "a tuple of inputs"),
        (tf.data.Dataset.from_tensor_slices((X, Y)).batch(8), "inputs and targets"),
    ],
)
def test_an_own_step_predicts_of_what_keras_gives_it(given, form):
    class Own(keras.Model):
        def predict_step(self, data):
            x = {
                "a tensor": lambda: data,
                "a tuple of inputs": lambda: data[0][1],
                "inputs and targets": lambda: data[0],
            }[form]()
            return 2 * super().predict_step(tf.identity(x))

    model = made(Own)
    expected = 2 * model(X)
    np.testing.assert_allclose(model.predict(given, verbose=0), expected, rtol=1e-5)
    if not isinstance(given, tf.data.Dataset):
        np.testing.assert_allclose(model.predict_on_batch(given), expected, rtol=1e-5)


def test_a_function_of_ones_own_predicts():
    class Own(keras.Model):
        def make_predict_function(self, force=False):
            return lambda iterator: -self.predict_step(next(iterator))

    model = made(Own)
    np.testing.assert_allclose(model.predict(X, verbose=0), -model(X), rtol=1e-5)


@pytest.mark.parametrize("merge", [tf.add, lambda *both: layers.concatenate(both)[:, :4]])
def test_a_step_with_the_size_of_the_whole_batch_is_told_of_its_shards(merge, monkeypatch):
    class Noisy(Guide):
        def train_step(self, data):
            x, y = data
            return super().train_step((merge(x, tf.random.normal((20, 4))), y))

    def fit():
        model = made(Noisy)
        model.compile("sgd", "mse")
        model.fit(X, Y, batch_size=20, verbose=0)

    fit()
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", "2")
    with pytest.raises(ValueError) as caught:
        fit()
    assert "each of 2 shards" in caught.value.__notes__[0]


def test_a_step_may_compare_fewer_outputs_than_call_gives():
    class Attention(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(1, kernel_initializer="ones")

        def call(self, x):
            return self.dense(x), x

        def _step_of(self, x, y):
            logits, _ = self(x)
            loss = self.compute_loss(x, y, logits)
            return loss, {**self.compute_metrics(x, y, logits), "loss": loss}

        def train_step(self, data):
            with tf.GradientTape() as tape:
                loss, logs = self._step_of(*data)
            weights = self.trainable_variables
            self.optimizer.apply(tape.gradient(loss, weights), weights)
            return logs

        def test_step(self, data):
            return self._step_of(*data)[1]

    model = Attention()
    model.compile("sgd", "mse", metrics=["mae"])
    plain = keras.Sequential([keras.Input((4,)), layers.Dense(1, kernel_initializer="ones")])
    plain.compile("sgd", "mse", metrics=["mae"])
    given = {"batch_size": 40, "shuffle": False, "verbose": 0}
    logs, wanted = (m.fit(X, Y, epochs=2, **given).history for m in (model, plain))
    assert logs["loss"] == pytest.approx(wanted["loss"])
    assert logs["mae"] == pytest.approx(wanted["mae"])
    np.testing.assert_allclose(model.get_weights()[0], plain.get_weights()[0], rtol=1e-6)
    assert model.evaluate(X, Y, batch_size=40, verbose=0) == pytest.approx(
        plain.evaluate(X, Y, batch_size=40, verbose=0)
    )
