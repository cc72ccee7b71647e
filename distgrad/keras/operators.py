"""Python's operators as functions of ``keras.ops``: those of KerasTensors, and of variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distgrad.core.dtypes import is_floating
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.variable import Variable
from distgrad.keras import mixed_precision

TWO_SIDED = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "true_divide",
    "floordiv": "floor_divide",
    "mod": "mod",
    "pow": "power",
    "matmul": "matmul",
    "and": "logical_and",
    "or": "logical_or",
    "xor": "logical_xor",
}
COMPARISONS = {
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "ne": "not_equal",
}
ONE_SIDED = {
    "neg": "negative",
    "abs": "absolute",
    "invert": "logical_not",
    **COMPARISONS,
    "getitem": "get_item",
}


def operator(operation: str, reflected: bool = False) -> Callable[..., Any]:
    """The function of ``keras.ops`` of that name as a method."""

    def operate(self: Any, *others: Any, **options: Any) -> Any:
        from distgrad.keras import ops

        operands = (*others, self) if reflected else (self, *others)
        return getattr(ops, operation)(*operands, **options)

    return operate


def promote(cls: type) -> type:
    """Has the operators of a class of variables promote dtypes as Keras does.

    Between floats of one dtype, and beside Python's and NumPy's numbers, they stay as they are.
    """
    for name, operation in {**TWO_SIDED, **COMPARISONS, "eq": "equal"}.items():
        setattr(cls, f"__{name}__", _promoting(f"__{name}__", operation))
        if name in TWO_SIDED:
            setattr(cls, f"__r{name}__", _promoting(f"__r{name}__", operation, True))
    return cls


def _promoting(name: str, operation: str, reflected: bool = False) -> Callable[..., Any]:
    plain, general = getattr(Operand, name), operator(operation, reflected)

    def operate(self: Variable, other: Any) -> Any:
        return (plain if alike(self._buffer.dtype, other) else general)(self, other)

    operate.__name__ = name
    return operate


def alike(dtype: Any, other: Any) -> bool:
    """Whether a variable and what is beside it meet in the variable's dtype without a cast."""
    kind = type(other)
    if kind is Tensor:
        same = other._data.dtype == dtype
    elif isinstance(other, Variable):
        same = other._buffer.dtype == dtype
    else:
        return other is None or is_floating(dtype)
    return same and is_floating(dtype) and not mixed_precision.scopes
