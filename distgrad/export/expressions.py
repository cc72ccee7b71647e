"""Scalar expressions of elementwise primitives as ONNX operations.

The same text that the fusers compile to kernels: ``where(x > 0, x, alpha * x)``.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from distgrad.export.graph import Edge, Graph

_OPERATORS: dict[type, str] = {
    ast.Add: "Add",
    ast.Sub: "Sub",
    ast.Mult: "Mul",
    ast.Div: "Div",
    ast.Pow: "Pow",
    ast.BitAnd: "And",
    ast.BitOr: "Or",
    ast.Lt: "Less",
    ast.LtE: "LessOrEqual",
    ast.Gt: "Greater",
    ast.GtE: "GreaterOrEqual",
    ast.Eq: "Equal",
}
_FUNCTIONS = {
    **{name: name.capitalize() for name in ("abs", "sign", "exp", "log", "sqrt", "floor", "ceil")},
    **{name: name.capitalize() for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "erf")},
    **{name: name.capitalize() for name in ("asin", "acos", "atan", "asinh", "acosh", "atanh")},
    "rint": "Round",
    # Those that are written in several operations, below.
    **dict.fromkeys(("where", "log1p", "expm1", "erfc"), ""),
}


def known(text: str) -> bool:
    """Whether ONNX has all functions of an expression."""
    calls = (node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    return all(isinstance(each, ast.Name) and each.id in _FUNCTIONS for each in calls)


def write(to: Graph, text: str, arrays: Mapping[str, Edge], params: Mapping[str, Any]) -> Edge:
    """What the expression is of these arrays and numbers."""
    return _Writer(to, arrays, params).edge(ast.parse(text, mode="eval").body)


class _Writer:
    def __init__(self, to: Graph, arrays: Mapping[str, Edge], params: Mapping[str, Any]) -> None:
        self._to, self._arrays, self._params = to, arrays, params
        given = list(arrays.values())
        self._like = next((edge for edge in given if edge.dtype != bool), given[0])

    def edge(self, node: ast.expr) -> Edge:
        match node:
            case ast.Name(id=name) if name in self._arrays:
                return self._arrays[name]
            case ast.Name(id=name):
                return self._to.number(self._params[name], self._like)
            case ast.Constant(value=value):
                return self._to.number(value, self._like)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._to.node("Neg", self.edge(operand))
            case ast.BinOp(left=left, op=op, right=right):
                return self._to.node(_OPERATORS[type(op)], self.edge(left), self.edge(right))
            case ast.Compare(left=left, ops=[ast.NotEq()], comparators=[right]):
                return self._to.node("Not", self._compared("Equal", left, right))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return self._compared(_OPERATORS[type(op)], left, right)
            case ast.Call(func=ast.Name(id=name), args=args):
                return self._call(name, [self.edge(arg) for arg in args])
        raise NotImplementedError(ast.unparse(node))

    def _compared(self, op: str, left: ast.expr, right: ast.expr) -> Edge:
        return self._to.node(op, self.edge(left), self.edge(right), dtype=bool)

    def _call(self, name: str, args: list[Edge]) -> Edge:
        to, one = self._to, self._to.number(1, self._like)
        match name:
            case "where":
                return to.node("Where", *args, dtype=args[1].dtype)
            case "log1p":
                return to.node("Log", to.node("Add", args[0], one))
            case "expm1":
                return to.node("Sub", to.node("Exp", args[0]), one)
            case "erfc":
                return to.node("Sub", one, to.node("Erf", args[0]))
        return to.node(_FUNCTIONS[name], *args)
