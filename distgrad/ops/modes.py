"""What scripts ask of TensorFlow's graphs and eager mode; here there is only the latter."""

from __future__ import annotations

import logging
import time
from typing import Any

from distgrad.core import naming, recording
from distgrad.core.composite import Composite
from distgrad.core.dispatch import as_tensor
from distgrad.core.spec import TensorSpec
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import identity


def _traced() -> bool:
    """Whether a captured function is being traced."""
    return bool(recording.active) and recording.per_thread.capture is not None


def is_symbolic_tensor(tensor: Any) -> bool:
    """Whether this tensor stands for values to come, as it does while a function is traced."""
    return isinstance(tensor, Tensor) and _traced()


def get_static_value(tensor: Any, partial: bool = False) -> Any:
    """The value of a tensor as a NumPy array; None while a function is being traced."""
    if not isinstance(tensor, Tensor):
        return None
    return None if _traced() else tensor.numpy()


def inside_function() -> bool:
    """Whether a function is being captured; one that is not runs as plain Python."""
    return _traced()


def get_current_name_scope() -> str:
    """The name scope that is open, without its last slash: "" for none."""
    return naming.prefix().rstrip("/")


def as_tuple(tensors: Any, control_inputs: Any = None, name: str | None = None) -> list[Any]:
    """The tensors as a list, None as it is: ``tf.tuple``, which waits for all of them in a graph.

    Raises TypeError for what is no list or tuple, ValueError where there is no tensor.
    """
    if not isinstance(tensors, (list, tuple)):
        raise TypeError(f"tuple takes a list of tensors, not {tensors!r}")
    if all(each is None for each in tensors):
        raise ValueError("tuple must have a tensor")
    return [None if each is None else identity(each) for each in tensors]


def type_spec_from_value(value: Any) -> TensorSpec:
    """The TensorSpec of a tensor, a variable, an array or a list, or of a ragged or sparse one."""
    if isinstance(value, Composite):
        return value.spec
    return TensorSpec.from_tensor(as_tensor(value))


def timestamp(name: str | None = None) -> Tensor:
    """The seconds since 1970, float64."""
    return recording.slot(lambda: as_tensor(time.time(), "float64"))


def get_logger() -> logging.Logger:
    """The logger of the library, ``distgrad``."""
    return logging.getLogger("distgrad")
