"""Operator: one of Python's operators as a layer, for what stands between KerasTensors."""

from __future__ import annotations

import operator as python
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.keras.layers.base import Layer
from distgrad.keras.registry import snake_case

# Under the names of Keras's operations, so that a model's config means the same to both.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Add": python.add,
    "Subtract": python.sub,
    "Multiply": python.mul,
    "TrueDivide": python.truediv,
    "FloorDivide": python.floordiv,
    "Mod": python.mod,
    "Power": python.pow,
    "Matmul": python.matmul,
    "Negative": python.neg,
    "Absolute": python.abs,
    "Less": python.lt,
    "LessEqual": python.le,
    "Greater": python.gt,
    "GreaterEqual": python.ge,
    "LogicalAnd": python.and_,
    "LogicalOr": python.or_,
    "LogicalNot": python.invert,
    "GetItem": python.getitem,
}


class Operator(Layer):
    """``operator(x, y)`` for the name of an operator; numbers and indices stay what they are."""

    casts_inputs = False
    is_operator = True

    def __init__(self, operator: str, name: str | None = None) -> None:
        super().__init__(name=name)
        self.operator = operator
        if name is None:
            self.name = snake_case(operator)
        self.built = True

    def call(self, x: Any, *others: Any) -> Any:
        return FUNCTIONS[self.operator](x, *others)

    def _convert(self, value: Any, named: bool = False) -> Any:
        return as_tensor(value) if isinstance(value, np.ndarray) else value
