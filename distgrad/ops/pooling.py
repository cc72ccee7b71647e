"""Max and average pooling over windows, with derivatives to any order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import zeros_like
from distgrad.ops.windows import Geometry, channels_first, channels_last, spatial, window_geometry


def lowest(dtype: np.dtype) -> Any:
    """The number that no other of this dtype is below."""
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


@primitive(kinds="iuf")
def max_windows(xp, x, *, geometry):
    """Largest element of each window of ``x [n, *space, c]``."""
    counts = geometry.counts(x.shape[1:-1])
    return _largest(xp, geometry.padded(xp, x, lowest(x.dtype)), counts, geometry)


def _largest(xp: Any, x: Any, counts: tuple[int, ...], geometry: Geometry) -> Any:
    """The largest element of each window of padded ``x``."""
    y = xp.full((x.shape[0], *counts, x.shape[-1]), lowest(x.dtype), dtype=x.dtype)
    for _, index in geometry.offsets(counts):
        xp.maximum(y, x[index], out=y)
    return y


@max_windows.vjp("x")
def _(g, x, geometry):
    return bind(max_windows_grad, g, x, geometry=geometry)


def _firsts(
    xp: Any, x: Any, counts: tuple[int, ...], geometry: Geometry
) -> Iterator[tuple[Any, Any]]:
    """For each position in a window of padded ``x``: its index, and where the first maximum is."""
    largest = _largest(xp, x, counts, geometry)
    free = xp.ones(largest.shape, dtype=bool)
    for _, index in geometry.offsets(counts):
        first = (x[index] == largest) & free
        free &= ~first
        yield index, first


@primitive(kinds="iuf")
def max_windows_grad(xp, dy, x, *, geometry):
    """``dy`` at the first maximum of each window of ``x``, summed over the windows."""
    padded = geometry.padded(xp, x, lowest(x.dtype))
    dx = xp.zeros(padded.shape, dtype=dy.dtype)
    for index, first in _firsts(xp, padded, dy.shape[1:-1], geometry):
        dx[index] += xp.where(first, dy, 0)
    return dx[geometry.inside(x.shape)]


@max_windows_grad.vjp("dy")
def _(g, x, geometry):
    return bind(at_maximum, g, x, geometry=geometry)


@max_windows_grad.vjp("x")
def _(g):
    return zeros_like(g)


@primitive(kinds="iuf")
def at_maximum(xp, u, x, *, geometry):
    """The elements of ``u`` that stand where ``x`` has the first maximum of each window."""
    counts = geometry.counts(x.shape[1:-1])
    u, x = geometry.padded(xp, u), geometry.padded(xp, x, lowest(x.dtype))
    found = xp.zeros((x.shape[0], *counts, x.shape[-1]), dtype=u.dtype)
    for index, first in _firsts(xp, x, counts, geometry):
        found += xp.where(first, u[index], 0)
    return found


@at_maximum.vjp("u")
def _(g, x, geometry):
    return bind(max_windows_grad, g, x, geometry=geometry)


@at_maximum.vjp("x")
def _(g, x):
    return zeros_like(x)


@primitive(vjp=None, multiple=True, kinds="f")
def rectified_windows(xp, x, bias, *, geometry):
    """Largest element of each window of ``relu(x + bias)``, and where in the window it stands.

    The second, of int8, is the number of elements in a window where nothing is above 0: there is
    no gradient. It is all that the gradient needs to know of ``x``.
    """
    counts = geometry.counts(x.shape[1:-1])
    padded = geometry.padded(xp, x + bias, -np.inf)
    place = xp.full((x.shape[0], *counts, x.shape[-1]), math.prod(geometry.size), dtype="int8")
    for number, (_, first) in enumerate(_firsts(xp, padded, counts, geometry)):
        place[first] = number
    largest = _largest(xp, padded, counts, geometry)
    place[~(largest > 0)] = math.prod(geometry.size)
    return xp.maximum(largest, 0), place


@primitive(vjp=None, match=("dy",), kinds="f")
def rectified_windows_grad(xp, dy, place, *, shape, geometry):
    """``dy`` at the places that ``rectified_windows`` gives, in zeros of ``shape``."""
    dx = xp.zeros(geometry.padded_shape(shape), dtype=dy.dtype)
    for number, (_, index) in enumerate(geometry.offsets(dy.shape[1:-1])):
        dx[index] += xp.where(place == number, dy, 0)
    return dx[geometry.inside(shape)]


@primitive(kinds="f")
def mean_windows(xp, x, *, geometry):
    """Mean of each window of ``x [n, *space, c]``, not counting the padding."""
    counts = geometry.counts(x.shape[1:-1])
    padded = geometry.padded(xp, x)
    y = xp.zeros((x.shape[0], *counts, x.shape[-1]), dtype=x.dtype)
    for _, index in geometry.offsets(counts):
        y += padded[index]
    y /= _members(xp, x.shape, counts, geometry, x.dtype)
    return y


def _members(xp: Any, shape: Any, counts: Any, geometry: Geometry, dtype: Any) -> Any:
    """How many elements each window has that are not padding, ``[1, *counts, 1]``."""
    result = np.ones(1)
    for n, c, k, s, (before, _), d in zip(shape[1:-1], counts, *geometry, strict=True):
        at = np.arange(c)[:, None] * s + np.arange(k) * d - before
        result = np.multiply.outer(result, ((at >= 0) & (at < n)).sum(axis=1))
    return xp.asarray(result[..., None], dtype=dtype)


@mean_windows.vjp("x")
def _(g, x_shape, geometry):
    return bind(mean_windows_grad, g, shape=x_shape, geometry=geometry)


@primitive(kinds="f")
def mean_windows_grad(xp, dy, *, shape, geometry):
    """Each element of ``dy`` spread evenly over its window in zeros of ``shape``."""
    counts = dy.shape[1:-1]
    share = dy / _members(xp, shape, counts, geometry, dy.dtype)
    dx = xp.zeros(geometry.padded_shape(shape), dtype=dy.dtype)
    for _, index in geometry.offsets(counts):
        dx[index] += share
    return dx[geometry.inside(shape)]


@mean_windows_grad.vjp("dy")
def _(g, geometry):
    return bind(mean_windows, g, geometry=geometry)


# Samples: all elements differ by more than a finite difference, so that no maximum changes.

_CASES = [
    ((5,), Geometry((2,), (2,), ((0, 0),), (1,))),
    ((5,), Geometry((3,), (2,), ((1, 1),), (1,))),
    ((4, 5), Geometry((2, 3), (2, 1), ((0, 0), (1, 1)), (1, 1))),
]


def _sampled(rng: Any) -> Iterator[tuple[Any, Any, Geometry]]:
    for space, geometry in _CASES:
        shape = (2, *space, 2)
        x = rng.permutation(math.prod(shape)).reshape(shape) / 8.0
        yield x, rng.normal(size=(2, *geometry.counts(space), 2)), geometry


@max_windows.samples
def _(rng):
    for x, _, geometry in _sampled(rng):
        yield sample(x, geometry=geometry)


@max_windows_grad.samples
def _(rng):
    for x, dy, geometry in _sampled(rng):
        yield sample(dy, x, geometry=geometry)


@at_maximum.samples
def _(rng):
    for x, _, geometry in _sampled(rng):
        yield sample(rng.normal(size=x.shape), x, geometry=geometry)


@rectified_windows.samples
def _(rng):
    for x, _, geometry in _sampled(rng):
        yield sample(x - x.mean(), rng.normal(size=x.shape[-1]), geometry=geometry)


@rectified_windows_grad.samples
def _(rng):
    for x, dy, geometry in _sampled(rng):
        place = rng.integers(0, math.prod(geometry.size) + 1, dy.shape).astype(np.int8)
        yield sample(dy, place, shape=x.shape, geometry=geometry)


@mean_windows.samples
def _(rng):
    for x, _, geometry in _sampled(rng):
        yield sample(x, geometry=geometry)


@mean_windows_grad.samples
def _(rng):
    for x, dy, geometry in _sampled(rng):
        yield sample(dy, shape=x.shape, geometry=geometry)


# Under TensorFlow's names.


def pool_windows(
    name: str,
    primitive: Any,
    count: int | None,
    input: Any,
    ksize: Any,
    strides: Any,
    padding: Any,
    data_format: str | None,
    dilations: Any = None,
    size_name: str = "ksize",
) -> Tensor:
    """A primitive of windows over ``count`` spatial axes (None: as many as there are)."""
    x = as_tensor(input)
    if count is None:
        count = x._data.ndim - 2
    if x._data.ndim < count + 2 or not 1 <= count <= 3:
        raise InvalidArgumentError(
            f"{name} takes a tensor [batch, *space, channels] with 1 to 3 spatial axes, not of "
            f"shape {x.shape}"
        )
    first = channels_first(name, data_format, count)
    shape = x._data.shape
    space = shape[-count:] if first else shape[-count - 1 : -1]
    size = spatial(name, size_name, ksize, count, first)
    moves = window_geometry(name, space, size, strides, padding, dilations, first)
    return channels_last(lambda x: primitive(x, geometry=moves), x, count, first)


def max_pool(
    input: Any,
    ksize: Any,
    strides: Any,
    padding: Any,
    data_format: str | None = None,
    name: str | None = None,
) -> Tensor:
    """Largest element of each window over 1 to 3 spatial axes, as many as ``input`` has.

    The gradient goes to the first maximum of a window. Raises InvalidArgumentError for a rank or a
    window that does not fit, and for a bad ksize, stride, padding or data format; so do the others
    here.
    """
    return pool_windows("max_pool", max_windows, None, input, ksize, strides, padding, data_format)


def max_pool1d(
    input: Any,
    ksize: Any,
    strides: Any,
    padding: Any,
    data_format: str | None = "NWC",
    name: str | None = None,
) -> Tensor:
    """Largest element of each window of ``[batch, width, channels]``."""
    return pool_windows("max_pool1d", max_windows, 1, input, ksize, strides, padding, data_format)


def max_pool2d(
    input: Any,
    ksize: Any,
    strides: Any,
    padding: Any,
    data_format: str | None = "NHWC",
    name: str | None = None,
) -> Tensor:
    """Largest element of each window of ``[batch, height, width, channels]``."""
    return pool_windows("max_pool2d", max_windows, 2, input, ksize, strides, padding, data_format)


def max_pool3d(
    input: Any,
    ksize: Any,
    strides: Any,
    padding: Any,
    data_format: str | None = "NDHWC",
    name: str | None = None,
) -> Tensor:
    """Largest element of each window of ``[batch, depth, height, width, channels]``."""
    return pool_windows("max_pool3d", max_windows, 3, input, ksize, strides, padding, data_format)


def avg_pool(
    input: Any,
    ksize: Any,
    strides: Any,
    padding: Any,
    data_format: str | None = None,
    name: str | None = None,
) -> Tensor:
    """Mean of each window over 1 to 3 spatial axes; padding does not count."""
    return pool_windows("avg_pool", mean_windows, None, input, ksize, strides, padding, data_format)


def avg_pool1d(
    input: Any,
    ksize: Any,
    strides: Any,
    padding: Any,
    data_format: str | None = "NWC",
    name: str | None = None,
) -> Tensor:
    """Mean of each window of ``[batch, width, channels]``; padding does not count."""
    return pool_windows("avg_pool1d", mean_windows, 1, input, ksize, strides, padding, data_format)


def avg_pool2d(
    input: Any,
    ksize: Any,
    strides: Any,
    padding: Any,
    data_format: str | None = "NHWC",
    name: str | None = None,
) -> Tensor:
    """Mean of each window of ``[batch, height, width, channels]``; padding does not count."""
    return pool_windows("avg_pool2d", mean_windows, 2, input, ksize, strides, padding, data_format)


def avg_pool3d(
    input: Any,
    ksize: Any,
    strides: Any,
    padding: Any,
    data_format: str | None = "NDHWC",
    name: str | None = None,
) -> Tensor:
    """Mean of each window of ``[batch, depth, height, width, channels]``."""
    return pool_windows("avg_pool3d", mean_windows, 3, input, ksize, strides, padding, data_format)
