"""Eager operations of several parts as one loop over rows: bias and activation, scale and offset.

As in ``eager`` a kernel is made for each number of columns, and takes any number of rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from distgrad.compile.llvm.loops import Native, address_of
from distgrad.compile.llvm.rows import Rows, any_rows
from distgrad.compile.passes.fusion import grouped
from distgrad.compile.program import Apply, Program, Value
from distgrad.compile.steps import Buffer, View
from distgrad.core.primitive import registry
from distgrad.ops.biased import ACTIVATIONS

ROWS = 2  # of the program that a kernel is made from
_FLOAT32 = np.dtype(np.float32)


def run(name: str, args: tuple, params: dict[str, Any], out: Any = None) -> Any:
    """What a primitive makes of arrays of float32; None where there is no kernel for them.

    It is written to ``out``, an array or a tuple of them, where that is given.
    """
    for x in args:
        if type(x) is not np.ndarray or x.dtype != _FLOAT32 or not x.flags.c_contiguous:
            return None
    return _RUN[name](*args, **params, out=out)


def view_of(value: Value, row: int = 0) -> View:
    """A place in rows that lie ``row`` elements apart; one right after the other for 0."""
    strides, size = [], value.dtype.itemsize
    for n in reversed(value.shape):
        strides.append(size)
        size *= n
    if row:
        strides[-1] = row * value.dtype.itemsize
    return View(Buffer(value.nbytes), 0, value.shape, tuple(reversed(strides)), value.dtype)


class Body:
    """The parts of an operation on rows, and where they lie."""

    def __init__(self) -> None:
        self._parts: list[Apply] = []
        self._inputs: list[Value] = []
        self._views: dict[Value, View] = {}

    def given(self, *shape: int, row: int = 0) -> Value:
        value = Value(shape, _FLOAT32)
        self._inputs.append(value)
        self._views[value] = view_of(value, row)
        return value

    def __call__(self, name: str, *inputs: Any, **params: Any) -> Value:
        out = Value(params.get("shape", inputs[0].shape), _FLOAT32)
        self._parts.append(Apply(inputs, (out,), primitive=registry[name], params=params))
        return out

    def made(self, *outputs: Value, rows: Sequence[int] = ()) -> Made:
        """The kernel that gives these; ``rows`` as in ``view_of`` for each."""
        for i, value in enumerate(outputs):
            self._views[value] = view_of(value, rows[i] if rows else 0)
        program = Program("rows", tuple(self._inputs), tuple(self._parts), outputs)
        group = grouped(program)
        loop = any_rows(group, self._views)
        assert loop is not None
        given = tuple(map(self._inputs.index, group.inputs))
        return Made(loop, given, tuple(map(outputs.index, group.outputs)))


class Made(NamedTuple):
    """A kernel, and which argument or result each of its pointers is."""

    loop: Rows
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def native(self) -> Native:
        """The function by itself."""
        return self.loop.native

    def __call__(self, given: Sequence[int], made: Sequence[int], rows: int) -> None:
        """Runs it on addresses."""
        places = [given[i] for i in self.inputs] + [made[i] for i in self.outputs]
        self.loop(places, rows)

    def at(self, given: Sequence[np.ndarray], made: Sequence[np.ndarray], rows: int) -> None:
        """Runs it on arrays."""
        self(list(map(address_of, given)), list(map(address_of, made)), rows)


# Bias and activation


@functools.lru_cache(maxsize=256)
def _forward(activation: str, columns: int) -> Made:
    body = Body()
    x, b = body.given(ROWS, columns), body.given(columns)
    return body.made(body(ACTIVATIONS[activation][0].name, body("add", x, b)))


@functools.lru_cache(maxsize=256)
def _backward(activation: str, columns: int) -> Made:
    _, grad, from_output = ACTIVATIONS[activation]
    body = Body()
    g, y, b = body.given(ROWS, columns), body.given(ROWS, columns), body.given(columns)
    dx = body(grad.name, g, y if from_output else body("add", y, b))
    return body.made(dx, body("sum_to", dx, shape=(columns,)))


def _sizes(x: np.ndarray, b: np.ndarray) -> tuple[int, int] | None:
    """Rows and columns; None where ``b`` is no row of ``x``."""
    if b.ndim != 1 or not x.size or x.shape[-1] != b.size:
        return None
    return x.size // b.size, b.size


def _biased(x: np.ndarray, b: np.ndarray, *, activation: str, out: Any) -> np.ndarray | None:
    sizes = _sizes(x, b)
    if sizes is None or x.ndim < 2:
        return None
    rows, columns = sizes
    out = np.empty(x.shape, _FLOAT32) if out is None else out
    _forward(activation, columns)((address_of(x), address_of(b)), (address_of(out),), rows)
    return out


def _biased_grad(
    g: np.ndarray, y: np.ndarray, b: np.ndarray, *, activation: str, out: Any
) -> tuple[np.ndarray, ...] | None:
    sizes = _sizes(y, b)
    if sizes is None or g.shape != y.shape:
        return None
    rows, columns = sizes
    dx, db = out or (np.empty(g.shape, _FLOAT32), np.empty(b.shape, _FLOAT32))
    given = address_of(g), address_of(y), address_of(b)
    _backward(activation, columns)(given, (address_of(dx), address_of(db)), rows)
    return dx, db


# Scale and offset


@functools.lru_cache(maxsize=256)
def _scaling(columns: int) -> Made:
    body = Body()
    x, scale, offset = body.given(ROWS, columns), body.given(columns), body.given(columns)
    return body.made(body("add", body("multiply", x, scale), offset))


@functools.lru_cache(maxsize=256)
def _scaling_back(columns: int) -> Made:
    body = Body()
    g, x, scale = body.given(ROWS, columns), body.given(ROWS, columns), body.given(columns)
    dscale = body("sum_to", body("multiply", g, x), shape=(columns,))
    return body.made(body("multiply", g, scale), dscale, body("sum_to", g, shape=(columns,)))


def _rescaled(
    x: np.ndarray, scale: np.ndarray, offset: np.ndarray, *, out: Any
) -> np.ndarray | None:
    columns = scale.size
    if not x.size or x.shape[-1] != columns or offset.size != columns:
        return None
    out = np.empty(x.shape, _FLOAT32) if out is None else out
    _scaling(columns).at([x, scale, offset], [out], x.size // columns)
    return out


def _rescaled_grad(
    g: np.ndarray, x: np.ndarray, scale: np.ndarray, *, out: Any
) -> tuple[np.ndarray, ...] | None:
    columns = scale.size
    if not x.size or x.shape[-1] != columns or g.shape != x.shape or columns < 2:
        return None  # a single column is summed in pairs
    made = out or tuple([np.empty(a.shape, _FLOAT32) for a in (x, scale, scale)])
    _scaling_back(columns).at([g, x, scale], made, x.size // columns)
    return made


_RUN: dict[str, Callable[..., Any]] = {
    "biased": _biased,
    "biased_grad": _biased_grad,
    "rescaled": _rescaled,
    "rescaled_grad": _rescaled_grad,
}
NAMES = tuple(_RUN)
