"""Sparse tensors go into the layers and models of users, as they are."""

from __future__ import annotations

import numpy as np

import distgrad as tf
from distgrad.keras import Model, layers

EDGES = tf.sparse.from_dense(np.array([[0, 1, 0], [1, 0, 2], [0, 3, 0]], np.float32))
X = np.arange(6, dtype=np.float32).reshape(3, 2)


class Convolved(layers.Layer):
    """Neighbours added up."""

    def __init__(self, units):
        super().__init__()
        self.dense = layers.Dense(units, kernel_initializer="ones")

    def call(self, inputs):
        x, edges = inputs
        return tf.sparse.sparse_dense_matmul(edges, self.dense(x))


class Graph(Model):
    def __init__(self):
        super().__init__()
        self.convolved = Convolved(2)

    def call(self, x, edges=None):
        return self.convolved([x, edges])


def test_beside_dense_ones_and_by_name():
    expected = tf.sparse.to_dense(EDGES).numpy() @ (X @ np.ones((2, 2)))
    model = Graph()
    np.testing.assert_array_equal(model(X, edges=EDGES), expected)
    np.testing.assert_array_equal(tf.function(model)(X, EDGES), expected)


def test_a_layer_multiplies_by_them():
    made = layers.Dense(2, kernel_initializer="ones")(EDGES)
    np.testing.assert_array_equal(made, tf.sparse.to_dense(EDGES).numpy() @ np.ones((3, 2)))
