"""Normalisation: to zero mean and unit variance, with given moments, to unit length."""

from __future__ import annotations

from typing import Any

from distgrad.core import recording
from distgrad.core.dispatch import as_tensor
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.arithmetic import square
from distgrad.ops.casting import cast
from distgrad.ops.clipping import maximum
from distgrad.ops.powers import rsqrt
from distgrad.ops.reduce import axes, mean, reduce_sum, runs_of
from distgrad.ops.rescaled import are_rows, rescaled
from distgrad.ops.statistics import squared


def _average(xp: Any, x: Any, axis: tuple[int, ...]) -> Any:
    """The mean over ``axis``, kept; over each run of axes by itself, the last one last.

    Rows are added to each other then, of which the groups of channels leave short ones.
    """
    for run in runs_of(axis):
        x = xp.mean(x, axis=run, keepdims=True)
    return x


def _centred(xp: Any, x: Any, axis: tuple[int, ...], epsilon: float) -> tuple[Any, Any]:
    """``x`` minus its mean, and the reciprocal of its standard deviation."""
    centred = x - _average(xp, x, axis)
    variance = _average(xp, centred * centred, axis)
    return centred, 1 / xp.sqrt(variance + epsilon)


@primitive(kinds="f")
def standardize(xp, x, *, axis, epsilon):
    """``(x - mean) / sqrt(variance + epsilon)``, with the moments over ``axis`` (a tuple)."""
    centred, scale = _centred(xp, x, axis, epsilon)
    return centred * scale


@standardize.vjp("x")
def _(g, x, axis, epsilon):
    return bind(standardize_grad, g, x, axis=axis, epsilon=epsilon)


@primitive(kinds="f")
def standardize_grad(xp, dy, x, *, axis, epsilon):
    """The cotangent of ``standardize``: it is symmetric, so its derivative by dy is itself."""
    centred, scale = _centred(xp, x, axis, epsilon)
    y = centred * scale
    d = dy - _average(xp, dy, axis)
    d = d - y * _average(xp, dy * y, axis)
    return d * scale


@standardize_grad.vjp("dy")
def _(g, x, axis, epsilon):
    return bind(standardize_grad, g, x, axis=axis, epsilon=epsilon)


@standardize_grad.vjp("x")
def _(g, dy, x, axis, epsilon):
    # <g, J dy> = n * scale * spread, where both scale and y, in J, depend on x.
    def average(value: Tensor) -> Tensor:
        return bind(mean, value, axis=axis, keepdims=True)

    y = bind(standardize, x, axis=axis, epsilon=epsilon)
    scale = rsqrt(average(square(x - average(x))) + epsilon)
    along_g, along_dy = average(g * y), average(dy * y)
    spread = average(g * dy) - average(g) * average(dy) - along_g * along_dy
    through_y = bind(
        standardize_grad, scale * (g * along_dy + dy * along_g), x, axis=axis, epsilon=epsilon
    )
    return -(square(scale) * spread * y) - through_y


@primitive(kinds="f", multiple=True, vjp=None)
def observed_moments(xp, x, *, axis):
    """Mean and variance over ``axis`` (a tuple), kept, to look at: they have no gradient.

    One operation for eager steps; in a captured one its parts are fused with others.
    """
    over = mean.within(xp)
    average = over(x, axis=axis, keepdims=True)
    return average, over(xp.square(x - average), axis=axis, keepdims=True)


_CASES = [((3, 4), (1,)), ((3, 4), (0, 1)), ((2, 3, 4), (0, 1)), ((5,), (0,)), ((2, 3, 4), (0, 2))]


@observed_moments.samples
def _(rng):
    for shape, axis in _CASES:
        yield sample(rng.normal(size=shape), axis=axis)


@standardize.samples
def _(rng):
    for shape, axis in _CASES:
        yield sample(rng.normal(size=shape), axis=axis, epsilon=1e-3)


@standardize_grad.samples
def _(rng):
    for shape, axis in _CASES:
        yield sample(rng.normal(size=shape), rng.normal(size=shape), axis=axis, epsilon=1e-3)


def layer_norm(
    x: Any,
    scale: Any = None,
    offset: Any = None,
    axis: Any = -1,
    epsilon: float = 1e-3,
    name: str | None = None,
) -> Tensor:
    """``x`` with zero mean and unit variance over ``axis``, times ``scale``, plus ``offset``.

    Over all axes but the last it is batch normalisation with the moments of the batch. Raises
    InvalidArgumentError for an axis out of range, integers, or shapes that do not broadcast.
    """
    tensor = as_tensor(x)
    y = standardize(tensor, axis=axes(axis, tensor._data.ndim), epsilon=float(epsilon))
    # (Not of bfloat16, whose product is rounded before the sum; so it is in a captured step.)
    if y._data.dtype.kind == "f" and are_rows(y, scale, offset) and not recording.in_parts():
        return bind(rescaled, y, scale, offset)
    y = y if scale is None else y * scale
    return y if offset is None else y + offset


def batch_normalization(
    x: Any,
    mean: Any,
    variance: Any,
    offset: Any,
    scale: Any,
    variance_epsilon: float,
    name: str | None = None,
) -> Tensor:
    """``(x - mean) / sqrt(variance + variance_epsilon) * scale + offset``, broadcast.

    ``offset`` and ``scale`` may be None. Raises InvalidArgumentError for shapes that do not
    broadcast or dtypes that differ.
    """
    tensor = as_tensor(x)
    like = tensor._data.dtype
    factor = rsqrt(as_tensor(variance, like=like) + variance_epsilon)
    if scale is not None:
        factor = factor * scale
    shift = -as_tensor(mean, like=like) * factor
    return tensor * factor + (shift if offset is None else shift + offset)


def l2_normalize(
    x: Any,
    axis: Any = None,
    epsilon: float = 1e-12,
    name: str | None = None,
    dim: Any = None,
) -> Tensor:
    """``x / sqrt(max(sum(abs(x)**2), epsilon))``, with the sum over ``axis`` (all by default).

    ``dim`` is an older name of ``axis``. Raises InvalidArgumentError for an axis out of range,
    ValueError for both names.
    """
    if axis is not None and dim is not None:
        raise ValueError(f"axis={axis!r} and dim={dim!r} are the same argument: give one of them")
    tensor, axis = as_tensor(x), dim if axis is None else axis
    total = reduce_sum(squared(tensor), axis, keepdims=True)
    return tensor * cast(rsqrt(maximum(total, epsilon)), tensor.dtype)
