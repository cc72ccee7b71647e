"""Interpolation along an axis in machine code: each element made is a sum of a few neighbours.

The matrix of an interpolation is a band, and so is its transpose: from each row on only the terms
between the first and the last that count are read, and rows of what lies behind the axis at once.
"""

from __future__ import annotations

import functools
from math import prod
from typing import Any, NamedTuple

import numpy as np

from distgrad.compile.llvm import engine
from distgrad.compile.llvm.blocks import Code, panels, vectors
from distgrad.compile.llvm.loops import Native, address_of
from distgrad.compile.program import Apply, Value
from distgrad.compile.steps import Step, View
from distgrad.ops.image import interpolation_matrix

NAMES = ("interpolate",)
_FLOAT = np.dtype(np.float32)


class _Band(NamedTuple):
    """Each row's first term that may count, and how much it and the next ones count."""

    starts: np.ndarray  # [rows], int64
    weights: np.ndarray  # [rows, terms], float32


@functools.lru_cache(maxsize=256)
def _band(before: int, after: int, transpose: bool, method: str, antialias: bool) -> _Band:
    matrix = interpolation_matrix(before, after, method, antialias).astype(_FLOAT)
    matrix = matrix.T if transpose else matrix
    counts, columns = matrix != 0, matrix.shape[1]
    first = np.where(counts.any(axis=1), counts.argmax(axis=1), 0)
    last = columns - 1 - np.where(counts.any(axis=1), counts[:, ::-1].argmax(axis=1), columns - 1)
    terms = int((last - first).max()) + 1
    starts = np.minimum(first, columns - terms).astype(np.int64)
    weights = np.take_along_axis(matrix, starts[:, None] + np.arange(terms), axis=1)
    return _Band(starts, np.ascontiguousarray(weights))


@functools.cache
def _sums(columns: int, rows: int, terms: int, inner: int) -> int:
    """A function of x ``[n, columns, inner]``, a place for ``[n, rows, inner]``, a band, and n."""
    code = Code(["x", "y", "weights", "starts"], ["outer"])
    with code.loop("%outer") as n, code.loop(rows) as row:
        start = code.add(code.mul(n, columns), code.number_at("%starts", row))
        given = code.at("%x", code.mul(start, inner))
        made = code.at("%y", code.mul(code.add(code.mul(n, rows), row), inner))
        weights = code.at("%weights", code.mul(row, terms))
        for column, width in panels(code, inner):
            slots = [(code.slot(), at, lanes) for at, lanes in vectors(width)]
            for slot, _, _ in slots:
                code.store("zeroinitializer", slot)
            with code.loop(terms) as term:
                weight = code.spread(code.at(weights, term))
                terms_of_row = code.at(code.at(given, code.mul(term, inner)), column)
                for slot, at, lanes in slots:
                    value = code.load(code.at(terms_of_row, at), lanes)
                    code.store(code.fma(weight, value, code.load(slot)), slot)
            for slot, at, lanes in slots:
                code.store(code.load(slot), code.at(code.at(made, column), at), lanes)
    return code.native().address


@functools.lru_cache(maxsize=256)
def _kernel(shape: tuple[int, ...], axis: int, **params: Any) -> tuple[Native, int]:
    """The function for an input of this shape, and the size of what it makes of its axis."""
    band = _band(**params)
    rows, terms = band.weights.shape
    function = _sums(shape[axis], rows, terms, prod(shape[axis + 1 :]))
    numbers = address_of(band.weights), address_of(band.starts), prod(shape[:axis])
    return _Kept(function, numbers, band), rows


class _Kept(Native):
    """A function of arrays that lie in its table by their addresses."""

    def __init__(self, address: int, numbers: tuple[int, ...], keep: Any) -> None:
        super().__init__(address, numbers)
        self._keep = keep


def run(x: Any, *, axis: int, out: np.ndarray | None = None, **params: Any) -> np.ndarray | None:
    """What ``interpolate`` makes of an array; None where it is not for it."""
    if not engine.available() or x.dtype != _FLOAT or not x.size:
        return None
    function, rows = _kernel(x.shape, axis, **params)
    made = np.empty((*x.shape[:axis], rows, *x.shape[axis + 1 :]), _FLOAT) if out is None else out
    function(np.ascontiguousarray(x), made)
    return made


def _compiled(apply: Apply, places: dict[Value, View]) -> list[Step] | None:
    (x,), (out,) = apply.inputs, apply.outputs
    if type(x) is not Value or x.dtype != _FLOAT or not x.nbytes or not out.nbytes:
        return None
    views = places[x], places[out]
    if not all(view.contiguous for view in views):
        return None
    function, _ = _kernel(x.shape, **apply.params)
    return [Step(function, views, {}, views[1], False, False)]


PRIMITIVES = dict.fromkeys(NAMES, _compiled)
