"""Names of a module that are loaded at their first use, and those that are not there."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn


def absent(module: str) -> Callable[[str], NoReturn]:
    """``__getattr__`` of a module that has no further names: its error says what to use instead."""

    def get(name: str) -> NoReturn:
        from distgrad.absent import message  # at the first name that is not there

        raise AttributeError(message(f"{module}.{name}".removeprefix("distgrad.")))

    return get


def later(
    package: str, names: Iterable[str], homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package that has these ``names`` (its ``globals()``).

    ``homes`` has the module of each other name, ".module" within the package: one that is called
    like the name is meant itself.
    """

    get_nothing = absent(package)

    def get(name: str) -> Any:
        if name not in homes:
            get_nothing(name)
        home = importlib.import_module(homes[name], package)
        return home if home.__name__.rpartition(".")[2] == name else getattr(home, name)

    return get, lambda: sorted({*names, *homes})
