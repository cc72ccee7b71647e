"""Contexts that TensorFlow programs open around operations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from distgrad.core import devices
from distgrad.core.errors import InvalidArgumentError
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

_DEVICE = re.compile(
    r"(/job:(?P<job>\w+))?(/replica:\d+)?(/task:\d+)?"
    r"(/?(device:)?(?P<kind>cpu|gpu|tpu|xla_cpu|xla_gpu)(:(?P<number>\d+|\*))?)?"
)


@contextmanager
def device(device_name: Any) -> Iterator[None]:
    """Context in which new arrays lie on ``device_name``: "/CPU:0", "/GPU:0", None for as before.

    An operation runs where its tensors lie, on the GPU where some of them lie there. In place of a
    device that is not here it is the first GPU for another GPU, else the CPU, after one warning;
    after ``tf.config.set_soft_device_placement(False)``, NoDeviceError (a RuntimeError) is raised,
    or MissingExtraError without CuPy. Raises ValueError for a name that is no device's,
    InvalidArgumentError for one of another job.
    """
    name = getattr(device_name, "name", device_name)
    if not name:
        yield
        return
    found = _DEVICE.fullmatch(str(name).lower())
    if found is None:
        raise ValueError(f"{device_name!r} is not the name of a device; '/CPU:0' is one")
    if found["job"] not in (None, "localhost"):
        raise InvalidArgumentError(f"{name!r} is a device of another job: there is localhost alone")
    number = 0 if found["number"] in (None, "*") else int(found["number"])
    with devices.placement(name, found["kind"], number) if found["kind"] else nullcontext():
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
