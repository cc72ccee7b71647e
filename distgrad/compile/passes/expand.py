"""Expansion: softmax, normalisation and cross entropy as elementwise operations and reductions.

Their parts can then be fused with what stands around them, and what a gradient needs again of the
forward pass is shared with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np

from distgrad.compile.program import Apply, Instruction, Program, Value
from distgrad.core.primitive import registry
from distgrad.ops.reduce import kept, runs_of


def expand(program: Program, floats: Collection[str] = ("float32",)) -> Program:
    """The program with composite primitives taken apart, of these types of floats.

    Those of bfloat16 become parts in float32, and a cast of the last: they are rounded once.
    """
    made: list[Instruction] = []
    for instruction in program.instructions:
        if (
            isinstance(instruction, Apply)
            and instruction.name in _RULES
            and _usual(instruction, floats)
        ):
            parts = _Parts(instruction)
            rule = _RULES[instruction.name]
            if rule(parts, *parts.inputs(), **instruction.params) is not False:
                made += parts.finish()
                continue
        made.append(instruction)
    return program.with_(made)


def _usual(instruction: Apply, floats: Collection[str]) -> bool:
    (out,) = instruction.outputs
    given = [v for v in instruction.inputs if type(v) is Value]
    alike = all(v.dtype == out.dtype for v in given if v.dtype.kind not in "iu")
    usual = out.dtype.name in floats and alike and len(given) == len(instruction.inputs)
    return usual and all(v.nbytes for v in (out, *given))


class _Parts:
    """The instructions that one becomes."""

    def __init__(self, whole: Apply) -> None:
        self._whole = whole
        self._dtype = whole.outputs[0].dtype
        self._narrow = self._dtype.kind == "V"
        if self._narrow:
            self._dtype = np.dtype(np.float32)
        self._made: list[Apply] = []

    def inputs(self) -> list[Any]:
        """Those of the whole, in the dtype of its parts."""
        return [
            self._cast(v, self._dtype) if v.dtype.kind == "V" else v for v in self._whole.inputs
        ]

    def _cast(self, x: Value, dtype: np.dtype) -> Value:
        return self._add("cast_float", (x,), x.shape, {"dtype": dtype}, dtype)

    def _add(
        self,
        name: str,
        inputs: tuple[Any, ...],
        shape: tuple[int, ...],
        params: dict[str, Any],
        dtype: Any = None,
    ) -> Value:
        out = Value(shape, np.dtype(dtype or self._dtype))
        self._made.append(
            Apply(inputs, (out,), primitive=registry[name], params=params, line=self._whole.line)
        )
        return out

    def finish(self) -> list[Apply]:
        """The last one makes what the whole did."""
        if self._narrow:
            self._cast(self._made[-1].outputs[0], self._whole.outputs[0].dtype)
        *first, last = self._made
        return [*first, replace(last, outputs=self._whole.outputs)]

    def __call__(self, name: str, *inputs: Any) -> Value:
        """An elementwise operation."""
        shapes = [v.shape for v in inputs if type(v) is Value]
        return self._add(name, inputs, np.broadcast_shapes(*shapes), {})

    def over(self, name: str, x: Value, axis: tuple[int, ...]) -> Value:
        """A reduction, with 1 at the reduced axes; over each run of axes by itself."""
        for run in runs_of(axis):
            x = self._add(name, (x,), kept(x.shape, run), {"axis": run, "keepdims": True})
        return x

    def reshape(self, x: Value, shape: tuple[int, ...]) -> Value:
        return self._add("reshape_to", (x,), shape, {"shape": shape}, x.dtype)

    def column(self, x: Value) -> Value:
        """One number per row, as a column."""
        return self.reshape(x, (*x.shape, 1))

    def is_class(self, labels: Value, classes: int) -> Value:
        shape = (*labels.shape, classes)
        inputs = (self.column(labels),)
        return self._add("is_class", inputs, shape, {"classes": classes}, np.bool_)


def _last(x: Value) -> tuple[int, ...]:
    return (len(x.shape) - 1,)


def _shifted(p: _Parts, x: Value, axis: tuple[int, ...]) -> Value:
    return p("subtract", x, p.over("max", x, axis))


def _softmax(p: _Parts, x: Value, *, axis: int) -> Value:
    e = p("exp", _shifted(p, x, (axis,)))
    return p("multiply", e, p("reciprocal", p.over("sum", e, (axis,))))


def _softmax_grad(p: _Parts, g: Value, y: Value, *, axis: int) -> None:
    weighted = p("multiply", g, y)
    p("subtract", weighted, p("multiply", y, p.over("sum", weighted, (axis,))))


def _log_softmax(p: _Parts, x: Value, *, axis: int) -> Value:
    shifted = _shifted(p, x, (axis,))
    total = p.over("sum", p("exp", shifted), (axis,))
    return p("subtract", shifted, p("log", total))


def _sparse_cross_entropy(p: _Parts, logits: Value, labels: Value) -> None:
    shifted = _shifted(p, logits, _last(logits))
    total = p("log", p.over("sum", p("exp", shifted), _last(logits)))
    there = p("select", p.is_class(labels, logits.shape[-1]), shifted, 0.0)
    p.reshape(p("subtract", total, p.over("sum", there, _last(logits))), labels.shape)


def _sparse_cross_entropy_grad(p: _Parts, dy: Value, logits: Value, labels: Value) -> Value:
    share = _softmax(p, logits, axis=len(logits.shape) - 1)
    less = p("select", p.is_class(labels, logits.shape[-1]), p("subtract", share, 1.0), share)
    return p("multiply", less, p.column(dy))


def _cross_entropy(p: _Parts, logits: Value, labels: Value) -> None:
    shifted = _shifted(p, logits, _last(logits))
    total = p("log", p.over("sum", p("exp", shifted), _last(logits)))
    terms = p("multiply", p("subtract", total, shifted), labels)
    p.reshape(p.over("sum", terms, _last(logits)), logits.shape[:-1])


def _cross_entropy_grad(p: _Parts, dy: Value, logits: Value, labels: Value) -> Value:
    share = _softmax(p, logits, axis=len(logits.shape) - 1)
    weighted = p("multiply", share, p.over("sum", labels, _last(labels)))
    return p("multiply", p("subtract", weighted, labels), p.column(dy))


def _moments(p: _Parts, x: Value, axis: tuple[int, ...], epsilon: float) -> tuple[Value, Value]:
    """The standardised values, and the reciprocal of the standard deviation."""
    centred = p("subtract", x, p.over("mean", x, axis))
    variance = p.over("mean", p("square", centred), axis)
    scale = p("rsqrt", p("add", variance, epsilon))
    return p("multiply", centred, scale), scale


def _standardize(p: _Parts, x: Value, *, axis: tuple[int, ...], epsilon: float) -> None:
    _moments(p, x, axis, epsilon)


def _standardize_grad(
    p: _Parts, dy: Value, x: Value, *, axis: tuple[int, ...], epsilon: float
) -> None:
    y, scale = _moments(p, x, axis, epsilon)
    along = p.over("mean", p("multiply", dy, y), axis)
    d = p("subtract", dy, p.over("mean", dy, axis))
    p("multiply", p("subtract", d, p("multiply", y, along)), scale)


def _dot(p: _Parts, a: Value, b: Value, *, transpose_a: bool, transpose_b: bool) -> bool:
    """A product of a column and a row, which NumPy does term by term."""
    inner = a.shape[0 if transpose_a else -1]
    if inner != 1 or len(a.shape) != 2 or len(b.shape) != 2:
        return False
    rows, columns = max(a.shape), max(b.shape)
    p("multiply", p.reshape(a, (rows, 1)), p.reshape(b, (1, columns)))
    return True


_RULES: dict[str, Callable[..., Any]] = {
    "dot": _dot,
    "softmax_along": _softmax,
    "softmax_grad": _softmax_grad,
    "log_softmax_along": _log_softmax,
    "sparse_cross_entropy": _sparse_cross_entropy,
    "sparse_cross_entropy_grad": _sparse_cross_entropy_grad,
    "cross_entropy": _cross_entropy,
    "cross_entropy_grad": _cross_entropy_grad,
    "standardize": _standardize,
    "standardize_grad": _standardize_grad,
}
