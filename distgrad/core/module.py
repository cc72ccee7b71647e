"""Module: an object that knows the variables in its attributes."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

from distgrad.core import naming, tree
from distgrad.core.variable import Variable

_WORDS = re.compile(r"((?<=[a-z0-9])[A-Z]|(?!^)(?<!_)[A-Z](?=[a-z]))")


class Module:
    """Base class for objects that hold variables (``tf.Module``).

    Variables in attributes, in lists, tuples and dicts among them, in other modules and in layers
    are found, attributes in the order of their names, those of modules within after its own. The
    variables of Keras layers are found as well (TensorFlow does not look into those of Keras 3).
    Raises ValueError for a ``name`` that is not an identifier.
    """

    def __init__(self, name: str | None = None) -> None:
        if name is None:
            name = _WORDS.sub(r"_\1", type(self).__name__).lower()
        elif not name.isidentifier():
            raise ValueError(f"{name!r} is not a valid module name: use a Python identifier")
        self._name = name
        self._name_scope = naming.name_scope(f"{naming.prefix()}{name}/")

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, (Variable, Module, list, tuple, dict)) or hasattr(value, "variables"):
            for callback in self.__dict__.get("_when_built", ()):  # who has values for variables
                callback()

    @property
    def name(self) -> str:
        return self._name

    @property
    def name_scope(self) -> naming.name_scope:
        """A context in which names of new variables start with the module's.

        That begins with the scope in which the module was made.
        """
        return self._name_scope

    @classmethod
    def with_name_scope(cls, method: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator for a method that runs in the module's name scope."""

        @functools.wraps(method)
        def scoped(self: Module, *args: Any, **kwargs: Any) -> Any:
            with self.name_scope:
                return method(self, *args, **kwargs)

        return scoped

    @property
    def variables(self) -> tuple[Variable, ...]:
        """Every variable below, each once."""
        return tuple(_variables(self, "variables"))

    @property
    def trainable_variables(self) -> tuple[Variable, ...]:
        """Every trainable variable below, each once."""
        return tuple(_variables(self, "trainable_variables"))

    @property
    def non_trainable_variables(self) -> tuple[Variable, ...]:
        """Every variable below that is not trainable, each once."""
        trainable = {id(v) for v in self.trainable_variables}
        return tuple(v for v in self.variables if id(v) not in trainable)

    @property
    def submodules(self) -> tuple[Module, ...]:
        """Every module below, each once."""
        return tuple(item for item in _walk(self, set()) if isinstance(item, Module))


def _variables(module: Module, which: str) -> Iterator[Variable]:
    seen: set[int] = set()
    for item in _walk(module, set()):
        if isinstance(item, Module):
            continue
        if isinstance(item, Variable):
            found = [item] if which == "variables" or item.trainable else []
        else:
            found = getattr(item, which)
        for variable in found:
            if id(variable) not in seen:
                seen.add(id(variable))
                yield variable


def _walk(module: Module, seen: set[int]) -> Iterator[Any]:
    """Variables, modules and layers below, in the order of their attributes' names.

    A module's own come first, then those of the modules and layers in it, one after the other.
    """
    seen.add(id(module))
    below: list[Any] = []
    for name in sorted(vars(module)):
        for item in tree.flatten(vars(module)[name]):
            if id(item) in seen:
                continue
            seen.add(id(item))
            if isinstance(item, (Module, Variable)):
                yield item
            # (Of a module no property is asked, which would walk it.)
            if isinstance(item, Module) or (
                not isinstance(item, Variable) and hasattr(item, "trainable_variables")
            ):
                below.append(item)
    for item in below:
        if isinstance(item, Module):
            yield from _walk(item, seen)
        else:
            yield item
