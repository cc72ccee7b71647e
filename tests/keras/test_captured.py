"""What evaluates a model, and what it predicts by, is captured, and goes by what the model is."""

import threading

import numpy as np
import pytest

import distgrad as tf
from distgrad import keras
from distgrad.keras import layers

_X = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
_Y = np.arange(20) % 3


def _model(**compiled):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([layers.Dense(8, activation="tanh"), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"], **compiled)
    model.build((None, 6))
    return model


def _predict(model, **options):
    return model.predict(_X, verbose=0, **options)


def test_predictions_are_captured_for_each_size_and_equal_eager_ones():
    model, eager = _model(), _model(run_eagerly=True)
    for _ in range(2):
        np.testing.assert_allclose(
            _predict(model, batch_size=8), _predict(eager, batch_size=8), rtol=1e-5, atol=1e-6
        )
    assert len(model.passes().predict.executors) == 2  # of 8 rows, and of the 4 that are left
    assert eager.passes().predict.executors == []


def test_evaluation_is_captured_and_equals_eager():
    model, eager = _model(), _model(run_eagerly=True)
    found = [each.evaluate(_X, _Y, batch_size=8, verbose=0) for each in (model, eager)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
    assert len(model.passes().compute.run.executors) == 2


def test_training_and_assignments_show():
    model, eager = _model(), _model(run_eagerly=True)
    before = _predict(model)
    for each in (model, eager):
        _predict(each)
        held = {"validation_data": (_X, _Y), "verbose": 0}
        each.fit(_X, _Y, batch_size=10, epochs=2, shuffle=False, **held)
    np.testing.assert_allclose(_predict(model), _predict(eager), rtol=1e-5, atol=1e-5)
    assert np.abs(_predict(model) - before).max() > 1e-3
    for name, values in eager.history.history.items():
        np.testing.assert_allclose(model.history.history[name], values, rtol=1e-5)
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    assert not _predict(model).any()


def test_another_layer_or_weight_is_seen():
    class Doubled(keras.Model):
        def __init__(self):
            super().__init__()
            self.factor = tf.Variable(2.0)
            self.last = layers.Activation("linear")

        def call(self, x):
            return self.last(x * self.factor)

    model = Doubled()
    np.testing.assert_array_equal(_predict(model), 2 * _X)
    model.factor = tf.Variable(3.0)
    np.testing.assert_array_equal(_predict(model), 3 * _X)
    model.last = layers.Activation("relu")
    np.testing.assert_array_equal(_predict(model), np.maximum(3 * _X, 0))


def test_what_layers_assign_and_draw_is_that_of_eager_passes():
    class Noisy(layers.Layer):
        def build(self, _):
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)
            self.dropout = layers.Dropout(0.5, seed=5)

        def call(self, x):
            self.calls.assign_add(1.0)
            return self.dropout(x, training=True) + self.calls

    found = []
    for eager in (False, True):
        keras.utils.set_random_seed(7)
        model = keras.Sequential([Noisy()])
        model.compile(loss="mse", run_eagerly=eager)
        found.append([_predict(model, batch_size=5) for _ in range(2)])
        model.evaluate(_X, _X, batch_size=5, verbose=0)
        found[-1].append(model.layers[0].calls.numpy())
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert np.any(found[0][0] != found[0][1])


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_captured_runs_eagerly_and_says_nothing():
    class Either(keras.Model):
        def call(self, x):
            return x if tf.reduce_sum(x) > 0 else -x

    model = Either()
    for x in (np.ones((2, 2)), -np.ones((2, 2))):
        for _ in range(2):
            np.testing.assert_array_equal(model.predict(x, verbose=0), np.ones((2, 2)))
    assert model.passes().predict.executors == []


def test_threads_predict_at_once():
    model = _model()
    found = []

    def run():
        found.extend(_predict(model) for _ in range(10))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    for each in found:
        np.testing.assert_array_equal(each, found[0])


def test_a_copy_and_a_new_compile_have_passes_of_their_own():
    model = _model()
    model.evaluate(_X, _Y, verbose=0)
    kept = model.passes()
    assert model.passes() is kept
    copy = keras.models.clone_model(model)
    copy.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    assert not _predict(copy).any()
    model.compile("sgd", "mse")
    assert model.passes() is not kept
    np.testing.assert_allclose(
        model.evaluate(_X, np.zeros((20, 3)), verbose=0), np.mean(_predict(model) ** 2), rtol=1e-5
    )


class Own(keras.Model):
    """Two optimizers, dropout and a metric, as a GAN has them."""

    def __init__(self):
        super().__init__()
        self.first, self.last = layers.Dense(5, activation="relu"), layers.Dense(1)
        self.dropout = layers.Dropout(0.3, seed=2)
        self.beside = keras.optimizers.SGD(0.1)
        self.mean = keras.metrics.Mean("mean")
        self.factor, self.calls, self.seen = 1.0, 0, []

    def call(self, x, training=False):
        return self.last(self.dropout(self.first(x), training=training))

    def train_step(self, data):
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            loss = self.factor * tf.reduce_mean((self(x, training=True) - y) ** 2)
            other = tf.reduce_mean(self(x, training=True) ** 2)
        for optimizer, value, layer in (
            (self.optimizer, loss, self.first),
            (self.beside, other, self.last),
        ):
            gradients = tape.gradient(value, layer.trainable_variables)
            optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))
        self.mean.update_state(loss, sample_weight=len(x))
        return {"mean": self.mean.result(), "other": other}


