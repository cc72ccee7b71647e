"""``tf.sets``: the answers are TensorFlow's."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

A = np.array([[[1, 2], [3, 0]], [[4, 0], [5, 6]]])
B = np.array([[[1, 0], [0, 0]], [[4, 0], [5, 7]]])
S = tf.SparseTensor([[0, 0], [0, 1], [1, 0]], [1, 2, 3], [2, 2])
T = tf.SparseTensor([[0, 0], [1, 0], [1, 2]], [2, 3, 9], [2, 3])


def parts(sparse):
    values = np.asarray(sparse.values).tolist()
    return sparse.indices.numpy().tolist(), values, sparse.dense_shape.numpy().tolist()


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            lambda: tf.sets.intersection(A, B),
            ([[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 1], [1, 1, 0]], [1, 0, 0, 4, 5], [2, 2, 2]),
        ),
        (
            lambda: tf.sets.difference(A, B),
            ([[0, 0, 0], [0, 1, 0], [1, 1, 0]], [2, 3, 6], [2, 2, 1]),
        ),
        (
            lambda: tf.sets.difference(A, B, aminusb=False),
            ([[0, 0, 0], [1, 1, 0]], [0, 7], [2, 2, 1]),
        ),
        (
            lambda: tf.sets.union([[9, 2, 2]], [[5, 9]]),
            ([[0, 0], [0, 1], [0, 2]], [2, 5, 9], [1, 3]),
        ),
        (lambda: tf.sets.intersection([[1, 2]], [[3]]), ([], [], [1, 0])),
        (
            lambda: tf.sets.union([["b", "a"]], [[b"\xff", "a"]]),
            ([[0, 0], [0, 1], [0, 2]], [b"a", b"b", b"\xff"], [1, 3]),
        ),
        (lambda: tf.sets.intersection(S, T), ([[0, 0], [1, 0]], [2, 3], [2, 1])),
        (lambda: tf.sets.difference([[1, 2], [3, 4]], T), ([[0, 0], [1, 0]], [1, 4], [2, 1])),
        (lambda: tf.sets.difference(T, [[1, 2], [3, 4]]), ([[1, 0]], [9], [2, 1])),
    ],
)
def test_sets_along_the_last_axis(found, expected):
    assert parts(found()) == expected


def test_dtypes_and_sizes():
    narrow = tf.sets.union(A.astype(np.uint8), B.astype(np.uint8))
    assert narrow.dtype == tf.uint8 and narrow.indices.dtype == tf.int64
    twice = tf.SparseTensor([[0, 0, 0], [0, 1, 0], [0, 1, 1]], [1, 2, 2], [2, 2, 2])
    sizes = tf.sets.size(twice)
    assert sizes.dtype == tf.int32 and sizes.numpy().tolist() == [[1, 1], [0, 0]]


def test_what_is_refused():
    for a, b in ((A, B.astype(np.int32)), (A * 1.0, B * 1.0)):
        with pytest.raises(TypeError, match="one dtype"):
            tf.sets.union(a, b)
    for a, b in (([1, 2], [1, 2]), ([[1, 2]], [[1], [2]])):
        with pytest.raises(tf.errors.InvalidArgumentError):
            tf.sets.union(a, b)
    with pytest.raises(TypeError, match="SparseTensor"):
        tf.sets.size(A)
