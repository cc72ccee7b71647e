"""``tf.compat.v1``: what scripts call to have TensorFlow 2 in TensorFlow 1, and other options."""

from __future__ import annotations

import logging as _levels
from types import SimpleNamespace as _SimpleNamespace
from typing import Any as _Any

from distgrad.compat.v1 import keras
from distgrad.compat.v1.sessions import ConfigProto, GPUOptions, InteractiveSession, Session
from distgrad.core.dispatch import as_tensor as _as_tensor
from distgrad.core.gradients import gradients, hessians
from distgrad.core.later import absent as _absent
from distgrad.core.tensor import Tensor as _Tensor
from distgrad.ops.logic import where as _where
from distgrad.ops.modes import get_logger as _get_logger
from distgrad.ops.scopes import executing_eagerly
from distgrad.ops.shape import reshape as _reshape
from distgrad.ops.streams import set_seed as set_random_seed

__all__ = [
    "ConfigProto",
    "GPUOptions",
    "InteractiveSession",
    "Session",
    "enable_eager_execution",
    "enable_resource_variables",
    "enable_v2_behavior",
    "enable_v2_tensorshape",
    "executing_eagerly",
    "gradients",
    "hessians",
    "keras",
    "logging",
    "reset_default_graph",
    "set_random_seed",
    "where",
]


def _logging() -> _SimpleNamespace:
    """``tf.compat.v1.logging``: the library's logger by functions, and the levels of Python's."""
    logger = _get_logger()
    names = ("debug", "info", "warning", "error", "fatal", "log")
    levels = ("DEBUG", "INFO", "WARN", "ERROR", "FATAL")
    return _SimpleNamespace(
        **{name: getattr(logger, name) for name in names},
        **{level: getattr(_levels, level) for level in levels},
        warn=logger.warning,
        set_verbosity=logger.setLevel,
        get_verbosity=logger.getEffectiveLevel,
    )


logging = _logging()


def enable_eager_execution(
    config: object = None, device_policy: object = None, execution_mode: object = None
) -> None:
    """Nothing: operations run when they are called."""


def enable_v2_behavior() -> None:
    """Nothing: there is no other."""


def where(condition: _Any, x: _Any = None, y: _Any = None, name: str | None = None) -> _Tensor:
    """``tf.where``, whose condition may also be a vector that chooses among the rows of x and y."""
    if x is not None and y is not None:
        chosen, rank = _as_tensor(condition), _as_tensor(x).ndim
        if chosen.ndim == 1 and rank > 1:
            condition = _reshape(chosen, (-1, *[1] * (rank - 1)))
    return _where(condition, x, y)


enable_resource_variables = enable_v2_tensorshape = enable_v2_behavior


def reset_default_graph() -> None:
    """Nothing: there are no graphs."""


__getattr__ = _absent(__name__)
