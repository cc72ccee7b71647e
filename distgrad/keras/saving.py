"""Whole models in files, and the classes of users by name, under Keras's names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from distgrad.keras import (
    activations,
    constraints,
    dtype_policies,
    initializers,
    layers,
    losses,
    metrics,
    optimizers,
    registry,
    regularizers,
)
from distgrad.keras.models.saving import load_model, load_weights, save_model, save_weights
from distgrad.keras.random import SeedGenerator
from distgrad.keras.registry import (
    CustomObjectScope,
    custom_object_scope,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
)

__all__ = [
    "CustomObjectScope",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "load_model",
    "load_weights",
    "register_keras_serializable",
    "save_model",
    "save_weights",
    "serialize_keras_object",
]

_ROOMS: dict[Any, Any] = {
    "keras.constraints": constraints,
    "keras.initializers": initializers,
    "keras.losses": losses,
    "keras.metrics": metrics,
    "keras.optimizers": optimizers,
    "keras.optimizers.schedules": optimizers.schedules,
    "keras.regularizers": regularizers,
}
_OF_FUNCTIONS = (metrics, losses, activations)


def serialize_keras_object(obj: Any) -> Any:
    """What JSON can hold of an object or function, of numbers, texts and arrays, and of nests.

    Objects and functions are dicts with ``class_name``, ``config`` and ``registered_name``.
    """
    return registry.entry(obj)


def deserialize_keras_object(
    config: Any,
    custom_objects: Mapping[str, Any] | None = None,
    safe_mode: bool = True,
    module_objects: Mapping[str, Any] | None = None,
) -> Any:
    """What ``serialize_keras_object`` was given, here or in Keras 3.

    Further classes and functions by name are in ``module_objects``, and may be given by name alone.
    Raises ValueError for a class or function that is neither known nor among the custom objects,
    TypeError for a config of another type than that of its class.
    """
    if module_objects is not None:
        custom_objects = {**module_objects, **(custom_objects or {})}
        if isinstance(config, str) and inspect.isclass(custom_objects.get(config)):
            return custom_objects[config]()
    if isinstance(config, str):
        return (custom_objects or {}).get(config, config)
    if isinstance(config, (list, tuple)):
        return [deserialize_keras_object(item, custom_objects, safe_mode) for item in config]
    if not isinstance(config, Mapping):
        return config
    if "class_name" not in config:
        return {
            name: deserialize_keras_object(item, custom_objects, safe_mode)
            for name, item in config.items()
        }
    kind, inner = config["class_name"], config.get("config", {})
    wanted = str if kind == "function" else Mapping
    if not isinstance(inner, wanted):
        raise TypeError(f"the config of a {kind} is a {wanted.__name__}, not {inner!r}")
    if kind in registry.VALUES:
        inner = deserialize_keras_object(inner, custom_objects, safe_mode)
        return registry.VALUES[kind](inner)
    if kind == "function":
        known = {n: f for room in _OF_FUNCTIONS for n, f in vars(room).items() if callable(f)}
        return registry.deserialize("function", config, known, custom_objects)
    if config.get("module") == "keras.random":
        known = {"SeedGenerator": SeedGenerator}
        return registry.deserialize("class of keras.random", config, known, custom_objects)
    room = dtype_policies if kind == "DTypePolicy" else _ROOMS.get(config.get("module"), layers)
    return room.deserialize(config, custom_objects)
