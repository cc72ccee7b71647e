"""The line of the user's code that is being run, however deep in ours something is found out."""

from __future__ import annotations

import linecache
import os
import sys
import warnings
from pathlib import Path
from types import FrameType

import numpy as np

_OURS = str(Path(__file__).absolute().parents[1]) + os.sep
_NUMPY = os.path.dirname(os.path.abspath(np.__file__)) + os.sep


def user_line() -> str:
    """``file:line: source`` of the line of the user's that is being run."""
    frame = _user_frame()
    if frame is None:
        return "an unknown line"
    name = frame.f_code.co_filename
    return f"{name}:{frame.f_lineno}: {linecache.getline(name, frame.f_lineno).strip()}"


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """A warning that points at the user's line."""
    frame = _user_frame()
    if frame is None:
        warnings.warn(message, category, stacklevel=2)
        return
    warnings.warn_explicit(
        message,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        frame.f_globals.get("__name__", "unknown"),
        frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _user_frame() -> FrameType | None:
    """The innermost frame that is neither ours nor NumPy's.

    No test, which stands in for users, lies in our package.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if not frame.f_code.co_filename.startswith((_OURS, _NUMPY, "<")):
            return frame
        frame = frame.f_back
    return None
