"""Determinants, inverses and linear systems, over batches of matrices."""

from __future__ import annotations

from typing import Any, NamedTuple

from distgrad.core.dispatch import backend_of
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.complex import complex as complex_of
from distgrad.ops.complex import conj, imag_part, real, real_part
from distgrad.ops.exponential import log
from distgrad.ops.linalg import (
    as_matrices,
    broadcast_batches,
    diagonal_matrix,
    main_diagonal,
    matmul,
    swap,
    tensors,
    triangle,
)
from distgrad.ops.reduce import sum as sum_over
from distgrad.ops.shape import reshape_to


def well_conditioned(rng: Any, *shape: int) -> Any:
    """Random square matrices whose inverse is no larger than they are."""
    x = rng.normal(size=shape)
    at = range(shape[-1])
    x[..., at, at] += 2.5
    return x


def _positive(rng: Any, *shape: int) -> Any:
    """Random symmetric positive definite matrices."""
    x = rng.normal(size=shape)
    spd = x @ x.swapaxes(-1, -2)
    at = range(shape[-1])
    spd[..., at, at] += shape[-1]
    return spd


# Determinants and inverses


@primitive(kinds="fc")
def det_of(xp, x):
    """Determinant of the matrices in the last two axes."""
    return xp.linalg.det(x)


@det_of.vjp("x")
def _(g, out, x):
    return _as_matrix(g * conj(out)) * swap(conj(bind(inverse, x)))


@det_of.samples
def _(rng):
    yield sample(well_conditioned(rng, 3, 3))
    yield sample(well_conditioned(rng, 2, 2, 2))
    yield sample(rng.normal(size=(1, 1)))


def _as_matrix(x: Tensor) -> Tensor:
    """One number per matrix, with two axes of size 1 after it."""
    return bind(reshape_to, x, shape=(*x._data.shape, 1, 1))


def det(input: Any, name: str | None = None) -> Tensor:
    """Determinant of square matrices ``[..., n, n]``; InvalidArgumentError for other shapes.

    Its gradient needs the inverse: InvalidArgumentError at a singular matrix.
    """
    return det_of(as_matrices("det", input, square=True))


@primitive(kinds="fc", multiple=True)
def sign_and_log_det(xp, x):
    """The determinant divided by its absolute value, and the logarithm of that; both as ``x``."""
    sign, log_abs = xp.linalg.slogdet(x)
    return xp.asarray(sign, dtype=x.dtype), xp.asarray(log_abs, dtype=x.dtype)


@sign_and_log_det.vjp("x")
def _(g, out, x):
    g_sign, g_log = g
    if x._data.dtype.kind == "c":  # where the sign turns, as the imaginary part of log(det)
        turned = imag_part(conj(g_sign) * out[0])
        g_log = bind(complex_of, bind(real_part, g_log), -turned)
    # The sign of a real determinant is constant almost everywhere.
    return _as_matrix(g_log) * swap(conj(bind(inverse, x)))


@sign_and_log_det.samples
def _(rng):
    yield sample(well_conditioned(rng, 3, 3))
    yield sample(well_conditioned(rng, 2, 3, 3))
    yield sample(well_conditioned(rng, 3, 3) + 1j * rng.normal(size=(3, 3)))


class LogMatrixDeterminant(NamedTuple):
    """What ``slogdet`` gives."""

    sign: Tensor
    log_abs_determinant: Tensor


def slogdet(input: Any, name: str | None = None) -> LogMatrixDeterminant:
    """Sign and ``log(abs(det))`` of square matrices, without overflow; both in their dtype.

    Raises InvalidArgumentError for other shapes.
    """
    return LogMatrixDeterminant(*sign_and_log_det(as_matrices("slogdet", input, square=True)))


def logdet(matrix: Any, name: str | None = None) -> Tensor:
    """``log(det)`` of symmetric positive definite matrices, from their Cholesky factor.

    Raises InvalidArgumentError for a matrix that is not positive definite or not square.
    """
    diagonal = real(main_diagonal(cholesky(matrix)))
    return 2 * sum_over(log(diagonal), axis=(diagonal._data.ndim - 1,), keepdims=False)


@primitive(kinds="fc")
def inverse(xp, x):
    """Inverse of the matrices in the last two axes."""
    return xp.linalg.inv(x)


@inverse.vjp("x")
def _(g, out):
    out = conj(out)
    return -matmul(matmul(out, g, transpose_a=True), out, transpose_b=True)


@inverse.samples
def _(rng):
    yield sample(well_conditioned(rng, 3, 3))
    yield sample(well_conditioned(rng, 2, 2, 2))
    yield sample(rng.normal(size=(0, 2, 2)))


def inv(input: Any, adjoint: bool = False, name: str | None = None) -> Tensor:
    """Inverse of square matrices ``[..., n, n]``; its conjugate transpose where ``adjoint``.

    Raises InvalidArgumentError for other shapes or a singular matrix.
    """
    found = inverse(as_matrices("inv", input, square=True))
    return swap(conj(found)) if adjoint else found


# Linear systems


@primitive(kinds="fc")
def solve_system(xp, matrix, rhs, *, adjoint):
    """``x`` with ``matrix @ x = rhs``, or with the conjugate transpose of the matrix."""
    if adjoint:
        matrix = xp.swapaxes(matrix, -1, -2)
        matrix = xp.conj(matrix) if matrix.dtype.kind == "c" else matrix
    return xp.linalg.solve(matrix, rhs)


@solve_system.vjp("matrix", "rhs")
def _(g, out, matrix, adjoint, needs):
    to_rhs = bind(solve_system, matrix, g, adjoint=not adjoint)
    if not needs[0]:
        return None, to_rhs
    left, right = (out, to_rhs) if adjoint else (to_rhs, out)
    return -matmul(left, conj(right), transpose_b=True), to_rhs


