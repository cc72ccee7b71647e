"""From the texts and dicts that users write to the objects they name, and back."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any


def snake_case(name: str) -> str:
    """``SparseCategoricalCrossentropy`` as ``sparse_categorical_crossentropy``."""
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def by_name(*objects: Any, **aliases: Any) -> dict[str, Any]:
    """Classes and functions under their names, classes in small letters too, and aliases."""
    known = {snake_case(each.__name__): each for each in objects}
    known.update(aliases)
    return {**{each.__name__: each for each in objects}, **known}


def lookup(kind: str, identifier: Any, known: Mapping[str, Callable[..., Any]]) -> Any:
    """The entry of ``known`` that a text names. Raises ValueError with the nearest names."""
    found = None
    if isinstance(identifier, str):
        found = known.get(identifier) or known.get(snake_case(identifier))
    if found is None:
        names = sorted({name for name in known if name == name.lower()} or known)
        near = difflib.get_close_matches(str(identifier), names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names)}"
        raise ValueError(f"unknown {kind} {identifier!r}: {hint}")
    return found


class Configured:
    """An object whose constructor's arguments are attributes of it.

    ``get_config`` reads them, ``from_config`` makes an equal object of them.
    """

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as plain values."""
        return {name: _plain(getattr(self, name)) for name in _arguments(type(self))}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """An object made with these arguments."""
        return cls(**config)


def _arguments(cls: type) -> list[str]:
    """The names that ``cls(...)`` takes, with those that ``**kwargs`` hands on to its bases."""
    names: list[str] = []
    for base in cls.__mro__[:-1]:
        init = vars(base).get("__init__")
        if init is None:
            continue
        parameters = list(inspect.signature(init).parameters.values())[1:]
        named = [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        names += [name for name in named if name not in names]
        if len(named) == len(parameters):
            break
    return names


def _plain(value: Any) -> Any:
    if isinstance(value, Configured):
        return serialize(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if inspect.isfunction(value):
        return value.__name__
    return value.tolist() if hasattr(value, "tolist") else value


def serialize(obj: Any) -> Any:
    """``{"class_name": ..., "config": ...}`` for an object, the name for a function."""
    if isinstance(obj, Configured):
        return {
            "module": ".".join(type(obj).__module__.split(".")[1:3]),
            "class_name": type(obj).__name__,
            "config": obj.get_config(),
            "registered_name": None,
        }
    return getattr(obj, "__name__", obj)


def deserialize(
    kind: str, config: Any, known: Mapping[str, Any], custom_objects: Mapping[str, Any] | None
) -> Any:
    """The object of what ``serialize`` gave. Raises ValueError for an unknown name."""
    known = {**known, **(custom_objects or {})}
    if not isinstance(config, Mapping):
        return lookup(kind, config, known)
    if "class_name" not in config:
        raise ValueError(f"a {kind} is a dict with class_name and config, not {config!r}")
    found = lookup(kind, config["class_name"], known)
    make = getattr(found, "from_config", None)  # a function has none
    return found if make is None else make(config.get("config", {}))
