"""Primitives as ONNX operations: one small block for each.

A converter takes the graph, an `Edge` for each array argument and the primitive's parameters by
name, adds nodes to the graph, and returns the edge (or edges) that they give::

    @converter("relu")
    def _(to, x):
        return to.node("Relu", x)

An elementwise primitive with a scalar expression needs none.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

from distgrad.core.primitive import Primitive
from distgrad.export import expressions
from distgrad.export.graph import Edge, Graph

Converter = Callable[..., Edge | Sequence[Edge]]

registry: dict[str, Converter] = {}


def converter(*names: str) -> Callable[[Converter], Converter]:
    """Registers what converts the primitives of these names; your own ones, too."""

    def register(fn: Converter) -> Converter:
        for name in names:
            registry[name] = fn
        return fn

    return register


def find(primitive: Primitive) -> Converter | None:
    """What converts a primitive; None where nothing does."""
    for module in ("elementwise", "shapes", "reductions", "products", "windows"):
        importlib.import_module(f"distgrad.export.converters.{module}")
    if primitive.name in registry:
        return registry[primitive.name]
    if primitive.expr is not None and expressions.known(primitive.expr):
        return functools.partial(_of_expression, primitive)
    return None


def _of_expression(primitive: Primitive, to: Graph, *args: Edge, **params: Any) -> Edge:
    assert primitive.expr is not None
    arrays = dict(zip(primitive.arg_names, args, strict=True))
    return expressions.write(to, primitive.expr, arrays, params)
