"""Installs Python's operators on Tensor and Variable: the core knows no primitive by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import Primitive, bind
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.variable import Variable
from distgrad.ops import elementwise as ew
from distgrad.ops.indexing import index
from distgrad.ops.linalg import matmul


def _binary(primitive: Primitive) -> tuple[Callable, Callable]:
    """The operator and its reflection; two plain tensors, or a float, take the short way."""
    kinds = primitive.kinds or "biufc"

    def forward(self: Any, other: Any) -> Tensor:
        if type(self) is Tensor:
            dtype = self._data.dtype
            if dtype.kind in kinds and (
                (type(other) is Tensor and other._data.dtype is dtype)
                or (type(other) is float and dtype.kind == "f")
            ):
                return bind(primitive, self, other)
        return primitive(self, other)

    def reflected(self: Any, other: Any) -> Tensor:
        return primitive(other, self)

    return forward, reflected


def divide(x: Any, y: Any, name: str | None = None) -> Tensor:
    """Elementwise quotient; integers of one dtype give float64, as in TensorFlow."""
    x, y = _integers_as_float64(x, y)
    return ew.divide_exact(x, y)


def _integers_as_float64(x: Any, y: Any) -> tuple[Any, Any]:
    tensors = [t for t in (x, y) if isinstance(t, (Tensor, Variable))]
    if not tensors:
        if all(type(v) in (int, bool) for v in (x, y)):
            return float(x), float(y)
        return x, y
    if all(t.dtype.is_integer for t in tensors):
        if len(tensors) == 2 and x.dtype != y.dtype:
            raise InvalidArgumentError(
                f"divide: tensors of {x.dtype.name} and {y.dtype.name} do not mix; use cast"
            )
        for v in (x, y):
            if type(v) is float or getattr(getattr(v, "dtype", None), "kind", "") == "f":
                raise TypeError(f"an integer tensor cannot be divided by {v!r}; use cast")
        wide = np.float64 if tensors[0].dtype.size >= 4 else np.float32
        return tuple(ew.cast(v, wide) for v in (x, y))  # type: ignore[return-value]
    return x, y


def _equality(primitive: Primitive, differ: bool) -> Callable[[Any, Any], Any]:
    def compare(self: Any, other: Any) -> Any:
        if other is None:
            return differ
        try:
            return primitive(self, other)
        except InvalidArgumentError:
            if np.shape(self) != np.shape(other):  # shapes that do not broadcast are just unequal
                return differ
            raise

    return compare


def install(cls: type) -> None:
    """Gives a class the operators."""

    def define(name: str, fn: Callable) -> None:
        fn.__name__ = name
        setattr(cls, name, fn)

    for name, primitive in {
        "add": ew.add,
        "sub": ew.subtract,
        "mul": ew.multiply,
        "pow": ew.power,
    }.items():
        forward, reflected = _binary(primitive)
        define(f"__{name}__", forward)
        define(f"__r{name}__", reflected)
    quick, _ = _binary(ew.divide_exact)
    define(
        "__truediv__",
        lambda self, other: (
            quick(self, other)
            if type(self) is Tensor and self._data.dtype.kind == "f"
            else divide(self, other)
        ),
    )
    define("__rtruediv__", lambda self, other: divide(other, self))
    define("__matmul__", lambda self, other: matmul(self, other))
    define("__rmatmul__", lambda self, other: matmul(other, self))
    define("__neg__", lambda self: ew.negative(self))
    define("__pos__", lambda self: self)
    define("__abs__", lambda self: ew.abs(self))
    define("__getitem__", index)
    define("__lt__", lambda self, other: ew.less(self, other))
    define("__le__", lambda self, other: ew.less_equal(self, other))
    define("__gt__", lambda self, other: ew.greater(self, other))
    define("__ge__", lambda self, other: ew.greater_equal(self, other))
    define("__eq__", _equality(ew.equal, False))
    define("__ne__", _equality(ew.not_equal, True))


install(Operand)
