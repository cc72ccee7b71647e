"""Described: a layer by the arguments of its constructor, and one made of such a description."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from distgrad.core import tree
from distgrad.keras import mixed_precision, registry
from distgrad.keras.layers import symbolic
from distgrad.keras.registry import Configured

_COMMON = ("name", "trainable", "dtype")  # what every config holds


class Described(Configured):
    """Name, dtype, ``trainable`` and the constructor's arguments of a layer, as a config."""

    name: str
    trainable: Any
    dtype_policy: mixed_precision.Policy
    _given_name: str | None
    _not_in_config: tuple[str, ...] = ("input_shape", "autocast")
    _fixed: ClassVar[
        Mapping[str, Any]
    ] = {}  # options that Keras has, by the one value that they have here

    _made_with: Mapping[str, Any] | None = None  # what a user's class was made with, if it is plain

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__new__(cls)
        if not registry.is_ours(cls):
            made.__dict__["_made_with"] = _plain_arguments(cls, args, kwargs)
        return made

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as plain values; those of its base, for a layer that adds
        its own to them.

        A user's class needs to keep those that are numbers, texts or nests of them nowhere: they
        are what it was made with. Raises NotImplementedError where another is no attribute.
        """
        given = self._made_with or {}
        config = {"name": self.name, "trainable": self.trainable, "dtype": self.dtype_policy.name}
        for name in registry.arguments(registry.described(type(self))):
            if name in config or name in self._not_in_config:
                continue
            if name in given:
                config[name] = given[name]
                continue
            if not hasattr(self, name) and self._made_with is not None:
                continue  # it has its default
            if not hasattr(self, name):
                raise NotImplementedError(
                    f"{type(self).__name__} keeps no attribute {name!r} for its argument of that "
                    f"name: set self.{name}, or define get_config"
                )
            value = getattr(self, name)
            config[name] = value if _has_sizes(value) else registry.plain(value)
        if config.get("activity_regularizer", 0) is None:
            del config["activity_regularizer"]
        return {name: v for name, v in config.items() if name not in self._not_in_config}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """A layer made with these arguments, without the weights."""
        names = registry.arguments(cls)
        settings = {n: symbolic.revive(v) for n, v in registry.settings(cls, config).items()}
        late = {
            name: settings.pop(name) for name in _COMMON if name in settings and name not in names
        }
        layer = cls(**settings)
        if "name" in late:
            layer.name = layer._given_name = late["name"]
        if "dtype" in late:
            layer.dtype_policy = late["dtype"]
        if late.get("trainable") is False:
            layer.trainable = False
        return layer


def _has_sizes(value: Any) -> bool:
    """Whether it is a tuple of numbers, which Keras leaves in configs, or of such tuples."""
    numbers = (int, float, type(None))
    return type(value) is tuple and all(type(v) in numbers or _has_sizes(v) for v in value)


def _plain_arguments(cls: type, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """By their names, where all are numbers, texts, None or nests of these; else None."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
    names = [p.name for p in parameters if p.kind in positional][1:]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    given = {name: value for name, value in given.items() if name not in _COMMON}
    plain = (str, int, float, type(None))
    return given if all(isinstance(v, plain) for v in tree.flatten(given)) else None


def first_shape(layer: Described, shape: Any, legacy: dict[str, Any]) -> tuple | None:
    """The shape of one sample in one of the spellings that Keras takes."""
    size = legacy.pop("input_dim", None)
    with_batch = legacy.pop("batch_input_shape", legacy.pop("batch_shape", None))
    for name, value in layer._fixed.items():
        if name in legacy and (given := legacy.pop(name)) != value:
            raise ValueError(
                f"{type(layer).__name__}: {name} can only be {value!r} here, not {given!r}: "
                "leave it out"
            )
    if legacy:
        words = ", ".join(map(repr, legacy))
        raise ValueError(f"{type(layer).__name__} has no argument {words}")
    if shape is None and size is not None:
        shape = (size,)
    if shape is None and with_batch is not None:
        shape = tuple(with_batch)[1:]
    return None if shape is None else as_shape(shape)


def as_shape(shape: Any) -> tuple[Any, ...]:
    """An int as a shape of one axis."""
    return (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
