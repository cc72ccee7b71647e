"""Scale and offset as one operation, for eager steps: what normalisations end with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.arithmetic import multiply
from distgrad.ops.biased import pulled_back
from distgrad.ops.reduce import sum_to


@primitive(kinds="f")
def rescaled(xp, x, scale, offset):
    """``x * scale + offset``, both of them rows of ``x``."""
    return xp.add(xp.multiply(x, scale), offset)


@rescaled.vjp("x", "scale", "offset")
def _(g, x, scale):
    return bind(rescaled_grad, g, x, scale)


@primitive(kinds="f", multiple=True)
def rescaled_grad(xp, g, x, scale):
    """The cotangents of ``x``, ``scale`` and ``offset``."""
    total = sum_to.within(xp)
    dscale = total(xp.multiply(g, x), shape=scale.shape)
    return xp.multiply(g, scale), dscale, total(g, shape=scale.shape)


@rescaled_grad.vjp("g", "x", "scale")
def _(cotangents, args):
    return pulled_back(_grad_in_parts, args, cotangents)


def _grad_in_parts(g: Tensor, x: Tensor, scale: Tensor) -> Sequence[Tensor]:
    shape = scale._data.shape
    dscale = bind(sum_to, bind(multiply, g, x), shape=shape)
    return bind(multiply, g, scale), dscale, bind(sum_to, g, shape=shape)


def are_rows(x: Tensor, *rows: Any) -> bool:
    """Whether these are tensors of the dtype of ``x`` and of one shape: that of its last axis."""
    last = x._data.shape[-1:]
    return all(
        type(row) is Tensor
        and row._data.dtype == x._data.dtype
        and row._data.shape == rows[0]._data.shape
        and row._data.shape[-1:] == last
        and row._data.size == last[0]
        and row._data.ndim <= x._data.ndim
        for row in rows
    )


_SHAPES = [((2, 3, 4), (4,)), ((3, 4), (1, 4)), ((0, 4), (4,))]


@rescaled.samples
def _(rng):
    for shape, row in _SHAPES:
        yield sample(rng.normal(size=shape), rng.normal(size=row), rng.normal(size=row))


@rescaled_grad.samples
def _(rng):
    for shape, row in _SHAPES:
        yield sample(rng.normal(size=shape), rng.normal(size=shape), rng.normal(size=row))
