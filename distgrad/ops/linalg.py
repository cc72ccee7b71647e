"""Linear algebra: products of matrices, tensors and vectors; diagonals and triangles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.composite import CompositeError, otherwise
from distgrad.core.dispatch import as_tensor, match_dtypes
from distgrad.core.dtypes import FLOATS
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, bind_at, primitive, registry, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import cast
from distgrad.ops.complex import conj
from distgrad.ops.diagonal import band, diagonal_embed, diagonal_of
from distgrad.ops.products import product
from distgrad.ops.reduce import sum as sum_over
from distgrad.ops.shape import expand_dims, permute, reshape_to


def tensors(name: str, *values: Any) -> list[Tensor]:
    """``values`` as tensors of one dtype."""
    return [v if type(v) is Tensor else as_tensor(v) for v in match_dtypes(name, values)]


# Products


@primitive(kinds="iufc")
def dot(xp, a, b, *, transpose_a, transpose_b, out=None):
    """Matrix product over the last two axes, leading axes broadcast; flags transpose first."""
    if transpose_a:
        a = a.swapaxes(-1, -2)
    if transpose_b:
        b = b.swapaxes(-1, -2)
    if b.ndim == 2 and a.ndim > 2 and not transpose_a:
        # One matrix for the whole batch: one large product is faster than many small ones.
        rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
        if out is not None:
            product(xp, rows, b, out.reshape(rows.shape[0], b.shape[-1]))
            return out
        return product(xp, rows, b).reshape(*a.shape[:-1], b.shape[-1])
    return product(xp, a, b, out)


@dot.vjp("a")
def _(g, b, transpose_a, transpose_b):
    b = conj(b)
    if transpose_a:
        return bind(dot, b, g, transpose_a=transpose_b, transpose_b=True)
    return bind(dot, g, b, transpose_a=False, transpose_b=not transpose_b)


@dot.vjp("b")
def _(g, a, b_shape, transpose_a, transpose_b, *, place=None):
    a = conj(a)
    if len(b_shape) == 2 and a._data.ndim > 2 and not transpose_a:
        a, g = _rows(a), _rows(g)  # the sum over the batch is taken inside the product
    if g._data.ndim > 2:
        place = None  # may have more elements
    if transpose_b:
        return bind_at(place, dot, g, a, transpose_a=True, transpose_b=transpose_a)
    return bind_at(place, dot, a, g, transpose_a=not transpose_a, transpose_b=False)


def _rows(x: Tensor) -> Tensor:
    shape = x._data.shape
    return bind(reshape_to, x, shape=(math.prod(shape[:-1]), shape[-1]))


@dot.samples
def _(rng):
    for ta in (False, True):
        for tb in (False, True):
            a = rng.normal(size=(4, 3) if ta else (3, 4))
            b = rng.normal(size=(2, 4) if tb else (4, 2))
            yield sample(a, b, transpose_a=ta, transpose_b=tb)
            yield sample(rng.normal(size=(2, *a.shape)), b, transpose_a=ta, transpose_b=tb)
            batched = rng.normal(size=(3, 1, *a.shape)), rng.normal(size=(2, *b.shape))
            yield sample(*batched, transpose_a=ta, transpose_b=tb)
    yield sample(
        rng.normal(size=(0, 3, 4)), rng.normal(size=(4, 2)), transpose_a=False, transpose_b=False
    )
    yield sample(
        rng.normal(size=(3, 0)), rng.normal(size=(0, 2)), transpose_a=False, transpose_b=False
    )


def matmul(
    a: Any,
    b: Any,
    transpose_a: bool = False,
    transpose_b: bool = False,
    adjoint_a: bool = False,
    adjoint_b: bool = False,
    a_is_sparse: bool = False,
    b_is_sparse: bool = False,
    output_type: Any = None,
    name: str | None = None,
) -> Tensor:
    """Matrix product of ``a`` and ``b`` over their last two axes; leading axes are batches.

    ``output_type`` is the dtype in which integers are multiplied and added. That a matrix has many
    zeros changes nothing.

    Raises InvalidArgumentError for rank below 2, inner sizes, batches or dtypes that do not fit,
    ValueError where one argument is to be both transposed and conjugate-transposed.
    """
    if (transpose_a and adjoint_a) or (transpose_b and adjoint_b):
        which = "a" if transpose_a and adjoint_a else "b"
        raise ValueError(
            f"matmul: transpose_{which} and adjoint_{which} are both set: choose one of them"
        )
    if not (type(a) is type(b) is Tensor and a._data.dtype is b._data.dtype):
        try:
            a, b = tensors("matmul", a, b)
        except CompositeError:
            options = transpose_a, transpose_b, adjoint_a, adjoint_b, False, False, output_type
            return otherwise(matmul, (a, b, *options), {})
    if output_type is not None:
        a, b = cast(a, output_type), cast(b, output_type)
    if a._data.ndim < 2 or b._data.ndim < 2:
        raise InvalidArgumentError(
            f"matmul takes tensors of rank 2 or more, not shapes {a.shape} and {b.shape}"
        )
    a, b = conj(a) if adjoint_a else a, conj(b) if adjoint_b else b
    first, second = bool(transpose_a or adjoint_a), bool(transpose_b or adjoint_b)
    if a._data.dtype.kind in FLOATS:  # nothing is left to convert, or to refuse
        return bind(dot, a, b, transpose_a=first, transpose_b=second)
    return dot(a, b, transpose_a=first, transpose_b=second)


def matvec(
    a: Any,
    b: Any,
    transpose_a: bool = False,
    adjoint_a: bool = False,
    a_is_sparse: bool = False,
    b_is_sparse: bool = False,
    name: str | None = None,
) -> Tensor:
    """Matrix times vector: ``a`` of shape ``[..., m, n]``, ``b`` of shape ``[..., n]``.

    That one has many zeros changes nothing. Raises InvalidArgumentError where the ranks or sizes
    do not fit.
    """
    a, b = tensors("matvec", a, b)
    if a._data.ndim < 2 or b._data.ndim < 1:
        raise InvalidArgumentError(
            f"matvec takes a matrix and a vector, not shapes {a.shape} and {b.shape}"
        )
    column = matmul(a, expand_dims(b, -1), transpose_a=transpose_a, adjoint_a=adjoint_a)
    return bind(reshape_to, column, shape=column._data.shape[:-1])


def tensordot(a: Any, b: Any, axes: Any, name: str | None = None) -> Tensor:
    """Sum of products over pairs of axes: the other axes of ``a``, then those of ``b``.

    ``axes`` is a count n (the last n of ``a`` with the first n of ``b``; 0 is the outer product)
    or a pair: the axes of ``a`` and those of ``b``. Raises InvalidArgumentError for axes that are
    out of range, given twice, or of different sizes.
    """
    a, b = tensors("tensordot", a, b)
    of_a, of_b = _paired_axes(axes, a._data.ndim, b._data.ndim)
    a_shape, b_shape = a._data.shape, b._data.shape
    if [a_shape[i] for i in of_a] != [b_shape[i] for i in of_b]:
        raise InvalidArgumentError(
            f"tensordot: shapes {a_shape} and {b_shape} do not agree on the axes {of_a} and {of_b}"
        )
    free_a = [i for i in range(len(a_shape)) if i not in of_a]
    free_b = [i for i in range(len(b_shape)) if i not in of_b]
    inner = math.prod(a_shape[i] for i in of_a)
    rows = math.prod(a_shape[i] for i in free_a)
    columns = math.prod(b_shape[i] for i in free_b)
    left = bind(reshape_to, bind(permute, a, perm=(*free_a, *of_a)), shape=(rows, inner))
    right = bind(reshape_to, bind(permute, b, perm=(*of_b, *free_b)), shape=(inner, columns))
    product = dot(left, right, transpose_a=False, transpose_b=False)
    shape = tuple([a_shape[i] for i in free_a] + [b_shape[i] for i in free_b])
    return bind(reshape_to, product, shape=shape)


def _paired_axes(axes: Any, a_ndim: int, b_ndim: int) -> tuple[list[int], list[int]]:
    given = axes.numpy() if isinstance(axes, Tensor) else axes
    if isinstance(given, (int, np.integer)):
        count = int(given)
        if not 0 <= count <= min(a_ndim, b_ndim):
            raise InvalidArgumentError(
                f"tensordot: {count} axes of tensors of rank {a_ndim} and {b_ndim}"
            )
        return list(range(a_ndim - count, a_ndim)), list(range(count))
    if len(given) != 2:
        raise ValueError(f"tensordot: axes is a count or a pair of lists, not {axes!r}")
    pair = []
    for chosen, ndim in zip(given, (a_ndim, b_ndim), strict=True):
        found = [int(i) for i in np.atleast_1d(chosen)]
        if any(not -ndim <= i < ndim for i in found):
            raise InvalidArgumentError(f"tensordot: axes {found} of a tensor of rank {ndim}")
        pair.append([i % ndim for i in found])
    if any(len(set(p)) != len(p) for p in pair) or len(pair[0]) != len(pair[1]):
        raise InvalidArgumentError(f"tensordot: axes {axes!r} do not pair up")
    return pair[0], pair[1]


@primitive(kinds="iuf")
def cross_product(xp, a, b):
    """Cross product of 3-vectors along the last axis."""
    return xp.cross(a, b)


@cross_product.vjp("a")
def _(g, b):
    return bind(cross_product, b, g)


@cross_product.vjp("b")
def _(g, a):
    return bind(cross_product, g, a)


@cross_product.samples
def _(rng):
    yield sample(rng.normal(size=3), rng.normal(size=3))
    yield sample(rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 4, 3)))


def cross(a: Any, b: Any, name: str | None = None) -> Tensor:
    """Cross product of the 3-vectors along the last axis of two tensors of one shape.

    Raises InvalidArgumentError for shapes that differ or do not end in 3.
    """
    a, b = tensors("cross", a, b)
    if a._data.shape != b._data.shape or a._data.shape[-1:] != (3,):
        raise InvalidArgumentError(
            f"cross takes two tensors of one shape that ends in 3, not {a.shape} and {b.shape}"
        )
    return cross_product(a, b)


# Transposes and diagonals


def as_matrices(name: str, x: Any, square: bool = False) -> Tensor:
    """``x`` as a tensor of matrices; InvalidArgumentError otherwise."""
    tensor = as_tensor(x)
    shape = tensor._data.shape
    if len(shape) < 2 or (square and shape[-1] != shape[-2]):
        wanted = "square matrices" if square else "matrices"
        raise InvalidArgumentError(f"{name} takes {wanted}, not a tensor of shape {shape}")
    return tensor


def matrix_transpose(a: Any, name: str | None = None, conjugate: bool = False) -> Tensor:
    """``a`` with its last two axes exchanged; InvalidArgumentError for rank below 2."""
    x = as_matrices("matrix_transpose", a)
    return adjoint(x) if conjugate else swap(x)


def adjoint(matrix: Any, name: str | None = None) -> Tensor:
    """The conjugate of ``matrix`` with its last two axes exchanged."""
    return conj(swap(as_matrices("adjoint", matrix)))


def swap(x: Tensor) -> Tensor:
    """The last two axes exchanged."""
    ndim = x._data.ndim
    return bind(permute, x, perm=(*range(ndim - 2), ndim - 1, ndim - 2))


def main_diagonal(x: Tensor) -> Tensor:
    """The main diagonal of the last two axes."""
    return bind(diagonal_of, x, k=0)


def diagonal_matrix(x: Tensor) -> Tensor:
    """Square matrices with the last axis of ``x`` on their diagonals."""
    size = x._data.shape[-1]
    return bind(diagonal_embed, x, k=0, rows=size, columns=size)


def triangle(x: Tensor, lower: bool) -> Tensor:
    """``x`` with zeros above (``lower``) or below its main diagonal, in the last two axes."""
    return bind(band, x, lower=-1, upper=0) if lower else bind(band, x, lower=0, upper=-1)


def trace(x: Any, name: str | None = None) -> Tensor:
    """Sum of the main diagonal of the last two axes; InvalidArgumentError for rank below 2."""
    diagonal = main_diagonal(as_matrices("trace", x))
    return sum_over(diagonal, axis=(diagonal._data.ndim - 1,), keepdims=False)


def broadcast_batches(name: str, *matrices: Tensor) -> Sequence[Tensor]:
    """The tensors with their axes before the last two broadcast against each other.

    Raises InvalidArgumentError where they do not broadcast.
    """
    shapes = [m._data.shape for m in matrices]
    if all(shape[:-2] == shapes[0][:-2] for shape in shapes):
        return matrices
    try:
        batch = np.broadcast_shapes(*[shape[:-2] for shape in shapes])
    except ValueError:
        raise InvalidArgumentError(
            f"{name}: the batches of shapes {' and '.join(map(str, shapes))} do not broadcast"
        ) from None
    spread = registry["broadcast_to"]
    return [
        bind(spread, m, shape=batch + shape[-2:]) for m, shape in zip(matrices, shapes, strict=True)
    ]
