"""The variables of objects (modules, layers, optimizers, nests of them) by their paths.

Layers and optimizers make variables late: `when_built` is for those who have values for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from distgrad.core.module import Module
from distgrad.core.variable import Variable


def variables(root: Any) -> dict[str, Variable]:
    """Every variable below ``root`` under each of its paths: names of attributes and keys.

    Weights of a layer or model have the paths that they have within it, and those of an optimizer
    the names of its state and numbers.
    """
    found: dict[str, Variable] = {}
    _collect(root, "", found, ())
    return found


def unbuilt(root: Any) -> list[Any]:
    """The layers and optimizers below ``root`` that have yet to make variables, each once."""
    found: dict[int, Any] = {}
    _seek(root, found, set())
    return list(found.values())


def is_tracked(value: Any) -> bool:
    """Whether ``value`` is something that can hold variables, or a nest with such things in it."""
    if isinstance(value, Mapping):
        return any(map(is_tracked, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(is_tracked, value))
    return isinstance(value, (Variable, Module)) or any(
        hasattr(type(value), name) for name in ("_paths", "scalars", "checkpointed", "add_weight")
    )


def when_built(item: Any, callback: Callable[[], None]) -> None:
    """Calls ``callback`` once a layer or optimizer has made its variables."""
    item.__dict__.setdefault("_when_built", []).append(callback)


def built(item: Any) -> None:
    """Tells those who wait for the variables of ``item`` that they are there."""
    for callback in item.__dict__.pop("_when_built", ()):
        callback()


def _collect(item: Any, path: str, found: dict[str, Variable], above: tuple[int, ...]) -> None:
    if isinstance(item, Variable):
        found[path] = item
    elif id(item) not in above:  # objects may know those that hold them
        for name, child in _children(item):
            _collect(child, "/".join(filter(None, (path, name))), found, (*above, id(item)))


def _children(item: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(item, "_paths"):  # a layer or model
        for path, variable, _ in item._paths():
            yield path, variable
        if getattr(item, "optimizer", None) is not None:
            yield "optimizer", item.optimizer
    elif hasattr(item, "scalars"):  # an optimizer
        yield from item.scalars.items()
        yield from item.slots.items()
    elif hasattr(item, "checkpointed"):
        yield from item.checkpointed()
    elif isinstance(item, (list, tuple)):
        yield from ((str(i), child) for i, child in enumerate(item) if is_tracked(child))
    else:
        named = item if isinstance(item, Mapping) else vars(item)
        yield from ((str(name), child) for name, child in named.items() if is_tracked(child))


def _seek(item: Any, found: dict[int, Any], seen: set[int]) -> None:
    if isinstance(item, Variable) or id(item) in seen:
        return
    seen.add(id(item))
    layers = list(item._below()) if hasattr(item, "_below") else []
    for each in (*layers, getattr(item, "inner_optimizer", item)):
        if hasattr(each, "built") and not each.built:
            found[id(each)] = each
    for _, child in _children(item):
        _seek(child, found, seen)
