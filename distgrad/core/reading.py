"""Reading: what ``variable.value`` is, TensorFlow's method and Keras's property in one."""

from __future__ import annotations

from typing import Any

from distgrad.core.primitive import bind, registry
from distgrad.core.tensor import Operand, Tensor


class Reading(Operand):
    """``v.value()`` is the current value as a tensor; ``v.value`` stands for ``v`` wherever it is.

    Operations read it when they meet it, as they read the variable, whose attributes it has.
    """

    __slots__ = ("_variable",)

    def __init__(self, variable: Any) -> None:
        self._variable = variable

    def __call__(self) -> Tensor:
        # A tensor of its own: one taken outside a tape must not stand for a read inside it.
        return bind(registry["identity"], self._variable._read())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._variable, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return Reading, (self._variable,)


def _passed_on(name: str) -> Any:
    def method(self: Reading, *args: Any) -> Any:
        return getattr(self._variable, name)(*args)

    return method


for _name in (
    *("__array__", "__bool__", "__complex__", "__float__", "__format__", "__hash__", "__index__"),
    *("__int__", "__iter__", "__len__", "__repr__", "__str__"),
):
    setattr(Reading, _name, _passed_on(_name))
