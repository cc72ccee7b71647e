"""Models, optimizers and variables that come from another process, in memory lent to read."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as tf

X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
Y = np.tanh(X[:, :2])


def lent(value: Any) -> Any:
    """As Ray's store and joblib hand it over: arrays lie in memory that cannot be written."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])


TWINS = pytest.mark.parametrize("twin", [lent, copy.deepcopy])


def step(model: tf.keras.Model, optimizer: tf.keras.Optimizer) -> float:
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(X) - Y) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    return float(loss)


@TWINS
@pytest.mark.parametrize("fitted", [False, True])
def test_a_model_trains_on_to_the_same_weights(twin: Callable[[Any], Any], fitted: bool) -> None:
    model = tf.keras.Sequential([tf.keras.layers.Input((3,)), tf.keras.layers.Dense(2)])
    model.compile("adam", "mse", metrics=["mae"])
    if fitted:
        model.fit(X, Y, verbose=0)
    other = twin(model)
    other.optimizer.learning_rate = 0.1
    model.optimizer.learning_rate = 0.1
    assert step(other, other.optimizer) == step(model, model.optimizer)
    histories = [m.fit(X, Y, epochs=2, shuffle=False, verbose=0).history for m in (model, other)]
    assert histories[0] == histories[1]
    for mine, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@TWINS
def test_an_optimizer_knows_its_variables_and_those_it_spares(twin: Callable[[Any], Any]) -> None:
    spared, decayed = tf.Variable([1.0, 1.0]), tf.Variable([1.0, 1.0])
    optimizer = tf.keras.optimizers.AdamW(0.1, weight_decay=0.5, use_ema=True)
    optimizer.exclude_from_weight_decay([spared])
    average = tf.train.ExponentialMovingAverage(0.5)
    average.apply([spared])
    nothing = tf.zeros(2)
    optimizer.apply_gradients([(nothing, spared), (nothing, decayed)])
    optimizer, average, spared, decayed = twin((optimizer, average, spared, decayed))
    optimizer.apply_gradients([(nothing, spared), (nothing, decayed)])
    np.testing.assert_array_equal(spared, [1, 1])
    np.testing.assert_allclose(decayed, [0.95**2] * 2, rtol=1e-6)
    np.testing.assert_array_equal(average.average(spared), [1, 1])


def test_a_variable_can_be_assigned() -> None:
    variable = lent(tf.Variable([1.0, 2.0]))
    variable.assign_add([1.0, 1.0])
    variable[0].assign(5.0)
    np.testing.assert_array_equal(variable, [5, 3])
