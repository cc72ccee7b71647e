"""Sums and means over middle axes, in machine code: what is left of a sum over the samples, and the
pixels, of a shard where several shards run at once. Rows are added one after the other, as NumPy
does, and as it is for one shard alone.
"""

from __future__ import annotations

import functools
from math import prod

import numpy as np

from distgrad.compile.llvm.blocks import VECTOR, Code, panels, vectors
from distgrad.compile.llvm.ir import Emitter
from distgrad.compile.llvm.loops import Native
from distgrad.compile.program import Apply, Value
from distgrad.compile.steps import Step, View

_NARROW = 8  # columns: below that, most lanes of a vector are idle


def compile_middle(apply: Apply, places: dict[Value, View]) -> list[Step] | None:
    """One step for ``sum``, ``mean`` or ``sum_to``; None where the axes are others."""
    (x,), (out,) = apply.inputs, apply.outputs
    if type(x) is not Value or x.dtype != np.float32 or out.dtype != np.float32 or not x.nbytes:
        return None
    axes = _axes(apply, x)
    if not axes or axes != list(range(axes[0], axes[-1] + 1)) or axes[-1] + 1 == len(x.shape):
        return None
    parts = x.shape[: axes[0]], x.shape[axes[0] : axes[-1] + 1], x.shape[axes[-1] + 1 :]
    outer, middle, inner = map(prod, parts)
    views = places[x], places[out]
    if inner < _NARROW or not all(view.contiguous for view in views):
        return None
    function = _sums(middle, inner, apply.name == "mean")
    return [Step(Native(function, (outer,)), views, {}, views[1], False, False)]


def _axes(apply: Apply, x: Value) -> list[int]:
    ndim = len(x.shape)
    if apply.name != "sum_to":
        axis = apply.params["axis"]
        return list(range(ndim)) if axis is None else sorted(a % ndim for a in axis)
    shape = apply.params["shape"]
    if len(shape) != ndim:
        return []
    return [i for i, (a, b) in enumerate(zip(shape, x.shape, strict=True)) if a != b]


@functools.cache
def _sums(middle: int, inner: int, mean: bool) -> int:
    """A function of x ``[n, middle, inner]``, a place for ``[n, inner]``, and n."""
    code = Code(["x", "out"], ["outer"])
    number = Emitter(1).number(middle, "float").text
    with code.loop("%outer") as n:
        for column, width in panels(inner):
            block = code.at(code.at("%x", code.mul(n, middle * inner)), column)
            slots = [(code.slot(), at, lanes) for at, lanes in vectors(width)]
            for slot, at, lanes in slots:
                code.store(code.load(code.at(block, at), lanes), slot)
            with code.loop(middle - 1) as i:
                row = code.at(block, code.mul(code.add(i, 1), inner))
                for slot, at, lanes in slots:
                    total = code.fadd(code.load(slot), code.load(code.at(row, at), lanes))
                    code.store(total, slot)
            target = code.at(code.at("%out", code.mul(n, inner)), column)
            for slot, at, lanes in slots:
                total = code.load(slot)
                total = code.op(f"fdiv {VECTOR} {total}, {number}") if mean else total
                code.store(total, code.at(target, at), lanes)
    return code.native().address
