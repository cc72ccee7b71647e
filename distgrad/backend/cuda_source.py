"""A primitive's scalar ``expr`` as CUDA C++: the operation of an elementwise kernel."""

from __future__ import annotations

import ast
import functools
import math
import threading
from collections.abc import Mapping


class Unsupported(Exception):
    """An expression that has no such operation."""


_BINARY = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.BitOr: "||",
    ast.BitAnd: "&&",
}
_COMPARE = {
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
# Functions of CUDA and their number of arguments; each has an overload for float and for double.
_FUNCTIONS = {
    **dict.fromkeys(("exp", "expm1", "log", "log1p", "sqrt", "erf", "erfc", "lgamma"), 1),
    **dict.fromkeys(("sin", "cos", "tan", "sinh", "cosh", "tanh"), 1),
    **dict.fromkeys(("asin", "acos", "atan", "asinh", "acosh", "atanh"), 1),
    **dict.fromkeys(("floor", "ceil", "rint"), 1),
    "atan2": 2,
}
_RENAMED = {"abs": "fabs"}
_parsing = threading.Lock()


def operation(expr: str, names: tuple[str, ...], type_: str = "T") -> str:
    """``result = ...;`` for an expression over scalars of one float type, ``type_``.

    Raises Unsupported for one that gives no number of that type, or uses what CUDA lacks.
    """
    return f"result = {expression(expr, names, type_)};"


def expression(expr: str, names: tuple[str, ...], type_: str = "T") -> str:
    """The expression in CUDA C++, every number in it of ``type_``."""
    if isinstance(_parsed(expr), ast.Compare):
        raise Unsupported(f"{expr} is true or false")
    return substituted(expr, {name: name for name in names}, type_)


def substituted(expr: str, words: Mapping[str, str], type_: str, whole: bool = False) -> str:
    """The expression with ``words`` in the places of its names; it may be true or false.

    ``whole`` says that ``type_`` is one of whole numbers, which CUDA's functions do not take.
    """
    return _written(_parsed(expr), words, type_, whole)


def number(value: float, type_: str) -> str:
    """A Python number as one of ``type_``."""
    if isinstance(value, bool):
        text = str(int(value))
    elif value != value or value in (math.inf, -math.inf):
        text = "0.0 / 0.0" if value != value else f"{'-' if value < 0 else ''}1.0 / 0.0"
    else:
        text = repr(value)
    return f"{type_}({text})" if type_.isidentifier() else f"(({type_})({text}))"


@functools.cache
def _parsed(expr: str) -> ast.expr:
    with _parsing:  # Python 3.11 loses count of its depth when threads do so at a time
        return ast.parse(expr, mode="eval").body


def _written(node: ast.expr, words: Mapping[str, str], type_: str, whole: bool) -> str:
    def of(child: ast.expr) -> str:
        return _written(child, words, type_, whole)

    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return number(float(node.value), type_)
    if isinstance(node, ast.Name) and node.id in words:
        return words[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return f"(-{of(node.operand)})"
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return f"({of(node.left)} {_BINARY[type(node.op)]} {of(node.right)})"
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        return f"({of(node.left)} {_COMPARE[type(node.ops[0])]} {of(node.comparators[0])})"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        name, arguments = node.func.id, [of(argument) for argument in node.args]
        if name == "where" and len(arguments) == 3:
            return "({} ? {} : {})".format(*arguments)
        name = _RENAMED.get(name, name)
        known = _FUNCTIONS.get(name, 1 if name == "fabs" else 0)
        if known == len(arguments) and not whole:
            return f"{name}({', '.join(arguments)})"
    raise Unsupported(ast.unparse(node))
