"""Whole models in files, and the classes of users by name, under Keras's names."""

from distgrad.keras.layers.reviving import deserialize as deserialize_keras_object
from distgrad.keras.layers.reviving import serialize as serialize_keras_object
from distgrad.keras.models.saving import load_model, load_weights, save_model, save_weights
from distgrad.keras.registry import (
    CustomObjectScope,
    custom_object_scope,
    get_custom_objects,
    register_keras_serializable,
)

__all__ = [
    "CustomObjectScope",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "load_model",
    "load_weights",
    "register_keras_serializable",
    "save_model",
    "save_weights",
    "serialize_keras_object",
]
