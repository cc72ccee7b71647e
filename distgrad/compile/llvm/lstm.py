"""Long short-term memory of float32 for eager steps: the cell as one loop over rows, and sequences.

A step of a sequence is a product and such a loop each way, one after the other without Python in
between; the gradient of the kernel is one product over all steps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.compile.llvm import gemm
from distgrad.compile.llvm.blocks import scratch
from distgrad.compile.llvm.composites import ROWS, Body, Made
from distgrad.compile.llvm.listed import Entry, in_turn
from distgrad.compile.llvm.loops import Native, address_of
from distgrad.compile.llvm.rows import all_of
from distgrad.compile.program import Value
from distgrad.core.primitive import registry

_FLOAT32 = np.dtype(np.float32)
_FEWEST_ROWS = 12  # of a product: with fewer BLAS is faster


def run(name: str, args: tuple, out: Any = None) -> tuple[np.ndarray, ...] | None:
    """What a primitive makes of arrays of float32; None where there is no kernel for them.

    It is written to ``out``, a tuple of arrays, where that is given.
    """
    for x in args:
        if type(x) is not np.ndarray or x.dtype != _FLOAT32 or x.ndim < 2 or not x.size:
            return None
    return _RUN[name](*map(np.ascontiguousarray, args), out=out)


class _Cell:
    """The parts of a cell up to its new carry, from the gates, or from two terms of them."""

    def __init__(self, units: int, terms: int = 1) -> None:
        self.body = body = Body()
        each = [[body.given(ROWS, units, row=4 * units) for _ in range(4)] for _ in range(terms)]
        self.gates = (
            each[0] if terms == 1 else [body("add", *pair) for pair in zip(*each, strict=True)]
        )
        self.c = body.given(ROWS, units)
        i, f, g, o = self.gates
        self.i, self.f, self.o = (body("sigmoid", gate) for gate in (i, f, o))
        self.candidate = body("tanh", g)
        kept, added = body("multiply", self.f, self.c), body("multiply", self.i, self.candidate)
        self.carry = body("add", kept, added)
        self.t = body("tanh", self.carry)

    def output(self) -> Value:
        return self.body("multiply", self.o, self.t)

    def back(self, dh: Value, dc: Value) -> tuple[list[Value], Value]:
        """The cotangents of the gates, and of the old carry."""
        body = self.body
        dc = body("add", dc, body("tanh_grad", body("multiply", dh, self.o), self.t))
        parts = [
            body("sigmoid_grad", body("multiply", dc, self.candidate), self.i),
            body("sigmoid_grad", body("multiply", dc, self.c), self.f),
            body("tanh_grad", body("multiply", dc, self.i), self.candidate),
            body("sigmoid_grad", body("multiply", dh, self.t), self.o),
        ]
        return parts, body("multiply", dc, self.f)


@functools.lru_cache(maxsize=64)
def _forward(units: int) -> Made:
    cell = _Cell(units)
    return cell.body.made(cell.output(), cell.carry)


@functools.lru_cache(maxsize=64)
def _backward(units: int) -> Made:
    cell = _Cell(units)
    parts, dc = cell.back(cell.body.given(ROWS, units), cell.body.given(ROWS, units))
    return cell.body.made(*parts, dc, rows=[4 * units] * 4 + [0])


@functools.lru_cache(maxsize=64)
def _forward_step(units: int) -> Made:
    """The same for gates that are a sum of two terms, which it gives as well."""
    cell = _Cell(units, terms=2)
    return cell.body.made(cell.output(), cell.carry, *cell.gates, rows=[0, 0] + [4 * units] * 4)


@functools.lru_cache(maxsize=64)
def _backward_step(units: int) -> Made:
    """The same for cotangents of output and carry of two terms each, with another for the gates."""
    cell = _Cell(units)
    body = cell.body
    dh, dc = (body("add", *(body.given(ROWS, units) for _ in range(2))) for _ in range(2))
    parts, dc = cell.back(dh, dc)
    others = [body.given(ROWS, units, row=4 * units) for _ in range(4)]
    parts = [body("add", part, other) for part, other in zip(parts, others, strict=True)]
    return body.made(*parts, dc, rows=[4 * units] * 4 + [0])


def _gates(start: int, units: int) -> list[int]:
    """Where the columns of each gate begin."""
    return [start + 4 * units * n for n in range(4)]


def _lstm_cell(z: np.ndarray, c: np.ndarray, *, out: Any) -> tuple[np.ndarray, ...] | None:
    rows, units = c.shape
    if z.shape != (rows, 4 * units):
        return None
    h, carry = out = out or (np.empty(c.shape, _FLOAT32), np.empty(c.shape, _FLOAT32))
    given = [*_gates(address_of(z), units), address_of(c)]
    _forward(units)(given, (address_of(h), address_of(carry)), rows)
    return out


def _lstm_cell_grad(
    dh: np.ndarray, dc: np.ndarray, z: np.ndarray, c: np.ndarray, *, out: Any
) -> tuple[np.ndarray, ...] | None:
    rows, units = c.shape
    if z.shape != (rows, 4 * units) or dh.shape != c.shape or dc.shape != c.shape:
        return None
    dz, dold = out = out or (np.empty(z.shape, _FLOAT32), np.empty(c.shape, _FLOAT32))
    given = [*_gates(address_of(z), units), *map(address_of, (c, dh, dc))]
    _backward(units)(given, [*_gates(address_of(dz), units), address_of(dold)], rows)
    return out


def _each(array: np.ndarray, first: int = 0) -> Entry:
    """Where the first of the parts of an array lies that the steps take in turn."""
    return address_of(array) + first * array.strides[0], array.strides[0]


def _same(array: np.ndarray) -> Entry:
    return address_of(array), 0


def _columns(entry: Entry, units: int) -> list[Entry]:
    start, apart = entry
    return [(column, apart) for column in _gates(start, units)]


def _multiplied(
    a: Entry, b: np.ndarray, c: Entry, rows: int, transposed: bool
) -> tuple[Native, list[Entry]]:
    """The product of ``rows`` rows with the kernel, or with the transposed one."""
    n, k = b.shape if transposed else b.shape[::-1]
    work = address_of(scratch(gemm.work(n, k)))
    numbers = work, rows, n, k, gemm.depth(k), k, b.shape[1], n
    return gemm.gemm(False, transposed), [a, _same(b), c, *[(each, 0) for each in numbers]]


def _looped(
    made: Made, given: list[Entry], results: list[Entry], rows: int
) -> tuple[Native, list[Entry]]:
    places = [given[i] for i in made.inputs] + [results[i] for i in made.outputs]
    return made.native, [*places, *[(n, 0) for n in all_of(rows)]]


def _lstm_steps(
    x: np.ndarray, kernel: np.ndarray, h: np.ndarray, c: np.ndarray, *, out: Any
) -> tuple[np.ndarray, ...] | None:
    rows, units = h.shape
    if rows < _FEWEST_ROWS:
        return None
    hs, cs = (np.concatenate([a[None], np.empty((len(x), *a.shape), _FLOAT32)]) for a in (h, c))
    product, zs = np.empty((rows, 4 * units), _FLOAT32), np.empty(x.shape, _FLOAT32)
    gates = [*_columns(_each(x), units), *_columns(_same(product), units)]
    results = [_each(hs, 1), _each(cs, 1), *_columns(_each(zs), units)]
    in_turn(
        range(len(x)),
        _multiplied(_each(hs), kernel, _same(product), rows, False),
        _looped(_forward_step(units), [*gates, _each(cs)], results, rows),
    )
    return _written(out, hs[1:], cs[1:], zs)


def _lstm_steps_grad(
    dhs: np.ndarray,
    dcs: np.ndarray,
    dzs: np.ndarray,
    kernel: np.ndarray,
    h: np.ndarray,
    c: np.ndarray,
    hs: np.ndarray,
    cs: np.ndarray,
    zs: np.ndarray,
    *,
    out: Any,
) -> tuple[np.ndarray, ...] | None:
    rows, units = h.shape
    if rows < _FEWEST_ROWS:
        return None
    before, carries = (np.concatenate([a[None], rest[:-1]]) for a, rest in ((h, hs), (c, cs)))
    dx, dh = np.empty(zs.shape, _FLOAT32), np.zeros(h.shape, _FLOAT32)
    dc = np.empty((len(zs) + 1, *c.shape), _FLOAT32)  # what each step gives, and takes of the next
    dc[-1] = 0
    given = [*_columns(_each(zs), units), *map(_each, (carries, dhs)), _same(dh), _each(dcs)]
    given += [_each(dc, 1), *_columns(_each(dzs), units)]
    results = [*_columns(_each(dx), units), _each(dc)]
    in_turn(
        range(len(zs) - 1, -1, -1),
        _looped(_backward_step(units), given, results, rows),
        _multiplied(_each(dx), kernel, _same(dh), rows, True),
    )
    flat = before.reshape(-1, units), dx.reshape(-1, 4 * units)
    dkernel = registry["dot"].kernel_for(np)(*flat, transpose_a=True, transpose_b=False)
    return _written(out, dx, dkernel, dh, dc[0])


def _written(out: Any, *made: np.ndarray) -> tuple[np.ndarray, ...]:
    """The arrays, or those in ``out`` with what is in them."""
    for place, array in zip(out or (), made, strict=False):
        np.copyto(place, array)
    return out or made


_RUN: dict[str, Callable[..., Any]] = {
    "lstm_cell": _lstm_cell,
    "lstm_cell_grad": _lstm_cell_grad,
    "lstm_steps": _lstm_steps,
    "lstm_steps_grad": _lstm_steps_grad,
}
NAMES = tuple(_RUN)
