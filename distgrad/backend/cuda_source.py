"""A primitive's scalar ``expr`` as CUDA C++: the operation of an elementwise kernel."""

from __future__ import annotations

import ast


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


def operation(expr: str, names: tuple[str, ...], type_: str = "T") -> str:
    """``result = ...;`` for an expression over scalars of one float type, ``type_``.

    Raises Unsupported for one that gives no number of that type, or uses what CUDA lacks.
    """
    return f"result = {expression(expr, names, type_)};"


def expression(expr: str, names: tuple[str, ...], type_: str = "T") -> str:
    """The expression in CUDA C++, every number in it of ``type_``."""
    tree = ast.parse(expr, mode="eval").body
    if isinstance(tree, ast.Compare):
        raise Unsupported(f"{expr} is true or false")
    return _written(tree, frozenset(names), type_)


def _written(node: ast.expr, names: frozenset[str], type_: str) -> str:
    def of(child: ast.expr) -> str:
        return _written(child, names, type_)

    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return f"{type_}({float(node.value)!r})"
    if isinstance(node, ast.Name) and node.id in names:
        return node.id
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
        if _FUNCTIONS.get(name, 1 if name == "fabs" else 0) == len(arguments):
            return f"{name}({', '.join(arguments)})"
    raise Unsupported(ast.unparse(node))
