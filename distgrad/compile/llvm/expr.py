"""A primitive's scalar ``expr`` as LLVM operations."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from typing import Any

from distgrad.compile.llvm.ir import FLOATS, Emitter, Scalar
from distgrad.compile.llvm.math32 import Math32
from distgrad.compile.llvm.math64 import Math64


class Unsupported(Exception):
    """An expression, or a type, that has no such operations."""


_BINARY = {ast.Add: "fadd", ast.Sub: "fsub", ast.Mult: "fmul", ast.Div: "fdiv"}
_COMPARE = {
    ast.Gt: "ogt",
    ast.GtE: "oge",
    ast.Lt: "olt",
    ast.LtE: "ole",
    ast.Eq: "oeq",
    ast.NotEq: "une",
}
_COMPARE_WHOLE = {
    ast.Gt: "sgt",
    ast.GtE: "sge",
    ast.Lt: "slt",
    ast.LtE: "sle",
    ast.Eq: "eq",
    ast.NotEq: "ne",
}
_WHOLE = {"fadd": "add", "fsub": "sub", "fmul": "mul"}
_EXACT = {"abs": "fabs", "sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "rint": "rint"}
_FUNCTIONS = ("exp", "expm1", "log", "log1p", "tanh", "erf")


@functools.cache
def parse(expr: str) -> ast.expr:
    """The expression as Python's syntax tree."""
    return ast.parse(expr, mode="eval").body


class Expression:
    """Writes an expression over named scalars and numbers of one float type."""

    def __init__(self, emitter: Emitter, type_: str, names: dict[str, Any]) -> None:
        self._emitter = emitter
        self._type = type_
        self._names = names
        self._math = {"float": Math32(emitter), "double": Math64(emitter)}

    def write(self, expr: str) -> Scalar:
        result = self._visit(parse(expr))
        return result if isinstance(result, Scalar) else self._emitter.number(result, self._type)

    def _visit(self, node: ast.expr) -> Any:
        """A scalar, or a Python number."""
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self._names[node.id]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            operand = self._visit(node.operand)
            if not isinstance(operand, Scalar):
                return -operand
            if operand.type not in FLOATS:
                raise Unsupported("the negative of a whole number")
            return self._emitter.negative(operand)
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            return self._binary(_BINARY[type(node.op)], node.left, node.right)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            return self._power(self._visit(node.left), self._visit(node.right))
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitOr, ast.BitAnd)):
            op = "or" if isinstance(node.op, ast.BitOr) else "and"
            return self._emitter.binary(op, self._bool(node.left), self._bool(node.right))
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            a, b = self._pair(self._visit(node.left), self._visit(node.comparators[0]))
            if a.type in ("i1", "i8"):
                raise Unsupported("comparison of booleans")
            conditions = _COMPARE if a.type in FLOATS else _COMPARE_WHOLE
            return self._emitter.compare(conditions[type(node.ops[0])], a, b)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self._call(node.func.id, node.args)
        raise Unsupported(ast.dump(node))

    def _binary(self, op: str, left: ast.expr, right: ast.expr) -> Any:
        a, b = self._pair(self._visit(left), self._visit(right))
        if a.type in ("i1", "i8"):
            raise Unsupported("arithmetic on booleans")
        if a.type not in FLOATS:
            if op not in _WHOLE:
                raise Unsupported("division of whole numbers")
            op = _WHOLE[op]
        return self._emitter.binary(op, a, b)

    def _power(self, x: Any, exponent: Any) -> Scalar:
        """A small whole power, or a square root; others are left to NumPy."""
        e = self._emitter
        if not isinstance(x, Scalar) or x.type not in FLOATS or isinstance(exponent, Scalar):
            raise Unsupported("powers of numbers, and to tensors")
        if exponent == 0.5:
            return e.intrinsic("sqrt", x)
        if abs(exponent) not in (1, 2, 3, 4):
            raise Unsupported(f"power {exponent}")
        if exponent < 0:
            x = e.binary("fdiv", e.number(1.0, x.type), x)
        square = x if abs(exponent) == 1 else e.binary("fmul", x, x)
        if abs(exponent) == 4:
            return e.binary("fmul", square, square)
        return e.binary("fmul", square, x) if abs(exponent) == 3 else square

    def _pair(self, a: Any, b: Any) -> tuple[Scalar, Scalar]:
        for one, other in ((a, b), (b, a)):
            if isinstance(one, Scalar) and one.type not in FLOATS and isinstance(other, float):
                raise Unsupported("a fraction with whole numbers")
        if not isinstance(a, Scalar):
            a = self._emitter.number(a, b.type if isinstance(b, Scalar) else self._type)
        if not isinstance(b, Scalar):
            b = self._emitter.number(b, a.type)
        if a.type != b.type:
            raise Unsupported(f"{a.type} with {b.type}")
        return a, b

    def _bool(self, node: ast.expr) -> Scalar:
        value = self._visit(node)
        if not isinstance(value, Scalar) or value.type != "i1":
            raise Unsupported("a number as a condition")
        return value

    def _call(self, name: str, args: list[ast.expr]) -> Scalar:
        if name == "where":
            condition = self._bool(args[0])
            a, b = self._pair(*map(self._visit, args[1:]))
            return self._emitter.select(condition, a, b)
        if len(args) != 1:
            raise Unsupported(name)
        value = self._visit(args[0])
        x = value if isinstance(value, Scalar) else self._emitter.number(value, self._type)
        if name in _EXACT:
            return self._emitter.intrinsic(_EXACT[name], x)
        if name not in _FUNCTIONS or x.type not in FLOATS:
            raise Unsupported(f"{name} of {x.type}")
        function: Callable[[Scalar], Scalar] = getattr(self._math[x.type], name)
        return function(x)
