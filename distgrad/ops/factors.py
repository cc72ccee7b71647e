"""LU factors, eigenvalues of any matrix, square roots and logarithms: SciPy's, on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from distgrad.backend.numpy import backend as numpy_backend
from distgrad.core.dispatch import as_tensor, backend_of
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import cast
from distgrad.ops.complex import conj, real
from distgrad.ops.constants import eye
from distgrad.ops.division import quotient_or_zero
from distgrad.ops.indexing import gather
from distgrad.ops.linalg import (
    as_matrices,
    diagonal_matrix,
    main_diagonal,
    matmul,
    swap,
    tensors,
    triangle,
)
from distgrad.ops.shape import expand_dims, reshape_to
from distgrad.ops.solvers import solve_system, solve_triangle, well_conditioned
from distgrad.ops.sorting import argsort


def on_host(x: Any) -> np.ndarray:
    """An array of any backend as one of NumPy's."""
    return np.asarray(backend_of(x).to_numpy(x))


def beside_it(x: Any, *arrays: Any) -> Any:
    """What was computed on the host, one array or several, in the library of ``x``."""
    made = tuple(backend_of(x).asarray(array) for array in arrays)
    return made if len(made) > 1 else made[0]


def _each(fn: Callable[[np.ndarray], Any], x: np.ndarray, dtype: Any) -> np.ndarray:
    """``fn`` of each matrix in the last two axes, which it gives back in the same shape."""
    made = np.empty(x.shape, dtype)
    for at in np.ndindex(x.shape[:-2]):
        made[at] = fn(x[at])
    return made


# LU