@solve_system.samples
def _(rng):
    for adjoint in (False, True):
        yield sample(well_conditioned(rng, 3, 3), rng.normal(size=(3, 2)), adjoint=adjoint)
        yield sample(well_conditioned(rng, 2, 2, 2), rng.normal(size=(2, 2, 1)), adjoint=adjoint)


def solve(matrix: Any, rhs: Any, adjoint: bool = False, name: str | None = None) -> Tensor:
    """``x`` with ``matrix @ x = rhs`` for square ``[..., n, n]`` and ``[..., n, k]``.

    ``adjoint`` takes the conjugate transpose of the matrix. Raises InvalidArgumentError for shapes
    that do not fit or a singular matrix.
    """
    matrix, rhs = _system("solve", matrix, rhs)
    return solve_system(matrix, rhs, adjoint=bool(adjoint))


def _system(name: str, matrix: Any, rhs: Any) -> tuple[Tensor, Tensor]:
    a, b = tensors(name, matrix, rhs)
    as_matrices(name, a, square=True)
    if b._data.ndim < 2 or a._data.shape[-1] != b._data.shape[-2]:
        raise InvalidArgumentError(
            f"{name}: a right side of shape {b.shape} for a matrix of shape {a.shape}; "
            "a vector needs an axis of size 1 after it"
        )
    a, b = broadcast_batches(name, a, b)
    return a, b


@primitive(kinds="fc")
def solve_triangle(xp, matrix, rhs, *, lower, adjoint):
    """``x`` with ``triangle @ x = rhs``; only the named triangle of ``matrix`` is read.

    ``adjoint`` takes its conjugate transpose.
    """
    if adjoint and matrix.dtype.kind == "c":
        matrix = xp.conj(matrix)
    return backend_of(matrix).solve_triangular(matrix, rhs, lower=lower, transpose=adjoint)


@solve_triangle.vjp("matrix", "rhs")
def _(g, out, matrix, lower, adjoint, needs):
    to_rhs = bind(solve_triangle, matrix, g, lower=lower, adjoint=not adjoint)
    if not needs[0]:
        return None, to_rhs
    pair = (out, to_rhs) if adjoint else (to_rhs, out)
    full = -matmul(*pair, adjoint_b=True)
    return triangle(full, lower=lower), to_rhs


@solve_triangle.samples
def _(rng):
    for lower in (False, True):
        for adjoint in (False, True):
            flags = {"lower": lower, "adjoint": adjoint}
            yield sample(well_conditioned(rng, 3, 3), rng.normal(size=(3, 2)), **flags)
            yield sample(well_conditioned(rng, 2, 2, 2), rng.normal(size=(2, 2, 1)), **flags)
            turned = well_conditioned(rng, 2, 2) + 1j * rng.normal(size=(2, 2))
            yield sample(turned, rng.normal(size=(2, 1)) + 1j, **flags)


def triangular_solve(
    matrix: Any, rhs: Any, lower: bool = True, adjoint: bool = False, name: str | None = None
) -> Tensor:
    """``x`` with ``T @ x = rhs``, where T is the lower or upper triangle of ``matrix``.

    ``adjoint`` takes the conjugate transpose of T; batches broadcast. Raises InvalidArgumentError
    for shapes that do not fit or a zero on the diagonal.
    """
    matrix, rhs = _system("triangular_solve", matrix, rhs)
    return solve_triangle(matrix, rhs, lower=bool(lower), adjoint=bool(adjoint))


@primitive(kinds="fc")
def cholesky_factor(xp, x):
    """Lower triangular L with ``L @ L.T = (x + x.T) / 2``, T the conjugate transpose."""
    # The symmetric part, since the gradient is that of a symmetric matrix, as TensorFlow's is.
    turned = xp.swapaxes(x, -1, -2)
    return xp.linalg.cholesky(0.5 * (x + (xp.conj(turned) if x.dtype.kind == "c" else turned)))


@cholesky_factor.vjp("x")
def _(g, out):
    # Murray, Differentiation of the Cholesky decomposition (2016), in blocked form.
    middle = triangle(matmul(out, g, adjoint_a=True), lower=True)
    middle = middle - 0.5 * diagonal_matrix(main_diagonal(middle))
    flags = {"lower": True, "adjoint": True}
    left = bind(solve_triangle, out, middle, **flags)
    full = swap(conj(bind(solve_triangle, out, swap(conj(left)), **flags)))
    return 0.5 * (full + swap(conj(full)))


@cholesky_factor.samples
def _(rng):
    yield sample(_positive(rng, 3, 3))
    yield sample(_positive(rng, 2, 2, 2))
    yield sample(_positive(rng, 3, 3) + 0.5j * rng.normal(size=(3, 3)))


def cholesky(input: Any, name: str | None = None) -> Tensor:
    """Lower triangular ``L`` with ``L @ L.T`` equal to a symmetric positive definite matrix.

    For complex numbers T is the conjugate transpose, and a symmetric matrix a Hermitian one. A
    matrix that is not symmetric counts as its symmetric part (TensorFlow reads its lower
    triangle alone). Raises InvalidArgumentError for a matrix that is not positive definite or
    not square.
    """
    return cholesky_factor(as_matrices("cholesky", input, square=True))


def cholesky_solve(chol: Any, rhs: Any, name: str | None = None) -> Tensor:
    """``x`` with ``A @ x = rhs``, given ``chol``, the lower triangular factor of A.

    Raises InvalidArgumentError for shapes that do not fit.
    """
    chol, rhs = _system("cholesky_solve", chol, rhs)
    half = solve_triangle(chol, rhs, lower=True, adjoint=False)
    return solve_triangle(chol, half, lower=True, adjoint=True)
