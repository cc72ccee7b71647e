"""What the linear algebra primitives should give: textbook loops, or scipy one matrix at a time."""

from __future__ import annotations

import itertools
import math

import numpy as np
import scipy.linalg


def per_matrix(fn):
    """``fn`` applied to each matrix of a batch; its results stacked."""

    def reference(*arrays, **params):
        batch = arrays[0].shape[:-2]
        found = [fn(*(a[at] for a in arrays), **params) for at in np.ndindex(*batch)]
        if isinstance(found and found[0], tuple):
            parts = zip(*found, strict=True)
            return tuple(np.reshape(p, batch + np.shape(p[0])) for p in map(list, parts))
        if not found:
            return np.zeros(arrays[-1].shape)
        return np.reshape(found, batch + np.shape(found[0]))

    return reference


def dot(a, b, *, transpose_a, transpose_b):
    left = "ji" if transpose_a else "ij"
    right = "kj" if transpose_b else "jk"
    return np.einsum(f"...{left},...{right}->...ik", a, b)


def cross_product(a, b):
    out = np.empty(a.shape)
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        out[..., i] = a[..., j] * b[..., k] - a[..., k] * b[..., j]
    return out


def leibniz(x):
    total = 0.0
    for order in itertools.permutations(range(len(x))):
        inversions = sum(p > q for p, q in itertools.combinations(order, 2))
        total += (-1) ** inversions * math.prod(x[i, j] for i, j in enumerate(order))
    return total


def adjugate(x):
    n = len(x)
    out = np.empty((n, n))
    for i, j in np.ndindex(n, n):
        minor = np.delete(np.delete(x, j, axis=0), i, axis=1)
        out[i, j] = (-1) ** (i + j) * leibniz(minor)
    return out / leibniz(x)


def cramer(matrix, rhs, *, adjoint):
    matrix = matrix.T if adjoint else matrix
    out = np.empty(rhs.shape)
    for i, k in np.ndindex(*rhs.shape):
        replaced = matrix.copy()
        replaced[:, i] = rhs[:, k]
        out[i, k] = leibniz(replaced) / leibniz(matrix)
    return out


def substitution(matrix, rhs, *, lower, adjoint):
    t = np.tril(matrix) if lower else np.triu(matrix)
    t = t.T.conj() if adjoint else t
    n = len(t)
    out = np.zeros_like(rhs)
    for i in range(n) if lower != adjoint else reversed(range(n)):
        out[i] = (rhs[i] - t[i] @ out) / t[i, i]
    return out


def cholesky_factor(x):
    n, x = len(x), (x + x.T.conj()) / 2
    out = np.zeros_like(x)
    for i in range(n):
        for j in range(i + 1):
            rest = x[i, j] - sum(out[i, k] * out[j, k].conj() for k in range(j))
            out[i, j] = math.sqrt(rest.real) if i == j else rest / out[j, j]
    return out


def qr_factors(x, *, full_matrices):
    return scipy.linalg.qr(x, mode="full" if full_matrices else "economic")


def svd_factors(x, *, full_matrices):
    u, s, vh = scipy.linalg.svd(x, full_matrices=full_matrices)
    return s, u, vh.T


def singular_values(x):
    turned = x.T.conj()
    small = turned @ x if x.shape[0] >= x.shape[1] else x @ turned
    return np.sqrt(scipy.linalg.eigvalsh(small)[::-1])


def eigen_pairs(x):
    return scipy.linalg.eigh(x, lower=True, driver="evd")  # the driver sets the vectors' signs


def eigen_values(x):
    symmetric = np.tril(x, -1) + np.diag(np.diag(x).real) + np.tril(x, -1).T.conj()
    found = np.sort(scipy.linalg.eigvals(symmetric).real)  # as a general matrix
    return found.astype(x.dtype)


def sign_and_log_det(x):
    det = leibniz(x)
    return det / abs(det), np.asarray(math.log(abs(det)), x.dtype)


def product_over_shards(x, g, *, merges):
    shards, samples, height = x.shape
    pairs = [(v, r) for v in range(shards) for r in range(samples)]
    return np.array(
        [
            [math.fsum(x[v, r, i] * g[v, r, j] for v, r in pairs) for j in range(g.shape[2])]
            for i in range(height)
        ]
    )


REFERENCES = {
    "cholesky_factor": per_matrix(cholesky_factor),
    "cross_product": cross_product,
    "det_of": per_matrix(leibniz),
    "dot": dot,
    "eigen_pairs": per_matrix(eigen_pairs),
    "eigen_values": per_matrix(eigen_values),
    "inverse": per_matrix(adjugate),
    "product_over_shards": product_over_shards,
    "qr_factors": per_matrix(qr_factors),
    "sign_and_log_det": per_matrix(sign_and_log_det),
    "singular_values": per_matrix(singular_values),
    "solve_system": per_matrix(cramer),
    "solve_triangle": per_matrix(substitution),
    "svd_factors": per_matrix(svd_factors),
}
