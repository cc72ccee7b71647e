"""Convolutions over three axes as sums of generated ones over two.

An element of the filters along the first axis meets whole frames: all of them at once are images,
whose convolutions with that slice of the filters are added up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from distgrad.compile.llvm import engine, windows
from distgrad.compile.program import Apply, Value
from distgrad.compile.steps import Step, View
from distgrad.ops.windows import Geometry

NAMES = ("convolve", "convolve_grad_x", "convolve_grad_w")
_FLOAT = np.dtype(np.float32)


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


def run(
    name: str,
    a: Any,
    b: Any,
    *,
    geometry: Geometry,
    shape: tuple[int, ...] = (),
    out: np.ndarray | None = None,
) -> np.ndarray | None:
    """What a primitive makes of arrays; None where its kernels are not for them.

    It is written to ``out``, where that is given.
    """
    if any(type(x) is not np.ndarray or x.dtype != _FLOAT or not x.size for x in (a, b)):
        return None
    if not _fits(geometry) or not engine.available():
        return None
    result = _sum(name, a, b, geometry, shape)
    if out is None:
        return result
    out[...] = result
    return out


def _fits(geometry: Geometry) -> bool:
    return len(geometry.size) == 3 and geometry.dilations[1:] == (1, 1)


def _sum(
    name: str, a: np.ndarray, b: np.ndarray, geometry: Geometry, shape: tuple[int, ...] = ()
) -> np.ndarray:
    size, strides, padding, dilations = geometry
    flat = Geometry(size[1:], strides[1:], padding[1:], dilations[1:])
    if name == "convolve":
        made = (a.shape[0], *geometry.counts(a.shape[1:-1]), b.shape[-1])
        ends = a.shape[1], made[1]
    elif name == "convolve_grad_x":
        made, ends = shape, (shape[1], a.shape[1])
    else:
        made = (*geometry.size, a.shape[-1], b.shape[-1])
        ends = a.shape[1], b.shape[1]
    result = np.zeros(made, _FLOAT)
    for tap in _taps(*ends, geometry):
        if name == "convolve":
            target = result[:, tap.outputs]
            part = windows.made(name, _images(a[:, tap.inputs]), b[tap.number], geometry=flat)
        elif name == "convolve_grad_x":
            target = result[:, tap.inputs]
            images = _images(a[:, tap.outputs])
            whole = (len(images), *shape[2:])
            part = windows.made(name, images, b[tap.number], geometry=flat, shape=whole)
        else:
            target = result[tap.number]
            given = _images(a[:, tap.inputs]), _images(b[:, tap.outputs])
            part = windows.made(name, *given, geometry=flat)
        assert part is not None
        target += part.reshape(target.shape)
    return result


class _Whole:
    """A primitive on arrays, written to one that is there."""

    def __init__(self, name: str, params: dict[str, Any]) -> None:
        self._name, self._params = name, params
        self.__name__ = name

    def __call__(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        out[...] = _sum(self._name, a, b, **self._params)


def _compiled(apply: Apply, places: dict[Value, View]) -> list[Step] | None:
    if not _fits(apply.params["geometry"]):
        return windows.compiled(apply, places)
    values = (*apply.inputs, *apply.outputs)
    if not all(type(v) is Value and v.dtype == _FLOAT and v.nbytes for v in values):
        return None
    views = tuple(places[v] for v in apply.inputs)
    out = places[apply.outputs[0]]
    return [Step(_Whole(apply.name, apply.params), views, {}, out, True, False)]


PRIMITIVES = dict.fromkeys(NAMES, _compiled)
