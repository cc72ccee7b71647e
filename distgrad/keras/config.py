"""``keras.config``: the settings of Keras, read and set."""

from __future__ import annotations

from distgrad.keras import settings
from distgrad.keras.backend import (
    backend,
    epsilon,
    floatx,
    image_data_format,
    set_epsilon,
    set_floatx,
    set_image_data_format,
)
from distgrad.keras.mixed_precision import dtype_policy, set_dtype_policy

__all__ = [
    "backend",
    "disable_flash_attention",
    "disable_interactive_logging",
    "disable_traceback_filtering",
    "dtype_policy",
    "enable_flash_attention",
    "enable_interactive_logging",
    "enable_traceback_filtering",
    "enable_unsafe_deserialization",
    "epsilon",
    "floatx",
    "image_data_format",
    "is_flash_attention_enabled",
    "is_interactive_logging_enabled",
    "is_traceback_filtering_enabled",
    "max_epochs",
    "max_steps_per_epoch",
    "set_backend",
    "set_dtype_policy",
    "set_epsilon",
    "set_floatx",
    "set_image_data_format",
    "set_max_epochs",
    "set_max_steps_per_epoch",
]


def set_backend(backend: str) -> None:
    """Does nothing for "distgrad". Raises ValueError for another backend: there is none here."""
    if backend != "distgrad":
        raise ValueError(f"distgrad is the only backend here, there is no {backend!r}")


def max_epochs() -> int | None:
    """For how many epochs ``fit`` goes on at most; None for as many as it is asked to."""
    return settings.max_epochs


def set_max_epochs(max_epochs: int | None) -> None:
    """Sets it, to try a long script out. Raises ValueError for what is no number of epochs."""
    settings.max_epochs = _count("max_epochs", max_epochs)


def max_steps_per_epoch() -> int | None:
    """Of how many steps an epoch of ``fit`` is at most; None for all the data."""
    return settings.max_steps_per_epoch


def set_max_steps_per_epoch(max_steps_per_epoch: int | None) -> None:
    """Sets it, to try a long script out. Raises ValueError for what is no number of steps."""
    settings.max_steps_per_epoch = _count("max_steps_per_epoch", max_steps_per_epoch)


def _count(name: str, value: int | None) -> int | None:
    if value is not None and (not isinstance(value, int) or value < 1):
        raise ValueError(f"{name} is a whole number from 1 on, or None, not {value!r}")
    return value


def enable_interactive_logging() -> None:
    """Lets ``fit`` rewrite its line on a terminal, as it does by default."""
    settings.interactive_logging = True


def disable_interactive_logging() -> None:
    """Lets ``fit`` print a line for each epoch alone, as into a file."""
    settings.interactive_logging = False


def is_interactive_logging_enabled() -> bool:
    """Whether ``fit`` may rewrite its line."""
    return settings.interactive_logging


# Tracebacks here name the user's line and are whole: there is nothing to filter.


def enable_traceback_filtering() -> None:
    """Does nothing: tracebacks are always whole."""


def disable_traceback_filtering() -> None:
    """Does nothing: tracebacks are always whole."""


def is_traceback_filtering_enabled() -> bool:
    """False: tracebacks are always whole."""
    return False


# Attention has one way of computing here.


def enable_flash_attention() -> None:
    """Does nothing: attention is computed in one way."""


def disable_flash_attention() -> None:
    """Does nothing: attention is computed in one way."""


def is_flash_attention_enabled() -> bool:
    """False: attention is computed in one way, without that kernel."""
    return False


def enable_unsafe_deserialization() -> None:
    """Raises nothing and changes nothing: code is never read from a file here, safe or not."""
