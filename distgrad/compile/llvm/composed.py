"""Convolutions that are made of plain generated ones.

Over three axes: an element of the filters along the first axis meets whole frames; all of them at
once are images, whose convolutions with that slice of the filters are added up. With dilations:
every d-th pixel belongs to one of d images, on which the filters are as usual. With several
outputs for each channel: as many channels, which are alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from distgrad.compile.llvm import windows
from distgrad.compile.program import Apply, Value
from distgrad.compile.steps import Step, View
from distgrad.ops.windows import Geometry

Shape = tuple[int, ...]

_PLAIN = ("convolve", "convolve_grad_x", "convolve_grad_w")
NAMES = (*_PLAIN, *(f"depthwise_{name}" for name in _PLAIN))
_FLOAT = np.dtype(np.float32)


def run(
    name: str,
    a: Any,
    b: Any,
    *,
    geometry: Geometry,
    shape: Shape = (),
    out: np.ndarray | None = None,
) -> np.ndarray | None:
    """What a primitive makes of arrays; None where its kernels are not for them.

    It is written to ``out``, where that is given.
    """
    if not _composed(name, a.shape, b.shape, geometry):
        return windows.run(name, a, b, geometry=geometry, shape=shape, out=out)
    if not windows.takes((a, b)):
        return None
    result = _made(name, a, b, geometry, shape)
    if out is None:
        return result
    out[...] = result
    return out


def _multiplier(name: str, a: Shape, b: Shape) -> int:
    """The outputs of each channel; 1 where every channel goes into every output."""
    if not name.startswith("depthwise"):
        return 1
    return b[-1] // a[-1] if name.endswith("grad_w") else b[-1]


def _composed(name: str, a: Shape, b: Shape, geometry: Geometry) -> bool:
    """Whether a convolution is one of those that are made here."""
    dilated = any(d != 1 for d in geometry.dilations)
    if len(geometry.size) == 3:
        return name in _PLAIN and geometry.dilations[1:] == (1, 1)
    if dilated and any(s != 1 for s in geometry.strides):
        return False
    return dilated or _multiplier(name, a, b) > 1


def _made(name: str, a: np.ndarray, b: np.ndarray, geometry: Geometry, shape: Shape) -> np.ndarray:
    multiplier = _multiplier(name, a.shape, b.shape)
    if multiplier > 1:
        return _by_channels(name, a, b, geometry, shape, multiplier)
    if len(geometry.size) == 3:
        return _by_frames(name, a, b, geometry, shape)
    if any(d != 1 for d in geometry.dilations):
        return _by_phases(name, a, b, geometry, shape)
    made = windows.made(name, a, b, geometry=geometry, shape=shape)
    assert made is not None
    return made


# Several outputs for each channel


def _by_channels(
    name: str, a: np.ndarray, b: np.ndarray, geometry: Geometry, shape: Shape, multiplier: int
) -> np.ndarray:
    if name.endswith("grad_w"):
        made = _made(name, np.repeat(a, multiplier, axis=-1), b, geometry, ())
        return made.reshape(*geometry.size, a.shape[-1], multiplier)
    filters = b.reshape(*geometry.size, -1, 1)
    if not name.endswith("grad_x"):
        return _made(name, np.repeat(a, multiplier, axis=-1), filters, geometry, ())
    wide = (*shape[:-1], shape[-1] * multiplier)
    parts = _made(name, a, filters, geometry, wide).reshape(*shape, multiplier)
    total = parts[..., 0].copy()
    for i in range(1, multiplier):
        total += parts[..., i]
    return total


# Dilations


def _by_phases(
    name: str, a: np.ndarray, b: np.ndarray, geometry: Geometry, shape: Shape
) -> np.ndarray:
    size, _, padding, dilations = geometry
    ones = (1,) * len(size)
    plain = Geometry(size, ones, ((0, 0),) * len(size), ones)
    x = shape if name.endswith("grad_x") else a.shape
    counts, before = geometry.counts(x[1:-1]), [pair[0] for pair in padding]
    given = [
        -(-(n + sum(pair)) // d) for n, pair, d in zip(x[1:-1], padding, dilations, strict=True)
    ]
    made = [n - k + 1 for n, k in zip(given, size, strict=True)]
    nowhere = [0] * len(size)
    if name.endswith("grad_x"):
        outputs = _split(a, made, nowhere, dilations)
        whole = (len(outputs), *given, x[-1])
        inputs = _made(name, outputs, b, plain, whole)
        return _joined(inputs, len(a), before, x[1:-1], dilations)
    inputs = _split(a, given, before, dilations)
    if name.endswith("grad_w"):
        return _made(name, inputs, _split(b, made, nowhere, dilations), plain, ())
    return _joined(_made(name, inputs, b, plain, ()), len(a), nowhere, counts, dilations)


def _split(
    x: np.ndarray, lengths: Sequence[int], before: Sequence[int], dilations: Sequence[int]
) -> np.ndarray:
    """The phases of images as images of these lengths, with zeros around them."""
    whole = [n * d for n, d in zip(lengths, dilations, strict=True)]
    padded = np.zeros((len(x), *whole, x.shape[-1]), _FLOAT)
    space = tuple(slice(b, b + n) for b, n in zip(before, x.shape[1:-1], strict=True))
    padded[:, *space] = x[:, *(slice(0, n - b) for n, b in zip(whole, before, strict=True))]
    parts = [size for pair in zip(lengths, dilations, strict=True) for size in pair]
    axes = range(1, 2 * len(lengths), 2)
    order = (*(i + 1 for i in axes), 0, *axes, 2 * len(lengths) + 1)
    phases = padded.reshape(len(x), *parts, x.shape[-1]).transpose(order)
    return np.ascontiguousarray(phases).reshape(-1, *lengths, x.shape[-1])


def _joined(
    phases: np.ndarray,
    count: int,
    before: Sequence[int],
    space: Sequence[int],
    dilations: Sequence[int],
) -> np.ndarray:
    """The images of this size that lie behind ``before`` in those whose phases are given."""
    lengths, axes = phases.shape[1:-1], len(dilations)
    order = [axes]
    for i in range(axes):
        order += [axes + 1 + i, i]
    parts = phases.reshape(*dilations, count, *lengths, phases.shape[-1])
    parts = parts.transpose(*order, 2 * axes + 1)
    whole = [n * d for n, d in zip(lengths, dilations, strict=True)]
    images = parts.reshape(count, *whole, phases.shape[-1])
    inside = tuple(slice(b, b + n) for b, n in zip(before, space, strict=True))
    return images[:, *inside]


# Three axes


class _Tap(NamedTuple):
    """An element of the filters along the first axis, and the frames that meet by it."""

    number: int
    inputs: slice
    outputs: slice


def _taps(frames: int, count: int, geometry: Geometry) -> Iterator[_Tap]:
    """All that have frames, for ``frames`` of the input and ``count`` of the output."""
    stride, (before, _), dilation = geometry.strides[0], geometry.padding[0], geometry.dilations[0]
    for number in range(geometry.size[0]):
        first = number * dilation - before  # the frame that meets the first of the output
        low = max(0, -(first // stride))
        high = min(count, (frames - 1 - first) // stride + 1)
        if low < high:
            start = first + low * stride
            stop = first + (high - 1) * stride + 1
            yield _Tap(number, slice(start, stop, stride), slice(low, high))


def _images(frames: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(frames).reshape(-1, *frames.shape[2:])


def _by_frames(
    name: str, a: np.ndarray, b: np.ndarray, geometry: Geometry, shape: Shape
) -> np.ndarray:
    size, strides, padding, dilations = geometry
    flat = Geometry(size[1:], strides[1:], padding[1:], dilations[1:])
    if name == "convolve":
        made = (a.shape[0], *geometry.counts(a.shape[1:-1]), b.shape[-1])
        ends = a.shape[1], made[1]
    elif name == "convolve_grad_x":
        made, ends = shape, (shape[1], a.shape[1])
    else:
        made = (*size, a.shape[-1], b.shape[-1])
        ends = a.shape[1], b.shape[1]
    result = np.zeros(made, _FLOAT)
    for tap in _taps(*ends, geometry):
        if name == "convolve":
            target = result[:, tap.outputs]
            part = _made(name, _images(a[:, tap.inputs]), b[tap.number], flat, ())
        elif name == "convolve_grad_x":
            target = result[:, tap.inputs]
            images = _images(a[:, tap.outputs])
            part = _made(name, images, b[tap.number], flat, (len(images), *shape[2:]))
        else:
            target = result[tap.number]
            given = _images(a[:, tap.inputs]), _images(b[:, tap.outputs])
            part = _made(name, *given, flat, ())
        target += part.reshape(target.shape)
    return result


# In a schedule


class _Whole:
    """A primitive on arrays, written to one that is there."""

    def __init__(self, name: str, params: dict[str, Any]) -> None:
        self._name, self._geometry = name, params["geometry"]
        self._shape = params.get("shape", ())
        self.__name__ = name

    def __call__(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        out[...] = _made(self._name, a, b, self._geometry, self._shape)


def _compiled(apply: Apply, places: dict[Value, View]) -> list[Step] | None:
    first, second = apply.inputs
    if not _composed(apply.name, first.shape, second.shape, apply.params["geometry"]):
        return windows.compiled(apply, places)
    values = (*apply.inputs, *apply.outputs)
    if not all(type(v) is Value and v.dtype == _FLOAT and v.nbytes for v in values):
        return None
    views = tuple(places[v] for v in apply.inputs)
    out = places[apply.outputs[0]]
    return [Step(_Whole(apply.name, apply.params), views, {}, out, True, False)]


PRIMITIVES = dict.fromkeys(NAMES, _compiled)
