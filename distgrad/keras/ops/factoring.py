"""More linear algebra of ``keras.ops``: inverses of any matrix, factors, derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.core import tree
from distgrad.core.dispatch import as_tensor
from distgrad.core.forward import ForwardAccumulator
from distgrad.core.tensor import Tensor
from distgrad.keras.ops.linalg import matmul
from distgrad.keras.ops.promotion import floated, tensors
from distgrad.ops import decompositions, linalg, solvers
from distgrad.ops.casting import cast
from distgrad.ops.constants import eye
from distgrad.ops.host import on_host
from distgrad.ops.shape import expand_dims, squeeze


def pinv(x: Any, rcond: float | None = None) -> Tensor:
    """The inverse of any matrix, as near as there is one (Moore and Penrose)."""
    return decompositions.pinv(floated(x), rcond)


def matrix_rank(x: Any, tol: float | None = None) -> Tensor:
    """How many singular values are above ``tol``, int32."""
    return decompositions.matrix_rank(floated(x), tol)


def lstsq(a: Any, b: Any, rcond: float | None = None) -> Tensor:
    """``x`` for which ``a @ x`` is nearest to ``b``, a vector or a matrix of columns.

    Raises ValueError for another number of rows, TypeError for another rank.
    """
    left, right = tensors(a, b, also=float)
    if left._data.ndim != 2 or right._data.ndim not in (1, 2):
        raise TypeError(f"lstsq takes a matrix and a vector or matrix: {left.shape}, {right.shape}")
    if left._data.shape[0] != right._data.shape[0]:
        raise ValueError(
            f"Leading dimensions of input arrays must match: {left.shape}, {right.shape}"
        )
    vector = right._data.ndim == 1
    found = matmul(pinv(left, rcond), expand_dims(right, 1) if vector else right)
    return squeeze(found, 1) if vector else found


def cholesky_inverse(x: Any, upper: bool = False) -> Tensor:
    """The inverse of the matrix of which ``x`` is the Cholesky factor."""
    factor = floated(x)
    factor = linalg.matrix_transpose(factor) if upper else factor
    size = factor._data.shape[-1]
    one = eye(size, batch_shape=list(factor._data.shape[:-2]), dtype=factor.dtype)
    return solvers.cholesky_solve(factor, one)


def logdet(x: Any) -> Tensor:
    """The logarithm of the determinant of positive definite matrices."""
    return solvers.logdet(floated(x))


def eig(x: Any) -> tuple[Tensor, Tensor]:
    """Complex eigenvalues of square matrices, and their eigenvectors as columns; no gradient."""
    tensor = floated(x)
    kind = np.result_type(tensor._data.dtype, np.complex64)

    def run(x: Tensor) -> np.ndarray:
        values, vectors = np.linalg.eig(x._host())
        return np.concatenate([values[..., None], vectors], -1).astype(kind)

    both = on_host(run, tensor)
    return both[..., 0], both[..., 1:]


def lu_factor(x: Any) -> tuple[Tensor, Tensor]:
    """Lower and upper triangle in one matrix, and an int32 vector p: ``x = (L @ U)[p]``.

    The lower one has ones on its diagonal, which are left out. No gradient.
    """
    tensor = floated(x)
    both = on_host(lambda x: _eliminated(x._host()), tensor)
    return both[..., 1:], cast(both[..., 0], np.int32)


def _eliminated(x: np.ndarray) -> np.ndarray:
    """Gauss's elimination with the largest pivots: where each row has gone, then the factors."""
    out, n = x.copy(), x.shape[-1]
    order = np.broadcast_to(np.arange(n), x.shape[:-1]).copy()
    for k in range(n):
        pivot = np.abs(out[..., k:, k]).argmax(-1)[..., None] + k
        for array in (out, order[..., None]):
            index = pivot[..., None]
            row = np.take_along_axis(array, index, -2).copy()
            np.put_along_axis(array, index, array[..., k : k + 1, :].copy(), -2)
            array[..., k : k + 1, :] = row
        below = out[..., k + 1 :, k] / out[..., k : k + 1, k]
        out[..., k + 1 :, k] = below
        out[..., k + 1 :, k + 1 :] -= below[..., None] * out[..., k : k + 1, k + 1 :]
    went = np.argsort(order, -1)
    return np.concatenate([went[..., None].astype(x.dtype), out], -1)


def jvp(
    fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False
) -> tuple[Any, ...]:
    """``fun(*primals)``, and how it changes as ``primals`` move along ``tangents``.

    With ``has_aux`` the function gives a pair, whose second comes third as it is.
    """
    given = tree.map_structure(as_tensor, list(primals))
    along = [
        cast(t, p.dtype)
        for t, p in zip(tree.flatten(list(tangents)), tree.flatten(given), strict=True)
    ]
    with ForwardAccumulator(tree.flatten(given), along) as accumulator:
        found = fun(*given)
        out, *aux = found if has_aux else (found,)
        moved = tree.map_structure(lambda y: accumulator.jvp(y, "zero"), out)
    return (out, moved, *aux)
