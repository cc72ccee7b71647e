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
from distgrad.ops.logic import logical_or, select
from distgrad.ops.padding import pad
from distgrad.ops.shape import fill, reshape_to, stack


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


# One diagonal, k, or several, from k[0] to k[1]: these lie in the last two axes, the highest first,
# each at the left or the right of a row as long as the longest.

_SIDES = {"LEFT", "RIGHT"}


def _range(name: str, k: Any) -> tuple[int, int]:
    """The lowest and the highest diagonal. Raises InvalidArgumentError."""
    ends = np.asarray(as_tensor(k)._host()).reshape(-1).tolist() if np.ndim(k) else [k]
    low, high = operator.index(ends[0]), operator.index(ends[-1])
    if len(ends) > 2 or low > high:
        raise InvalidArgumentError(f"{name}: k is a diagonal, or the lowest and highest, not {k}")
    return low, high


def _start(name: str, align: str, k: int, empty: int) -> int:
    """Where in its row diagonal ``k`` begins. Raises InvalidArgumentError."""
    above, _, below = str(align).partition("_")
    if not {above, below} <= _SIDES:
        raise InvalidArgumentError(f"{name}: align is RIGHT_LEFT or the like, not {align!r}")
    return empty if (above if k >= 0 else below) == "RIGHT" else 0


def _embedded(
    name: str, x: Tensor, low: int, high: int, rows: int, columns: int, align: str
) -> tuple[Tensor, Tensor]:
    """Matrices with these diagonals, and where they lie. Raises InvalidArgumentError."""
    lengths = {k: _length(rows, columns, k) for k in range(low, high + 1)}
    longest = max(lengths.values())
    inner = (longest,) if low == high else (len(lengths), longest)
    if x._data.shape[x._data.ndim - len(inner) :] != inner:
        what = f"diagonal {low}" if low == high else f"diagonals {low} to {high}"
        raise InvalidArgumentError(
            f"{name}: {what} of {rows} by {columns} have shape {inner}, not {x.shape}"
        )
    made, at = [], []
    for k, length in lengths.items():
        begin = _start(name, align, k, longest - length)
        line = x if low == high else x[..., high - k, begin : begin + length]
        made.append(bind(diagonal_embed, line, k=k, rows=rows, columns=columns))
        on = bind(fill, True, shape=(length,), dtype=np.dtype(bool))
        at.append(bind(diagonal_embed, on, k=k, rows=rows, columns=columns))
    both, where = made[0], at[0]
    for more, there in zip(made[1:], at[1:], strict=True):
        both, where = select(there, more, both), logical_or(where, there)
    return both, where


def diag(
    diagonal: Any,
    name: str | None = "diag",
    k: Any = 0,
    num_rows: int = -1,
    num_cols: int = -1,
    padding_value: Any = 0,
    align: str = "RIGHT_LEFT",
) -> Tensor:
    """Matrices with the last axis of ``diagonal`` on diagonal ``k``, ``padding_value`` elsewhere.

    With ``k`` a pair, the last two axes are the diagonals from the highest to the lowest, each at
    the side of its row that ``align`` says: of those from 0 on, then of those below. The matrices
    are the smallest square that holds them, or ``num_rows`` by ``num_cols`` (the smallest size for
    one that is left out). Raises InvalidArgumentError for a rank too low, or sizes of which these
    are not the whole diagonals.
    """
    x = as_tensor(diagonal)
    low, high = _range("diag", k)
    if x._data.ndim < 1 + (low != high):
        raise InvalidArgumentError(f"diag: diagonals {k} are not made of a tensor of {x.shape}")
    length = x._data.shape[-1]
    rows, columns = length - min(high, 0), length + max(low, 0)
    if num_rows == num_cols == -1:
        rows = columns = max(rows, columns)
    rows = rows if num_rows == -1 else int(num_rows)
    columns = columns if num_cols == -1 else int(num_cols)
    made, where = _embedded("diag", x, low, high, rows, columns, align)
    return made if padding_value == 0 else select(where, made, padding_value)


def diag_part(
    input: Any,
    name: str | None = "diag_part",
    k: Any = 0,
    padding_value: Any = 0,
    align: str = "RIGHT_LEFT",
) -> Tensor:
    """Diagonal ``k`` of the matrices in the last two axes; with ``k`` a pair, all from the highest.

    These are rows of one length, ``padding_value`` at the side of the shorter ones that ``align``
    leaves free. Raises InvalidArgumentError for a rank under 2 or a diagonal outside the matrix.
    """
    x = _matrices("diag_part", input)
    low, high = _range("diag_part", k)
    for end in (low, high):
        _check_diagonal("diag_part", x, end)
    if low == high:
        return bind(diagonal_of, x, k=low)
    lines = []
    rows, columns = x._data.shape[-2:]
    longest = max(_length(rows, columns, k) for k in range(low, high + 1))
    for each in range(high, low - 1, -1):
        line = bind(diagonal_of, x, k=each)
        empty = longest - line._data.shape[-1]
        begin = _start("diag_part", align, each, empty)
        around = [*[(0, 0)] * (line._data.ndim - 1), (begin, empty - begin)]
        lines.append(pad(line, around, constant_values=padding_value))
    return stack(lines, axis=-2)


def set_diag(
    input: Any,
    diagonal: Any,
    name: str | None = "set_diag",
    k: Any = 0,
    align: str = "RIGHT_LEFT",
) -> Tensor:
    """``input`` with diagonal ``k`` of its matrices, or those of a pair, replaced by ``diagonal``.

    Raises InvalidArgumentError where that does not have the shape that ``diag_part`` gives.
    """
    x = _matrices("set_diag", input)
    line = as_tensor(diagonal, like=x._data.dtype)
    low, high = _range("set_diag", k)
    for end in (low, high):
        _check_diagonal("set_diag", x, end)
    batch, (rows, columns) = x._data.shape[:-2], x._data.shape[-2:]
    if line._data.shape[: line._data.ndim - 1 - (low != high)] != batch:
        raise InvalidArgumentError(
            f"set_diag: diagonals of shape {line.shape} for matrices of shape {x.shape}"
        )
    made, where = _embedded("set_diag", line, low, high, rows, columns, align)
    return select(where, made, x)


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
