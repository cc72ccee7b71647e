"""Several diagonals at once: tf.linalg.diag, diag_part and set_diag with k = (low, high)."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.testing.gradients import check_gradients

X = np.arange(1.0, 13.0).reshape(3, 4)
# Of TensorFlow 2.21, for X, k and align, with -7 where a row is free.
STORED = [
    ((-1, 1), "RIGHT_LEFT", [[2, 7, 12], [1, 6, 11], [5, 10, -7]]),
    ((-1, 1), "LEFT_RIGHT", [[2, 7, 12], [1, 6, 11], [-7, 5, 10]]),
    ((0, 2), "RIGHT_LEFT", [[-7, 3, 8], [2, 7, 12], [1, 6, 11]]),
    ((0, 2), "LEFT_LEFT", [[3, 8, -7], [2, 7, 12], [1, 6, 11]]),
    ((-2, -1), "RIGHT_LEFT", [[5, 10], [9, -7]]),
    ((-2, -1), "RIGHT_RIGHT", [[5, 10], [-7, 9]]),
    ((1, 1), "RIGHT_LEFT", [2, 7, 12]),
]


@pytest.mark.parametrize(("k", "align", "expected"), STORED)
def test_as_in_tensorflow_and_back(k, align, expected):
    part = tf.linalg.diag_part(X, k=k, padding_value=-7, align=align)
    assert part.numpy().tolist() == expected
    made = tf.linalg.diag(part, k=k, num_rows=3, num_cols=4, padding_value=9, align=align).numpy()
    offset = np.arange(4) - np.arange(3)[:, None]
    inside = (offset >= k[0]) & (offset <= k[1])
    np.testing.assert_array_equal(made, np.where(inside, X, 9))
    put = tf.linalg.set_diag(X, -part, k=k, align=align).numpy()
    np.testing.assert_array_equal(put, np.where(inside, -X, X))


@pytest.mark.parametrize("align", ["RIGHT_LEFT", "LEFT_RIGHT", "LEFT_LEFT", "RIGHT_RIGHT"])
@pytest.mark.parametrize("k", [(-1, 1), (0, 2), (-2, -1), (-2, 3)])
def test_batches_and_gradients(k, align):
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    part = tf.linalg.diag_part(x, k=k, align=align)
    for one, each in zip(x, part, strict=True):
        np.testing.assert_array_equal(tf.linalg.diag_part(one, k=k, align=align), each)
    check_gradients(lambda x: tf.linalg.diag_part(x, k=k, align=align), [x])
    lines = part.numpy()
    check_gradients(
        lambda d: tf.linalg.diag(d, k=k, num_rows=3, num_cols=4, align=align) ** 2, [lines]
    )
    check_gradients(lambda x, d: tf.linalg.set_diag(x, d, k=k, align=align) ** 2, [x, lines])


def test_sizes_that_are_left_out():
    made = tf.linalg.diag([[1.0, 2.0, 3.0], [4.0, 5.0, 0.0]], k=(-1, 0)).numpy()
    assert made.tolist() == [[1, 0, 0], [4, 2, 0], [0, 5, 3]]
    above = tf.linalg.diag([[0.0, 8.0], [1.0, 2.0]], k=tf.constant([1, 2])).numpy()
    assert above.tolist() == [[0, 1, 8], [0, 0, 2], [0, 0, 0]]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tf.linalg.diag_part(X, k=(1, -1)), "the lowest and highest"),
        (lambda: tf.linalg.diag_part(X, k=(0, 4)), "no diagonal 4"),
        (lambda: tf.linalg.diag_part(X, k=(0, 2), align="RIGHT"), "align is RIGHT_LEFT"),
        (lambda: tf.linalg.diag(np.ones((2, 3)), k=(-1, 1)), "have shape"),
        (lambda: tf.linalg.diag(np.ones(3), k=(0, 1)), "not made of"),
        (lambda: tf.linalg.set_diag(X, np.ones((2, 3)), k=(-1, 1)), "have shape"),
    ],
)
def test_what_makes_no_sense(call, words):
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        call()


def test_eigenvalues_of_a_tridiagonal_matrix():
    alpha, beta = np.array([2.0, -1.0, 0.5]), np.array([1.0, 0.3])
    matrix = np.diag(alpha) + np.diag(beta, -1) + np.diag(beta, 1)
    expected = np.linalg.eigvalsh(matrix)
    np.testing.assert_allclose(tf.linalg.eigh_tridiagonal(alpha, beta), expected)
    values, vectors = tf.linalg.eigh_tridiagonal(
        alpha, beta, eigvals_only=False, select="i", select_range=(1, 2)
    )
    np.testing.assert_allclose(values, expected[1:])
    np.testing.assert_allclose(matrix @ vectors.numpy(), vectors * values, atol=1e-12)
    some = tf.linalg.eigh_tridiagonal(alpha, beta, select="v", select_range=(0.0, 2.0))
    np.testing.assert_allclose(some, expected[1:2])
    turned = tf.linalg.eigh_tridiagonal(alpha + 0j, beta * 1j)
    np.testing.assert_allclose(turned, expected)
    with pytest.raises(ValueError, match="select"):
        tf.linalg.eigh_tridiagonal(alpha, beta, select="all")
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.linalg.eigh_tridiagonal(alpha, alpha)
