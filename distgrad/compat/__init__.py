"""``tf.compat``: texts and bytes as scripts for Python 2 and 3 make them, and names of other times.

``v2`` is this package itself, ``v1`` the few names of TensorFlow 1 that mean something here.
"""

from __future__ import annotations

import os
from typing import Any

from distgrad.compat import v1, v2

__all__ = ["as_bytes", "as_str", "as_str_any", "as_text", "dimension_value", "path_to_str"]
__all__ += ["v1", "v2"]


def as_bytes(bytes_or_text: Any, encoding: str = "utf-8") -> bytes:
    """A text as bytes. Raises TypeError for what is neither."""
    if isinstance(bytes_or_text, str):
        return bytes_or_text.encode(encoding)
    return bytes(_checked(bytes_or_text))


def as_text(bytes_or_text: Any, encoding: str = "utf-8") -> str:
    """Bytes as a text. Raises TypeError for what is neither."""
    if isinstance(bytes_or_text, str):
        return bytes_or_text
    return _checked(bytes_or_text).decode(encoding)


as_str = as_text


def as_str_any(value: Any, encoding: str = "utf-8") -> str:
    """Bytes as a text, and what is neither as Python writes it."""
    return as_text(value, encoding) if isinstance(value, (bytes, bytearray)) else str(value)


def path_to_str(path: Any) -> Any:
    """A path as a text; anything else as it is."""
    return os.fspath(path) if hasattr(path, "__fspath__") else path


def dimension_value(dimension: Any) -> Any:
    """The size, which has been a number for long."""
    return dimension


def _checked(value: Any) -> bytes | bytearray:
    if not isinstance(value, (bytes, bytearray)):
        raise TypeError(f"Expected binary or unicode string, got {value!r}")
    return value
