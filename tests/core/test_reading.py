"""``variable.value``: a method in TensorFlow, a property in Keras 3."""

import copy

import numpy as np
import pytest

import distgrad as tf
from distgrad import keras


def a_weight(value):
    layer = keras.layers.Dense(1, kernel_initializer=keras.initializers.Constant(value))
    layer.build((None, 1))
    return layer.kernel


@pytest.mark.parametrize("made", [tf.Variable, keras.Variable, a_weight])
def test_called_it_is_a_tensor_and_uncalled_the_variable(made):
    v = made(3.0)
    early, live = v.value(), v.value
    assert isinstance(early, tf.Tensor)
    v.assign(v.value + 1)
    np.testing.assert_array_equal(early.numpy(), np.full(v.shape, 3.0))
    for found in (live.numpy(), np.asarray(live), live + 0, tf.identity(live), live()):
        np.testing.assert_array_equal(found, np.full(v.shape, 4.0))
    assert (live.shape, live.dtype, repr(live)) == (v.shape, v.dtype, repr(v))
    assert tf.is_tensor(live)


def test_of_a_number():
    v = keras.Variable(2.5)
    assert (float(v.value), int(v.value), f"{v.value:.2f}") == (2.5, 2, "2.50")
    assert v.value == 2.5 and v.value < 3 and bool(v.value)
    v.value.assign(1.0)
    assert copy.deepcopy(v.value) == v.numpy() == 1.0
    assert not hasattr(v.value, "no_such_name")


def test_a_tape_follows_it():
    v = tf.Variable(3.0)
    with tf.GradientTape(persistent=True) as tape:
        y = v.value * v.value()
    assert tape.gradient(y, v) == 6.0
    assert tape.gradient({"y": y}, [v.value])[0] == 6.0


def test_it_is_watched_and_has_a_direction():
    v, w = tf.Variable(3.0), tf.Variable(2.0)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([v.value])
        y = v * v * w
    assert tape.gradient(y, [v.value, w.value]) == [12.0, None]
    with tf.autodiff.ForwardAccumulator([v.value, w.value], [tf.ones(()), tf.zeros(())]) as along:
        y = v * v * w
    assert along.jvp(y) == 12.0 and along.jvp(v.value) == 1.0


def test_it_is_an_argument_of_a_function_with_a_gradient_of_its_own():
    v = tf.Variable(3.0)
    tripled = tf.custom_gradient(lambda x: (x * 1.0, lambda dy: 3.0 * dy))
    with tf.GradientTape() as tape:
        y = tripled(v.value)
    assert tape.gradient(y, v) == 3.0


def test_a_captured_function_reads_it_at_every_call():
    v = tf.Variable(3.0)
    double = tf.function(lambda: v.value * 2)
    assert [float(double()), v.assign(5.0), float(double())][::2] == [6.0, 10.0]


def test_variables_may_begin_with_it():
    v = tf.Variable([1.0, 2.0])
    for made in (tf.Variable(v.value), keras.Variable(v.value)):
        np.testing.assert_array_equal(made, [1.0, 2.0])


def test_a_metric_returns_it():
    class Count(keras.metrics.Metric):
        def __init__(self):
            super().__init__(name="count")
            self.seen = self.add_variable(shape=(), initializer="zeros", name="seen")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.seen.assign_add(tf.cast(tf.shape(y_true)[0], "float32"))

        def result(self):
            return self.seen.value

    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[Count()])
    x = np.ones((7, 2), np.float32)
    history = model.fit(x, x[:, :1], batch_size=4, epochs=2, verbose=0).history
    assert history["count"] == [7.0, 7.0]
    assert model.evaluate(x, x[:, :1], verbose=0)[1] == 7.0
