"""Reductions, normalisations and orders along axes as ONNX operations."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.export.converters import converter
from distgrad.export.converters.elementwise import cast
from distgrad.export.graph import Edge, Graph

Axes = tuple[int, ...]

_REDUCTIONS = {
    "sum": "ReduceSum",
    "mean": "ReduceMean",
    "max": "ReduceMax",
    "min": "ReduceMin",
    "prod": "ReduceProd",
}


def _reduced(to: Graph, op: str, x: Edge, axis: Axes, keepdims: bool) -> Edge:
    if not axis:
        return x
    return to.node(op, x, to.vector(axis), keepdims=int(keepdims))


for _name, _op in _REDUCTIONS.items():

    @converter(_name)
    def _(to: Graph, x: Edge, *, axis: Axes, keepdims: bool, op: str = _op) -> Edge:
        return _reduced(to, op, x, axis, keepdims)


@converter("any_true")
def _(to: Graph, x: Edge, *, axis: Axes, keepdims: bool) -> Edge:
    return cast(to, _reduced(to, "ReduceMax", cast(to, x, np.int32), axis, keepdims), bool)


@converter("all_true")
def _(to: Graph, x: Edge, *, axis: Axes, keepdims: bool) -> Edge:
    return cast(to, _reduced(to, "ReduceMin", cast(to, x, np.int32), axis, keepdims), bool)


@converter("argmax_along")
def _(to: Graph, x: Edge, *, axis: int) -> Edge:
    return to.node("ArgMax", x, axis=axis, keepdims=0, dtype=np.int64)


@converter("argmin_along")
def _(to: Graph, x: Edge, *, axis: int) -> Edge:
    return to.node("ArgMin", x, axis=axis, keepdims=0, dtype=np.int64)


@converter("argsort_last")
def _(to: Graph, x: Edge, *, descending: bool) -> Edge:
    return _top(to, x, x.shape[-1], descending)


@converter("places_of_largest")
def _(to: Graph, x: Edge, *, count: int) -> Edge:
    return _top(to, x, count, True)


def _top(to: Graph, x: Edge, count: Any, largest: bool) -> Edge:
    places = to.several("TopK", 2, x, to.vector([count]), largest=int(largest))[1]
    return places._replace(dtype=np.dtype(np.int64))


@converter("cumsum_along")
def _(to: Graph, x: Edge, *, axis: int, exclusive: bool, reverse: bool) -> Edge:
    where = to.constant(np.int64(axis))
    return to.node("CumSum", x, where, exclusive=int(exclusive), reverse=int(reverse))


@converter("softmax_along")
def _(to: Graph, x: Edge, *, axis: int) -> Edge:
    return to.node("Softmax", x, axis=axis)


@converter("log_softmax_along")
def _(to: Graph, x: Edge, *, axis: int) -> Edge:
    return to.node("LogSoftmax", x, axis=axis)


@converter("standardize")
def _(to: Graph, x: Edge, *, axis: Axes, epsilon: float) -> Edge:
    rank, shape = len(x.shape), [x.shape[i] for i in axis]
    if axis == tuple(range(rank - len(axis), rank)) and all(type(n) is int for n in shape):
        ones = to.constant(np.ones(shape, x.dtype))
        return to.node("LayerNormalization", x, ones, axis=axis[0], epsilon=epsilon)
    centred = to.node("Sub", x, _reduced(to, "ReduceMean", x, axis, True))
    variance = _reduced(to, "ReduceMean", to.node("Mul", centred, centred), axis, True)
    deviation = to.node("Sqrt", to.node("Add", variance, to.number(epsilon, x)))
    return to.node("Div", centred, deviation)


@converter("is_class")
def _(to: Graph, labels: Edge, *, classes: int) -> Edge:
    numbers = to.constant(np.arange(classes).astype(labels.dtype))
    return to.node("Equal", labels, numbers, dtype=bool)