def _own(kind=Own, epochs=2, **compiled):
    keras.utils.set_random_seed(4)
    model = kind()
    model.compile(keras.optimizers.Adam(0.01), **compiled)
    targets = _X.sum(1, keepdims=True)
    fitted = model.fit(_X, targets, batch_size=5, epochs=epochs, verbose=0)
    return model, fitted.history


def _equal(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        rtol = 1e-5 if tf.test.is_gpu_available() else 0  # generated kernels round otherwise
        np.testing.assert_allclose(ours, theirs, rtol=rtol)


@pytest.mark.parametrize("shards", ["1", "3"])
def test_own_steps_are_captured_with_the_bits_of_eager_ones(shards, monkeypatch):
    monkeypatch.setenv("DISTGRAD_VIRTUAL_SHARDS", shards)
    (model, history), (eager, expected) = _own(epochs=6), _own(epochs=6, run_eagerly=True)
    assert model.passes().train.executors
    assert not eager.passes().train.executors
    _equal([*history.values()], [*expected.values()])
    _equal(model.get_weights(), eager.get_weights())


def test_numbers_among_the_attributes_of_a_model_are_seen_when_they_change():
    class Counting(Own):
        def train_step(self, data):
            self.calls += 1
            self.factor = 2.0 if self.calls > 4 else 1.0
            return super().train_step(data)

    with pytest.warns(UserWarning, match="argument 'calls' "):  # a number that always changes
        (model, history), (_, expected) = _own(Counting, 3), _own(Counting, 3, run_eagerly=True)
    _equal([*history.values()], [*expected.values()])
    assert model.calls == 12


def test_an_own_step_trains_what_may_be_trained_now():
    model, _ = _own()
    before = model.get_weights()
    model.first.kernel.trainable = False
    model.fit(_X, _X[:, :1], batch_size=5, verbose=0)
    changed = [np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert changed == [False, True, True, True]


def test_a_step_that_looks_at_values_runs_as_it_is():
    class Looks(Own):
        def train_step(self, data):
            logs = super().train_step(data)
            self.seen.append(float(logs["other"]))
            return logs

    (model, history), (eager, expected) = _own(Looks), _own(Looks, run_eagerly=True)
    _equal([*history.values(), model.seen], [*expected.values(), eager.seen])
    assert len(model.seen) == 8


def test_a_step_that_returns_text_is_refused():
    class Says(Own):
        def train_step(self, data):
            return {**super().train_step(data), "phase": "warm"}

    with pytest.raises(ValueError, match="numbers by name; 'phase' is 'warm'"):
        _own(Says)


def test_a_pyramid_of_pooled_images_is_laid_out():
    """Where a part of a concatenation is resized, a product has a constant matrix."""
    keras = tf.keras
    x = np.random.default_rng(0).random((2, 6, 6, 3)).astype(np.float32)

    def trained(jit: bool) -> list[np.ndarray]:
        inputs = keras.Input((6, 6, 3))
        images = keras.layers.Conv2D(8, 1, kernel_initializer="ones")(inputs)
        pooled = keras.layers.AveragePooling2D(6)(images)
        larger = keras.layers.UpSampling2D(6, interpolation="bilinear")(pooled)
        model = keras.Model(inputs, keras.layers.Concatenate()([images, larger]))
        model.compile("sgd", "mse", jit_compile=jit)  # True: or an error
        model.train_on_batch(x, np.zeros((2, 6, 6, 16), np.float32))
        return model.get_weights()

    for found, expected in zip(trained(True), trained(False), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
