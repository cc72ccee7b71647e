"""Diagonals and bands of matrices."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.logic import select
from distgrad.ops.shape import fill, reshape_to


def _length(rows: int, columns: int, k: int) -> int:
    """The length of diagonal ``k`` (0 the main one, positive above it) of a matrix."""
    return max(min(rows + min(k, 0), columns - max(k, 0)), 0)


@primitive()
def diagonal_embed(xp, x, *, k, rows, columns):
    """Zeros (..., rows, columns) with the last axis of ``x`` on diagonal ``k``."""
    out = xp.zeros((*x.shape[:-1], rows, columns), dtype=x.dtype)
    at = xp.arange(x.shape[-1])
    out[..., at + max(-k, 0), at + max(k, 0)] = x
    return out


@diagonal_embed.vjp("x")
def _(g, k):
    return bind(diagonal_of, g, k=k)


@diagonal_embed.samples
def _(rng):
    yield sample(rng.normal(size=(2, 3)), k=0, rows=3, columns=3)
    yield sample(rng.normal(size=2), k=1, rows=2, columns=4)
    yield sample(rng.normal(size=2), k=-1, rows=3, columns=3)


@primitive()
def diagonal_of(xp, x, *, k):
    """Diagonal ``k`` of the last two axes."""
    return xp.diagonal(x, k, -2, -1).copy()


@diagonal_of.vjp("x")
def _(g, x_shape, k):
    return bind(diagonal_embed, g, k=k, rows=x_shape[-2], columns=x_shape[-1])


@diagonal_of.samples
def _(rng):
    for k in (0, 1, -2):
        yield sample(rng.normal(size=(2, 3, 4)), k=k)


@primitive()
def band(xp, x, *, lower, upper):
    """The last two axes with zeros outside the band: ``lower`` below, ``upper`` above, -1 all."""
    offset = xp.arange(x.shape[-1]) - xp.arange(x.shape[-2])[:, None]
    inside = xp.ones(x.shape[-2:], dtype=bool)
    if lower >= 0:
        inside &= offset >= -lower
    if upper >= 0:
        inside &= offset <= upper
    return xp.where(inside, x, xp.zeros((), dtype=x.dtype))


@band.vjp("x")
def _(g, lower, upper):
    return bind(band, g, lower=lower, upper=upper)


@band.samples
def _(rng):
    for lower, upper in [(0, 0), (1, -1), (-1, 0), (1, 2)]:
        yield sample(rng.normal(size=(2, 3, 4)), lower=lower, upper=upper)


def _matrices(name: str, input: Any) -> Tensor:
    x = as_tensor(input)
    if x._data.ndim < 2:
        raise InvalidArgumentError(f"{name} needs matrices, not a tensor of shape {x.shape}")
    return x


def _check_diagonal(name: str, x: Tensor, k: int) -> None:
    rows, columns = x._data.shape[-2:]
    if not -rows < k < columns and (k or rows * columns):
        raise InvalidArgumentError(f"{name}: matrices of shape {x.shape} have no diagonal {k}")


def diag(
    diagonal: Any,
    name: str | None = "diag",
    k: int = 0,
    num_rows: int = -1,
    num_cols: int = -1,
    padding_value: Any = 0,
) -> Tensor:
    """Matrices with the last axis of ``diagonal`` on diagonal ``k``, ``padding_value`` elsewhere.

    They are the smallest square that holds it, or ``num_rows`` by ``num_cols`` (the smallest size
    for one that is left out). Raises InvalidArgumentError for a scalar, or sizes in which
    it is not the whole diagonal.
    """
    x = as_tensor(diagonal)
    if not x._data.ndim:
        raise InvalidArgumentError("diag needs a vector or a batch of them, not a scalar")
    k, length = operator.index(k), x._data.shape[-1]
    rows, columns = length + max(-k, 0), length + max(k, 0)
    if num_rows == num_cols == -1:
        rows = columns = max(rows, columns)
    rows = rows if num_rows == -1 else int(num_rows)
    columns = columns if num_cols == -1 else int(num_cols)
    if _length(rows, columns, k) != length:
        raise InvalidArgumentError(
            f"diag: diagonal {k} of {rows} by {columns} does not have {length} elements"
        )
    made = bind(diagonal_embed, x, k=k, rows=rows, columns=columns)
    return made if padding_value == 0 else select(_on_diagonal(made, k), made, padding_value)


def _on_diagonal(x: Tensor, k: int) -> Tensor:
    rows, columns = x._data.shape[-2:]
    line = bind(fill, True, shape=(_length(rows, columns, k),), dtype=np.dtype(bool))
    return bind(diagonal_embed, line, k=k, rows=rows, columns=columns)


def diag_part(
    input: Any, name: str | None = "diag_part", k: int = 0, padding_value: Any = 0
) -> Tensor:
    """Diagonal ``k`` of the matrices in the last two axes.

    Raises InvalidArgumentError for a rank under 2 or a diagonal outside the matrix.
    """
    x = _matrices("diag_part", input)
    _check_diagonal("diag_part", x, operator.index(k))
    return bind(diagonal_of, x, k=operator.index(k))


def set_diag(input: Any, diagonal: Any, name: str | None = "set_diag", k: int = 0) -> Tensor:
    """``input`` with diagonal ``k`` of its matrices replaced by ``diagonal``.

    Raises InvalidArgumentError where that does not have the shape of the diagonal.
    """
    x, line, k = _matrices("set_diag", input), as_tensor(diagonal), operator.index(k)
    _check_diagonal("set_diag", x, k)
    rows, columns = x._data.shape[-2:]
    if line._data.shape != (*x._data.shape[:-2], _length(rows, columns, k)):
        raise InvalidArgumentError(
            f"set_diag: a diagonal of shape {line.shape} for matrices of shape {x.shape}"
        )
    made = bind(diagonal_embed, line, k=k, rows=rows, columns=columns)
    return select(_on_diagonal(x, k), made, x)


def band_part(input: Any, num_lower: int, num_upper: int, name: str | None = None) -> Tensor:
    """The matrices with zeros outside the band; -1 keeps the whole lower or upper triangle.

    Raises InvalidArgumentError for a rank under 2.
    """
    x = _matrices("band_part", input)
    return bind(band, x, lower=operator.index(num_lower), upper=operator.index(num_upper))


def tensor_diag(diagonal: Any, name: str | None = None) -> Tensor:
    """A tensor of twice the rank with ``diagonal`` where both halves of the index agree."""
    x = as_tensor(diagonal)
    shape, size = x._data.shape, x._data.size
    flat = bind(reshape_to, x, shape=(size,))
    matrix = bind(diagonal_embed, flat, k=0, rows=size, columns=size)
    return bind(reshape_to, matrix, shape=(*shape, *shape))


def tensor_diag_part(input: Any, name: str | None = None) -> Tensor:
    """The elements of a tensor of even rank where both halves of the index agree.

    Raises InvalidArgumentError unless both halves of its shape are the same.
    """
    x = as_tensor(input)
    shape = x._data.shape
    half = shape[: len(shape) // 2]
    if not shape or half + half != shape:
        raise InvalidArgumentError(f"tensor_diag_part: {x.shape} is not a shape said twice")
    size = math.prod(half)
    line = bind(diagonal_of, bind(reshape_to, x, shape=(size, size)), k=0)
    return bind(reshape_to, line, shape=half)
