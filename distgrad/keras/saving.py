"""Whole models in files, and the classes of users by name, under Keras's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distgrad.keras import (
    constraints,
    initializers,
    layers,
    losses,
    metrics,
    optimizers,
    regularizers,
)
from distgrad.keras.models.saving import load_model, load_weights, save_model, save_weights
from distgrad.keras.registry import (
    CustomObjectScope,
    custom_object_scope,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
)
from distgrad.keras.registry import serialize as serialize_keras_object

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

_ROOMS: dict[str, Any] = {
    "keras.constraints": constraints,
    "keras.initializers": initializers,
    "keras.losses": losses,
    "keras.metrics": metrics,
    "keras.optimizers": optimizers,
    "keras.optimizers.schedules": optimizers.schedules,
    "keras.regularizers": regularizers,
}


def deserialize_keras_object(
    config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
) -> Any:
    """The object of what ``serialize_keras_object`` gave, here or in Keras 3.

    Raises ValueError for a class that is neither known nor among the custom objects.
    """
    room = _ROOMS.get(str(config.get("module")), layers)
    return room.deserialize(config, custom_objects)
