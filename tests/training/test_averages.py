"""ExponentialMovingAverage, and checkpoints read without their objects."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf


def test_averages_follow_their_variables():
    v = tf.Variable([1.0, 2.0], name="v")
    ema = tf.train.ExponentialMovingAverage(0.9)
    assert ema.average(v) is None
    ema.apply([v])
    assert ema.average(v).numpy().tolist() == [1.0, 2.0]  # begins with the value
    v.assign([2.0, 4.0])
    ema.apply([v])
    np.testing.assert_allclose(ema.average(v).numpy(), [1.1, 2.2], rtol=1e-6)
    assert not ema.average(v).trainable and ema.average_name(v) == "v/ExponentialMovingAverage"


def test_updates_lower_the_decay_of_the_first_steps():
    """min(0.99, (1 + n) / (10 + n)): the numbers are those of TensorFlow 2.21."""
    steps, v = tf.Variable(0), tf.Variable(10.0)
    ema = tf.train.ExponentialMovingAverage(0.99, num_updates=steps)
    found = []
    for value in (10.0, 20.0, 30.0):
        v.assign(value)
        ema.apply([v])
        steps.assign_add(1)
        found.append(float(ema.average(v)))
    np.testing.assert_allclose(found, [10.0, 18.181818, 27.045454], rtol=1e-6)


def test_averages_in_a_captured_function():
    v, ema = tf.Variable(1.0), tf.train.ExponentialMovingAverage(0.5)
    ema.apply([v])

    @tf.function
    def step():
        v.assign_add(1.0)
        ema.apply([v])

    step()
    step()
    assert float(ema.average(v)) == 2.25  # 1, 1.5, 2.25


def test_averages_are_saved_and_come_back_before_they_are_made(tmp_path):
    v, ema = tf.Variable(1.0), tf.train.ExponentialMovingAverage(0.5)
    ema.apply([v])
    v.assign(3.0)
    ema.apply([v])
    path = tf.train.Checkpoint(v=v, ema=ema).save(str(tmp_path / "ckpt"))
    other, again = tf.Variable(0.0), tf.train.ExponentialMovingAverage(0.5)
    tf.train.Checkpoint(v=other, ema=again).restore(path)
    again.apply([other])  # makes the average, which gets its value, and brings it up to date
    assert float(other) == 3.0 and float(again.average(other)) == 2.5


def test_what_cannot_be_averaged_is_named():
    ema = tf.train.ExponentialMovingAverage(0.5)
    with pytest.raises(TypeError, match="variable of floats"):
        ema.apply([tf.Variable(1)])
    with pytest.raises(ValueError, match="variables"):
        ema.apply()


@pytest.fixture
def saved(tmp_path):
    model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2, name="out")])
    path = tf.train.Checkpoint(model=model, step=tf.Variable(7)).save(str(tmp_path / "ckpt"))
    return path, tmp_path, model


def test_variables_of_a_checkpoint_are_listed(saved):
    path, folder, _ = saved
    listed = tf.train.list_variables(path)
    assert listed == sorted(listed) == tf.train.list_variables(folder)
    assert ("step", []) in listed and [2] in [shape for _, shape in listed]


def test_values_of_a_checkpoint_are_read_by_name(saved):
    path, _, model = saved
    assert tf.train.load_variable(path, "step") == 7
    reader = tf.train.load_checkpoint(path)
    kernel = next(n for n, shape in reader.get_variable_to_shape_map().items() if shape == [3, 2])
    np.testing.assert_array_equal(reader.get_tensor(kernel), model.layers[-1].kernel.numpy())
    assert reader.get_variable_to_dtype_map()[kernel] == tf.float32
    assert reader.has_tensor("step") and not reader.has_tensor("stop")
    with pytest.raises(tf.errors.NotFoundError, match="step"):
        reader.get_tensor("stop")


def test_a_folder_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(tf.errors.NotFoundError, match=tmp_path.name):
        tf.train.list_variables(tmp_path)
