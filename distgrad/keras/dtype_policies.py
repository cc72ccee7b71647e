"""``keras.dtype_policies``: in which dtypes layers compute and keep their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distgrad.keras import registry
from distgrad.keras.mixed_precision import DTypePolicy, get

FloatDTypePolicy = DTypePolicy

__all__ = ["DTypePolicy", "FloatDTypePolicy", "deserialize", "get", "serialize"]


def serialize(dtype_policy: DTypePolicy) -> dict[str, Any]:
    """``{"class_name": ..., "config": ...}`` of a policy."""
    return registry.serialize(dtype_policy)


def deserialize(
    config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
) -> DTypePolicy:
    """The policy of what ``serialize`` gave. Raises ValueError for a class that is not here."""
    known = {"DTypePolicy": DTypePolicy, "FloatDTypePolicy": DTypePolicy}
    return registry.deserialize("dtype policy", config, known, custom_objects)
