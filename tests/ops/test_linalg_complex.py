"""Determinants, inverses, linear systems, exponentials and norms of complex matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg

import distgrad as tf
from distgrad.testing.gradients import check_gradients

RNG = np.random.default_rng(2)
A = RNG.normal(size=(2, 3, 3)) + 1j * RNG.normal(size=(2, 3, 3)) + 2.5 * np.eye(3)
B = RNG.normal(size=(2, 3, 2)) + 1j * RNG.normal(size=(2, 3, 2))
AH = A.swapaxes(-1, -2).conj()


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda: tf.linalg.det(A), np.linalg.det(A)),
        (lambda: tf.linalg.inv(A), np.linalg.inv(A)),
        (lambda: tf.linalg.inv(A, adjoint=True), np.linalg.inv(AH)),
        (lambda: tf.linalg.solve(A, B), np.linalg.solve(A, B)),
        (lambda: tf.linalg.solve(A, B, adjoint=True), np.linalg.solve(AH, B)),
        (lambda: tf.linalg.expm(A), scipy.linalg.expm(A)),
    ],
)
def test_values(found: Callable[[], Any], expected: np.ndarray) -> None:
    assert found().dtype == tf.complex128
    np.testing.assert_allclose(found(), expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (tf.linalg.det, [A]),
        (tf.linalg.inv, [A]),
        (lambda a: tf.linalg.inv(a, adjoint=True), [A]),
        (tf.linalg.solve, [A, B]),
        (lambda a, b: tf.linalg.solve(a, b, adjoint=True), [A, B]),
        (tf.linalg.expm, [0.1 * A]),
    ],
)
def test_gradients_to_second_order(function: Callable[..., Any], args: list[np.ndarray]) -> None:
    check_gradients(function, args)


def test_a_euclidean_norm_of_complex_numbers_is_complex_as_in_tensorflow() -> None:
    for axis, keepdims in ((None, False), (-1, True), ((0, 1), False)):
        found = tf.norm(A, axis=axis, keepdims=keepdims)
        expected = np.sqrt((np.abs(A) ** 2).sum(axis=axis, keepdims=keepdims))
        assert found.dtype == tf.complex128
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert tf.norm(A, ord=1, axis=0).dtype == tf.float64
    unit, length = tf.linalg.normalize(A, axis=-1)
    np.testing.assert_allclose(unit * length, A, rtol=1e-12)
    np.testing.assert_allclose(tf.norm(tf.nn.l2_normalize(A, axis=-1), axis=-1), 1, rtol=1e-12)
    check_gradients(lambda a: tf.nn.l2_normalize(a, axis=-1), [A])
