"""Gradients through the values of ragged tensors, against finite differences, to second order."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.testing.gradients import check_gradients

SPLITS, INNER = [0, 2, 2, 5, 6], [0, 1, 3, 3, 4, 5, 6]


def flat(rt):
    return rt.flat_values if isinstance(rt, tf.RaggedTensor) else rt


def rows(values):
    return tf.RaggedTensor.from_row_splits(values, SPLITS)


def nested(values):
    return tf.RaggedTensor.from_row_splits(tf.RaggedTensor.from_row_splits(values, INNER), SPLITS)


ORDER = tf.ragged.constant([[1], [], [2, 0, 0], [0]])
OPERATIONS = {
    "product with itself": lambda x: x * x,
    "broadcast over rows": lambda x: x * tf.reduce_sum(x, 1, keepdims=True),
    "power": lambda x: x**3.0,
    "sigmoid": tf.sigmoid,
    "clip": lambda x: tf.clip_by_value(x, -0.3, 0.4) * x,
    "where": lambda x: tf.where(x > 0.0, x * x, -x),
    "softmax": tf.nn.softmax,
    "sums": lambda x: tf.reduce_sum(x * x, 1),
    "sums of columns": lambda x: tf.reduce_sum(x * x, 0),
    "sum of all": lambda x: tf.reduce_sum(x * x),
    "means": lambda x: tf.reduce_mean(x[:1] * x[:1], 1),
    "products": lambda x: tf.reduce_prod(x, 1),
    "extremes": lambda x: tf.reduce_max(x, 1)[2:] * tf.reduce_min(x, 1)[2:],
    "variance": lambda x: tf.math.reduce_variance(x[2:], 1),
    "cumsum": lambda x: tf.math.cumsum(x * x, 1),
    "concat": lambda x: tf.concat([x, x * x], 1),
    "stack": lambda x: tf.stack([x, x * x], 1),
    "gather": lambda x: tf.gather(x * x, [2, 0, 2]),
    "gather in rows": lambda x: tf.gather(x * x, ORDER, batch_dims=1),
    "slices": lambda x: x[1:, ::-1] * x[1:],
    "dense": lambda x: x.to_tensor() ** 2.0,
    "dense, filled up by a value": lambda x: x.to_tensor(tf.reduce_sum(x)),
    "mask": lambda x: tf.ragged.boolean_mask(x * x, x > 0.0),
    "tile": lambda x: tf.tile(x * x, [1, 2]),
    "map_fn": lambda x: tf.map_fn(tf.reduce_sum, x * x, fn_output_signature=tf.float64),
    "merged": lambda x: (x * x).merge_dims(0, 1),
}
VALUES = np.array([0.7, -0.5, 1.1, -1.3, 0.2, 0.9])


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_are_right_to_second_order(name):
    check_gradients(lambda x: flat(OPERATIONS[name](rows(x))), [VALUES])


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: tf.reduce_sum(x * x, 0),
        lambda x: tf.reduce_sum(x * x, 1),
        lambda x: tf.reduce_sum(x * x, [1, 2]),
        lambda x: tf.concat([x, x * x], 2),
        lambda x: x * [[[2.0]], [[3.0]], [[4.0]], [[5.0]]],
        lambda x: (x * x).to_tensor(),
        lambda x: tf.tile(x * x, [1, 2, 2]),
    ],
)
def test_so_are_those_of_rows_of_rows(operation):
    check_gradients(lambda x: flat(operation(nested(x))), [VALUES])


def test_values_may_be_vectors():
    values = VALUES.reshape(3, 2)
    ids = tf.ragged.constant([[0, 2], [], [1]])

    def product(x, w):
        rt = tf.RaggedTensor.from_row_lengths(x, [1, 0, 2])
        by_row = tf.stack([w, w + 1.0, w * w])
        return tf.matmul(rt, by_row).flat_values

    check_gradients(product, [values, VALUES[:4].reshape(2, 2)])
    check_gradients(lambda x: tf.reduce_sum(tf.nn.embedding_lookup(x, ids) ** 2.0, 1), [values])


def test_a_ragged_tensor_is_a_target_and_a_source():
    rt = tf.ragged.constant([[1.0, 2.0], [], [3.0]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(rt)
        y = rt * rt
        z = tf.reduce_sum(y, 1)
    assert tape.gradient(y, rt).to_list() == [[2.0, 4.0], [], [6.0]]
    assert tape.gradient(z, {"x": rt})["x"].to_list() == [[2.0, 4.0], [], [6.0]]
    assert tape.gradient(y, rt, output_gradients=rt).to_list() == [[2.0, 8.0], [], [18.0]]
    assert tape.gradient(tf.constant(1.0), rt) is None
    zero = tape.gradient(tf.constant(1.0), rt, unconnected_gradients="zero")
    assert zero.to_list() == [[0.0, 0.0], [], [0.0]]
    words = tf.ragged.constant([["a"]])
    with pytest.raises(ValueError, match="only tensors and variables can be watched"):
        tape.watch(words)
    with pytest.raises(TypeError, match="a source must be a tensor or a variable"):
        tape.gradient(y, words)


def test_rows_gathered_from_a_variable_have_slices_as_their_gradient():
    table = tf.Variable(np.ones((4, 2), "float32"))
    with tf.GradientTape() as tape:
        found = tf.nn.embedding_lookup(table, tf.ragged.constant([[1], [], [1, 3]]))
        loss = tf.reduce_sum(found.flat_values)
    slices = tape.gradient(loss, table)
    assert isinstance(slices, tf.IndexedSlices)
    assert tf.convert_to_tensor(slices).numpy().tolist() == [[0, 0], [2, 2], [0, 0], [1, 1]]
