"""Reading: what ``variable.value`` is, TensorFlow's method and Keras's property in one."""

from __future__ import annotations

from collections.abc import Callable
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


def variable_of(item: Any) -> Any:
    """The variable that a reading stands for; anything else as it is."""
    return item._variable if type(item) is Reading else item


def pass_on(cls: type, to: Callable[[Any], Any], *names: str) -> None:
    """Has a class answer as ``to(self)`` to what Python asks of a value, and to ``names``."""

    def passed_on(name: str) -> Any:
        return lambda self, *args: getattr(to(self), name)(*args)

    for name in (
        *("__array__", "__bool__", "__complex__", "__float__", "__format__", "__index__"),
        *("__int__", "__iter__", "__len__", *names),
    ):
        setattr(cls, name, passed_on(name))


pass_on(Reading, lambda self: self._variable, "__hash__", "__repr__", "__str__")
