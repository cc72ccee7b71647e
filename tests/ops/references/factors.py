"""Factors of any matrix and tridiagonal systems: by elimination, or by what they must fulfil."""

from __future__ import annotations

import numpy as np


def eliminated(x):
    """LU by hand: the largest pivot of each column first."""
    x, order = np.array(x), np.arange(len(x))
    for k in range(len(x)):
        best = k + int(np.argmax(np.abs(x[k:, k])))
        x[[k, best]], order[[k, best]] = x[[best, k]], order[[best, k]]
        for i in range(k + 1, len(x)):
            x[i, k] /= x[k, k]
            x[i, k + 1 :] -= x[i, k] * x[k, k + 1 :]
    return x, order.astype(np.int32)


def lu_factors(x):
    found = [eliminated(matrix) for matrix in x.reshape(-1, *x.shape[-2:])]
    factors, orders = (np.stack(each) for each in zip(*found, strict=True))
    return factors.reshape(x.shape), orders.reshape(x.shape[:-1])


def eigen_pairs(value, x):
    e, v = value
    np.testing.assert_allclose(x @ v, v * e[..., None, :], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(v, axis=-2), 1)
    np.testing.assert_allclose(e.sum(-1), np.trace(x, axis1=-2, axis2=-1), atol=1e-12)


def root(value, x):
    np.testing.assert_allclose(value @ value, x, atol=1e-12)
    assert (np.linalg.eigvals(value).real > 0).all()  # the principal one


def logarithm(value, x):
    total = term = np.eye(len(x), dtype=complex)
    for n in range(1, 60):
        term = term @ value / n
        total = total + term
    np.testing.assert_allclose(total, x, atol=1e-12)
    assert (np.abs(np.linalg.eigvals(value).imag) < np.pi).all()


def solve_tridiagonal(diagonals, rhs, *, adjoint):
    size = rhs.shape[-2]
    matrix = np.zeros((*diagonals.shape[:-2], size, size))
    for i in range(size):
        matrix[..., i, i] = diagonals[..., 1, i]
        if i + 1 < size:
            matrix[..., i, i + 1] = diagonals[..., 0, i]
            matrix[..., i + 1, i] = diagonals[..., 2, i + 1]
    return np.linalg.inv(np.swapaxes(matrix, -1, -2) if adjoint else matrix) @ rhs


REFERENCES = {"lu_factors": lu_factors, "solve_tridiagonal": solve_tridiagonal}

PROPERTIES = {
    "any_eigen_pairs": eigen_pairs,
    "matrix_root": root,
    "matrix_logarithm": logarithm,
}
