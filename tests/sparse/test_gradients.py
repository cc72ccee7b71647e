"""Gradients through the values of sparse tensors, against finite differences, to second order."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.sparse.elementwise import multiply
from distgrad.sparse.products import sparse_matmul
from distgrad.testing.gradients import check_gradients

RNG = np.random.default_rng(0)
VALUES, OTHERS, WHOLE = (RNG.normal(size=size) for size in (4, 3, (3, 2)))
NUMBERS = np.array([0, 2, 0, 1])


def one(values):
    return tf.SparseTensor([[0, 1], [0, 2], [1, 0], [2, 2]], values, (3, 3))


def other(values):
    return tf.SparseTensor([[0, 0], [0, 1], [2, 2]], values, (3, 3))


OPERATIONS = {
    "sum": lambda a, b: tf.sparse.add(one(a * a), other(b)),
    "larger": lambda a, b: tf.sparse.maximum(one(a), other(b)),
    "smaller": lambda a, b: tf.sparse.minimum(one(a * a), other(b)),
    "product": lambda a, b: multiply(one(a), other(b)),
    "matrices": lambda a, b: sparse_matmul(one(a), other(b)),
    "sums": lambda a, b: tf.sparse.reduce_sum(one(a * a), 1),
    "sparse sums": lambda a, b: tf.sparse.reduce_sum(one(a * a), 0, output_is_sparse=True),
    "maxima": lambda a, b: tf.sparse.reduce_max(one(a * a), 1, output_is_sparse=True),
    "empty rows": lambda a, b: tf.sparse.fill_empty_rows(other(b * b), 1.0)[0],
    "parts": lambda a, b: tf.sparse.split(one(a * a), 2, 1)[1],
    "joined": lambda a, b: tf.sparse.concat(1, [one(a), other(b * b)]),
    "counts": lambda a, b: tf.sparse.bincount(NUMBERS, a * a),
    "rows": lambda a, b: one(a)[1:].with_values(one(a)[1:].values ** 2),
    "tanh": lambda a, b: tf.tanh(one(a)),
}


def values_of(found):
    return found.values if isinstance(found, tf.SparseTensor) else found


@pytest.mark.parametrize("name", OPERATIONS)
def test_against_finite_differences(name):
    check_gradients(lambda a, b: values_of(OPERATIONS[name](a, b)), [VALUES, OTHERS])


@pytest.mark.parametrize("name", ["segment_sum", "segment_mean", "segment_sqrt_n"])
def test_segments(name):
    rows, ids = [0, 2, 2, 1], [0, 0, 2, 2]
    check_gradients(lambda x: getattr(tf.sparse, name)(x * x, rows, ids), [WHOLE])


def test_a_product_at_places():
    def product(x, y, values):
        return tf.sparse.sampled_addmm(
            [[0, 1], [1, 2]], values, (2, 3), x, y, beta=2.0, alpha=0.5, output_type="float64"
        )[1]

    check_gradients(product, [RNG.normal(size=(2, 3)), RNG.normal(size=(3, 3)), RNG.normal(size=2)])
    dense = WHOLE @ WHOLE.T
    _, values, shape = tf.sparse.sampled_addmm(
        [[0, 1]], np.zeros(1), (3, 3), WHOLE, WHOLE.T, output_type="float64"
    )
    assert values.numpy() == pytest.approx(dense[0, 1]) and shape.numpy().tolist() == [3, 3]


def test_the_product_of_sparse_matrices_is_that_of_dense_ones():
    made = sparse_matmul(one(VALUES), other(OTHERS))
    dense = tf.sparse.to_dense(one(VALUES)).numpy() @ tf.sparse.to_dense(other(OTHERS)).numpy()
    np.testing.assert_allclose(tf.sparse.to_dense(made), dense, rtol=1e-12)
    with pytest.raises(tf.errors.InvalidArgumentError, match="no product"):
        sparse_matmul(one(VALUES), tf.sparse.eye(2))


def test_gradients_of_a_sparse_argument_are_sparse():
    sparse = one(tf.constant(VALUES))

    @tf.function
    def slopes(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.sparse.to_dense(x) ** 2)
        return tape.gradient(loss, x)

    found = slopes(sparse)
    np.testing.assert_allclose(found.values, 2 * VALUES)
    assert found.indices.numpy().tolist() == sparse.indices.numpy().tolist()
