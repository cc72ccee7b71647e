"""The output of child processes, on its way to ours."""

from __future__ import annotations

import contextlib
import re
import selectors
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

_LAST_LINES = 2.0  # seconds for reading what ended children have still written
_TAIL_BYTES = 16 * 1024


class Overheard:
    """Passes the stdout of a child on as it comes, and looks for a word in the end of it.

    Args:
        child: a process with its stdout in a pipe.
        words: what to look for; one of its groups is a number.
    """

    def __init__(self, child: subprocess.Popen[bytes], words: re.Pattern[bytes]) -> None:
        assert child.stdout is not None
        self._pipe = child.stdout
        self._words = words
        self._tail = bytearray()
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._thread.start()

    def number(self) -> int | None:
        """The last number that the child, which has ended, has said in these words."""
        self._thread.join(_LAST_LINES)
        found = [n for groups in self._words.findall(bytes(self._tail)) for n in groups if n]
        return int(found[-1]) if found else None

    def _run(self) -> None:
        out = sys.stdout.buffer
        with self._pipe as pipe:
            while data := pipe.read1(65536):  # type: ignore[attr-defined]
                self._tail += data
                del self._tail[:-_TAIL_BYTES]
                with contextlib.suppress(OSError, ValueError):  # our reader has gone
                    out.write(data)
                    out.flush()


class Lines:
    """Passes the output of children on, line by line, with their marks, and into their logs."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._logs: dict[Path, IO[str]] = {}
        self._stop = threading.Event()

    def add(self, child: subprocess.Popen[bytes], mark: str, log: Path | None) -> None:
        for pipe, out in ((child.stdout, sys.stdout), (child.stderr, sys.stderr)):
            assert pipe is not None
            self._selector.register(pipe, selectors.EVENT_READ, (mark, out, log, bytearray()))

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Once the children have ended: reads the rest, unless somebody holds a pipe open."""
        if self._thread.is_alive():
            self._thread.join(_LAST_LINES)
            self._stop.set()
            self._thread.join()
        for key in list(self._selector.get_map().values()):
            self._close(key)
        self._selector.close()
        for file in self._logs.values():
            file.close()

    def _run(self) -> None:
        while self._selector.get_map() and not self._stop.is_set():
            for key, _ in self._selector.select(0.5):
                mark, out, log, rest = key.data
                data = key.fileobj.read1(65536)  # type: ignore[union-attr]
                if not data:
                    self._close(key)
                    data = b"\n" if rest else b""
                rest += data
                whole, newline, after = bytes(rest).rpartition(b"\n")
                rest[:] = after
                if newline:
                    self._pass_on(whole.decode(errors="replace"), mark, out, log)

    def _pass_on(self, text: str, mark: str, out: IO[str], log: Path | None) -> None:
        plain = [line.removeprefix(mark) for line in text.split("\n")]
        with contextlib.suppress(OSError, ValueError):  # our reader has gone
            out.write("".join(f"{mark}{line}\n" for line in plain))
            out.flush()
        if log is not None:
            with contextlib.suppress(OSError):  # a full disk ends no training
                if log not in self._logs:
                    log.parent.mkdir(parents=True, exist_ok=True)
                    self._logs[log] = log.open("a", buffering=1, encoding="utf-8")
                self._logs[log].write("".join(f"{line}\n" for line in plain))

    def _close(self, key: selectors.SelectorKey) -> None:
        self._selector.unregister(key.fileobj)
        key.fileobj.close()  # type: ignore[union-attr]
