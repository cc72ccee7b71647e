"""QR, singular values, eigenvalues, and what is built on them, over batches of matrices."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import limits
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import cast, ones_like, zeros_like
from distgrad.ops.complex import conj, real
from distgrad.ops.linalg import (
    as_matrices,
    diagonal_matrix,
    main_diagonal,
    matmul,
    swap,
    tensors,
    triangle,
)
from distgrad.ops.logic import select
from distgrad.ops.reduce import reduce_max, reduce_sum
from distgrad.ops.shape import concat, expand_dims
from distgrad.ops.solvers import cholesky, cholesky_solve, solve, solve_triangle

# QR


@primitive(kinds="f", multiple=True)
def qr_factors(xp, x, *, full_matrices):
    """Orthonormal q and upper triangular r with ``q @ r = x``."""
    q, r = xp.linalg.qr(x, mode="complete" if full_matrices else "reduced")
    return q, r


@qr_factors.vjp("x")
def _(g, out):
    q, r = out
    (g_q, g_r), columns = g, r._data.shape[-1]
    rows = q._data.shape[-2]
    if q._data.shape[-1] > min(rows, columns):
        raise InvalidArgumentError(
            f"qr of a {rows} x {columns} matrix with full_matrices=True has no gradient: the "
            "extra columns of q are not determined; use full_matrices=False"
        )
    if columns <= rows:
        return _qr_cotangent(q, r, g_q, g_r)
    # The columns past the first square block are q @ r there, with the q of that block.
    left, right = r[..., :rows], r[..., rows:]
    g_left, g_right = g_r[..., :rows], g_r[..., rows:]
    to_q = g_q + matmul(matmul(q, right), g_right, transpose_b=True)
    square = _qr_cotangent(q, left, to_q, g_left)
    return concat([square, matmul(q, g_right)], -1)


def _qr_cotangent(q: Tensor, r: Tensor, g_q: Tensor, g_r: Tensor) -> Tensor:
    """For rows >= columns: Walter and Lehmann, Algorithmic differentiation of QR (2018)."""
    m = matmul(r, g_r, transpose_b=True) - matmul(g_q, q, transpose_a=True)
    below = triangle(m, lower=True)
    symmetric = below + swap(below) - diagonal_matrix(main_diagonal(m))
    right = g_q + matmul(q, symmetric)
    return swap(bind(solve_triangle, r, swap(right), lower=False, adjoint=False))


@qr_factors.samples
def _(rng):
    for shape in [(3, 3), (4, 3), (2, 3, 2), (2, 4)]:
        yield sample(rng.normal(size=shape), full_matrices=False)
    yield sample(rng.normal(size=(3, 3)), full_matrices=True)


class Qr(NamedTuple):
    """What ``qr`` gives."""

    q: Tensor
    r: Tensor


def qr(input: Any, full_matrices: bool = False, name: str | None = None) -> Qr:
    """Orthonormal ``q`` and upper triangular ``r`` with ``q @ r`` equal to ``[..., m, n]`` input.

    Raises InvalidArgumentError for rank below 2, and where the gradient of the full form of a
    tall matrix is asked for.
    """
    x = as_matrices("qr", input)
    return Qr(*qr_factors(x, full_matrices=bool(full_matrices)))


# Singular values


@primitive(kinds="fc", multiple=True)
def svd_factors(xp, x, *, full_matrices):
    """Singular values s (descending, real), and u, v with ``u @ diag(s) @ v.T = x``.

    T is the conjugate transpose.
    """
    u, s, vh = xp.linalg.svd(x, full_matrices=full_matrices)
    return s, u, xp.swapaxes(xp.conj(vh) if x.dtype.kind == "c" else vh, -1, -2)


@svd_factors.vjp("x")
def _(g, out):
    _, u, v = out
    _, g_u, g_v = g
    s, g_s = (cast(t[0], u.dtype) for t in (out, g))
    count = s._data.shape[-1]
    extra = abs(u._data.shape[-1] - v._data.shape[-1])
    if extra > 1:
        raise InvalidArgumentError(
            f"svd with full_matrices=True has no gradient for u {u.shape} and v {v.shape}: their "
            "extra columns are not determined; use full_matrices=False"
        )
    # Townsend, Differentiating the singular value decomposition (2016). The last column of a full
    # factor belongs to a singular value of 0.
    in_u = _rotation(u, g_u, s)[..., :, :count] * expand_dims(s, -2)
    in_v = _rotation(v, g_v, s)[..., :, :count] * expand_dims(s, -2)
    total = matmul(matmul(u, in_u), v[..., :count], adjoint_b=True)
    total = total + matmul(u[..., :count], matmul(v, in_v), adjoint_b=True)
    if u._data.dtype.kind == "c":  # a pair of vectors turns by one phase: here u turns alone
        turned = main_diagonal(matmul(u, g_u, adjoint_a=True))[..., :count]
        g_s = g_s + 0.5 * (turned - conj(turned)) * _reciprocal(s)
    total = total + matmul(u[..., :count] * expand_dims(g_s, -2), v[..., :count], adjoint_b=True)
    # What moves the columns of a thin factor out of the space that they span.
    small = expand_dims(_reciprocal(s), -2)
    if u._data.shape[-2] > u._data.shape[-1]:
        rest = g_u - matmul(u, matmul(u, g_u, adjoint_a=True))
        total = total + matmul(rest * small, v, adjoint_b=True)
    if v._data.shape[-2] > v._data.shape[-1]:
        rest = g_v - matmul(v, matmul(v, g_v, adjoint_a=True))
        total = total + matmul(u * small, rest, adjoint_b=True)
    return total


def _rotation(vectors: Tensor, g: Tensor, s: Tensor) -> Tensor:
    """How the vectors turn among themselves, per unit of change of the matrix."""
    squares = s * s
    more = vectors._data.shape[-1] - s._data.shape[-1]
    if more:
        squares = concat([squares, zeros_like(vectors[..., 0, :more])], -1)
    gaps = expand_dims(squares, -2) - expand_dims(squares, -1)
    return _skew(matmul(vectors, g, adjoint_a=True)) * _reciprocal(gaps)


def _skew(x: Tensor) -> Tensor:
    """``x - x.T``: the change of the vectors among themselves is antisymmetric.

    Complex vectors turn by phases as well, in the diagonal, which is left out.
    """
    whole = x - swap(conj(x))
    if x._data.dtype.kind == "c":
        return whole - diagonal_matrix(main_diagonal(whole))
    return whole


def _reciprocal(x: Tensor) -> Tensor:
    """``1 / x``, and 0 at 0: equal values leave their vectors undetermined."""
    return x / (x * x + 1e-20)


@svd_factors.samples
def _(rng):
    for shape in [(3, 3), (4, 3), (2, 2, 3)]:
        yield sample(rng.normal(size=shape), full_matrices=False)
        yield sample(rng.normal(size=shape), full_matrices=True)


@primitive(kinds="fc")
def singular_values(xp, x):
    """Singular values, real, in descending order."""
    return xp.linalg.svd(x, compute_uv=False)


@singular_values.vjp("x")
def _(g, x):
    _, u, v = bind(svd_factors, x, full_matrices=False)
    return matmul(u * expand_dims(cast(g, u.dtype), -2), v, adjoint_b=True)


@singular_values.samples
def _(rng):
    yield sample(rng.normal(size=(3, 3)))
    yield sample(rng.normal(size=(2, 2, 3)))
    yield sample(rng.normal(size=(3, 2)) + 1j * rng.normal(size=(3, 2)))


def svd(
    tensor: Any, full_matrices: bool = False, compute_uv: bool = True, name: str | None = None
) -> Any:
    """Singular values ``s`` (descending), ``u``, ``v``: ``[..., m, n]`` is ``u @ diag(s) @ v.T``.

    Of complex matrices T is the conjugate transpose, and ``s`` is real. ``s`` comes alone where
    ``compute_uv`` is False. Raises InvalidArgumentError for rank below 2, and where the gradient of
    the full form is asked for and m and n differ by more than 1.
    """
    x = as_matrices("svd", tensor)
    if not compute_uv:
        return singular_values(x)
    return svd_factors(x, full_matrices=bool(full_matrices))


# Eigenvalues


@primitive(kinds="fc", multiple=True)
def eigen_pairs(xp, x):
    """Eigenvalues (ascending) and eigenvectors (columns), from the lower triangle."""
    e, v = xp.linalg.eigh(x)
    return xp.asarray(e, dtype=x.dtype), v


@eigen_pairs.vjp("x")
def _(g, out):
    e, v = out
    g_e, g_v = g
    gaps = _reciprocal(expand_dims(e, -2) - expand_dims(e, -1))
    core = diagonal_matrix(_real(g_e)) + 0.5 * gaps * _skew(matmul(v, g_v, adjoint_a=True))
    return _lower_only(matmul(matmul(v, core), v, adjoint_b=True))


def _real(x: Tensor) -> Tensor:
    """The real part in the same dtype: eigenvalues have no other."""
    return cast(real(x), x.dtype)


def _lower_only(full: Tensor) -> Tensor:
    """The cotangent of a matrix of which the lower triangle alone was read."""
    lower = triangle(full + swap(conj(full)), lower=True)
    return lower - diagonal_matrix(main_diagonal(full))


@eigen_pairs.samples
def _(rng):
    yield sample(rng.normal(size=(3, 3)))
    yield sample(rng.normal(size=(2, 2, 2)))


@primitive(kinds="fc")
def eigen_values(xp, x):
    """Eigenvalues in ascending order, from the lower triangle, as ``x``."""
    return xp.asarray(xp.linalg.eigvalsh(x), dtype=x.dtype)


@eigen_values.vjp("x")
def _(g, x):
    _, v = bind(eigen_pairs, x)
    return _lower_only(matmul(v * expand_dims(_real(g), -2), v, adjoint_b=True))


@eigen_values.samples
def _(rng):
    yield sample(rng.normal(size=(3, 3)))
    yield sample(rng.normal(size=(2, 2, 2)))
    yield sample(rng.normal(size=(3, 3)) + 1j * rng.normal(size=(3, 3)))


def eigh(tensor: Any, name: str | None = None) -> tuple[Tensor, Tensor]:
    """Eigenvalues (ascending) and eigenvectors (columns) of symmetric matrices, in their dtype.

    Complex matrices are Hermitian. Only the lower triangle is read, and has the gradient. Raises
    InvalidArgumentError for matrices that are not square.
    """
    return eigen_pairs(as_matrices("eigh", tensor, square=True))


def eigvalsh(tensor: Any, name: str | None = None) -> Tensor:
    """Eigenvalues (ascending) of symmetric matrices, of which only the lower triangle is read."""
    return eigen_values(as_matrices("eigvalsh", tensor, square=True))


# Built on them


def _cutoff(x: Tensor, rcond: Any, factor: float) -> Any:
    if rcond is not None:
        return expand_dims(as_tensor(rcond, like=x._data.dtype), -1)
    rows, columns = x._data.shape[-2:]
    return factor * max(rows, columns) * float(limits(x._data.dtype).eps)


def pinv(a: Any, rcond: Any = None, validate_args: bool = False, name: str | None = None) -> Tensor:
    """Moore-Penrose pseudo-inverse of ``[..., m, n]`` matrices.

    Singular values up to ``rcond`` times the largest count as 0 (``10 * max(m, n) * eps`` by
    default). Raises InvalidArgumentError for rank below 2.
    """
    x = as_matrices("pinv", a)
    s, u, v = svd(x)
    large = s > _cutoff(x, rcond, 10.0) * reduce_max(s, -1, keepdims=True)
    inverted = select(large, 1 / select(large, s, 1), 0)
    return matmul(v * expand_dims(cast(inverted, x.dtype), -2), u, adjoint_b=True)


def lstsq(
    matrix: Any,
    rhs: Any,
    l2_regularizer: float = 0.0,
    fast: bool = True,
    name: str | None = None,
) -> Tensor:
    """``x`` that minimises ``|matrix @ x - rhs|^2 + l2_regularizer * |x|^2``, per column of rhs.

    With more columns than rows, the smallest such x. ``fast`` solves the normal equations and
    needs full rank (InvalidArgumentError otherwise); without it the pseudo-inverse is used and
    ``l2_regularizer`` is not.
    """
    a, b = tensors("lstsq", matrix, rhs)
    as_matrices("lstsq", a)
    rows, columns = a._data.shape[-2:]
    if b._data.ndim < 2 or b._data.shape[-2] != rows:
        raise InvalidArgumentError(
            f"lstsq: a right side of shape {b.shape} for a matrix of shape {a.shape}"
        )
    if not fast:
        return matmul(pinv(a), b)
    wide = columns > rows
    gram = matmul(a, a, adjoint_a=not wide, adjoint_b=wide)
    if l2_regularizer:
        ridge = l2_regularizer * diagonal_matrix(ones_like(main_diagonal(gram)))
        gram = gram + ridge
    factor = cholesky(gram)
    if wide:
        return matmul(a, cholesky_solve(factor, b), adjoint_a=True)
    return cholesky_solve(factor, matmul(a, b, adjoint_a=True))


def matrix_rank(
    a: Any, tol: Any = None, validate_args: bool = False, name: str | None = None
) -> Tensor:
    """Number of singular values above ``tol``, int32; by default ``max(m, n) * eps * largest``."""
    x = as_matrices("matrix_rank", a)
    s = singular_values(x)
    if tol is None:
        limit = _cutoff(x, None, 1.0) * reduce_max(s, -1, keepdims=True)
    else:
        limit = expand_dims(as_tensor(tol, like=s._data.dtype), -1)
    return reduce_sum(cast(s > limit, np.int32), -1)


# Coefficients of the Padé approximant of order 13, and the largest norm at which it is exact to
# double precision: Higham, The scaling and squaring method for the matrix exponential (2005).
_PADE = (
    64764752532480000.0, 32382376266240000.0, 7771770303897600.0, 1187353796428800.0,
    129060195264000.0, 10559470521600.0, 670442572800.0, 33522128640.0,
    1323241920.0, 40840800.0, 960960.0, 16380.0, 182.0, 1.0,
)  # fmt: skip
_PADE_NORM = 5.371920351148152


def expm(input: Any, name: str | None = None) -> Tensor:
    """Matrix exponential of square matrices, by scaling and squaring a Padé approximant.

    The number of squarings is read from the values. Raises InvalidArgumentError for matrices that
    are not square.
    """
    x = as_matrices("expm", input, square=True)
    data = x._data
    size = float(abs(data).sum(axis=-2).max()) if data.size else 0.0
    squarings = math.ceil(math.log2(size / _PADE_NORM)) if size > _PADE_NORM else 0
    x = x / 2.0**squarings
    # Divided by the largest coefficient, so that float32 does not overflow.
    b = [c / _PADE[0] for c in _PADE]
    one = diagonal_matrix(ones_like(main_diagonal(x)))
    x2 = matmul(x, x)
    x4 = matmul(x2, x2)
    x6 = matmul(x4, x2)
    odd = matmul(x6, b[13] * x6 + b[11] * x4 + b[9] * x2)
    odd = matmul(x, odd + b[7] * x6 + b[5] * x4 + b[3] * x2 + b[1] * one)
    even = matmul(x6, b[12] * x6 + b[10] * x4 + b[8] * x2)
    even = even + b[6] * x6 + b[4] * x4 + b[2] * x2 + b[0] * one
    result = solve(even - odd, even + odd)
    for _ in range(squarings):
        result = matmul(result, result)
    return result
