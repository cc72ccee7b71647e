"""Contexts that TensorFlow programs open around operations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distgrad.core.naming import name_scope

__all__ = ["control_dependencies", "device", "name_scope"]

_DEVICE = re.compile(r"(/job:\w+)?(/replica:\d+)?(/task:\d+)?/?(device:)?(cpu|gpu|tpu)(:(\d+|\*))?")


@contextmanager
def device(device_name: Any) -> Iterator[None]:
    """Context for operations on ``device_name``: "/CPU:0", or None for the default.

    Raises ValueError for a name that is no device's, RuntimeError for a device that is not here.
    """
    if device_name:
        found = _DEVICE.fullmatch(str(device_name).lower())
        if found is None:
            raise ValueError(f"{device_name!r} is not the name of a device; '/CPU:0' is one")
        if found[5] != "cpu":
            raise RuntimeError(f"there is no device {device_name!r} here; use '/CPU:0'")
    yield


@contextmanager
def control_dependencies(control_inputs: Any) -> Iterator[None]:
    """Context that does nothing: operations run in the order in which they are written."""
    yield
