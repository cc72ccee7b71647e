"""``logs/rank_00000.log``: what a rank prints, kept beside the run."""

from __future__ import annotations

import contextlib
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from distgrad.core.errors import JobError

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # colours and moves of the cursor
_RETURN = "\r"


def log_path(folder: Path, rank: int) -> Path:
    """The log of a rank in the folder of its run."""
    return folder / "logs" / f"rank_{rank:05d}.log"


@contextlib.contextmanager
def kept(path: Path) -> Iterator[None]:
    """Context in which ``sys.stdout`` and ``sys.stderr`` go to a file, too, and its error at last.

    They are what they were in every other way: a terminal stays one. A disk that does not take the
    file changes nothing.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", buffering=1, encoding="utf-8")
    except OSError:
        yield
        return
    streams = _Copied(sys.stdout, file), _Copied(sys.stderr, file)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = streams
    try:
        yield
    except BaseException as error:
        expected = isinstance(error, JobError | SystemExit)
        text = f"error: {error}\n" if expected else traceback.format_exc()
        with contextlib.suppress(OSError):  # whoever catches it prints it
            file.write(text)
        raise
    finally:
        if (sys.stdout, sys.stderr) == streams:
            sys.stdout, sys.stderr = before
        for stream in streams:
            stream.end()
        with contextlib.suppress(OSError):
            file.close()


class _Copied:
    """A stream that copies whole lines to a file as they look on a terminal in the end.

    What a carriage return has overwritten, a bar that moves say, is not among them.
    """

    def __init__(self, stream: TextIO, file: TextIO) -> None:
        self._stream = stream
        self._file = file
        self._rest = ""

    def write(self, text: str) -> int:
        count = self._stream.write(text)
        *lines, rest = (self._rest + _CONTROL.sub("", text)).split("\n")
        self._rest = _shown(rest)
        if lines:
            self._copy("".join(f"{_shown(line.rstrip(_RETURN))}\n" for line in lines))
        return count

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def end(self) -> None:
        """The last words, if no newline came after them."""
        if self._rest:
            self._copy(f"{self._rest}\n")
            self._rest = ""

    def _copy(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a full disk ends no training
            self._file.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _shown(line: str) -> str:
    """What a carriage return has left of a line."""
    return line.rpartition(_RETURN)[2]
