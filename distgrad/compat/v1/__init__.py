"""``tf.compat.v1``: what scripts call to have TensorFlow 2 in TensorFlow 1, and other options."""

from __future__ import annotations

import logging as _levels
from types import SimpleNamespace as _SimpleNamespace

from distgrad.compat.v1 import keras
from distgrad.compat.v1.sessions import ConfigProto, GPUOptions, InteractiveSession, Session
from distgrad.core.gradients import gradients, hessians
from distgrad.core.later import absent as _absent
from distgrad.ops.modes import get_logger as _get_logger
from distgrad.ops.scopes import executing_eagerly
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


enable_resource_variables = enable_v2_tensorshape = enable_v2_behavior


def reset_default_graph() -> None:
    """Nothing: there are no graphs."""


__getattr__ = _absent(__name__)
