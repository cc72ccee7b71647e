"""Linear algebra: matrix products with transpose flags."""

from __future__ import annotations

from typing import Any

from distgrad.core.dispatch import as_tensor, match_dtypes
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor


@primitive(kinds="iufc")
def dot(xp, a, b, *, transpose_a, transpose_b):
    """Matrix product over the last two axes, leading axes broadcast; flags transpose first."""
    if transpose_a:
        a = xp.swapaxes(a, -1, -2)
    if transpose_b:
        b = xp.swapaxes(b, -1, -2)
    return xp.matmul(a, b)


@dot.vjp("a")
def _(g, b, transpose_a, transpose_b):
    if transpose_a:
        return bind(dot, b, g, transpose_a=transpose_b, transpose_b=True)
    return bind(dot, g, b, transpose_a=False, transpose_b=not transpose_b)


@dot.vjp("b")
def _(g, a, transpose_a, transpose_b):
    if transpose_b:
        return bind(dot, g, a, transpose_a=True, transpose_b=transpose_a)
    return bind(dot, a, g, transpose_a=not transpose_a, transpose_b=False)


@dot.samples
def _(rng):
    for ta in (False, True):
        for tb in (False, True):
            a = rng.normal(size=(4, 3) if ta else (3, 4))
            b = rng.normal(size=(2, 4) if tb else (4, 2))
            yield sample(a, b, transpose_a=ta, transpose_b=tb)
    yield sample(
        rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 2)), transpose_a=False, transpose_b=False
    )
    yield sample(
        rng.normal(size=(2, 1, 3, 4)),
        rng.normal(size=(3, 2, 4)),
        transpose_a=False,
        transpose_b=True,
    )


def matmul(
    a: Any,
    b: Any,
    transpose_a: bool = False,
    transpose_b: bool = False,
    name: str | None = None,
) -> Tensor:
    """Matrix product of ``a`` and ``b`` over their last two axes; leading axes are batches.

    Raises InvalidArgumentError for rank below 2, inner sizes or dtypes that differ.
    """
    a, b = match_dtypes("matmul", (a, b))
    a, b = as_tensor(a), as_tensor(b)
    if a._data.ndim < 2 or b._data.ndim < 2:
        raise InvalidArgumentError(
            f"matmul takes tensors of rank 2 or more, not shapes {a.shape} and {b.shape}"
        )
    return dot(a, b, transpose_a=bool(transpose_a), transpose_b=bool(transpose_b))
