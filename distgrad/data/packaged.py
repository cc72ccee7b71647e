"""Reads the small data files that come with the package."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from distgrad.core.errors import DataError

T = TypeVar("T")


def read_packaged(filename: str, read: Callable[[Path], T]) -> T:
    """What ``read`` makes of a file of this folder. Raises DataError where it cannot be read."""
    resource = importlib.resources.files("distgrad.data") / filename
    try:
        with importlib.resources.as_file(resource) as path:
            return read(path)
    except (OSError, EOFError, ValueError, DataError) as error:
        raise DataError(f"{resource} cannot be read ({error}); install distgrad again") from error