def _lu(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order, factors = np.empty(x.shape[:-1], np.int32), np.empty_like(x)
    for at in np.ndindex(x.shape[:-2]):
        factors[at], pivots = numpy_backend.linalg.lu_factor(x[at])
        rows = np.arange(x.shape[-1])
        for i, j in enumerate(pivots):
            rows[[i, j]] = rows[[j, i]]
        order[at] = rows
    return factors, order


@primitive(kinds="f", multiple=True)
def lu_factors(xp, x):
    """Both factors in one matrix, the ones of the lower left out, and the order of the rows."""
    return beside_it(x, *_lu(on_host(x)))


@lu_factors.vjp("x")
def _(g, out):
    # de Hoog, Anderssen and Lukas, Differentiation of matrix functionals using LU (2011).
    factors, order = out
    lower, upper = _halves(factors)
    left = matmul(lower, _strict(g[0]), transpose_a=True)
    right = matmul(triangle(g[0], lower=False), upper, transpose_b=True)
    core = _strict(left) + triangle(right, lower=False)
    core = bind(solve_triangle, lower, core, lower=True, adjoint=True)
    core = swap(bind(solve_triangle, upper, swap(core), lower=False, adjoint=False))
    return gather(core, argsort(order), axis=-2, batch_dims=order._data.ndim - 1)


def _strict(x: Tensor) -> Tensor:
    """What lies below the main diagonal."""
    return x - triangle(x, lower=False)


def _halves(factors: Tensor) -> tuple[Tensor, Tensor]:
    one = eye(factors._data.shape[-1], dtype=factors.dtype)
    return _strict(factors) + one, triangle(factors, lower=False)


@lu_factors.samples
def _(rng):
    yield sample(well_conditioned(rng, 3, 3)[::-1].copy())
    yield sample(well_conditioned(rng, 2, 3, 3))


class Lu(NamedTuple):
    """What ``lu`` gives."""

    lu: Tensor
    p: Tensor


def lu(input: Any, output_idx_type: Any = np.int32, name: str | None = None) -> Lu:
    """L and U in one matrix, without the ones of L, and p, with ``input[p] == L @ U``.

    Raises InvalidArgumentError for matrices that are not square.
    """
    factors, order = lu_factors(as_matrices("lu", input, square=True))
    if np.dtype(np.int32) != np.dtype(getattr(output_idx_type, "numpy_dtype", output_idx_type)):
        order = Tensor(order._data.astype(np.int64))
    return Lu(factors, order)


def _factored(lower_upper: Any, perm: Any) -> tuple[Tensor, Tensor, Tensor]:
    lower, upper = _halves(as_matrices("lu", lower_upper, square=True))
    return lower, upper, as_tensor(perm)


def lu_solve(
    lower_upper: Any, perm: Any, rhs: Any, validate_args: bool = False, name: str | None = None
) -> Tensor:
    """``x`` with ``A @ x = rhs``, from what ``lu(A)`` gives; ``rhs`` is ``[..., n, k]``."""
    factors, b = tensors("lu_solve", lower_upper, rhs)
    lower, upper, order = _factored(factors, perm)
    b = gather(b, order, axis=-2, batch_dims=order._data.ndim - 1)
    half = solve_triangle(lower, b, lower=True, adjoint=False)
    return solve_triangle(upper, half, lower=False, adjoint=False)


def lu_reconstruct(
    lower_upper: Any, perm: Any, validate_args: bool = False, name: str | None = None
) -> Tensor:
    """The matrix that ``lu`` took apart."""
    lower, upper, order = _factored(lower_upper, perm)
    product = matmul(lower, upper)
    return gather(product, argsort(order), axis=-2, batch_dims=order._data.ndim - 1)


def lu_matrix_inverse(
    lower_upper: Any, perm: Any, validate_args: bool = False, name: str | None = None
) -> Tensor:
    """The inverse of the matrix that ``lu`` took apart."""
    factors = as_matrices("lu_matrix_inverse", lower_upper, square=True)
    size, batch = factors._data.shape[-1], factors._data.shape[:-2]
    return lu_solve(factors, perm, eye(size, batch_shape=batch, dtype=factors.dtype))


# Eigenvalues of matrices that are not symmetric


def _eigen(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    e, v = np.linalg.eig(x)
    kind = np.result_type(x.dtype, np.complex64)
    return e.astype(kind), v.astype(kind)


@primitive(kinds="fc", multiple=True)
def any_eigen_pairs(xp, x):
    """Complex eigenvalues, in no order, and eigenvectors (columns) of length 1."""
    return beside_it(x, *_eigen(on_host(x)))


@any_eigen_pairs.vjp("x")
def _(g, out, x_dtype):
    # Boeddeker and others, On the computation of complex-valued gradients (2017).
    (e, v), (g_e, g_v) = out, g
    gaps = conj(expand_dims(e, -2) - expand_dims(e, -1))
    inner = matmul(v, g_v, adjoint_a=True)
    length = diagonal_matrix(cast(real(main_diagonal(inner)), e.dtype))  # which stays 1
    moved = inner - matmul(matmul(v, v, adjoint_a=True), length)
    core = diagonal_matrix(g_e) + bind(quotient_or_zero, moved, gaps)
    back = solve_system(v, matmul(core, v, adjoint_b=True), adjoint=True)
    return cast(back, x_dtype)


@any_eigen_pairs.samples
def _(rng):  # with eigenvalues of their own, so that the vectors are real and determined
    for shape in ((3, 3), (2, 2, 2)):
        yield sample(np.diag(np.arange(shape[-1])) + 0.1 * rng.normal(size=shape))


def eig(tensor: Any, name: str | None = None) -> tuple[Tensor, Tensor]:
    """Eigenvalues, in no order, and eigenvectors (columns) of square matrices, complex.

    Equal eigenvalues leave their vectors undetermined, and without a gradient. Raises
    InvalidArgumentError for other shapes.
    """
    return any_eigen_pairs(as_matrices("eig", tensor, square=True))


def eigvals(tensor: Any, name: str | None = None) -> Tensor:
    """Eigenvalues of square matrices, complex and in no order; see ``eig``."""
    return eig(tensor)[0]


# Square roots and logarithms


def _root(x: np.ndarray) -> np.ndarray:
    made = _each(numpy_backend.linalg.sqrtm, x, complex)
    if x.dtype.kind == "c":
        return made.astype(x.dtype)
    real = np.abs(made.imag) < 1e-6 * (1 + np.abs(made.real))
    return np.where(real, made.real, np.nan).astype(x.dtype)


def _logarithm(x: np.ndarray) -> np.ndarray:
    return _each(lambda matrix: numpy_backend.linalg.logm(matrix.astype(complex)), x, x.dtype)


@primitive(kinds="fc")
def matrix_root(xp, x):
    """Principal square root of the matrices in the last two axes."""
    return beside_it(x, _root(on_host(x)))


@matrix_root.vjp("x")
def _(g, out):
    # S' S + S S' = A': a Sylvester equation, solved as one linear system (Kronecker).
    size = out._data.shape[-1]
    one = eye(size, dtype=out.dtype)
    batch = out._data.shape[:-2]
    out = conj(out)
    system = _kronecker(swap(out), one) + _kronecker(one, out)
    column = bind(reshape_to, g, shape=(*batch, size * size, 1))
    return bind(reshape_to, solve_system(system, column, adjoint=False), shape=out._data.shape)


def _kronecker(a: Tensor, b: Tensor) -> Tensor:
    size = a._data.shape[-1]
    left = expand_dims(expand_dims(a, -1), -3)
    right = expand_dims(expand_dims(b, -2), -4)
    product = left * right
    shape = (*product._data.shape[:-4], size * size, size * size)
    return bind(reshape_to, product, shape=shape)


@matrix_root.samples
def _(rng):
    for shape in [(3, 3), (2, 2, 2)]:
        x = rng.normal(size=shape)
        yield sample(x @ x.swapaxes(-1, -2) + 2 * np.eye(shape[-1]) + 0.3 * x)
    yield sample(well_conditioned(rng, 2, 2) + 0.5j * rng.normal(size=(2, 2)))


def sqrtm(input: Any, name: str | None = None) -> Tensor:
    """The principal square root of square matrices; nan where that of reals is not real.

    Raises InvalidArgumentError for other shapes.
    """
    return matrix_root(as_matrices("sqrtm", input, square=True))


@primitive(vjp=None, kinds="c")
def matrix_logarithm(xp, x):
    """Principal logarithm of the complex matrices in the last two axes."""
    return beside_it(x, _logarithm(on_host(x)))


@matrix_logarithm.samples
def _(rng):
    yield sample(well_conditioned(rng, 3, 3) + 0.1j * rng.normal(size=(3, 3)))


def logm(input: Any, name: str | None = None) -> Tensor:
    """The principal logarithm of complex square matrices; it has no gradient.

    Raises InvalidArgumentError for reals (cast them) and other shapes.
    """
    return matrix_logarithm(as_matrices("logm", input, square=True))
