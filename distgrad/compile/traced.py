"""Traced arrays: what a function's tensors hold while it is captured.

They compute like any array. What they cannot do is to become a number that Python branches on or
keeps: that would be a constant of the program which is not constant. Kernels may look at them,
since a kernel runs again at every replay.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import numpy as np

from distgrad.core import recording
from distgrad.core.primitive import Primitive, bind, bind_at, bind_one, bind_pair
from distgrad.core.user_line import user_line

_CALLING = (bind, bind_at, bind_one, bind_pair, Primitive._only_call)
_KERNELS = tuple(fn.__code__ for fn in _CALLING)


class Fallback(BaseException):
    """What is being captured cannot be a program; ``reason`` names the user's line.

    ``once``: it can be at another time.

    No Exception: a user's ``except Exception`` around a tensor's value must not catch it.
    """

    def __init__(self, reason: str, once: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.once = reason, once


def inside_kernel() -> bool:
    """Whether a primitive's kernel is running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code in _KERNELS:
            return True
        frame = frame.f_back
    return False


def _guard() -> None:
    capture = recording.per_thread.capture
    if capture is not None and not capture.abandoned and not inside_kernel():
        capture.give_up(f"the value of a tensor is read at {user_line()}")


class Traced(np.ndarray):
    """An array that depends on a function's arguments, variables or slots."""

    def get(self) -> np.ndarray:
        """The array on the host, as tensors ask for it."""
        _guard()
        return plain(self)

    def __bool__(self) -> bool:
        _guard()
        return bool(plain(self))

    def __int__(self) -> int:
        _guard()
        return int(plain(self))

    def __float__(self) -> float:
        _guard()
        return float(plain(self))

    def __complex__(self) -> complex:
        _guard()
        return complex(plain(self))

    def __index__(self) -> int:
        _guard()
        return plain(self).__index__()

    def item(self, *args: Any) -> Any:
        _guard()
        return plain(self).item(*args)

    def tolist(self) -> Any:
        _guard()
        return plain(self).tolist()

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        if not isinstance(part, np.ndarray):
            _guard()
        return part


def traced(array: Any) -> Any:
    """``array`` as a traced one; an array of another backend as it is."""
    return array.view(Traced) if type(array) is np.ndarray else array


def plain(array: Any) -> Any:
    """The array that a traced one looks into."""
    return array.view(np.ndarray) if isinstance(array, Traced) else array
