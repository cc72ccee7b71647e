"""Determinants, inverses, systems, factors, eigenvalues, norms and so on of complex matrices."""

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


H = A @ AH + np.eye(3)


def of_eigenvalues(x: Any) -> Any:
    e, v = tf.linalg.eigh(x)
    return tf.linalg.matmul(v * tf.sin(e)[..., None, :], v, adjoint_b=True)


def of_vectors(x: Any) -> Any:
    """What the phases of singular vectors do not change."""
    _, u, v = tf.linalg.svd(x)
    return tf.linalg.matmul(u, v, adjoint_b=True)


def of_any_eigenvalues(x: Any) -> Any:
    e, v = tf.linalg.eig(x)
    return tf.linalg.matmul(v * (e**3)[..., None, :], tf.linalg.inv(v))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda: tf.linalg.eigh(H)[0], np.linalg.eigvalsh(H)),
        (lambda: tf.linalg.eigvalsh(H), np.linalg.eigvalsh(H)),
        (lambda: of_any_eigenvalues(A), A @ A @ A),
        (lambda: tf.linalg.cholesky(H), np.linalg.cholesky(H)),
        (lambda: tf.linalg.slogdet(A)[1], np.linalg.slogdet(A)[1]),
        (lambda: tf.linalg.triangular_solve(A, B), np.linalg.solve(np.tril(A), B)),
        (lambda: tf.linalg.lstsq(A[0, :, :2], B[0]), np.linalg.lstsq(A[0, :, :2], B[0])[0]),
        (lambda: tf.matmul(*[tf.linalg.sqrtm(A)] * 2), A),
    ],
)
def test_factors(found: Callable[[], Any], expected: np.ndarray) -> None:
    assert found().dtype == tf.complex128
    np.testing.assert_allclose(found(), expected, rtol=1e-10)


def test_singular_values_are_real() -> None:
    s, u, v = tf.linalg.svd(A)
    assert s.dtype == tf.float64 and tf.linalg.norm(A, 2, axis=(1, 2)).dtype == tf.float64
    np.testing.assert_allclose(s, np.linalg.svd(A, compute_uv=False), rtol=1e-12)
    np.testing.assert_allclose(
        tf.matmul(u * tf.cast(s, u.dtype)[:, None, :], v, adjoint_b=True), A, rtol=1e-10
    )


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (of_eigenvalues, [H[:1]]),
        (of_any_eigenvalues, [A[:1]]),
        (of_vectors, [A[:1]]),
        (of_vectors, [A[0, :, :2]]),
        (of_vectors, [A[0, :2]]),
        (tf.linalg.cholesky, [H[:1]]),
        (lambda a: tf.linalg.slogdet(a)[0], [A]),
        (lambda a: tf.linalg.lstsq(a, B[0]), [A[0, :, :2]]),
    ],
)
def test_gradients_of_factors(function: Callable[..., Any], args: list[np.ndarray]) -> None:
    check_gradients(function, args)
