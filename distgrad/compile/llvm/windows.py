"""Convolution and pooling over one or two axes: which generated kernel, and how it is called.

The kernel depends on the shapes within a sample alone, so that a sample has the same bits in a
shard of any size. In a schedule, memory to work in is planned with that of the program.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from distgrad.compile.llvm import direct, engine, parts, pool, pooling, scatter, winograd
from distgrad.compile.llvm.blocks import LANES, scratch
from distgrad.compile.llvm.layers import Layer
from distgrad.compile.llvm.loops import Native
from distgrad.compile.llvm.parts import TERMS, Cut, Part, ranges
from distgrad.compile.program import Apply, Value
from distgrad.compile.steps import Buffer, Step, View
from distgrad.ops.windows import Geometry

Shape = tuple[int, ...]

_MUCH = 1 << 20  # floats that a part works in: then there are no more parts than threads
_SMALLEST = 1 << 12  # elements of what is made: below that NumPy is as fast
_FLOAT = np.dtype(np.float32)


class Kernel(NamedTuple):
    """A function of the arrays given, one to be written, memory to work in, and the samples."""

    function: Native
    shape: Shape  # of what it writes
    work: int  # floats


@functools.lru_cache(maxsize=4096)
def kernel(
    name: str, first: Shape, second: Shape, geometry: Geometry, shape: Shape = ()
) -> Kernel | None:
    """The kernel of a primitive for arrays of these shapes; None where there is none.

    ``second`` is () for one array; ``shape`` is that of the input, for gradients that are told.
    """
    depthwise, which = name.startswith("depthwise"), name.removeprefix("depthwise_")
    x = {"max_windows_grad": second, **dict.fromkeys(_FROM_INPUT, first)}.get(which, shape)
    convolves = which in _CONVOLUTIONS
    outputs = second[-1] if convolves and not depthwise else x[-1]
    layer = _layer(x, outputs, geometry)
    if layer is None:
        return None
    layer = layer._replace(depthwise=depthwise)
    windows = (x[0], *geometry.counts(x[1:-1]), outputs)
    filters = (*geometry.size, x[-1], 1 if depthwise else outputs)
    given, made = {
        "convolve": ((x, filters), windows),
        "convolve_grad_x": ((windows, filters), x),
        "convolve_grad_w": ((x, windows), filters),
        "max_windows": ((x, ()), windows),
        "max_windows_grad": ((windows, x), x),
        "mean_windows": ((x, ()), windows),
        "mean_windows_grad": ((windows, ()), x),
    }[which]
    if (first, second) != given:
        return None  # several outputs for each channel; or shapes that do not fit
    kernels = _kernels(which, layer) if convolves else pooling
    function = functools.partial(getattr(kernels, _FUNCTIONS[which]), layer)
    work = kernels.work(layer)
    if which == "convolve_grad_w":
        cut = _by_filters(layer, kernels, x[0])
    else:
        arrays = [s for s in (*given, made) if s]
        moves = [0 if s is filters else 4 * prod(s[1:]) for s in arrays]
        cut = _by_samples(function, x[0], moves, _cost(layer, convolves), work)
    numbers = (x[0], 0) if which == "convolve_grad_w" else (x[0],)
    return Kernel(Native(function, numbers, cut), made, work)


def _cost(layer: Layer, convolves: bool) -> float:
    """Nanoseconds of a sample on one core, about."""
    terms = prod(layer.counts) * layer.outputs * prod(layer.size)
    if not convolves:
        return terms / 10
    return terms * (1 if layer.depthwise else layer.channels) / TERMS


def _by_samples(
    function: Callable[[], int], samples: int, moves: Sequence[int], cost: float, work: int
) -> Cut:
    """``moves``: bytes from one sample to the next in each array; ``cost``: of one sample.

    ``work``: floats that a part works in.
    """
    native = Native(function)

    def into(count: int) -> list[Part]:
        if work > _MUCH:
            count = min(count, pool.threads())
        return [
            Part(native, [tuple(start * move for move in moves)], (stop - start,), 4 * work)
            for start, stop in ranges(samples, 1, count)
        ]

    return Cut(samples * cost, samples, into)


def _by_filters(layer: Layer, kernels: Any, samples: int) -> Cut | None:
    """The gradient of filters: each part makes those of some channels, from all samples."""
    if layer.depthwise:
        return None
    wino = kernels is winograd
    size, unit = (layer.channels, LANES // 2) if wino else direct.groups(layer)

    def into(count: int) -> list[Part]:
        made = []
        for start, stop in ranges(size, unit, count):
            if wino:
                own = layer._replace(channels=stop - start, pixel=layer.channels)
                moves = 4 * start, 0, 4 * start * layer.outputs
                native, work = Native(winograd.grad_w(own)), winograd.work(own)
                made.append(Part(native, [moves], (samples,), 4 * work))
            else:
                function, first = direct.part_of_grad_w(layer, start, stop)
                work = direct.work(layer)
                made.append(Part(Native(function), [(0, 0, 0)], (samples, first), 4 * work))
        return made

    return Cut(samples * _cost(layer, True), -(-size // unit), into)


def _kernels(which: str, layer: Layer) -> Any:
    if winograd.fits(layer):
        return winograd
    few = which == "convolve_grad_x" and scatter.fits(layer)
    return scatter if few else direct


_CONVOLUTIONS = {"convolve": "forward", "convolve_grad_x": "grad_x", "convolve_grad_w": "grad_w"}
_POOLINGS = {
    "max_windows": "largest",
    "max_windows_grad": "largest_grad",
    "mean_windows": "mean",
    "mean_windows_grad": "mean_grad",
}
_FUNCTIONS = _CONVOLUTIONS | _POOLINGS
_FROM_INPUT = ("convolve", "convolve_grad_w", "max_windows", "mean_windows")
NAMES = (*_CONVOLUTIONS, *(f"depthwise_{name}" for name in _CONVOLUTIONS), *_POOLINGS)


def _layer(shape: Shape, outputs: int, geometry: Geometry) -> Layer | None:
    """The layer over two axes, one of length 1 before a single one; None for any other."""
    (_, *space, channels), (size, strides, padding, dilations) = shape, geometry
    if len(space) > 2 or any(d != 1 for d in dilations):
        return None
    lead = 2 - len(space)

    def two(given: Sequence[Any], before: Any) -> Any:
        return (*[before] * lead, *given)

    return Layer(
        channels, outputs, two(space, 1), two(size, 1), two(strides, 1), two(padding, (0, 0))
    )


# On arrays


def run(
    name: str,
    *arrays: Any,
    geometry: Geometry,
    shape: Shape = (),
    out: np.ndarray | None = None,
) -> np.ndarray | None:
    """What a primitive makes of arrays; None where its kernel is not for them.

    It is written to ``out``, where that is given.
    """
    if name not in NAMES or not takes(arrays):
        return None
    return made(name, *arrays, geometry=geometry, shape=shape, out=out)


def takes(arrays: Sequence[Any]) -> bool:
    """Whether there are kernels for such arrays, and they are large enough to pay for a call."""
    if not engine.available():
        return False
    if any(type(a) is not np.ndarray or a.dtype != _FLOAT or not a.size for a in arrays):
        return False
    return max(a.size for a in arrays) >= _SMALLEST


def made(
    name: str,
    *arrays: np.ndarray,
    geometry: Geometry,
    shape: Shape = (),
    out: np.ndarray | None = None,
) -> np.ndarray | None:
    """As ``run``, for arrays of float32 of any size but none."""
    first, *others = (a.shape for a in arrays)
    found = kernel(name, first, others[0] if others else (), geometry, tuple(shape))
    if found is None:
        return None
    if out is None:
        out = np.empty(found.shape, _FLOAT)
    elif not out.flags.c_contiguous or (out.shape, out.dtype) != (found.shape, _FLOAT):
        return None
    if out.size:
        given = [np.ascontiguousarray(a) for a in arrays]
        parts.run(found.function, *given, out, scratch(4 * found.work))
    return out


# In a schedule


def compiled(apply: Apply, places: dict[Value, View]) -> list[Step] | None:
    (result,) = apply.outputs
    values = (*apply.inputs, result)
    if not all(type(v) is Value and v.dtype == _FLOAT and v.nbytes for v in values):
        return None
    first, *others = (v.shape for v in apply.inputs)
    found = kernel(apply.name, first, others[0] if others else (), **apply.params)
    out = places[result]
    if found is None or not out.contiguous:
        return None
    steps, given = [], []
    for view in (places[v] for v in apply.inputs):
        if not view.contiguous:
            copy = _plain(view.shape)
            steps.append(Step(np.copyto, (copy, view), {}, copy, False, False))
            view = copy
        given.append(view)
    arguments = (*given, out, _plain((found.work,)))
    return [*steps, Step(found.function, arguments, {}, out, False, False)]


def _plain(shape: Shape) -> View:
    """An array of its own."""
    size = _FLOAT.itemsize
    strides = tuple(size * prod(shape[i + 1 :]) for i in range(len(shape)))
    return View(Buffer(size * prod(shape)), 0, shape, strides, _FLOAT)


def _rectified(apply: Apply, places: dict[Value, View]) -> list[Step] | None:
    """Pooling that keeps places, or its gradient; only layers of ``rectifies`` come here."""
    (first, second), (out, *more) = apply.inputs, apply.outputs
    shape = apply.params.get("shape", first.shape)
    layer = _layer(shape, shape[-1], apply.params["geometry"])
    assert layer is not None
    forward = apply.name == "rectified_windows"
    function = functools.partial(pooling.rectified if forward else pooling.rectified_grad, layer)
    views = [places[v] for v in (first, second, out, *more)]
    if not all(view.contiguous for view in views):
        return None
    views.append(_plain((pooling.work(layer),)))
    moves = [view.strides[0] if len(view.shape) > 1 else 0 for view in views[:-1]]
    cut = _by_samples(function, shape[0], moves, _cost(layer, False), pooling.work(layer))
    native = Native(function, (shape[0],), cut)
    return [Step(native, tuple(views), {}, views[2], False, False)]


def rectifies(shape: Shape, dtype: np.dtype, geometry: Geometry) -> bool:
    """Whether there is a kernel for pooling after relu, and it pays to keep places."""
    layer = _layer(shape, shape[-1], geometry)
    if layer is None or dtype != _FLOAT or not prod(shape):
        return False
    return pooling.apart(layer) and prod(layer.size) < 100


PRIMITIVES = {
    **dict.fromkeys(NAMES, compiled),
    "rectified_windows": _rectified,
    "rectified_windows_grad": _rectified,
}
