"""Tape semantics 1.4: variables on the tape, and which reads are copies."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf


def test_the_tape_keeps_the_value_as_read():
    """`y = v*v; v.assign(10); z = y*v` with v=2: z=40, dz/dv = 4*10 + 4 = 44."""
    v = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        y = v * v
        v.assign(10.0)
        z = y * v
    assert float(z) == 40.0
    assert float(tape.gradient(z, v)) == 44.0


def test_assign_is_not_differentiated():
    """`assign`, ... are not differentiated: d/dx through `v.assign(2*x)` is None."""
    v, x = tf.Variable(1.0), tf.Variable(3.0)
    for assign in (v.assign, v.assign_add, v.assign_sub):
        with tf.GradientTape() as tape:
            assign(2.0 * x)
            y = v * 5.0
        assert tape.gradient(y, x) is None


def test_the_result_of_an_assignment_reads_the_variable():
    """Using their *result* reads the variable: d(v.assign_add(1)*2)/dv = 2."""
    v = tf.Variable(1.0)
    for change in (lambda: v.assign_add(1.0), lambda: v.assign_sub(0.5), lambda: v.assign(7.0)):
        with tf.GradientTape() as tape:
            y = change() * 2.0
        assert float(y) == 2.0 * float(v)
        assert float(tape.gradient(y, v)) == 2.0


def test_assignment_after_the_block():
    """Assignment after the block does not change a gradient taken later."""
    v = tf.Variable([2.0, 3.0])
    with tf.GradientTape() as tape:
        y = v * v + v[0] * tf.reshape(v, (2,))
    v.assign([100.0, 100.0])
    v[0].assign(7.0)
    np.testing.assert_array_equal(tape.gradient(y, v), [4.0 + 7.0, 6.0 + 2.0])


@pytest.mark.parametrize(
    "read",
    [
        lambda v: v.read_value(),
        lambda v: v.value(),
        lambda v: tf.convert_to_tensor(v),
        lambda v: tf.identity(v),
        lambda v: tf.cast(v, tf.float32),
        lambda v: v[:],
        lambda v: tf.reshape(v, (2,)),
        lambda v: v.numpy(),
        lambda v: np.asarray(v),
    ],
    ids=[
        "read_value",
        "value",
        "convert",
        "identity",
        "cast",
        "slice",
        "reshape",
        "numpy",
        "array",
    ],
)
def test_reads_of_a_variable_are_copies(read):
    """`read_value()`, `numpy()` of a variable are copies."""
    v = tf.Variable([1.0, 2.0])
    before = read(v)
    v.assign([10.0, 20.0])
    v.assign_add([1.0, 1.0])
    v.scatter_nd_update([[0]], [5.0])
    np.testing.assert_array_equal(before, [1.0, 2.0])


def test_making_a_tensor_or_variable_copies():
    """`tf.constant(ndarray)`, `tf.Variable(ndarray)` are copies."""
    array = np.array([1.0, 2.0])
    made = [tf.constant(array), tf.Variable(array), tf.convert_to_tensor(array)]
    array[:] = 9.0
    for copy in made:
        np.testing.assert_array_equal(copy, [1.0, 2.0])


def test_writing_to_numpy_of_a_tensor():
    """writing to `tensor.numpy()` never changes the tensor; nor does np.asarray of it."""
    t, v = tf.constant([1.0, 2.0]), tf.Variable([1.0, 2.0])
    for value in (t, v):
        value.numpy()[:] = 9.0
        np.asarray(value)[:] = 9.0
        np.testing.assert_array_equal(value, [1.0, 2.0])


def test_a_value_read_before_the_tape_is_a_constant_to_it():
    """The tape follows reads inside its block; what was read before does not stand for them."""
    v = tf.Variable(3.0)
    for read in (v.value, lambda: tf.cast(v, tf.float32), lambda: tf.convert_to_tensor(v)):
        outside = read()
        with tf.GradientTape() as tape:
            y = outside * v
        assert float(tape.gradient(y, v)) == 3.0


def test_each_read_of_a_changed_variable_counts():
    """The tape keeps the value as read, at every read."""
    v, total = tf.Variable(1.0), 0.0
    with tf.GradientTape() as tape:
        for k in range(1, 5):
            v.assign(float(k))
            total = total + v * v
    assert float(tape.gradient(total, v)) == 2.0 * (1 + 2 + 3 + 4)
