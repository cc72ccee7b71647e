"""``keras.utils.legacy``: objects in the form of Keras 2, in which libraries keep theirs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from distgrad.keras import registry

__all__ = ["deserialize_keras_object", "serialize_keras_object"]


def serialize_keras_object(instance: Any) -> Any:
    """``{"class_name": ..., "config": ...}`` of an object with ``get_config``, a function's name.

    None stays None. Raises ValueError for anything else.
    """
    if instance is None:
        return None
    if hasattr(instance, "get_config"):
        name = registry.get_registered_name(type(instance))
        return {"class_name": name, "config": instance.get_config()}
    if hasattr(instance, "__name__"):
        return registry.get_registered_name(instance)
    raise ValueError(f"{instance!r} has no get_config to serialize it by")


def deserialize_keras_object(
    identifier: Any,
    module_objects: Mapping[str, Any] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    printable_module_name: str = "object",
) -> Any:
    """What ``serialize_keras_object`` was given, its class or function found in the dicts by name.

    A class's own name gives an object without arguments. Raises ValueError for an unknown name, and
    for what is none and no config either.
    """
    if identifier is None or inspect.isfunction(identifier):
        return identifier
    config = {}
    if isinstance(identifier, Mapping):
        if not {"class_name", "config"} <= set(identifier):
            raise ValueError(f"a config has class_name and config, not {sorted(identifier)}")
        name, config = identifier["class_name"], identifier["config"]
    elif isinstance(identifier, str):
        name = identifier
    else:
        raise ValueError(f"this is no {printable_module_name}'s config or name: {identifier!r}")
    found = registry.get_registered_object(name, custom_objects, module_objects)
    if found is None:
        raise ValueError(
            f"Unknown {printable_module_name}: {name!r}; give it in custom_objects, or call this "
            "within a custom_object_scope"
        )
    if isinstance(identifier, str):
        return found() if inspect.isclass(found) else found
    with registry.custom_object_scope(dict(custom_objects or {})):
        return found.from_config(config) if hasattr(found, "from_config") else found(**config)
