"""Tridiagonal matrices: products and systems, in linear time, and eigenvalues.

They are kept as ``[..., 3, n]``: what stands above the main diagonal (the last is not used), the
diagonal, and what stands below it (the first is not used).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.backend.numpy import backend as numpy_backend
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.arithmetic import negative
from distgrad.ops.complex import real
from distgrad.ops.decompositions import eigh, eigvalsh
from distgrad.ops.diagonal import diag, diagonal_of
from distgrad.ops.factors import beside_it, on_host
from distgrad.ops.indexing import getitem
from distgrad.ops.linalg import as_matrices, diagonal_matrix, swap, tensors
from distgrad.ops.padding import pad_constant
from distgrad.ops.reduce import reduce_sum
from distgrad.ops.shape import expand_dims, squeeze, stack


def _solved(bands: np.ndarray, b: np.ndarray, adjoint: bool) -> np.ndarray:
    made = np.empty_like(b)
    for at in np.ndindex(b.shape[:-2]):
        above, middle, below = bands[at]
        table = np.zeros_like(bands[at])
        table[1] = middle
        table[0, 1:] = below[1:] if adjoint else above[:-1]
        table[2, :-1] = above[:-1] if adjoint else below[1:]
        made[at] = numpy_backend.linalg.solve_banded((1, 1), table, b[at])
    return made


@primitive(kinds="f")
def solve_tridiagonal(xp, diagonals, rhs, *, adjoint):
    """``x`` with ``T @ x = rhs``, or with the transposed T."""
    return beside_it(rhs, _solved(on_host(diagonals), on_host(rhs), adjoint))


@solve_tridiagonal.vjp("diagonals", "rhs")
def _(g, out, diagonals, adjoint, needs):
    to_rhs = bind(solve_tridiagonal, diagonals, g, adjoint=not adjoint)
    if not needs[0]:
        return None, to_rhs
    left, right = (out, to_rhs) if adjoint else (to_rhs, out)
    each = [left * _moved(right, -1), left * right, left * _moved(right, 1)]
    return negative(stack([reduce_sum(product, -1) for product in each], -2)), to_rhs


def _moved(x: Tensor, by: int) -> Tensor:
    """The rows of ``[..., n, k]`` moved down by ``by`` (1 or -1), a row of zeros in their place."""
    length = x._data.shape[-2]
    pair = (by, 0) if by > 0 else (0, -by)
    wide = bind(
        pad_constant, x, paddings=((0, 0),) * (x._data.ndim - 2) + (pair, (0, 0)), value=0.0
    )
    start = 0 if by > 0 else -by
    return bind(getitem, wide, key=(..., slice(start, start + length), slice(None)))


@solve_tridiagonal.samples
def _(rng):
    for adjoint in (False, True):
        for batch in [(), (2,)]:
            bands = rng.normal(size=(*batch, 3, 4))
            bands[..., 1, :] += 4
            yield sample(bands, rng.normal(size=(*batch, 4, 2)), adjoint=adjoint)


def _compact(name: str, diagonals: Any, form: str) -> Any:
    """The diagonals as one tensor ``[..., 3, n]``."""
    if form == "compact":
        return as_matrices(name, diagonals)
    if form == "sequence":
        above, middle, below = tensors(name, *diagonals)
        length = middle._data.shape[-1]
        return stack([_filled(above, length, 0), middle, _filled(below, length, 1)], -2)
    if form == "matrix":
        x = as_matrices(name, diagonals, square=True)
        bands = [bind(diagonal_of, x, k=k) for k in (1, 0, -1)]
        return _compact(name, bands, "sequence")
    raise ValueError(f"{name}: 'compact', 'sequence' or 'matrix', not {form!r}")


def _filled(x: Tensor, length: int, before: int) -> Tensor:
    missing = length - x._data.shape[-1]
    if not missing:
        return x
    pair = (missing, 0) if before else (0, missing)
    return bind(pad_constant, x, paddings=((0, 0),) * (x._data.ndim - 1) + (pair,), value=0.0)


def tridiagonal_solve(
    diagonals: Any,
    rhs: Any,
    diagonals_format: str = "compact",
    transpose_rhs: bool = False,
    conjugate_rhs: bool = False,
    name: str | None = None,
    partial_pivoting: bool = True,
    perturb_singular: bool = False,
) -> Tensor:
    """``x`` with ``T @ x = rhs`` for vectors ``[..., n]`` or matrices ``[..., n, k]`` of reals.

    The diagonals are one tensor ("compact"), three ("sequence") or a "matrix". Raises
    InvalidArgumentError for shapes that do not fit or a singular matrix.
    """
    first = _compact("tridiagonal_solve", diagonals, diagonals_format)
    bands, b = tensors("tridiagonal_solve", first, rhs)
    vector = b._data.ndim == bands._data.ndim - 1
    if vector:
        b = expand_dims(b, -1)
    elif transpose_rhs:
        b = swap(b)
    wanted = (*bands._data.shape[:-2], bands._data.shape[-1])
    if bands._data.shape[-2] != 3 or b._data.shape[:-1] != wanted:
        raise InvalidArgumentError(
            f"tridiagonal_solve: diagonals of shape {bands.shape}, a right side of {b.shape}"
        )
    found = solve_tridiagonal(bands, b, adjoint=False)
    return squeeze(found, -1) if vector else found


def tridiagonal_matmul(
    diagonals: Any, rhs: Any, diagonals_format: str = "compact", name: str | None = None
) -> Tensor:
    """``T @ rhs`` for matrices ``[..., n, k]``; the diagonals are as in ``tridiagonal_solve``."""
    first = _compact("tridiagonal_matmul", diagonals, diagonals_format)
    bands, x = tensors("tridiagonal_matmul", first, rhs)
    above, middle, below = (expand_dims(bands[..., i, :], -1) for i in range(3))
    return above * _moved(x, -1) + middle * x + below * _moved(x, 1)


def eigh_tridiagonal(
    alpha: Any,
    beta: Any,
    eigvals_only: bool = True,
    select: str = "a",
    select_range: Any = None,
    tol: Any = None,
    name: str | None = None,
) -> Any:
    """Eigenvalues, real and ascending, of a Hermitian matrix: diagonal ``alpha``, ``beta`` below.

    With eigenvectors (columns) unless ``eigvals_only``. ``select`` takes all of them ("a"), those
    numbered ``select_range`` (both with, "i"), or those in it (the first without, "v"). They are as
    exact as can be, whatever ``tol``. Raises ValueError for another selection, and
    InvalidArgumentError for other lengths.
    """
    middle, below = tensors("eigh_tridiagonal", alpha, beta)
    length = middle._data.shape[-1] if middle._data.ndim else 0
    if middle._data.ndim != 1 or below._data.shape != (length - 1,):
        raise InvalidArgumentError(
            f"eigh_tridiagonal: a diagonal of shape {middle.shape}, one beside it of {below.shape}"
        )
    if select not in ("a", "i", "v"):
        raise ValueError(f"select is 'a', 'i' or 'v', not {select!r}")
    matrix = diagonal_matrix(middle)
    if length > 1:
        matrix = matrix + diag(below, k=-1)
    values, vectors = eigh(matrix) if not eigvals_only else (eigvalsh(matrix), None)
    values, first, last = real(values), 0, length
    if select != "a":
        low, high = np.asarray(as_tensor(select_range)._host())
        first, last = int(low), int(high) + 1
        if select == "v":
            found = values._host()
            first, last = (int(np.searchsorted(found, v, "right")) for v in (low, high))
    if vectors is None:
        return values[first:last]
    return values[first:last], vectors[:, first:last]
