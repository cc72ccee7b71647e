"""The variables of objects (modules, layers, optimizers, nests of them) by their paths.

Layers and optimizers make variables late, and modules may: `when_built` is for those who have
values for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self, SupportsIndex

from distgrad.core.module import Module
from distgrad.core.place import Place
from distgrad.core.variable import Variable


def variables(root: Any) -> dict[str, Variable | Place]:
    """Every variable below ``root`` under each of its paths: names of attributes and keys.

    Layers that a functional or sequential model is made of have their own names, and the state of
    an optimizer its name and numbers.
    """
    found: dict[str, Variable | Place] = {}
    _collect(root, "", found, ())
    return found


def unbuilt(root: Any) -> list[Any]:
    """What below ``root`` may make further variables, each once: layers and optimizers before they
    are built, modules and checkpoints at any time."""
    found: dict[int, Any] = {}
    _seek(root, found, set())
    return list(found.values())


def is_tracked(value: Any) -> bool:
    """Whether ``value`` is something that can hold variables, or a nest with such things in it."""
    if isinstance(value, Mapping):
        return any(map(is_tracked, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(is_tracked, value))
    return isinstance(value, (Variable, Place, Module)) or any(
        hasattr(type(value), name) for name in ("scalars", "checkpointed", "_tracked_weights")
    )


def when_built(item: Any, callback: Callable[[], None]) -> None:
    """Calls ``callback`` once a layer or optimizer has made its variables, and whenever an
    attribute of a module or checkpoint is set."""
    item.__dict__.setdefault("_when_built", []).append(callback)


def built(item: Any) -> None:
    """Tells those who wait for the variables of ``item`` that they are there."""
    for callback in item.__dict__.pop("_when_built", ()):
        callback()


def telling(value: Any, tell: Callable[[], None]) -> Any:
    """A list or dict as one that calls ``tell`` when something is put into it; else the value."""
    if type(value) not in (list, dict):
        return value
    made = _List(value) if isinstance(value, list) else _Dict(value)
    made._tell = tell
    return made


class _List(list):
    _tell: Callable[[], None]

    def append(self, item: Any) -> None:
        self.insert(len(self), item)

    def insert(self, index: SupportsIndex, item: Any) -> None:
        super().insert(index, item)
        self._tell()

    def extend(self, items: Iterable[Any]) -> None:
        super().extend(items)
        self._tell()

    def __iadd__(self, items: Iterable[Any]) -> Self:  # type: ignore[misc]
        self.extend(items)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)  # a copy belongs to nothing


class _Dict(dict):
    _tell: Callable[[], None]

    def __setitem__(self, key: Any, item: Any) -> None:
        super().__setitem__(key, item)
        self._tell()

    def update(self, *args: Any, **kwargs: Any) -> None:
        super().update(*args, **kwargs)
        self._tell()

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def _collect(
    item: Any, path: str, found: dict[str, Variable | Place], above: tuple[int, ...]
) -> None:
    if isinstance(item, (Variable, Place)):
        found[path] = item
    elif id(item) not in above:  # objects may know those that hold them
        for name, child in children(item):
            _collect(child, "/".join(filter(None, (path, name))), found, (*above, id(item)))


def children(item: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(item, "_tracked_weights"):  # a layer or model
        yield from _of_layer(item)
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


def _of_layer(layer: Any) -> Iterator[tuple[str, Any]]:
    taken: dict[str, int] = {}

    def numbered(name: str, first: str, form: str) -> str:
        number = taken[name] = taken.get(name, -1) + 1
        return form.format(name, number) if number else first.format(name)

    for weight in layer._tracked_weights():
        yield numbered(weight._name, "{}", "{}_{}"), weight
    for attribute, child in layer._layers_directly_below():
        if attribute.startswith("_"):  # where models keep those they are made of
            yield numbered(child.name, "{}", "{}_{}"), child
        elif vars(layer)[attribute] is child:
            yield attribute, child
        else:  # in a list or dict
            yield numbered(attribute, "{}/0", "{}/{}"), child
    if getattr(layer, "optimizer", None) is not None:
        yield "optimizer", layer.optimizer


def _seek(item: Any, found: dict[int, Any], seen: set[int]) -> None:
    if isinstance(item, (Variable, Place)) or id(item) in seen:
        return
    seen.add(id(item))
    maker = getattr(item, "inner_optimizer", item)
    if isinstance(item, Module) or hasattr(item, "checkpointed") or not getattr(maker, "built", 1):
        found[id(maker)] = maker
    for _, child in children(item):
        _seek(child, found, seen)
