"""The primitives of convolution, over any number of spatial axes, as products of matrices.

The windows of the input are copied into the rows of a matrix, so that a convolution is one
product. It is linear in the input and in the filters; the three primitives of each kind are the
partial derivatives of one trilinear form, and therefore each other's derivatives to any order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.core.dispatch import launches
from distgrad.core.primitive import Primitive, bind, bind_at, primitive, sample
from distgrad.ops.products import product
from distgrad.ops.windows import Geometry

# Elements of the matrix of windows that is made at a time: enough for a fast product, and little
# beside the memory of a large batch. Blocks depend on shapes alone, and so do the bits of a result.
BLOCK = 1 << 21
_LARGE_BLOCK = 1 << 25  # where a call is a launch, and no cache is to be filled


def _blocks(xp: Any, samples: int, each: int) -> Iterator[slice]:
    """Ranges of samples whose windows, ``each`` elements per sample, fill a block."""
    block = _LARGE_BLOCK if launches(xp) else BLOCK
    step = max(1, block // max(each, 1))
    for start in range(0, samples, step):
        yield slice(start, min(start + step, samples))


def _derivatives(forward: Primitive, grad_x: Primitive, grad_w: Primitive) -> None:
    """The rules between the three partial derivatives of a form that is linear in x, w and dy."""

    @forward.vjp("x")
    def _(g, x_shape, w, geometry):
        return bind(grad_x, g, w, shape=x_shape, geometry=geometry)

    @forward.vjp("w")
    def _(g, x, geometry, *, place=None):
        return bind_at(place, grad_w, x, g, geometry=geometry)

    @grad_x.vjp("dy")
    def _(g, w, geometry):
        return bind(forward, g, w, geometry=geometry)

    @grad_x.vjp("w")
    def _(g, dy, geometry):
        return bind(grad_w, g, dy, geometry=geometry)

    @grad_w.vjp("x")
    def _(g, x_shape, dy, geometry):
        return bind(grad_x, dy, g, shape=x_shape, geometry=geometry)

    @grad_w.vjp("dy")
    def _(g, x, geometry):
        return bind(forward, x, g, geometry=geometry)


# Every output channel from every input channel.


def _rows(xp: Any, x: Any, counts: tuple[int, ...], geometry: Geometry) -> Any:
    """The windows of padded samples as the rows of a matrix."""
    shape = (x.shape[0] * math.prod(counts), math.prod(geometry.size) * x.shape[-1])
    return geometry.views(xp, x, counts).reshape(shape)


@primitive(kinds="f")
def convolve(xp, x, w, *, geometry):
    """Cross-correlation of ``x [n, *space, c]`` with filters ``w [*size, c, o]``."""
    counts = geometry.counts(x.shape[1:-1])
    x = geometry.padded(xp, x)
    matrix = w.reshape(math.prod(w.shape[:-1]), w.shape[-1])
    y = xp.empty((x.shape[0], math.prod(counts), w.shape[-1]), dtype=x.dtype)
    for block in _blocks(xp, x.shape[0], math.prod(counts) * matrix.shape[0]):
        rows = _rows(xp, x[block], counts, geometry)
        product(xp, rows, matrix, y[block].reshape(rows.shape[0], w.shape[-1]))
    return y.reshape(x.shape[0], *counts, w.shape[-1])


@primitive(kinds="f")
def convolve_grad_x(xp, dy, w, *, shape, geometry):
    """Each element of ``dy [n, *counts, o]`` spread over its window in zeros of ``shape``."""
    counts = dy.shape[1:-1]
    matrix = w.reshape(math.prod(w.shape[:-1]), w.shape[-1]).T
    x = xp.zeros(geometry.padded_shape(shape), dtype=dy.dtype)
    for block in _blocks(xp, dy.shape[0], math.prod(counts) * matrix.shape[1]):
        part = dy[block]
        rows = product(xp, part.reshape(part.shape[0] * math.prod(counts), w.shape[-1]), matrix)
        windows = rows.reshape(part.shape[0], *counts, *w.shape[:-1])
        target = x[block]
        for at, index in geometry.offsets(counts):
            target[index] += windows[(..., *at, slice(None))]
    return x[geometry.inside(shape)]


@primitive(kinds="f")
def convolve_grad_w(xp, x, dy, *, geometry, out=None):
    """For each filter element, the sum of its products over all windows: ``[*size, c, o]``."""
    counts = dy.shape[1:-1]
    x = geometry.padded(xp, x)
    shape = (*geometry.size, x.shape[-1], dy.shape[-1])
    out = xp.empty(shape, dtype=dy.dtype) if out is None else out
    w = out.reshape(math.prod(shape[:-1]), shape[-1])
    w[...] = 0
    for block in _blocks(xp, x.shape[0], math.prod(counts) * w.shape[0]):
        rows = _rows(xp, x[block], counts, geometry)
        w += product(xp, rows.T, dy[block].reshape(rows.shape[0], dy.shape[-1]))
    return out


_derivatives(convolve, convolve_grad_x, convolve_grad_w)

# Each input channel makes its own output channels.


@primitive(kinds="f")
def depthwise_convolve(xp, x, w, *, geometry):
    """Cross-correlation of each channel of ``x [n, *space, c]`` with ``w [*size, c, m]``.

    Channel ``i`` makes the output channels ``i * m`` to ``i * m + m - 1``.
    """
    counts = geometry.counts(x.shape[1:-1])
    x = geometry.padded(xp, x)
    y = xp.zeros((x.shape[0], *counts, *w.shape[-2:]), dtype=x.dtype)
    for at, index in geometry.offsets(counts):
        y += x[index][..., None] * w[at]
    return y.reshape(x.shape[0], *counts, w.shape[-2] * w.shape[-1])


@primitive(kinds="f")
def depthwise_convolve_grad_x(xp, dy, w, *, shape, geometry):
    """Each element of ``dy [n, *counts, c * m]`` spread over its window in zeros of ``shape``."""
    counts = dy.shape[1:-1]
    dy = dy.reshape(*dy.shape[:-1], *w.shape[-2:])
    x = xp.zeros(geometry.padded_shape(shape), dtype=dy.dtype)
    for at, index in geometry.offsets(counts):
        x[index] += xp.sum(dy * w[at], axis=-1)
    return x[geometry.inside(shape)]


@primitive(kinds="f")
def depthwise_convolve_grad_w(xp, x, dy, *, geometry, out=None):
    """For each filter element, the sum of its products over all windows: ``[*size, c, m]``."""
    counts, channels = dy.shape[1:-1], x.shape[-1]
    x = geometry.padded(xp, x)
    multiplier = dy.shape[-1] // channels if channels else 0
    dy = dy.reshape(*dy.shape[:-1], channels, multiplier)
    shape = (*geometry.size, channels, multiplier)
    w = xp.empty(shape, dtype=dy.dtype) if out is None else out
    if dy.dtype.itemsize == 2:  # products are added up, and rounded once
        x, dy = x.astype("float32"), dy.astype("float32")
    for at, index in geometry.offsets(counts):
        w[at] = xp.sum(x[index][..., None] * dy, axis=tuple(range(dy.ndim - 2)))
    return w


_derivatives(depthwise_convolve, depthwise_convolve_grad_x, depthwise_convolve_grad_w)


# Samples: (spatial shape, geometry), over strides, padding and dilations, in one and two axes.

_CASES = [
    ((5,), Geometry((3,), (1,), ((1, 1),), (1,))),
    ((6,), Geometry((2,), (2,), ((0, 1),), (2,))),
    ((4, 5), Geometry((2, 3), (1, 2), ((0, 0), (1, 1)), (1, 1))),
    ((5, 5), Geometry((2, 2), (2, 1), ((0, 0), (0, 0)), (2, 2))),
]


def _sampled(rng: Any, depthwise: bool) -> Iterator[tuple[Any, Any, Any, Geometry]]:
    for space, geometry in _CASES:
        x = rng.normal(size=(2, *space, 2))
        w = rng.normal(size=(*geometry.size, 2, 3))
        counts = geometry.counts(space)
        yield x, w, rng.normal(size=(2, *counts, 6 if depthwise else 3)), geometry


def _samples(forward: Primitive, grad_x: Primitive, grad_w: Primitive, depthwise: bool) -> None:
    @forward.samples
    def _(rng):
        for x, w, _, geometry in _sampled(rng, depthwise):
            yield sample(x, w, geometry=geometry)
        _, w, _, geometry = next(_sampled(rng, depthwise))
        yield sample(np.zeros((0, 5, 2)), w, geometry=geometry)

    @grad_x.samples
    def _(rng):
        for x, w, dy, geometry in _sampled(rng, depthwise):
            yield sample(dy, w, shape=x.shape, geometry=geometry)

    @grad_w.samples
    def _(rng):
        for x, _, dy, geometry in _sampled(rng, depthwise):
            yield sample(x, dy, geometry=geometry)


_samples(convolve, convolve_grad_x, convolve_grad_w, False)
_samples(depthwise_convolve, depthwise_convolve_grad_x, depthwise_convolve_grad_w, True)
