"""What scripts ask of TensorFlow's graphs and eager mode; here there is only the latter."""

from __future__ import annotations

import logging
import time
from typing import Any

from distgrad.core import recording
from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor


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


def timestamp(name: str | None = None) -> Tensor:
    """The seconds since 1970, float64."""
    return recording.slot(lambda: as_tensor(time.time(), "float64"))


def get_logger() -> logging.Logger:
    """The logger of the library, ``distgrad``."""
    return logging.getLogger("distgrad")
