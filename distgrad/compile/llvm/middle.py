"""Sums and means over middle axes, in machine code: what is left of a sum over the samples, and the
pixels, of a shard where several shards run at once. Rows are added one after the other, as NumPy
does, and as it is for one shard alone.
"""

from __future__ import annotations

import functools
from math import prod
from typing import Any

import numpy as np

from distgrad.compile.llvm.blocks import Code, panels, vectors
from distgrad.compile.llvm.loops import Native
from distgrad.compile.program import Apply, Value
from distgrad.compile.steps import Step, View
from distgrad.ops.reduce import kept

_NARROW = 2  # columns: a single one is summed in pairs


def compile_middle(apply: Apply, places: dict[Value, View]) -> list[Step] | None:
    """One step for ``sum``, ``mean`` or ``sum_to``; None where the axes are others."""
    (x,), (out,) = apply.inputs, apply.outputs
    if type(x) is not Value or x.dtype != np.float32 or out.dtype != np.float32 or not x.nbytes:
        return None
    views = places[x], places[out]
    if not all(view.contiguous for view in views):
        return None
    function = _function(apply.name, x.shape, _axes(apply.params, x.shape))
    return None if function is None else [Step(function, views, {}, views[1], False, False)]


def run(name: str, x: np.ndarray, out: np.ndarray | None, **params: Any) -> np.ndarray | None:
    """What a primitive makes of an array of float32; None where the axes are others."""
    axes = _axes(params, x.shape)
    function = _function(name, x.shape, axes) if x.flags.c_contiguous else None
    if function is None:
        return None
    if out is None:
        shape = kept(x.shape, axes)
        if not params.get("keepdims", True):
            shape = tuple([n for i, n in enumerate(x.shape) if i not in axes])
        out = np.empty(shape, np.float32)
    function(x, out)
    return out


def _axes(params: dict[str, Any], shape: tuple[int, ...]) -> tuple[int, ...]:
    ndim = len(shape)
    if "axis" in params:
        axis = params["axis"]
        return tuple(range(ndim)) if axis is None else tuple(sorted(a % ndim for a in axis))
    left = params["shape"]
    if len(left) != ndim:
        return ()
    return tuple([i for i, (a, b) in enumerate(zip(left, shape, strict=True)) if a != b])


@functools.lru_cache(maxsize=1024)
def _function(name: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> Native | None:
    if not axes or axes != tuple(range(axes[0], axes[-1] + 1)) or axes[-1] + 1 == len(shape):
        return None
    outer, middle, inner = map(
        prod, (shape[: axes[0]], shape[axes[0] : axes[-1] + 1], shape[axes[-1] + 1 :])
    )
    if inner < _NARROW:
        return None
    return Native(_sums(inner, name == "mean"), (outer, middle))


@functools.cache
def _sums(inner: int, mean: bool) -> int:
    """A function of x ``[n, middle, inner]``, a place for ``[n, inner]``, n and middle."""
    code = Code(["x", "out"], ["outer", "middle"])
    number = code.all_lanes(code.op("uitofp i64 %middle to float")) if mean else ""
    more, size = code.op("sub i64 %middle, 1"), code.times("%middle", inner)
    with code.loop("%outer") as n:
        for column, width in panels(code, inner):
            block = code.at(code.at("%x", code.times(n, size)), column)
            slots = [(code.slot(), at, lanes) for at, lanes in vectors(width)]
            for slot, at, lanes in slots:
                code.store(code.load(code.at(block, at), lanes), slot)
            with code.loop(more) as i:
                row = code.at(block, code.mul(code.add(i, 1), inner))
                for slot, at, lanes in slots:
                    total = code.fadd(code.load(slot), code.load(code.at(row, at), lanes))
                    code.store(total, slot)
            target = code.at(code.at("%out", code.mul(n, inner)), column)
            for slot, at, lanes in slots:
                total = code.load(slot)
                total = code.fdiv(total, number) if mean else total
                code.store(total, code.at(target, at), lanes)
    return code.native().address
