"""New models of the layers that another one has, by their configs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from distgrad.keras import registry
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.input import InputLayer
from distgrad.keras.layers.reviving import deserialize
from distgrad.keras.models.model import Model


def clone_model(model: Model, clone_function: Callable[[Layer], Layer] | None = None) -> Model:
    """A model with new layers of the same configs, and initial weights of its own.

    ``clone_function(layer)`` makes the new layer where the config shall not. Raises ValueError for
    a subclassed model with a ``clone_function``, as its layers cannot be told apart.
    """
    if clone_function is None:
        return type(model).from_config(model.get_config())
    if not hasattr(model, "_stack") and model._graph is None:
        raise ValueError(f"{type(model).__name__} makes its layers itself: clone_function cannot")
    config = model.get_config()
    for entry in config["layers"]:
        layer = _layer_named(model, entry["config"]["name"])
        if layer is not None and not isinstance(layer, InputLayer):
            entry.update(registry.serialize(clone_function(layer)))
    return type(model).from_config(config)


def _layer_named(model: Model, name: str) -> Layer | None:
    return next((layer for layer in model.layers if layer.name == name), None)


def model_from_json(json_string: str, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The model that ``to_json`` has described, with initial weights."""
    return deserialize(json.loads(json_string), custom_objects)
