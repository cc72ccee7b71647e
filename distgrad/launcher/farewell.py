"""How ranks say why they end: pipes that they have from the process that has started them.

Whoever calls ``sys.exit(3)`` may not have said a word, and nobody else can tell that from an error
that was printed and has the same exit code. So a rank says here when it joins its world, and when
it has found words for its end, or knows of another rank that has. And where several have to say why
all end, one does: who takes the floor.
"""

from __future__ import annotations

import contextlib
import os
import time

from distgrad.launcher import environ

_JOINED, _SAID = b"j", b"s"
_FAREWELL, _FLOOR = "DISTGRAD_FAREWELL", "DISTGRAD_FLOOR"
_SPOKEN_FOR = 10.0  # seconds that a rank which ends all has for it, before another one does


class Farewell:
    """The pipe of one rank, as its starter has it: both ends until ``begun``."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._heard = b""

    def settings(self) -> dict[str, str]:
        """The variable by which the rank finds it."""
        return environ.pipe_variable(_FAREWELL, self.writing)

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


class Floor:
    """What the ranks of one start share, and one of them takes: a byte in a pipe."""

    def __init__(self) -> None:
        self.pipe, writing = os.pipe()
        os.write(writing, b"f")
        os.close(writing)

    def settings(self) -> dict[str, str]:
        """The variable by which the ranks find it."""
        return environ.pipe_variable(_FLOOR, self.pipe)

    def __del__(self) -> None:
        os.close(self.pipe)


def take_floor() -> None:
    """Returns when it is for this rank to say why all end: no other one of its start is at it.

    Its starter then ends the others; but that takes a moment, and they may all have an error.
    """
    pipe = environ.pipe(_FLOOR)
    if pipe is not None and not os.read(pipe, 1):
        time.sleep(_SPOKEN_FOR)


def joined() -> None:
    """Tells the starter of this rank that it is in its world."""
    _tell(_JOINED)


def said() -> None:
    """Tells the starter of this rank that the end of it needs no word more."""
    _tell(_SAID)


def _tell(word: bytes) -> None:
    pipe = environ.pipe(_FAREWELL)
    if pipe is not None:
        with contextlib.suppress(OSError):
            os.write(pipe, word)
