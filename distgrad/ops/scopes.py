"""Contexts that TensorFlow programs open around operations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distgrad.core.devices import scope
from distgrad.core.errors import NoDeviceError
from distgrad.core.naming import name_scope

__all__ = [
    "control_dependencies",
    "device",
    "executing_eagerly",
    "group",
    "init_scope",
    "name_scope",
    "no_op",
]

_DEVICE = re.compile(r"(/job:\w+)?(/replica:\d+)?(/task:\d+)?/?(device:)?(cpu|gpu|tpu)(:(\d+|\*))?")


@contextmanager
def device(device_name: Any) -> Iterator[None]:
    """Context in which new arrays lie on ``device_name``: "/CPU:0", "/GPU:0", None for as before.

    An operation runs where its tensors lie, on the GPU where some of them lie there. Raises
    ValueError for a name that is no device's, NoDeviceError (a RuntimeError) for a device that is
    not here.
    """
    if not device_name:
        yield
        return
    found = _DEVICE.fullmatch(str(device_name).lower())
    if found is None:
        raise ValueError(f"{device_name!r} is not the name of a device; '/CPU:0' is one")
    kind, number = found[5], found[7]
    if kind == "tpu":
        raise NoDeviceError(f"there is no device {device_name!r} here; use '/CPU:0'")
    with scope(kind, 0 if number in (None, "*") else int(number)):
        yield


@contextmanager
def control_dependencies(control_inputs: Any) -> Iterator[None]:
    """Context that does nothing: operations run in the order in which they are written."""
    yield


@contextmanager
def init_scope() -> Iterator[None]:
    """Context that does nothing: there is no graph to be lifted out of."""
    yield


def executing_eagerly() -> bool:
    """Whether operations run when they are called: always."""
    return True


def no_op(name: str | None = None) -> None:
    """Does nothing."""


def group(*inputs: Any, name: str | None = None) -> None:
    """Does nothing: operations have run when they are given to it."""
