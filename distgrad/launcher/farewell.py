"""Whether a rank has said why it ends: a pipe to the process that has started it.

Whoever calls ``sys.exit(3)`` may not have said a word, and nobody else can tell that from an error
that was printed and has the same exit code. So a rank says here when it joins its world, and when
it has found words for its end, or knows of another rank that has.
"""

from __future__ import annotations

import contextlib
import os

from distgrad.launcher import environ

_JOINED, _SAID = b"j", b"s"


class Farewell:
    """The pipe of one rank, as its starter has it: both ends until ``begun``."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._heard = b""

    def settings(self) -> dict[str, str]:
        """The variable by which the rank finds it."""
        return environ.farewell_variable(self.writing, os.fstat(self.writing).st_ino)

    def begun(self) -> None:
        """The rank has its end now."""
        os.close(self.writing)

    def said(self) -> bool | None:
        """Whether a rank that has ended said why; None for one that never joined its world."""
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self._reading, 64):
                self._heard += more
        return _SAID in self._heard if _JOINED in self._heard else None

    def __del__(self) -> None:
        os.close(self._reading)


def joined() -> None:
    """Tells the starter of this rank that it is in its world."""
    _tell(_JOINED)


def said() -> None:
    """Tells the starter of this rank that the end of it needs no word more."""
    _tell(_SAID)


def _tell(word: bytes) -> None:
    found = environ.farewell()
    if found is None:
        return
    pipe, number = found
    # A program that the rank has started has the variable, and may have another file there.
    with contextlib.suppress(OSError):
        if os.fstat(pipe).st_ino == number:
            os.write(pipe, word)
