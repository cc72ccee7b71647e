"""Attributes and methods that users give parts of their own: none of them is one of ours."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad import keras
from distgrad.keras import layers

X = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
Y = X.sum(axis=1, keepdims=True)

WORDS = """
action activation alpha batch below bias build call cells children compare compute config convert
count counted counter data decoder dense depth dim embedding encoder ends epoch evaluate factor
features filters fit forward frozen gather generator given goal graph hidden index init initial
inner input items jit keep kernel key layer layers_list length level loss_fn loss_of losses_seen
mask memory mode model name_of nets nodes norm number operations options output output_size
parameters params parts path paths policy predict prediction predictions prepare projection rate
ratio remat reset result returned reward run sample scale seed settings shape share size stack
start state stats step steps sum table target tensors total train units update value values walk
warned weights
"""
NAMES = WORDS.split()


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


def test_of_layers():
    class Plain(layers.Layer):
        def __init__(self, units=3, **kwargs):
            super().__init__(**kwargs)
            self.units = units
            self.dense = layers.Dense(units)

        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1], self.units), name="w")

        def call(self, x):
            self.add_loss(0.001 * tf.reduce_sum(self.w**2))
            return self.dense(x) + x @ self.w

        def get_config(self):
            return {**super().get_config(), "units": self.units}

    def tried(cls):
        keras.utils.set_random_seed(0)
        layer = cls()
        model = keras.Sequential([keras.Input((4,)), layer, layers.Dense(1)])
        model.compile("adam", "mse")
        history = model.fit(X, Y, epochs=2, verbose=0).history["loss"]
        assert len(layer.weights) == 3 and cls.from_config(layer.get_config()).units == 3
        return layer, [*history, model.evaluate(X, Y, verbose=0)]

    check(Plain, tried)


def test_of_models(tmp_path):
    class Plain(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.one, self.two = layers.Dense(3, activation="relu"), layers.Dense(1)

        def call(self, x, training=False):
            return self.two(self.one(x))

    def tried(cls):
        keras.utils.set_random_seed(0)
        model = cls()
        model.compile("adam", "mse", metrics=["mae"])
        history = model.fit(X, Y, epochs=2, verbose=0, validation_data=(X, Y)).history
        model.save_weights(tmp_path / "of.weights.h5")
        model.load_weights(tmp_path / "of.weights.h5")
        model.train_on_batch(X, Y)
        found = [model.predict(X, verbose=0).sum(), *model.evaluate(X, Y, verbose=0)]
        return model, [*history["loss"], *history["val_mae"], *found]

    check(Plain, tried)


def test_of_metrics():
    class Plain(keras.metrics.Metric):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.most = self.add_weight(name="most", initializer="zeros")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.most.assign_add(tf.reduce_sum(abs(y_true - y_pred)))

        def result(self):
            return self.most

    def tried(cls):
        metric = cls(name="most")
        metric.update_state(Y, 0 * Y)
        first = float(metric.result())
        metric.reset_state()
        model = keras.Sequential([layers.Dense(1, kernel_initializer="ones")])
        model.compile("sgd", "mse", metrics=[metric])
        return metric, [first, *model.evaluate(X, 2 * Y, verbose=0)]

    check(Plain, tried)


def test_of_losses():
    class Plain(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return tf.reduce_mean(abs(y_true - y_pred), axis=-1)

    def tried(cls):
        keras.utils.set_random_seed(0)
        loss = cls()
        model = keras.Sequential([layers.Dense(1)])
        model.compile("sgd", loss)
        return loss, [float(loss(Y, 0 * Y)), *model.fit(X, Y, verbose=0).history["loss"]]

    check(Plain, tried)


def check(plain, tried):
    """With all names as attributes, and with all as methods, a part does what it did."""
    expected = tried(plain)[1]

    class Attributes(plain):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            for name in NAMES:
                setattr(self, f"_{name}", name)

    part, found = tried(Attributes)
    assert found == expected
    assert [name for name in NAMES if getattr(part, f"_{name}") != name] == []
    methods = {f"_{name}": lambda self, *args, **kwargs: None for name in NAMES}
    assert tried(type("Methods", (plain,), methods))[1] == expected
