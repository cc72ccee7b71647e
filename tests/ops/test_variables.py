"""Rows of variables: scatters by IndexedSlices, reads by positions, options of variables."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

START = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)


def made():
    values = tf.constant([[10.0, 0.5], [2.0, 4.0], [3.0, 1.0]])
    return tf.Variable(START), tf.IndexedSlices(values, tf.constant([2, 0, 2]))


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("scatter_add", [[3, 6], [3, 4], [18, 7.5]]),
        ("scatter_sub", [[-1, -2], [3, 4], [-8, 4.5]]),
        ("scatter_mul", [[2, 8], [3, 4], [150, 3]]),
        ("scatter_div", [[0.5, 0.5], [3, 4], [5 / 30, 12]]),
        ("scatter_max", [[2, 4], [3, 4], [10, 6]]),
        ("scatter_min", [[1, 2], [3, 4], [3, 0.5]]),
    ],
)
def test_scatters_of_repeated_rows(name, rows):
    v, delta = made()
    assert getattr(v, name)(delta) is v
    np.testing.assert_allclose(v.numpy(), np.array(rows, np.float32))


def test_an_update_writes_rows_and_nothing_else():
    v, _ = made()
    v.scatter_update(tf.IndexedSlices(tf.constant([[7.0, 8.0]]), tf.constant([1])))
    assert v.numpy().tolist() == [[1, 2], [7, 8], [5, 6]]


def test_an_update_of_a_batch_goes_row_by_row():
    v = tf.Variable(np.zeros((2, 3), np.float32))
    delta = tf.IndexedSlices(tf.constant([[1.0, 2.0], [3.0, 4.0]]), tf.constant([[0, 2], [1, 0]]))
    v.batch_scatter_update(delta)
    assert v.numpy().tolist() == [[1, 0, 2], [4, 3, 0]]


def test_what_is_no_slices_or_lies_outside_is_refused_and_nothing_changes():
    v, _ = made()
    with pytest.raises(TypeError, match="IndexedSlices"):
        v.scatter_add(tf.constant([[1.0, 2.0]]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="3"):
        v.scatter_update(tf.IndexedSlices(tf.constant([[1.0, 2.0]]), tf.constant([3])))
    with pytest.raises(tf.errors.InvalidArgumentError, match="shape"):
        v.scatter_max(tf.IndexedSlices(tf.constant([[1.0]]), tf.constant([0])))
    assert (v.numpy() == START).all()


def test_reads_have_gradients():
    v, _ = made()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(v.sparse_read([2, 0, 2]) ** 2) + tf.reduce_sum(v.gather_nd([[1, 0]]))
    g = tf.convert_to_tensor(tape.gradient(loss, v)).numpy()
    assert g.tolist() == [[2, 4], [1, 0], [20, 24]]


def test_scatters_in_a_captured_function():
    v, delta = made()

    @tf.function(jit_compile="strict")
    def step(values):
        v.scatter_add(tf.IndexedSlices(values, tf.constant([2, 0, 2])))

    step(delta.values)
    step(delta.values)
    expected, twice = made()
    expected.scatter_add(twice).scatter_add(twice)
    np.testing.assert_array_equal(v.numpy(), expected.numpy())


def test_options_of_tensorflow_are_kept():
    v = tf.Variable(
        1.0,
        constraint=tf.nn.relu,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.MEAN,
    )
    assert v.synchronization.name == "ON_READ" and v.aggregation.name == "MEAN"
    plain = tf.Variable(1.0)
    assert plain.constraint is None and plain.trainable
    assert plain.synchronization is tf.VariableSynchronization.AUTO
    assert plain.aggregation is tf.VariableAggregation.NONE


def test_optimizers_apply_the_constraint():
    v = tf.Variable([1.0, -1.0], constraint=tf.nn.relu)
    tf.keras.optimizers.SGD(0.5).apply_gradients([(tf.constant([1.0, 1.0]), v)])
    assert v.numpy().tolist() == [0.5, 0.0]


def test_the_larger_and_the_smaller_at_positions_stay():
    for name, expected in (("max", [5, 2, 7]), ("min", [1, 2, 3])):
        v = tf.Variable([1.0, 2.0, 3.0])
        assert getattr(v, f"scatter_nd_{name}")([[0], [2]], [5.0, 7.0]) is v
        np.testing.assert_array_equal(v, expected)
        with pytest.raises(tf.errors.InvalidArgumentError):
            getattr(v, f"scatter_nd_{name}")([[3]], [5.0])
        np.testing.assert_array_equal(v, expected)


def test_assignments_that_give_nothing_back():
    v = tf.Variable(1.0)
    for assign in (v.assign, v.assign_add, v.assign_sub):
        assert assign(2.0, read_value=False) is None and assign(2.0) is v


def test_another_shape_is_an_invalid_argument_and_a_value_error():
    v = tf.Variable([1.0, 2.0])
    for write in (v.assign, v.assign_add, v.assign_sub):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"\(3,\)") as caught:
            write([1.0, 2.0, 3.0])
        assert isinstance(caught.value, ValueError)
