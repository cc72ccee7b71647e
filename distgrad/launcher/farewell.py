"""How ranks say why they end: pipes that they have from the process that has started them.

Whoever calls ``sys.exit(3)`` may not have said a word, and nobody else can tell that from an error
that was printed and has the same exit code. So a rank says here when it joins its world, and when
it has found words for its end, or knows of another rank that has. And where several have to say why
all end, one does: who takes the floor. The others wait until their starter knows its end.
"""

from __future__ import annotations

import contextlib
import os
import select
import time

from distgrad.launcher import environ

_JOINED, _SAID, _FREE = b"j", b"s", b"f"
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
        self.pipe, self._writing = os.pipe()
        os.set_blocking(self.pipe, False)
        os.write(self._writing, _FREE)

    def settings(self) -> dict[str, str]:
        """The variable by which the ranks find it."""
        return environ.pipe_variable(_FLOOR, self.pipe)

    def close(self) -> None:
        """A rank has failed, and its exit code is known: nobody need wait for the floor."""
        if self._writing >= 0:
            os.close(self._writing)
        self._writing = -1

    def __del__(self) -> None:
        self.close()
        os.close(self.pipe)


def take_floor(*, otherwise: bool = True) -> bool:
    """Whether it is for this rank to say why all end, and not for another one of its start.

    Then it returns once the other one has ended: a rank that ends before it may hide its exit code.
    ``otherwise`` holds where the starter keeps no floor.
    """
    pipe = environ.pipe(_FLOOR)
    if pipe is None:
        return otherwise
    look = select.poll()
    look.register(pipe, select.POLLIN)
    end = time.monotonic() + _SPOKEN_FOR
    while look.poll(1000 * max(0.0, end - time.monotonic())):
        with contextlib.suppress(BlockingIOError):  # another one was quicker
            return os.read(pipe, 1) == _FREE
    return True


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
