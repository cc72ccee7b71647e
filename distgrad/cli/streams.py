"""stdin, stdout and stderr as a command finds them: closed, full, or without a reader."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from typing import Any, TextIO

BROKEN_PIPE = 141  # 128 and SIGPIPE, as a shell shows it of other programs


def prepare() -> None:
    """Gives the three of them somewhere to go, and lets them show what they can.

    The number of a closed one would else be that of the next file which is opened, a checkpoint
    say, that children of ours and C code then write into.
    """
    for number in range(3):  # all of them, before a file is opened that takes one
        try:
            os.fstat(number)
        except OSError:
            _silence(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nothing = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115 - until the end
            setattr(sys, name, nothing)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what an old locale cannot show ends nothing
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _show


def _show(message: Warning | str, *where: Any, **more: Any) -> None:
    """Prints a warning as commands print theirs: a job has no line of its user's to point at."""
    with contextlib.suppress(OSError):
        print(f"warning: {message}", file=sys.stderr, flush=True)


def is_lost(stream: TextIO) -> bool:
    """Whether it takes nothing more, for a full disk say; what it has not taken is dropped then."""
    try:
        stream.write("\n")  # a stream forgets what it could not write
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError):
            _silence(stream.fileno())  # Python flushes at exit
        return True
    return False


def _silence(number: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)
    os.set_inheritable(number, True)
