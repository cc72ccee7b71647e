"""From the texts and dicts that users write to the objects they name, and back."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Container, Mapping
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import DType
from distgrad.core.tensor import Tensor


def snake_case(name: str) -> str:
    """``SparseCategoricalCrossentropy`` as ``sparse_categorical_crossentropy``."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def by_name(*objects: Any, **aliases: Any) -> dict[str, Any]:
    """Classes and functions under their names, classes in small letters too, and aliases."""
    known = {snake_case(each.__name__): each for each in objects}
    known.update(aliases)
    return {**{each.__name__: each for each in objects}, **known}


def lookup(kind: str, identifier: Any, known: Mapping[str, Callable[..., Any]]) -> Any:
    """The entry of ``known`` that a text names. Raises ValueError with the nearest names."""
    found = None
    if isinstance(identifier, Mapping) and identifier.get("class_name") == "function":
        found = custom_objects(known).get(str(identifier.get("registered_name")))
        identifier = identifier["config"]
    if isinstance(identifier, str) and found is None:
        found = known.get(identifier) or known.get(snake_case(identifier))
        found = found or custom_objects().get(identifier)
    if found is None:
        import difflib  # for this alone

        names = sorted({name for name in known if name == name.lower()} or known)
        near = difflib.get_close_matches(str(identifier), names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names)}"
        raise ValueError(f"unknown {kind} {identifier!r}: {hint}")
    return found


def find(kind: str, identifier: Any, known: Mapping[str, Callable[..., Any]]) -> Any:
    """The object for None, a name, a config, a class or an object. Raises ValueError otherwise."""
    if identifier is None or (callable(identifier) and not isinstance(identifier, type)):
        return identifier
    if isinstance(identifier, Mapping):
        return deserialize(kind, identifier, known, None)
    return identifier() if isinstance(identifier, type) else named(kind, identifier, known)


def named(kind: str, identifier: Any, known: Mapping[str, Callable[..., Any]]) -> Any:
    """What a text names: an object of a class, or a function of a user. Raises ValueError."""
    found = lookup(kind, identifier, known)
    return found() if isinstance(found, type) or is_ours(found) else found


class Configured:
    """An object whose constructor's arguments are attributes of it.

    ``get_config`` reads them, ``from_config`` makes an equal object of them.
    """

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as plain values."""
        return {name: plain(getattr(self, name)) for name in arguments(described(type(self)))}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """An object made with these arguments."""
        return cls(**settings(cls, config))


def described(cls: type) -> type:
    """The class whose arguments ``get_config`` gives: ``cls``, unless it has one of a user.

    That asks for the arguments of our class above it, ``super().get_config()``, and adds its own.
    """
    if is_ours(next(base for base in cls.__mro__ if "get_config" in vars(base))):
        return cls
    return next(base for base in cls.__mro__ if is_ours(base))


def not_begun(what: Any) -> RuntimeError:
    """The error of an object whose class has an ``__init__`` that leaves out that of its base."""
    return RuntimeError(
        f"{type(what).__name__}.__init__ does not call super().__init__(): begin with it"
    )


def is_ours(what: Any) -> bool:
    """Whether a class or function is written here, not by a user."""
    return (what.__module__ or "").partition(".")[0] == __name__.partition(".")[0]


def arguments(cls: type) -> list[str]:
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


def settings(cls: type, config: Mapping[str, Any]) -> dict[str, Any]:
    """What ``cls`` takes of a config: Keras writes options that are off here, having no others."""
    known = arguments(cls)
    off = (None, False)
    return {name: value for name, value in config.items() if name in known or value not in off}


def _has_config(value: Any) -> bool:
    """Whether an object, ours or of a user's class, says what it was made with."""
    return isinstance(value, Configured) or (
        hasattr(value, "get_config") and not inspect.isclass(value)
    )


