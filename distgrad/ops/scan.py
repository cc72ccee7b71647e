"""Running sums and products, and the linear recurrence behind their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.composite import takes_composites
from distgrad.core.dispatch import as_tensor
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.exponential import exp
from distgrad.ops.indexing import getitem
from distgrad.ops.logic import equal, select
from distgrad.ops.padding import pad_constant
from distgrad.ops.shape import one_axis, part

# Along ``axis`` from its start, or from its end where ``reverse``; an ``exclusive`` scan leaves
# each element itself out.


def _moved(xp, x, axis, value, reverse):
    """``x`` one place further along the scan, with ``value`` at its start."""
    moved = xp.full(x.shape, value, dtype=x.dtype)
    ahead, behind = part(axis, 1, None), part(axis, None, -1)
    if reverse:
        ahead, behind = behind, ahead
    moved[ahead] = x[behind]
    return moved


def _scan(xp, run, start, x, axis, exclusive, reverse):
    total = run(xp.flip(x, axis) if reverse else x, axis=axis, dtype=x.dtype)
    if reverse:
        total = xp.flip(total, axis)
    return _moved(xp, total, axis, start, reverse) if exclusive else total


def _ways(rng: Any) -> Any:
    """Samples of every combination of flags."""
    for exclusive in (False, True):
        for reverse in (False, True):
            flags = {"exclusive": exclusive, "reverse": reverse}
            yield sample(rng.normal(size=(3, 4)), axis=1, **flags)
            yield sample(rng.normal(size=(3, 2)), axis=0, **flags)
    yield sample(rng.normal(size=(2, 0)), axis=1, exclusive=True, reverse=False)


@primitive(kinds="iufc")
def shift(xp, x, *, axis, reverse):
    """``x`` one place further along ``axis`` (towards the start if ``reverse``), 0 behind it."""
    return _moved(xp, x, axis, 0, reverse)


@shift.vjp("x")
def _(g, axis, reverse):
    return bind(shift, g, axis=axis, reverse=not reverse)


@shift.samples
def _(rng):
    yield sample(rng.normal(size=(2, 3)), axis=1, reverse=False)
    yield sample(rng.normal(size=(2, 3)), axis=0, reverse=True)


@primitive(kinds="iufc")
def cumsum_along(xp, x, *, axis, exclusive, reverse):
    """Running sum along ``axis``."""
    return _scan(xp, xp.cumsum, 0, x, axis, exclusive, reverse)


@cumsum_along.vjp("x")
def _(g, axis, exclusive, reverse):
    return bind(cumsum_along, g, axis=axis, exclusive=exclusive, reverse=not reverse)


@cumsum_along.samples
def _(rng):
    yield from _ways(rng)


@primitive(kinds="iufc")
def cumprod_along(xp, x, *, axis, exclusive, reverse):
    """Running product along ``axis``."""
    return _scan(xp, xp.cumprod, 1, x, axis, exclusive, reverse)


@cumprod_along.vjp("x")
def _(g, x, axis, exclusive, reverse):
    # dx[k] = x[0] ... x[k-1] * (g[k] + x[k+1] g[k+1] + x[k+1] x[k+2] g[k+2] + ...): no division,
    # so that zeros are no exception.
    before = bind(cumprod_along, x, axis=axis, exclusive=True, reverse=reverse)
    if exclusive:
        g = bind(shift, g, axis=axis, reverse=not reverse)
    following = bind(shift, x, axis=axis, reverse=not reverse)
    return before * bind(linear_scan, following, g, axis=axis, reverse=not reverse)


@cumprod_along.samples
def _(rng):
    yield from _ways(rng)
    yield sample(np.array([0.5, 0.0, -1.5, 0.0, 2.0]), axis=0, exclusive=False, reverse=False)


@primitive(kinds="fc")
def linear_scan(xp, a, b, *, axis, reverse):
    """The recurrence ``h[i] = a[i] h[i-1] + b[i]`` along ``axis``, from zero.

    In steps of doubling length (Hillis and Steele, CACM 1986): few array operations, no loop over
    elements.
    """
    a, b = (xp.flip(v, axis).copy() if reverse else v.copy() for v in (a, b))
    distance = 1
    while distance < b.shape[axis]:
        ahead, behind = part(axis, distance, None), part(axis, None, -distance)
        b[ahead] = a[ahead] * b[behind] + b[ahead]
        a[ahead] = a[ahead] * a[behind]
        distance *= 2
    return xp.flip(b, axis) if reverse else b


@linear_scan.vjp("a", "b")
def _(g, out, a, axis, reverse):
    following = bind(shift, a, axis=axis, reverse=not reverse)
    adjoint = bind(linear_scan, following, g, axis=axis, reverse=not reverse)
    return adjoint * bind(shift, out, axis=axis, reverse=reverse), adjoint


@linear_scan.samples
def _(rng):
    for reverse in (False, True):
        yield sample(rng.normal(size=(2, 5)), rng.normal(size=(2, 5)), axis=1, reverse=reverse)
    yield sample(rng.normal(size=(3, 2)), rng.normal(size=(3, 2)), axis=0, reverse=False)
    yield sample(np.array([0.0, 2.0, 0.0]), rng.normal(size=3), axis=0, reverse=False)


@primitive(kinds="f")
def cumulative_logsumexp_along(xp, x, *, axis, reverse):
    """Running ``log(sum(exp(x)))`` along ``axis``, without overflow."""
    total = (xp.flip(x, axis) if reverse else x).copy()
    distance = 1
    while distance < x.shape[axis]:
        ahead, behind = part(axis, distance, None), part(axis, None, -distance)
        total[ahead] = xp.logaddexp(total[ahead], total[behind])
        distance *= 2
    return xp.flip(total, axis) if reverse else total


@cumulative_logsumexp_along.vjp("x")
def _(g, out, x, axis, reverse):
    finite = select(equal(out, -np.inf), 0, out)
    carried = exp(out - bind(shift, finite, axis=axis, reverse=not reverse))
    return exp(x - finite) * bind(linear_scan, carried, g, axis=axis, reverse=not reverse)


@cumulative_logsumexp_along.samples
def _(rng):
    for axis, reverse in [(0, False), (1, True)]:
        yield sample(rng.normal(size=(3, 4)), axis=axis, reverse=reverse)


@takes_composites
def cumsum(
    x: Any, axis: int = 0, exclusive: bool = False, reverse: bool = False, name: Any = None
) -> Tensor:
    """Running sum along ``axis``; ``exclusive`` starts at 0, ``reverse`` begins at the end.

    Raises InvalidArgumentError for an axis outside the rank.
    """
    return _public("cumsum", cumsum_along, x, axis, exclusive=exclusive, reverse=reverse)


def cumprod(
    x: Any, axis: int = 0, exclusive: bool = False, reverse: bool = False, name: Any = None
) -> Tensor:
    """Running product along ``axis``; ``exclusive`` starts at 1, ``reverse`` begins at the end.

    Unlike TensorFlow's, its gradient is right where there are zeros. Raises InvalidArgumentError
    for an axis outside the rank.
    """
    return _public("cumprod", cumprod_along, x, axis, exclusive=exclusive, reverse=reverse)


def cumulative_logsumexp(
    x: Any, axis: int = 0, exclusive: bool = False, reverse: bool = False, name: Any = None
) -> Tensor:
    """Running ``log(sum(exp(x)))`` along ``axis``; ``exclusive`` starts at -inf.

    Raises InvalidArgumentError for an axis outside the rank.
    """
    total = _public("cumulative_logsumexp", cumulative_logsumexp_along, x, axis, reverse=reverse)
    if not exclusive:
        return total
    ndim = total._data.ndim
    axis = one_axis("cumulative_logsumexp", axis, ndim)
    if not total._data.shape[axis]:
        return total
    key = part(axis, 1, None) if reverse else part(axis, None, -1)
    width = (0, 1) if reverse else (1, 0)
    paddings = tuple(width if i == axis else (0, 0) for i in range(ndim))
    return bind(pad_constant, bind(getitem, total, key=key), paddings=paddings, value=-np.inf)


def _public(name: str, primitive: Any, x: Any, axis: Any, **flags: Any) -> Tensor:
    tensor = as_tensor(x)
    along = one_axis(name, axis, tensor._data.ndim)
    return primitive(tensor, axis=along, **{key: bool(value) for key, value in flags.items()})
