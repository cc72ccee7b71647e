"""tf.TensorArray: what loops write, and gradients through it."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf


def test_writing_reading_and_putting_together():
    array = tf.TensorArray(tf.float32, size=3)
    for i in tf.range(3):
        array = array.write(i, tf.fill([2], float(i)))
    np.testing.assert_array_equal(array.stack(), [[0, 0], [1, 1], [2, 2]])
    np.testing.assert_array_equal(array.read(1), [1, 1])
    np.testing.assert_array_equal(array.gather([2, 0]), [[2, 2], [0, 0]])
    np.testing.assert_array_equal(array.concat(), [0, 0, 1, 1, 2, 2])
    assert array.size().dtype == "int32" and int(array.size()) == 3
    again = tf.TensorArray(tf.int32, size=0, dynamic_size=True).unstack([[1, 2], [3, 4]])
    np.testing.assert_array_equal(again.scatter([3], [[5, 6]]).stack()[:, 0], [1, 3, 0, 5])
    parts = tf.TensorArray(tf.int32, size=2).split([1, 2, 3], [1, 2])
    np.testing.assert_array_equal(parts.read(1), [2, 3])


def test_one_that_grows_and_one_that_does_not():
    array = tf.TensorArray(tf.float32, size=0, dynamic_size=True)
    array = array.write(array.size(), 1.0).write(array.size(), 2.0)
    np.testing.assert_array_equal(array.stack(), [1.0, 2.0])
    with pytest.raises(tf.errors.InvalidArgumentError, match="dynamic_size"):
        tf.TensorArray(tf.float32, size=1).write(1, 1.0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="number 5"):
        array.read(5)
    with pytest.raises((TypeError, ValueError)):
        array.write(0, tf.constant([1], tf.int32))
    assert tf.TensorArray(tf.float32, size=0, element_shape=(4,)).stack().shape == (0, 4)


def test_a_gradient_through_a_recurrence():
    """The loop of TensorFlow's guide to better performance, and its returns of an actor."""

    @tf.function
    def returns(rewards, gamma):
        n = tf.shape(rewards)[0]
        found, total = tf.TensorArray(tf.float32, size=n), tf.constant(0.0)
        shape = total.shape
        for i in tf.range(n):
            total = rewards[i] + gamma * total
            total.set_shape(shape)
            found = found.write(i, total)
        return found.stack()

    rewards = tf.constant([1.0, 2.0, 3.0])
    with tf.GradientTape() as tape:
        tape.watch(rewards)
        total = tf.reduce_sum(returns(rewards, 0.5))
    np.testing.assert_allclose(tape.gradient(total, rewards), [1.75, 1.5, 1.0])


def test_one_as_the_variable_of_a_while_loop():
    _, array = tf.while_loop(
        lambda i, array: i < 3,
        lambda i, array: (i + 1, array.write(i, tf.cast(i, tf.float32) ** 2)),
        (tf.constant(0), tf.TensorArray(tf.float32, size=3)),
    )
    np.testing.assert_array_equal(array.stack(), [0.0, 1.0, 4.0])


def test_set_shape_checks():
    with pytest.raises(ValueError, match=r"\(3,\)"):
        tf.zeros(2).set_shape([3])
    tf.zeros((2, 3)).set_shape([None, 3])


def test_tensors_of_one_shape_unless_said_otherwise():
    array = tf.TensorArray(tf.float32, size=2).write(0, [1.0])
    assert array.element_shape == (1,) and array.identity() is array
    with pytest.raises(ValueError, match=r"\(2,\)"):
        array.write(1, [1.0, 2.0])
    with pytest.raises(ValueError, match=r"\(2,\)"):
        tf.TensorArray(tf.float32, size=1, element_shape=[3]).write(0, [1.0, 2.0])
    parts = tf.TensorArray(tf.float32, size=2, infer_shape=False).write(0, [1.0])
    assert parts.write(1, [2.0, 3.0]).concat().shape == (3,)
