"""Installs Python's operators on Tensor and Variable: the core knows no primitive by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import FLOATS
from distgrad.core.errors import InvalidArgumentError, NoValueError
from distgrad.core.primitive import Primitive, bind_pair
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Operand, Tensor
from distgrad.ops import arithmetic, division, logic, powers, rounding
from distgrad.ops.indexing import index
from distgrad.ops.linalg import matmul

_REAL = frozenset((float, int))


def _binary(primitive: Primitive, otherwise: Callable | None = None) -> tuple[Callable, Callable]:
    """The operator and its reflection.

    Two plain tensors of one dtype, or a float tensor and a Python number, take the short way; the
    rest goes to ``otherwise``, which is the primitive itself by default.
    """
    kinds = primitive.kinds or "biufcV"
    general = otherwise or primitive

    def forward(self: Any, other: Any) -> Tensor:
        if type(self) is Tensor:
            dtype = self._data.dtype
            if type(other) is Tensor:
                if other._data.dtype is dtype and dtype.kind in kinds:
                    return bind_pair(primitive, self, other)
            elif dtype.kind in FLOATS and type(other) in _REAL:
                return bind_pair(primitive, self, float(other))
        try:
            return general(self, other)
        except NoValueError:  # a KerasTensor knows what to do beside a tensor
            return NotImplemented
        except InvalidArgumentError:
            if getattr(other, "promotes", False) and other.dtype != self.dtype:
                return NotImplemented  # so does a variable of Keras, beside one of another dtype
            raise

    def reflected(self: Any, other: Any) -> Tensor:
        if type(self) is Tensor and self._data.dtype.kind in FLOATS and type(other) in _REAL:
            return bind_pair(primitive, float(other), self)
        return general(other, self)

    return forward, reflected


def _is_bool(value: Any) -> bool:
    return value.dtype.is_bool if isinstance(value, Operand) else isinstance(value, bool)


def _product(x: Any, y: Any) -> Tensor | SparseTensor:
    try:
        return arithmetic.multiply(x, y)
    except TypeError:
        if not isinstance(y, SparseTensor):
            raise
        return y * x
    except InvalidArgumentError:
        if not all(_is_bool(v) for v in (x, y)):
            raise
        return logic.logical_and(x, y)  # two masks: what both of them hold


def _either(of_bools: Primitive, of_bits: Primitive) -> tuple[Callable, Callable]:
    """An operator that is logic on bool tensors, and works on the bits of integers."""

    def forward(self: Any, other: Any) -> Tensor:
        return (of_bools if self.dtype.is_bool else of_bits)(self, other)

    def reflected(self: Any, other: Any) -> Tensor:
        return (of_bools if self.dtype.is_bool else of_bits)(other, self)

    return forward, reflected


def _equality(primitive: Primitive, differ: bool) -> Callable[[Any, Any], Any]:
    def compare(self: Any, other: Any) -> Any:
        if other is None:
            return differ
        try:
            return primitive(self, other)
        except InvalidArgumentError:
            if np.shape(self) != np.shape(other):  # shapes that do not broadcast are just unequal
                return as_tensor(differ)
            raise

    return compare


def _matmul(self: Any, other: Any) -> Tensor:
    try:
        return matmul(self, other)
    except NoValueError:
        return NotImplemented


def install(cls: type) -> None:
    """Gives a class the operators."""

    def define(name: str, fn: Callable) -> None:
        fn.__name__ = name
        setattr(cls, name, fn)

    operators = {
        "add": _binary(arithmetic.add),
        "sub": _binary(arithmetic.subtract),
        "mul": _binary(arithmetic.multiply, _product),
        "truediv": _binary(division.divide_exact, division.divide),
        "pow": _binary(powers.power, powers.pow),
        "floordiv": _binary(rounding.floordiv),
        "mod": _binary(rounding.floormod),
        "and": _either(logic.logical_and, logic.bitwise_and),
        "or": _either(logic.logical_or, logic.bitwise_or),
        "xor": _either(logic.logical_xor, logic.bitwise_xor),
    }
    for name, (forward, reflected) in operators.items():
        define(f"__{name}__", forward)
        define(f"__r{name}__", reflected)
    define("__matmul__", _matmul)
    define("__rmatmul__", lambda self, other: matmul(other, self))
    define("__neg__", lambda self: arithmetic.negative(self))
    define("__pos__", lambda self: self)
    define("__abs__", lambda self: arithmetic.abs(self))
    define(
        "__invert__",
        lambda self: (logic.logical_not if self.dtype.is_bool else logic.invert)(self),
    )
    define("__getitem__", index)
    define("__lt__", lambda self, other: logic.less(self, other))
    define("__le__", lambda self, other: logic.less_equal(self, other))
    define("__gt__", lambda self, other: logic.greater(self, other))
    define("__ge__", lambda self, other: logic.greater_equal(self, other))
    define("__eq__", _equality(logic.equal, False))
    define("__ne__", _equality(logic.not_equal, True))


install(Operand)
