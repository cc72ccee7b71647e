"""What layers assign themselves, where a model is built, looked at or tried out: nothing stays."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

X, Y = np.ones((24, 3), "f"), np.ones((24, 2), "f")


class Counting(tf.keras.layers.Layer):
    """Counts its calls, with a weight that its ``build`` has given a value."""

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 2))
        self.kernel.assign(np.full((input_shape[-1], 2), 3.0))
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.calls.assign_add(1.0)
        return x @ self.kernel


class Own(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.counting = Counting()

    def call(self, x):
        return self.counting(x)


def functional(layer):
    inputs = tf.keras.Input((3,))
    return tf.keras.Model(inputs, layer(inputs))


MODELS = {
    "subclass": lambda: (model := Own(), model.counting),
    "sequential": lambda: (tf.keras.Sequential([layer := Counting()]), layer),
    "functional": lambda: (functional(layer := Counting()), layer),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_steps_are_counted_and_no_look_at_the_model(make):
    for run, count in (
        (lambda m: m.fit(X, Y, batch_size=8, epochs=2, verbose=0), 6),
        (lambda m: m.evaluate(X, Y, batch_size=8, verbose=0), 3),
        (lambda m: m.predict(X, batch_size=8, verbose=0), 3),
        (lambda m: m.train_on_batch(X, Y), 1),
        (lambda m: m(X), 1),
        (lambda m: m.build((None, 3)), 0),
    ):
        model, layer = make()
        model.compile(tf.keras.optimizers.SGD(0.0), "mse")
        run(model)
        assert layer.calls.numpy() == count
        np.testing.assert_array_equal(layer.kernel, np.full((3, 2), 3.0, "f"))


def test_a_model_that_has_been_called_is_looked_at_without_a_trace():
    model = Own()
    model(X)
    assert model.compute_output_shape((None, 3)) == (None, 2)
    model.compile("sgd", "mse")
    model.fit(X, Y, batch_size=8, verbose=0)
    assert model.counting.calls.numpy() == 1 + 3
