"""Matrix products, solvers and decompositions: values, gradients, errors."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

import distgrad as tf
from distgrad.testing.gradients import check_gradients

from .tapes import gradients


def normal(*shape):
    return np.random.default_rng(sum(shape) + len(shape)).normal(size=shape)


def regular(*shape):
    """Matrices that are far from singular."""
    return normal(*shape) + 3 * np.eye(shape[-1])


def positive(*shape):
    x = normal(*shape)
    return x @ x.swapaxes(-1, -2) + shape[-1] * np.eye(shape[-1])


# Products


def test_matmul_of_a_batch_with_one_matrix_sums_its_gradient_over_the_batch():
    a, b, w = normal(2, 5, 3, 4), normal(4, 2), normal(2, 5, 3, 2)
    found = gradients(lambda a, b: tf.reduce_sum(tf.matmul(a, b) * w), a, b)
    np.testing.assert_allclose(found[0], np.einsum("xyik,jk->xyij", w, b), rtol=1e-12)
    np.testing.assert_allclose(found[1], np.einsum("xyij,xyik->jk", a, w), rtol=1e-12)


def test_halves_are_added_up_in_float32_and_rounded_once():
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=shape).astype(np.float16) for shape in ((5, 300), (300, 7)))
    wanted = (a.astype(np.float32) @ b.astype(np.float32)).astype(np.float16)
    found = tf.matmul(a, b)
    assert found.dtype == tf.float16
    np.testing.assert_array_equal(found, wanted)
    stacked = tf.matmul(np.stack([a, a]), b)
    np.testing.assert_array_equal(stacked, [wanted, wanted])


def test_matmul_of_complex_matrices_and_its_adjoint():
    a, b = normal(3, 4) + 1j * normal(4, 3).T, normal(2, 4) + 1j * normal(4, 2).T
    found = tf.matmul(a, b, adjoint_b=True)
    np.testing.assert_allclose(found.numpy(), a @ b.conj().T, rtol=1e-12)
    assert np.array_equal(tf.linalg.adjoint(a).numpy(), a.conj().T)
    # d |a @ b|^2 / d(real, imag of a) is 2 (a @ b) b^H.
    (g,) = gradients(lambda a: tf.reduce_sum(tf.abs(tf.matmul(a, b.T)) ** 2), a)
    np.testing.assert_allclose(g, 2 * (a @ b.T) @ b.T.conj().T, rtol=1e-10)


def test_matmul_of_integers_keeps_their_dtype():
    found = tf.matmul(tf.constant([[1, 2]]), tf.constant([[3], [4]]))
    assert found.dtype == tf.int32 and found.numpy().tolist() == [[11]]


@pytest.mark.parametrize(
    "a, b", [((2, 3), (2, 3)), ((3,), (3, 2)), ((2, 3), ()), ((2, 2, 3), (3, 3, 2))]
)
def test_matmul_names_both_shapes_of_operands_that_do_not_fit(a, b):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        tf.matmul(tf.ones(a), tf.ones(b))
    for shape in (a, b):
        assert str(shape) in str(caught.value) or str(list(shape)) in str(caught.value)


def test_matmul_refuses_other_dtypes_bools_and_double_flags():
    with pytest.raises(tf.errors.InvalidArgumentError, match="float32 and float64"):
        tf.matmul(tf.ones((2, 2)), tf.ones((2, 2), dtype=tf.float64))
    with pytest.raises(tf.errors.InvalidArgumentError, match="bool"):
        tf.matmul(tf.constant([[True]]), tf.constant([[True]]))
    with pytest.raises(ValueError, match="transpose_a and adjoint_a are both"):
        tf.matmul(tf.ones((2, 2)), tf.ones((2, 2)), transpose_a=True, adjoint_a=True)


def test_aliases_are_the_same_objects():
    assert tf.matmul is tf.linalg.matmul
    assert tf.einsum is tf.linalg.einsum
    assert tf.tensordot is tf.linalg.tensordot
    assert tf.linalg.l2_normalize is tf.math.l2_normalize is tf.nn.l2_normalize


def test_matvec():
    a, b = normal(2, 3, 4), normal(2, 4)
    np.testing.assert_allclose(tf.linalg.matvec(a, b), np.einsum("bij,bj->bi", a, b), rtol=1e-12)
    found = tf.linalg.matvec(a, normal(2, 3), transpose_a=True)
    np.testing.assert_allclose(found, np.einsum("bij,bi->bj", a, normal(2, 3)), rtol=1e-12)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\(3,\)"):
        tf.linalg.matvec(tf.ones(3), tf.ones(3))


@pytest.mark.parametrize(
    "axes", [0, 1, 2, [[0], [1]], [1, 0], [[0, 1], [1, 0]], [[], []], [[-1], [0]]]
)
def test_tensordot(axes):
    a, b = normal(3, 3), normal(3, 3)[::-1]
    np.testing.assert_allclose(tf.tensordot(a, b, axes), np.tensordot(a, b, axes), rtol=1e-12)
    check_gradients(lambda a, b: tf.tensordot(a, b, axes), [a, b.copy()])


@pytest.mark.parametrize("axes", [1, [[5], [0]], [[0, 0], [0, 1]], [[0], [0, 1]], 3])
def test_tensordot_refuses_axes_that_do_not_pair_up(axes):
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.tensordot(tf.ones((2, 3)), tf.ones((2, 3)), axes)


def test_cross_and_trace():
    a, b = normal(4, 3), normal(2, 2, 3).reshape(4, 3)
    np.testing.assert_allclose(tf.linalg.cross(a, b), np.cross(a, b), rtol=1e-12)
    x = normal(2, 3, 4)
    np.testing.assert_allclose(tf.linalg.trace(x), np.trace(x, axis1=1, axis2=2), rtol=1e-12)
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.linalg.cross(tf.ones((2, 2)), tf.ones((2, 2)))
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.linalg.trace(tf.ones(3))


def test_matrix_transpose():
    x = normal(2, 3, 4)
    assert np.array_equal(tf.linalg.matrix_transpose(x).numpy(), x.swapaxes(1, 2))


# Solvers


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 3, 3), (2, 2, 2, 2)])
def test_determinants_and_inverse(shape):
    x = regular(*shape)
    np.testing.assert_allclose(tf.linalg.det(x), np.linalg.det(x), rtol=1e-12)
    sign, log_abs = tf.linalg.slogdet(x)
    np.testing.assert_allclose(sign * tf.exp(log_abs), np.linalg.det(x), rtol=1e-12)
    product = tf.matmul(x, tf.linalg.inv(x)).numpy()
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(shape[-1]), shape), atol=1e-12)
    assert np.array_equal(
        tf.linalg.inv(x, adjoint=True).numpy(), tf.linalg.inv(x).numpy().swapaxes(-1, -2)
    )


def test_slogdet_does_not_overflow_where_det_does():
    x = 1e10 * np.eye(50)
    assert tf.linalg.slogdet(x)[1].numpy() == pytest.approx(50 * np.log(1e10))


def test_logdet_of_a_positive_definite_matrix():
    x = positive(2, 3, 3)
    np.testing.assert_allclose(tf.linalg.logdet(x), np.linalg.slogdet(x)[1], rtol=1e-12)
    check_gradients(tf.linalg.logdet, [x])


@pytest.mark.parametrize("adjoint", [False, True])
def test_solve(adjoint):
    a, b = regular(2, 3, 3), normal(2, 3, 2)
    x = tf.linalg.solve(a, b, adjoint=adjoint)
    np.testing.assert_allclose(tf.matmul(a, x, transpose_a=adjoint), b, rtol=1e-10)


def test_solve_broadcasts_its_batches():
    a, b = regular(3, 3), normal(2, 3, 2)
    np.testing.assert_allclose(tf.matmul(a, tf.linalg.solve(a, b)), b, rtol=1e-10)
    check_gradients(tf.linalg.solve, [a, b])
    check_gradients(tf.linalg.triangular_solve, [a, b])


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("adjoint", [False, True])
def test_triangular_solve_reads_one_triangle(lower, adjoint):
    a, b = regular(2, 3, 3), normal(2, 3, 1)
    x = tf.linalg.triangular_solve(a, b, lower=lower, adjoint=adjoint)
    t = np.tril(a) if lower else np.triu(a)
    np.testing.assert_allclose((t.swapaxes(1, 2) if adjoint else t) @ x.numpy(), b, rtol=1e-10)


def test_cholesky_and_its_solve():
    a, b = positive(2, 3, 3), normal(2, 3, 2)
    factor = tf.linalg.cholesky(a)
    np.testing.assert_allclose(factor, np.linalg.cholesky(a), rtol=1e-12)
    x = tf.linalg.cholesky_solve(factor, b)
    np.testing.assert_allclose(x, np.linalg.solve(a, b), rtol=1e-10)
    check_gradients(lambda a, b: tf.linalg.cholesky_solve(tf.linalg.cholesky(a), b), [a, b])


def test_gradient_of_cholesky_is_that_of_a_symmetric_matrix():
    (g,) = gradients(lambda x: tf.reduce_sum(tf.linalg.cholesky(x)), positive(3, 3))
    assert np.array_equal(g, g.T)


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (2, 4, 3)])
def test_lstsq(shape):
    a, b = normal(*shape), normal(*shape[:-1], 2)
    expected = np.linalg.pinv(a) @ b
    np.testing.assert_allclose(tf.linalg.lstsq(a, b), expected, rtol=1e-8)
    np.testing.assert_allclose(tf.linalg.lstsq(a, b, fast=False), expected, rtol=1e-8)
    ridge = np.linalg.solve(
        a.swapaxes(-1, -2) @ a + 0.3 * np.eye(shape[-1]), a.swapaxes(-1, -2) @ b
    )
    np.testing.assert_allclose(tf.linalg.lstsq(a, b, l2_regularizer=0.3), ridge, rtol=1e-8)
    check_gradients(lambda a, b: tf.linalg.lstsq(a, b, l2_regularizer=0.3), [a, b])


@pytest.mark.parametrize(
    "fn",
    [
        lambda: tf.linalg.det(tf.ones((2, 3))),
        lambda: tf.linalg.inv(tf.zeros((2, 2))),
        lambda: tf.linalg.solve(tf.zeros((2, 2)), tf.ones((2, 1))),
        lambda: tf.linalg.solve(tf.eye(2), tf.ones((3, 1))),
        lambda: tf.linalg.solve(tf.eye(2), tf.ones(2)),
        lambda: tf.linalg.solve(tf.eye(2), tf.ones((2, 1), dtype=tf.float64)),
        lambda: tf.linalg.triangular_solve(tf.zeros((2, 2)), tf.ones((2, 1))),
        lambda: tf.linalg.cholesky(-tf.eye(2)),
        lambda: tf.linalg.lstsq(tf.ones((3, 2)), tf.ones((2, 1))),
        lambda: tf.linalg.det(tf.constant([[1, 2], [3, 4]])),
        lambda: tf.linalg.qr(tf.ones(3)),
        lambda: tf.linalg.eigh(tf.ones((2, 3))),
    ],
)
def test_what_cannot_be_solved_is_an_invalid_argument(fn):
    with pytest.raises(tf.errors.InvalidArgumentError):
        fn()


# Decompositions


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4), (2, 3, 2), (0, 3, 3)])
@pytest.mark.parametrize("full", [False, True])
def test_qr_and_svd_give_the_matrix_back(shape, full):
    x = normal(*shape)
    q, r = tf.linalg.qr(x, full_matrices=full)
    np.testing.assert_allclose(tf.matmul(q, r), x, atol=1e-12)
    s, u, v = tf.linalg.svd(x, full_matrices=full)
    count = min(shape[-2:])
    assert s.shape == (*shape[:-2], count)
    back = tf.matmul(u[..., :count] * tf.expand_dims(s, -2), v[..., :count], transpose_b=True)
    np.testing.assert_allclose(back, x, atol=1e-12)
    np.testing.assert_allclose(tf.linalg.svd(x, compute_uv=False), s, atol=1e-12)
    wide = max(shape[-2:]) if full else count
    assert q.shape[-1] == (shape[-2] if full else count)
    assert max(u.shape[-1], v.shape[-1]) == wide


def test_gradient_through_columns_that_are_not_determined_is_refused():
    x = normal(4, 2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="full_matrices=False"):
        gradients(lambda x: tf.linalg.qr(x, full_matrices=True)[0], x)
    with pytest.raises(tf.errors.InvalidArgumentError, match="full_matrices=False"):
        gradients(lambda x: tf.linalg.svd(x, full_matrices=True)[1], x)


def test_equal_singular_and_eigenvalues_have_finite_gradients():
    for fn in (tf.linalg.eigh, tf.linalg.svd):
        (g,) = gradients(lambda x, fn=fn: fn(x)[0], np.eye(3))
        np.testing.assert_allclose(g, np.eye(3), atol=1e-12)


def test_eigh_reads_the_lower_triangle_and_gives_it_the_gradient():
    x = normal(3, 3)
    symmetric = np.tril(x) + np.tril(x, -1).T
    e, v = tf.linalg.eigh(x)
    np.testing.assert_allclose(tf.matmul(symmetric, v), e * v, atol=1e-12)
    np.testing.assert_allclose(tf.linalg.eigvalsh(x), e, rtol=1e-12)
    (g,) = gradients(lambda x: tf.linalg.eigh(x)[1], x)
    assert np.array_equal(g, np.tril(g))


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 30.0])
def test_expm(scale):
    x = scale * normal(2, 4, 4)
    np.testing.assert_allclose(tf.linalg.expm(x), scipy.linalg.expm(x), rtol=1e-9, atol=1e-12)
    found = tf.linalg.expm(x.astype(np.float32))
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, scipy.linalg.expm(x), rtol=2e-4 * (1 + scale))


def test_expm_pinv_and_rank_have_the_right_gradients():
    check_gradients(tf.linalg.expm, [normal(3, 3)])
    check_gradients(tf.linalg.expm, [8 * normal(3, 3)], order=1)
    check_gradients(tf.linalg.pinv, [normal(4, 3)])
    assert gradients(tf.linalg.matrix_rank, normal(3, 3)) == [None]


def test_pinv_and_rank_of_a_matrix_without_full_rank():
    x = np.outer([1.0, 2.0, 3.0], [1.0, -1.0])
    np.testing.assert_allclose(tf.linalg.pinv(x), np.linalg.pinv(x), atol=1e-12)
    assert tf.linalg.matrix_rank(x).numpy() == 1
    assert tf.linalg.matrix_rank(np.diag([1.0, 0.1]), tol=0.5).numpy() == 1
    assert tf.linalg.matrix_rank(x).dtype == tf.int32
