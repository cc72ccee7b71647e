"""Convolutions and pooling as ONNX operations, which have the channels before space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distgrad.export.converters import converter
from distgrad.export.graph import Edge, Graph
from distgrad.ops.windows import Geometry


def _moved(geometry: Geometry) -> dict[str, Any]:
    """How windows move, as attributes."""
    pads = [n for side in zip(*geometry.padding, strict=True) for n in side]
    return {
        "kernel_shape": list(geometry.size),
        "strides": list(geometry.strides),
        "pads": pads,
    }


def _first(to: Graph, x: Edge, rank: int) -> Edge:
    """``x [n, *space, c]`` as ``[n, c, *space]``."""
    return to.arranged(x, (0, rank - 1, *range(1, rank - 1)))


def _last(to: Graph, y: Edge, rank: int) -> Edge:
    return to.node("Transpose", y, perm=[0, *range(2, rank), 1])


def _filters(to: Graph, w: Edge, order: Sequence[int], shape: Sequence[int] = ()) -> Edge:
    """Filters ``w [*size, a, b]`` with their last two axes (as ``order`` says) in front."""
    count = len(w.shape) - 2
    return to.arranged(w, [*(count + i for i in order), *range(count)], shape)


@converter("convolve")
def _(to: Graph, x: Edge, w: Edge, *, geometry: Geometry) -> Edge:
    rank = len(x.shape)
    options = {**_moved(geometry), "dilations": list(geometry.dilations)}
    y = to.node("Conv", _first(to, x, rank), _filters(to, w, (1, 0)), **options)
    return _last(to, y, rank)


@converter("depthwise_convolve")
def _(to: Graph, x: Edge, w: Edge, *, geometry: Geometry) -> Edge:
    rank, (channels, each) = len(x.shape), w.shape[-2:]
    filters = _filters(to, w, (0, 1), (channels * each, 1, *w.shape[:-2]))
    options = {**_moved(geometry), "dilations": list(geometry.dilations), "group": channels}
    return _last(to, to.node("Conv", _first(to, x, rank), filters, **options), rank)


@converter("convolve_grad_x")
def _(to: Graph, dy: Edge, w: Edge, *, shape: tuple, geometry: Geometry) -> Edge:
    """A transposed convolution; what the windows do not reach at the end is zero."""
    rank, rests = len(dy.shape), []
    for n, count, k, s, (before, after), d in zip(
        shape[1:-1], dy.shape[1:-1], *geometry, strict=True
    ):
        rests.append(n + before + after - (s * (count - 1) + (k - 1) * d + 1))
    options = {**_moved(geometry), "dilations": list(geometry.dilations)}
    filters = _filters(to, w, (1, 0))
    y = to.node("ConvTranspose", _first(to, dy, rank), filters, output_padding=rests, **options)
    return _last(to, y, rank)


@converter("max_windows")
def _(to: Graph, x: Edge, *, geometry: Geometry) -> Edge:
    rank = len(x.shape)
    options = {**_moved(geometry), "dilations": list(geometry.dilations)}
    return _last(to, to.node("MaxPool", _first(to, x, rank), **options), rank)


@converter("mean_windows")
def _(to: Graph, x: Edge, *, geometry: Geometry) -> Edge:
    if set(geometry.dilations) != {1}:
        raise NotImplementedError("a mean over windows with gaps (dilation)")
    rank = len(x.shape)
    return _last(to, to.node("AveragePool", _first(to, x, rank), **_moved(geometry)), rank)
