"""Elementwise primitives for which ONNX has an operation, or that have no scalar expression."""

from __future__ import annotations

import numpy as np

from distgrad.export.converters import converter
from distgrad.export.graph import Edge, Graph

_SAME = {
    "logical_and": "And",
    "logical_or": "Or",
    "logical_xor": "Xor",
    "logical_not": "Not",
    "is_nan": "IsNaN",
    "is_inf": "IsInf",
    "maximum": "Max",
    "minimum": "Min",
    "reciprocal": "Reciprocal",
    "sigmoid": "Sigmoid",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "relu": "Relu",
    "bitwise_and": "BitwiseAnd",
    "bitwise_or": "BitwiseOr",
    "bitwise_xor": "BitwiseXor",
    "invert": "BitwiseNot",
}

for _name, _op in _SAME.items():

    @converter(_name)
    def _(to: Graph, *args: Edge, op: str = _op) -> Edge:
        return to.node(op, *args)


@converter("identity", "stop_gradient")
def _(to: Graph, x: Edge) -> Edge:
    return x


@converter("custom_call")
def _(to: Graph, *values: Edge, count: int, grad: object) -> tuple[Edge, ...]:
    return values[:count]  # a function with a gradient of its own, which is not asked for


@converter("cast_float", "cast_discrete")
def _(to: Graph, x: Edge, *, dtype: np.dtype) -> Edge:
    return x if dtype == x.dtype else cast(to, x, dtype)


def cast(to: Graph, x: Edge, dtype: object) -> Edge:
    """``x`` as another dtype."""
    return to.node("Cast", x, to=np.dtype(dtype), dtype=dtype)  # type: ignore[call-overload]


@converter("relu6")
def _(to: Graph, x: Edge) -> Edge:
    return to.node("Clip", x, to.number(0, x), to.number(6, x))


@converter("clip")
def _(to: Graph, x: Edge, low: Edge, high: Edge) -> Edge:
    return to.node("Max", to.node("Min", x, high), low)


@converter("leaky_rectifier")
def _(to: Graph, x: Edge, *, alpha: float) -> Edge:
    return to.node("LeakyRelu", x, alpha=alpha)


@converter("exponential_unit")
def _(to: Graph, x: Edge, *, alpha: float) -> Edge:
    return to.node("Elu", x, alpha=alpha)


@converter("sigmoid_unit")
def _(to: Graph, x: Edge) -> Edge:
    return to.node("Mul", x, to.node("Sigmoid", x))


@converter("select")
def _(to: Graph, condition: Edge, x: Edge, y: Edge) -> Edge:
    return to.node("Where", condition, x, y, dtype=x.dtype)


@converter("is_finite")
def _(to: Graph, x: Edge) -> Edge:
    # Infinite or not a number minus itself is not a number.
    zero = to.node("Sub", x, x)
    return to.node("Not", to.node("IsNaN", zero, dtype=bool))


@converter("integer_power")
def _(to: Graph, x: Edge, y: Edge) -> Edge:
    return to.node("Pow", x, y)


@converter("floordiv")
def _(to: Graph, x: Edge, y: Edge) -> Edge:
    if x.dtype.kind == "f":
        return to.node("Floor", to.node("Div", x, y))
    return to.node("Div", to.node("Sub", x, to.node("Mod", x, y)), y)


@converter("floormod")
def _(to: Graph, x: Edge, y: Edge) -> Edge:
    if x.dtype.kind == "f":
        whole = to.node("Floor", to.node("Div", x, y))
        return to.node("Sub", x, to.node("Mul", whole, y))
    return to.node("Mod", x, y)


@converter("truncatemod")
def _(to: Graph, x: Edge, y: Edge) -> Edge:
    return to.node("Mod", x, y, fmod=1)