def plain(value: Any) -> Any:
    """A setting as JSON can hold it: objects and tensors as dicts, functions as their names."""
    if _has_config(value):
        return serialize(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if callable(value) and hasattr(value, "__name__"):
        return registered_name(value) or value.__name__
    if isinstance(value, Tensor):
        return of_values("__tensor__", value.numpy())
    return value.tolist() if hasattr(value, "tolist") else value


def entry(value: Any) -> Any:
    """What a user's config holds, as Keras has it in JSON: functions as dicts with their names."""
    if isinstance(value, (list, tuple)):
        return [entry(item) for item in value]
    if isinstance(value, Mapping):
        return {key: entry(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return {"class_name": "__bytes__", "config": {"value": value.decode()}}
    if isinstance(value, slice):
        ends = {"start": value.start, "stop": value.stop, "step": value.step}
        return {"class_name": "__slice__", "config": entry(ends)}
    if value is Ellipsis:
        return {"class_name": "__ellipsis__", "config": {}}
    if inspect.isfunction(value) or inspect.isclass(value):
        name = value.__name__
        known = {"config": name, "registered_name": registered_name(value) or name}
        return {"module": "builtins", "class_name": "function", **known}
    if isinstance(value, DType):
        return value.name
    array = value.numpy() if hasattr(value, "numpy") else value
    if getattr(array, "ndim", 0) or array is not value:
        return of_values("__numpy__" if array is value else "__tensor__", array)
    return plain(value)


def of_values(kind: str, array: Any) -> dict[str, Any]:
    """An array as a dict; ``kind`` is "__numpy__" or "__tensor__"."""
    return {
        "class_name": kind,
        "config": {"value": array.tolist(), "dtype": array.dtype.name},
    }


# What ``entry`` has as dicts without an object behind them, from their configs.
VALUES: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "__bytes__": lambda config: config["value"].encode(),
    "__ellipsis__": lambda config: Ellipsis,
    "__numpy__": lambda config: np.array(config["value"], config["dtype"]),
    "__slice__": lambda config: slice(config["start"], config["stop"], config["step"]),
    "__tensor__": lambda config: as_tensor(np.array(config["value"], config["dtype"])),
}


def revived(value: Any) -> Any:
    """What ``entry`` has as such a dict; anything else as it is."""
    kind = value.get("class_name") if isinstance(value, Mapping) else None
    return VALUES[kind](value["config"]) if kind in VALUES else value


# Classes and functions of users, by the names under which a config holds them.

_global_objects: dict[str, Any] = {}
_scopes: list[dict[str, Any]] = []


def register_keras_serializable(
    package: str = "Custom", name: str | None = None
) -> Callable[[Any], Any]:
    """Decorator: configs can name this class or function, as ``package>name``.

    Raises ValueError for a class without ``get_config``.
    """

    def register(obj: Any) -> Any:
        if inspect.isclass(obj) and not hasattr(obj, "get_config"):
            raise ValueError(f"{obj.__name__} has no get_config, so that no config can hold it")
        _global_objects[f"{package}>{name or obj.__name__}"] = obj
        return obj

    return register


def registered_name(obj: Any) -> str | None:
    """The name under which a class or function was registered; None where it was not."""
    inner = getattr(obj, "__wrapped__", obj)
    return next((n for n, known in _global_objects.items() if known is obj or known is inner), None)


def get_registered_name(obj: Any) -> str:
    """The name under which a class or function was registered; its own where it was not."""
    return registered_name(obj) or obj.__name__


def get_registered_object(
    name: str,
    custom_objects: Mapping[str, Any] | None = None,
    module_objects: Mapping[str, Any] | None = None,
) -> Any:
    """The class or function of that name: in scope, registered, or in one of the dicts; or None."""
    known = {**(module_objects or {}), **(custom_objects or {}), **_global_objects}
    for scope in _scopes:
        known.update(scope)
    return known.get(name)


def get_custom_objects() -> dict[str, Any]:
    """The registered classes and functions: a dict that may be changed."""
    return _global_objects


class custom_object_scope:
    """Context in which configs may name these classes and functions; None: no more than before."""

    def __init__(self, custom_objects: Mapping[str, Any] | None) -> None:
        self._objects = dict(custom_objects or {})

    def __enter__(self) -> custom_object_scope:
        _scopes.append(self._objects)
        return self

    def __exit__(self, *exc: object) -> None:
        _scopes.remove(self._objects)


CustomObjectScope = custom_object_scope


def custom_objects(known: Container[str] = ()) -> dict[str, Any]:
    """What users have put in scope or registered: by full names, and short ones not in ``known``.

    So a class of a user that has the name of one of ours does not take its place.
    """
    short = {name.rpartition(">")[2]: obj for name, obj in _global_objects.items()}
    found = {name: obj for name, obj in short.items() if name not in known}
    found.update(_global_objects)
    for scope in _scopes:
        found.update(scope)
    return found


def serialize(obj: Any) -> Any:
    """``{"class_name": ..., "config": ...}`` for an object, the name for a function."""
    if not _has_config(obj):
        return registered_name(obj) or getattr(obj, "__name__", obj)
    cls = type(obj)
    ours = cls.__module__.startswith("distgrad.keras.")
    config = obj.get_config()
    if ours:
        module = getattr(cls, "_keras_module", ".".join(cls.__module__.split(".")[1:3]))
    else:  # None for a script, which nobody can import: as in Keras
        module = None if cls.__module__ == "__main__" else cls.__module__
    return {
        "module": module,
        "class_name": vars(cls).get("_keras_name", cls.__name__),
        "config": config if ours else entry(config),
        "registered_name": None if ours else get_registered_name(cls),
        **getattr(obj, "more_in_entry", dict)(),
    }


def deserialize(
    kind: str, config: Any, known: Mapping[str, Any], given: Mapping[str, Any] | None
) -> Any:
    """The object of what ``serialize`` gave. Raises ValueError for an unknown name."""
    known = {**known, **custom_objects(known), **(given or {})}
    if not isinstance(config, Mapping):
        return lookup(kind, config, known)
    if config.get("class_name") == "function":
        return lookup(kind, config, known)
    if "class_name" not in config:
        raise ValueError(f"a {kind} is a dict with class_name and config, not {config!r}")
    registered = config.get("registered_name")
    found = known.get(registered) if registered else None
    if found is None:
        found = lookup(kind, config["class_name"], known)
    make = getattr(found, "from_config", None)  # a function has none
    if make is None and inspect.isclass(found):
        raise TypeError(f"{found.__name__} has no from_config to make a {kind} of {config!r}")
    if make is None:
        return found
    made = make(config.get("config", {}))
    if hasattr(made, "read_entry"):
        made.read_entry(config)
    return made
