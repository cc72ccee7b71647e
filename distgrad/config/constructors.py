"""Layers, losses, metrics and optimizers as a job may write them, read from their constructors.

The classes of ``distgrad.keras`` are the only list of names, and their signatures the only list of
keys. They are imported on first use, so that the other sections of a job need none of them. Some
keywords take a ``{type: Name, **keywords}`` in their turn: a schedule, an initializer, ...
"""

from __future__ import annotations

import importlib
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Union

from pydantic import ConfigDict, TypeAdapter, ValidationError

from distgrad.config.errors import did_you_mean, listing, show

Kind = Literal[
    "layer",
    "loss",
    "metric",
    "optimizer",
    "schedule",
    "initializer",
    "regularizer",
    "constraint",
]
INNER: tuple[Kind, ...] = ("schedule", "initializer", "regularizer", "constraint")

_MISSING = inspect.Parameter.empty


@dataclass(frozen=True)
class Key:
    """One keyword of a constructor; ``own`` unless a base class takes it through ``**kwargs``."""

    name: str
    annotation: Any
    default: Any
    own: bool

    @property
    def required(self) -> bool:
        return self.default is _MISSING


def _specs() -> Any:
    return importlib.import_module("distgrad.keras.specs")


def classes(kind: Kind) -> dict[str, type]:
    """The public classes of a kind by name; the base class (``Layer``, ...) is not one to use."""
    return _specs().classes(kind)


