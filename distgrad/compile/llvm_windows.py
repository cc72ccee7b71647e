"""Convolution and pooling over one or two axes as generated kernels of a schedule.

Which kernel it is depends on the shapes within a sample alone, so that a sample has the same bits
in a shard of any size. Memory to work in is planned with that of the program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.compile import llvm_direct, llvm_pooling, llvm_winograd
from distgrad.compile.llvm_layers import Layer
from distgrad.compile.llvm_loops import Native
from distgrad.compile.program import Apply, Value
from distgrad.compile.steps import Buffer, Step, View
from distgrad.ops.windows import Geometry

Places = dict[Value, View]


def _layer(space: Sequence[int], channels: int, outputs: int, geometry: Geometry) -> Layer | None:
    """The layer over two axes, one of length 1 before a single one; None for any other."""
    size, strides, padding, dilations = geometry
    if len(space) > 2 or any(d != 1 for d in dilations):
        return None
    lead = (1,) * (2 - len(space))
    return Layer(
        channels,
        outputs,
        (*lead, *space),  # type: ignore[arg-type]
        (*lead, *size),  # type: ignore[arg-type]
        (*lead, *strides),  # type: ignore[arg-type]
        (((0, 0),) * len(lead) + tuple(padding)),  # type: ignore[arg-type]
    )


def _usual(apply: Apply) -> bool:
    """Whether all arrays are of float32, and none is empty."""
    values = (*apply.inputs, *apply.outputs)
    return all(type(v) is Value and v.dtype == np.float32 and v.nbytes for v in values)


def _steps(
    function: int, given: Sequence[View], out: View, floats: int, samples: int
) -> list[Step] | None:
    """A call of a generated function, on copies of arrays that have gaps."""
    if not _contiguous(out):
        return None
    steps, views = [], []
    for view in given:
        if not _contiguous(view):
            copy = View(Buffer(_size(view) * 4), 0, view.shape, _strides(view.shape), view.dtype)
            steps.append(Step(np.copyto, (copy, view), {}, copy, False, False))
            view = copy
        views.append(view)
    if floats:
        views.append(View(Buffer(4 * floats), 0, (floats,), (4,), np.dtype(np.float32)))
    *inputs, last = views if floats else (*views, None)
    arguments = (*inputs, out, last) if floats else (*inputs, out)
    steps.append(Step(Native(function, (samples,)), arguments, {}, out, False, False))
    return steps


def _size(view: View) -> int:
    return int(np.prod(view.shape, dtype=np.int64))


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(4 * int(np.prod(shape[i + 1 :], dtype=np.int64)) for i in range(len(shape)))


def _contiguous(view: View) -> bool:
    steps = zip(view.shape, view.strides, _strides(view.shape), strict=True)
    return all(n == 1 or stride == plain for n, stride, plain in steps)


def _kernels(layer: Layer) -> Any:
    return llvm_winograd if llvm_winograd.fits(layer) else llvm_direct


def convolve(apply: Apply, places: Places) -> list[Step] | None:
    x, w = apply.inputs
    return _convolution("forward", apply, places, x.shape, w.shape)


def convolve_grad_x(apply: Apply, places: Places) -> list[Step] | None:
    return _convolution("grad_x", apply, places, apply.outputs[0].shape, apply.inputs[1].shape)


def convolve_grad_w(apply: Apply, places: Places) -> list[Step] | None:
    return _convolution("grad_w", apply, places, apply.inputs[0].shape, apply.outputs[0].shape)


def _convolution(
    which: str, apply: Apply, places: Places, x: Sequence[int], w: Sequence[int]
) -> list[Step] | None:
    if not _usual(apply):
        return None
    layer = _layer(x[1:-1], x[-1], w[-1], apply.params["geometry"])
    if layer is None:
        return None
    kernels = _kernels(layer)
    given = [places[v] for v in apply.inputs]
    out = places[apply.outputs[0]]
    return _steps(getattr(kernels, which)(layer), given, out, kernels.work(layer), x[0])


def _pooling(
    function: Callable[[Layer], int], apply: Apply, places: Places, shape: Sequence[int]
) -> list[Step] | None:
    if not _usual(apply):
        return None
    layer = _layer(shape[1:-1], shape[-1], shape[-1], apply.params["geometry"])
    if layer is None:
        return None
    given, out = [places[v] for v in apply.inputs], places[apply.outputs[0]]
    return _steps(function(layer), given, out, llvm_pooling.work(layer), shape[0])


def max_windows(apply: Apply, places: Places) -> list[Step] | None:
    return _pooling(llvm_pooling.largest, apply, places, apply.inputs[0].shape)


def max_windows_grad(apply: Apply, places: Places) -> list[Step] | None:
    return _pooling(llvm_pooling.largest_grad, apply, places, apply.inputs[1].shape)


def _padded(apply: Apply) -> bool:
    """Whether windows have different numbers of elements, so that a mean is over each its own."""
    return any(map(any, apply.params["geometry"].padding))


def mean_windows(apply: Apply, places: Places) -> list[Step] | None:
    if _padded(apply):
        return None
    return _pooling(llvm_pooling.mean, apply, places, apply.inputs[0].shape)


def mean_windows_grad(apply: Apply, places: Places) -> list[Step] | None:
    if _padded(apply):
        return None
    return _pooling(llvm_pooling.mean_grad, apply, places, apply.outputs[0].shape)


PRIMITIVES: dict[str, Callable[[Apply, Places], list[Step] | None]] = {
    "convolve": convolve,
    "convolve_grad_x": convolve_grad_x,
    "convolve_grad_w": convolve_grad_w,
    "max_windows": max_windows,
    "max_windows_grad": max_windows_grad,
    "mean_windows": mean_windows,
    "mean_windows_grad": mean_windows_grad,
}
