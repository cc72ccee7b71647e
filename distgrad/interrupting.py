"""Ctrl-C while the command line is still importing: a quiet end with 130, as it has later on.

``distgrad`` imports this first, which is when it begins. A script is left alone.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def end() -> None:
    """Lets Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_command_line() -> bool:
    if sys.argv[:1] == ["-m"]:  # as it is until Python has found the module
        words = sys.orig_argv
        return words[words.index("-m") + 1 :][:1] == ["distgrad"] if "-m" in words else False
    return os.path.basename("".join(sys.argv[:1])) == "distgrad"


def _end(signum: int, frame: FrameType | None) -> None:
    os._exit(128 + signum)


if _is_command_line() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)  # an exception would be printed, or lost, by an import