@lru_cache
def keys(cls: type) -> dict[str, Key]:
    """The keywords that ``cls(...)`` takes, its own first, then what ``**kwargs`` passes on."""
    found: dict[str, Key] = {}
    outermost = True
    for base in cls.__mro__[:-1]:
        init = vars(base).get("__init__")
        if init is None:
            continue
        parameters = list(inspect.signature(init).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            # What a base class needs, the class itself hands over.
            if outermost or parameter.default is not _MISSING:
                annotation = _plain(_evaluated(parameter.annotation, init))
                key = Key(parameter.name, annotation, parameter.default, outermost)
                found.setdefault(parameter.name, key)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
        outermost = False
    return found


def key_names(kind: Kind, name: str) -> list[str]:
    """The keywords of the class ``name``; none if there is no such class."""
    cls = classes(kind).get(name)
    return list(keys(cls)) if cls else []


def check(kind: Kind, spec: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What is wrong with ``{type: Name, **keywords}``, as (path within it, message) pairs.

    Keys and types are compared with the signature; if they fit, the object is made, and what its
    constructor raises is reported at the key that it names, or at the whole.
    """
    name = spec.get("type")
    if not isinstance(name, str):
        return  # it is asked for elsewhere
    cls = classes(kind).get(name)
    if cls is None:
        yield ("type",), _unknown(kind, name, classes(kind))
        return
    known = keys(cls)
    given = {key: value for key, value in spec.items() if key != "type"}
    wrong = False
    for word, value in given.items():
        for path, message in _check_key(cls, known, word, value):
            wrong = True
            yield (word, *path), message
    for key in known.values():
        if key.required and key.name not in given:
            wrong = True
            yield (key.name,), f"required key is missing; {name} has no default for it"
    if wrong:
        return
    try:
        _specs().make(kind, spec)
    except (ValueError, TypeError) as error:
        message = " ".join(str(error).split())
        blamed = [word for word, value in given.items() if _is_blamed(word, value, message)]
        yield (blamed[0],) if len(blamed) == 1 else (), f"{name}: {message}"


def _is_blamed(key: str, value: Any, message: str) -> bool:
    """Whether a constructor's message names the key, or quotes its text."""
    if re.search(rf"\b{re.escape(key)}\b", message):
        return True
    return isinstance(value, str) and repr(value) in message


def _check_key(
    cls: type, known: Mapping[str, Key], key: str, value: Any
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if key not in known:
        hint = did_you_mean(key, known) or f"; {cls.__name__} takes {listing(known)}"
        yield (), f"unknown key{hint}"
        return
    inner = _specs().kind_of(key)
    if inner and isinstance(value, Mapping):
        if not isinstance(value.get("type"), str):
            yield ("type",), f"required key is missing; there are {listing(classes(inner))}"
        yield from check(inner, value)
        return
    if inner == "layer" and isinstance(value, list):
        for index, item in enumerate(value):
            for path, message in _check_key(cls, known, key, item):
                yield (index, *path), message
        return
    if isinstance(value, float) and not math.isfinite(value):
        yield (), f"must be a finite number, got {show(value)}"
        return
    annotation = known[key].annotation
    if annotation is Any or (value is None and known[key].default is None):
        return
    try:
        _adapter(annotation).validate_python(value)
    except ValidationError:
        yield (), f"must be {_words(annotation)}, got {show(value)}"


def check_name(kind: Kind, name: str) -> str | None:
    """What is wrong with the name of a loss or a metric, or None."""
    return None if _is_known(kind, name) else _unknown(kind, name, names(kind))


@lru_cache
def names(kind: Kind) -> list[str]:
    """The names by which a job may call a loss or a metric: ``mean_squared_error``, ``mse``, ...

    They are those of the classes in small letters, and of their last words and initials the ones
    that the module knows too.
    """
    words = [_snake_case(name).split("_") for name in classes(kind)]
    long = {"_".join(each) for each in words}
    short = {each[-1] for each in words} | {"".join(word[0] for word in each) for each in words}
    return sorted(name for name in long | short if _is_known(kind, name))


def _is_known(kind: Kind, name: str) -> bool:
    try:
        _specs().module_of(kind).get(name)
    except (ValueError, TypeError):
        return False
    return True


def resolve(kind: Kind, spec: Mapping[str, Any]) -> dict[str, Any]:
    """``spec`` with the constructor's plain defaults filled in; None, that is "not set", is not."""
    cls = classes(kind)[spec["type"]]
    out = {"type": spec["type"]}
    for key in keys(cls).values():
        if key.name in spec:
            out[key.name] = _resolved(key.name, spec[key.name])
        elif key.own and isinstance(key.default, bool | int | float | str):
            out[key.name] = key.default
        elif key.own and isinstance(key.default, tuple | list):
            out[key.name] = list(key.default)
    return out


def _resolved(key: str, value: Any) -> Any:
    inner = _specs().kind_of(key)
    return _specs().each_spec(lambda spec: resolve(inner, spec), value) if inner else value


def schema(kind: Kind) -> dict[str, Any]:
    """The JSON Schema of ``{type: Name, **keywords}``: one alternative per class."""
    return {"anyOf": [_class_schema(name, cls) for name, cls in sorted(classes(kind).items())]}


def _class_schema(name: str, cls: type) -> dict[str, Any]:
    properties: dict[str, Any] = {"type": {"const": name}}
    for key in keys(cls).values():
        properties[key.name] = _json_schema(key)
    required = [key.name for key in keys(cls).values() if key.required]
    return {
        "title": name,
        "type": "object",
        "properties": properties,
        "required": ["type", *required],
        "additionalProperties": False,
    }


def _json_schema(key: Key) -> dict[str, Any]:
    inner = _specs().kind_of(key.name)
    annotation = key.annotation
    if annotation is Any:
        if inner is None:
            return {}
        annotation = None if inner == "layer" else str
    if key.default is None:
        annotation = Union[annotation, None]  # noqa: UP007 - built from a value
    plain = TypeAdapter(annotation).json_schema() if annotation else {}
    if inner is None:
        return plain
    spec = {"$ref": f"#/$defs/{inner.capitalize()}"}
    if key.name in ("cells", "layers"):
        return {"type": "array", "items": spec}
    return {"anyOf": [*plain.get("anyOf", [plain] if plain else []), spec]}


@lru_cache
def _adapter(annotation: Any) -> TypeAdapter:
    return TypeAdapter(annotation, config=ConfigDict(strict=True))


def _unknown(kind: str, name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    hint = did_you_mean(name, known) or f"; there are {listing(known)}"
    return f"unknown {kind} {name}{hint}"


def _snake_case(name: str) -> str:
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()


def _evaluated(annotation: Any, function: Callable) -> Any:
    """A postponed annotation as the type it names; Any where the name exists for checkers only."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, function.__globals__)  # our own source, never a job's text
    except Exception:
        return Any


def _plain(annotation: Any) -> Any:
    """The part of a type that YAML can express; Any if there is none, and nothing to check."""
    if annotation in (int, float, str, bool, type(None)):
        return annotation
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return annotation
    if origin in (Union, types.UnionType):
        plain = [_plain(argument) for argument in arguments]
        plain = [argument for argument in plain if argument is not Any]
        return Union[tuple(plain)] if plain else Any  # noqa: UP007 - built from values
    if origin in (list, tuple, Sequence):
        item = _plain(arguments[0])
        return Any if item is Any else list[item]  # type: ignore[valid-type]
    if origin is Mapping:
        item = _plain(arguments[1])
        return Any if item is Any else dict[str, item]  # type: ignore[valid-type]
    return Any


def _words(annotation: Any) -> str:
    """A type in the words of someone who writes YAML."""
    simple = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if annotation in simple:
        return simple[annotation]
    if annotation in (None, type(None)):
        return "null"
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is list:
        return f"a list, each {_words(arguments[0])}"
    if typing.get_origin(annotation) is dict:
        return f"keys, each {_words(arguments[1])}"
    if typing.get_origin(annotation) is Literal:
        return " or ".join(map(show, arguments))
    return " or ".join(map(_words, arguments))
