"""Layers from their configs, those of models and of users among them, and back."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from distgrad.keras import registry
from distgrad.keras.layers.base import Layer

# Layers that are no layers of models, or of jobs.
_ELSEWHERE = {
    "Distiller": "distgrad.keras.distillation",
    "MaxNumBoundingBoxes": "distgrad.keras.layers",
    "Wrapper": "distgrad.keras.layers",
    "FeatureSpace": "distgrad.keras.utils.feature_space",
    "TFDIdentity": "distgrad.keras.utils.features",
}
_OF_OPERATIONS = ("keras.src.ops.", "keras.src.activations.")
_OF_APPLICATIONS = "keras.src.applications."  # whose layers are no names of keras.layers


def serialize(layer: Layer) -> dict[str, Any]:
    """``{"class_name": ..., "config": ...}`` of a layer or model."""
    return registry.serialize(layer)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Layer:
    """The layer or model of such a config, with initial weights.

    Raises ValueError for a class that is neither a layer here nor among the custom objects.
    """
    from distgrad.keras import models
    from distgrad.keras.layers.operation import NamedOperation

    layers = importlib.import_module("distgrad.keras.layers")
    known = {name: getattr(layers, name) for name in layers.__all__}
    known.update({getattr(each, "__name__", ""): each for each in list(known.values())})
    known.update({name: getattr(models, name) for name in ("Functional", "Model", "Sequential")})
    name = config.get("class_name") if isinstance(config, Mapping) else None
    module = str(config.get("module")) if name else ""
    if name in _ELSEWHERE:
        known[name] = getattr(importlib.import_module(_ELSEWHERE[name]), name)
    if module.startswith(_OF_OPERATIONS):
        return NamedOperation.from_entry(config)
    if module.startswith(_OF_APPLICATIONS):
        home = importlib.import_module(module.replace("keras.src", "distgrad.keras", 1))
        known[str(name)] = getattr(home, str(name))
    users = {**registry.custom_objects(), **(custom_objects or {})}
    if name and name not in known and not {name, config.get("registered_name")} & set(users):
        raise ValueError(
            f"unknown layer {name!r}: if it is a class of yours, hand it over as "
            f"custom_objects={{{name!r}: {name}}}, or decorate it with "
            "keras.saving.register_keras_serializable()"
        )
    with registry.custom_object_scope(custom_objects or {}):
        return registry.deserialize("layer", config, known, None)
