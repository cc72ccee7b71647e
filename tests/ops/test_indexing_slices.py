"""IndexedSlices: the gradient of a gather along the first axis (spec section 5)."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf


def table():
    return tf.Variable(np.arange(8.0).reshape(4, 2))


def test_gradient_of_a_gather_is_the_rows_that_were_taken():
    v = table()
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(tf.gather(v, [[1, 3], [1, 0]]) ** 2)
    g = tape.gradient(y, v)
    assert isinstance(g, tf.IndexedSlices)
    assert g.values.shape == (4, 2) and g.dtype == tf.float64 and g.device == v.device
    np.testing.assert_array_equal(g.indices, [1, 3, 1, 0])
    np.testing.assert_array_equal(g.dense_shape, [4, 2])
    assert g.shape == v.shape and tf.is_tensor(g)
    dense = tf.convert_to_tensor(g)
    np.testing.assert_array_equal(dense, [[0, 2], [8, 12], [0, 0], [12, 14]])
    np.testing.assert_array_equal(np.asarray(g), dense)


def test_two_gathers_are_joined():
    v = table()
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(tf.gather(v, [2])) + 2.0 * tf.reduce_sum(tf.gather(v, np.array([0, 2])))
    g = tape.gradient(y, v)
    assert isinstance(g, tf.IndexedSlices) and g.values.shape == (3, 2)
    np.testing.assert_array_equal(tf.convert_to_tensor(g)[:, 0], [2, 0, 3, 0])


def test_many_gathers_are_joined_once():
    v = table()
    with tf.GradientTape() as tape:
        y = tf.constant(0.0, tf.float64)
        for _ in range(2000):
            y += tf.gather(v, 1)[0]
    g = tape.gradient(y, [v, v])
    for found in g:
        assert found.values.shape == (2000, 2)
        np.testing.assert_array_equal(tf.convert_to_tensor(found)[:, 0], [0, 2000, 0, 0])


def test_gathers_before_and_after_an_assignment():
    v = table()
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(tf.gather(v, [0]))
        v.assign_add(tf.ones_like(v))
        y += tf.reduce_sum(tf.gather(v, [1]) ** 2)
    g = tape.gradient(y, v)
    assert isinstance(g, tf.IndexedSlices)
    np.testing.assert_array_equal(tf.convert_to_tensor(g)[:2], [[1, 1], [6, 8]])


def test_mixed_with_a_dense_path_it_is_dense():
    v = table()
    for order in (0, 1):
        with tf.GradientTape() as tape:
            parts = [tf.reduce_sum(tf.gather(v, [2])), tf.reduce_sum(v)]
            y = parts[order] + parts[1 - order]
        g = tape.gradient(y, v)
        assert isinstance(g, tf.Tensor)
        np.testing.assert_array_equal(g[:, 0], [1, 1, 2, 1])


def test_behind_another_operation_it_is_dense():
    v = table()
    with tf.GradientTape() as tape:
        y = tf.gather(v * 3.0, [2, 2])
    g = tape.gradient(y, v)
    assert isinstance(g, tf.Tensor)
    np.testing.assert_array_equal(g[:, 0], [0, 0, 6, 0])


def test_of_an_intermediate_and_along_another_axis():
    x = tf.constant(np.ones((3, 2)))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = x * 2.0
        z = tf.gather(y, [0])
        w = tf.gather(y, [0], axis=1)
    assert isinstance(tape.gradient(z, y), tf.IndexedSlices)
    assert isinstance(tape.gradient(z, x), tf.Tensor)
    assert isinstance(tape.gradient(w, y), tf.Tensor)
    both = tape.gradient(z, [x, y])
    np.testing.assert_array_equal(both[0], [[2, 2], [0, 0], [0, 0]])


def test_unconnected_zeros_are_dense():
    v = table()
    with tf.GradientTape() as tape:
        y = tf.constant(1.0)
    assert isinstance(tape.gradient(y, v, unconnected_gradients="zero"), tf.Tensor)


def test_operations_take_it_as_a_tensor():
    v = table()
    with tf.GradientTape() as tape:
        y = tf.gather(v, [1, 1])
    g = tape.gradient(y, v)
    dense = np.array([[0, 0], [2, 2], [0, 0], [0, 0.0]])
    np.testing.assert_array_equal(g * 2.0, 2 * dense)
    np.testing.assert_array_equal(1.0 - g, 1 - dense)
    np.testing.assert_array_equal(v - g, v.numpy() - dense)
    np.testing.assert_array_equal(g @ tf.ones([2, 1], tf.float64), dense @ np.ones((2, 1)))
    assert float(tf.reduce_sum(g)) == 4 and float(tf.norm(g)) == pytest.approx(8**0.5)
    np.testing.assert_array_equal(g[1], [2, 2])
    np.testing.assert_allclose(tf.clip_by_norm(g, 1.0)[1], [0.5**0.5] * 2)
    with pytest.raises(TypeError, match="unhashable"):
        hash(g)


def test_second_derivatives_pass_through_it():
    v = table()
    with tf.GradientTape(persistent=True) as outer:
        with tf.GradientTape() as inner:
            y = tf.reduce_sum(tf.gather(v, [1, 3, 1]) ** 3)
        g = inner.gradient(y, v)
        squared = tf.reduce_sum(tf.convert_to_tensor(g) ** 2)
    counts = np.array([[0.0], [2], [0], [1]])
    first = 3 * counts * v.numpy() ** 2
    np.testing.assert_allclose(g, first)
    np.testing.assert_allclose(outer.gradient(squared, v), 2 * first * 6 * counts * v.numpy())
    # The slices themselves as a target stand for the sum over the dense tensor.
    np.testing.assert_allclose(outer.gradient(g, v), 6 * counts * v.numpy())
    weights = np.arange(8.0).reshape(4, 2)
    weighted = outer.gradient(g, v, output_gradients=weights)
    np.testing.assert_allclose(weighted, weights * 6 * counts * v.numpy())


def test_jacobian_through_a_gather_is_dense():
    v = table()
    with tf.GradientTape() as tape:
        y = tf.gather(v, [2, 2])
    jacobian = tape.jacobian(y, v)
    expected = np.zeros((2, 2, 4, 2))
    expected[:, 0, 2, 0] = expected[:, 1, 2, 1] = 1
    np.testing.assert_array_equal(jacobian, expected)


def test_forward_accumulator_through_a_gather():
    v = table()
    with tf.autodiff.ForwardAccumulator(v, tf.constant(np.ones((4, 2)))) as accumulator:
        y = tf.gather(v, [1, 2]) ** 2
    np.testing.assert_allclose(accumulator.jvp(y), 2 * v.numpy()[[1, 2]])


def test_optimizer_takes_it_and_leaves_untouched_rows():
    v, w = table(), table()
    for variable, sparse in [(v, True), (w, False)]:
        optimizer = tf.keras.optimizers.Adam(0.1)
        for rows in ([0, 0], [2, 0], [2, 1]):
            with tf.GradientTape() as tape:
                y = tf.reduce_sum(tf.gather(variable, rows) ** 2)
            g = tape.gradient(y, variable)
            assert isinstance(g, tf.IndexedSlices)
            optimizer.apply_gradients([(g if sparse else tf.convert_to_tensor(g), variable)])
    np.testing.assert_array_equal(v, w)
    np.testing.assert_array_equal(v[3], [6.0, 7.0])


def test_slices_of_a_variable_are_its_value():
    v = tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        whole = tf.convert_to_tensor(tf.IndexedSlices(v, [2, 0], [3]))
    np.testing.assert_array_equal(whole, [2, 0, 1])
    np.testing.assert_array_equal(tape.gradient(whole, v), [1, 1])


def test_the_rows_need_a_known_whole():
    loose = tf.IndexedSlices(tf.ones([2, 3]), tf.constant([0, 1]))
    assert loose.dense_shape is None and loose.shape[1:] == (3,)
    with pytest.raises(ValueError, match="dense_shape"):
        tf.convert_to_tensor(loose)
    given = tf.IndexedSlices(tf.ones([2, 3]), tf.constant([0, 0]), tf.constant([4, 3]))
    np.testing.assert_array_equal(tf.convert_to_tensor(given)[0], [2, 2, 2])
    assert "IndexedSlices" in repr(given)
