"""Rows added up at their places in a table, in machine code: the gradient of a gather.

Of several shards only the rows that occur are made, for each shard, and added in the shards' tree:
no shard's table is ever in memory.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from distgrad.compile.llvm.blocks import Code, each_vector, scratch
from distgrad.compile.llvm.loops import Native, address_of
from distgrad.compile.program import Apply, Value
from distgrad.compile.steps import Step, View


def take_grad(
    g: np.ndarray, indices: np.ndarray, *, shape: tuple[int, ...], axis: int, out: Any = None
) -> np.ndarray | None:
    """What the primitive makes of float32, with NumPy's bits; None where it is not for it."""
    width = math.prod(shape[1:])
    if axis or not g.flags.c_contiguous or not width or not indices.size:
        return None
    if indices.min() < 0 or indices.max() >= shape[0]:
        return None
    if out is None:
        out = np.zeros(shape, np.float32)
    else:
        out[...] = 0
    _add(g, np.ascontiguousarray(indices, np.int64), out, width)
    return out


def _add(g: np.ndarray, places: np.ndarray, out: np.ndarray, width: int) -> None:
    _adding(width).at(address_of(g), address_of(places), address_of(out), places.size)


@functools.lru_cache(maxsize=128)
def _adding(width: int) -> Native:
    """A function of rows, their places, what they are added to, and their number: in order."""
    code = Code(("g", "places", "out"), ("count",))
    with code.loop("%count") as i:
        row = code.number_at("%places", i)
        source, target = code.at("%g", code.mul(i, width)), code.at("%out", code.mul(row, width))

        def add(start: Any, lanes: int) -> None:
            to = code.at(target, start)
            total = code.fadd(code.load(to, lanes), code.load(code.at(source, start), lanes))
            code.store(total, to, lanes)

        each_vector(code, width, add)
    return code.native()


class _InTree:
    """``rows_over_shards`` on arrays."""

    __name__ = "rows_over_shards"

    def __init__(self, merges: tuple[int, ...]) -> None:
        self._merges = merges

    def __call__(self, g: np.ndarray, indices: np.ndarray, out: np.ndarray) -> None:
        count, width = len(self._merges), g.shape[-1]
        out[...] = 0
        if count == 1:
            _add(g, np.ascontiguousarray(indices, np.int64), out, width)
            return
        rows, places = np.unique(indices, return_inverse=True)
        places = np.ascontiguousarray(places.reshape(indices.shape), np.int64)
        nbytes = count * len(rows) * width * 4
        tables = scratch(nbytes)[:nbytes].view(np.float32).reshape(count, len(rows), width)
        tables[...] = 0
        waiting: list[np.ndarray] = []
        for shard, merged in enumerate(self._merges):
            table = tables[shard]
            _add(g[shard], places[shard], table, width)
            for _ in range(merged):
                np.add(waiting.pop(), table, out=table)
            waiting.append(table)
        out.reshape(len(out), width)[rows] = waiting[0]


def _compiled(apply: Apply, places: dict[Value, View]) -> list[Step] | None:
    views, out = tuple(places[v] for v in apply.inputs), places[apply.outputs[0]]
    if not all(view.contiguous for view in (*views, out)):
        return None
    return [Step(_InTree(apply.params["merges"]), views, {}, out, True, False)]


PRIMITIVES = {"rows_over_shards": _compiled}
