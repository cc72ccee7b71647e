"""The files of a run folder that grow or change while the run goes on: its status, and lines."""

from __future__ import annotations

import io
import json
import os
import platform
import threading
import time
from pathlib import Path
from typing import Any

from distgrad.core import files

HEARTBEAT = 0.5  # seconds between two writes of status.json


class Status:
    """``status.json``, rewritten twice a second by a thread of its own.

    A disk that does not take it never stops the training: it is told once.
    """

    def __init__(self, folder: Path, **fields: Any) -> None:
        self.path = folder / "status.json"
        self._fields: dict[str, Any] = {
            **fields,
            "pid": os.getpid(),
            "host": platform.node(),
        }
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._failed = False
        self._thread = threading.Thread(target=self._beat, name="status", daemon=True)
        self.write()
        self._thread.start()

    def update(self, **fields: Any) -> None:
        """Changes fields; they reach the file with the next beat."""
        with self._lock:
            self._fields.update(fields)

    def write(self) -> None:
        with self._lock:
            fields = {**self._fields, "heartbeat": time.time()}
            try:
                files.replace(self.path, json.dumps(fields, indent=1) + "\n", sync=False)
            except OSError as error:
                if not self._failed:
                    print(f"warning: {self.path} cannot be written: {error}", flush=True)
                self._failed = True

    def close(self, **fields: Any) -> None:
        """Writes the last state and ends the thread."""
        self._end.set()
        self._thread.join()
        self.update(**fields)
        for name in ("pid", "host"):  # nobody holds the folder any more
            self._fields.pop(name, None)
        self.write()

    def _beat(self) -> None:
        while not self._end.wait(HEARTBEAT):
            self.write()


class Lines:
    """A file of JSON lines (``metrics.jsonl``), each on disk as soon as it is written.

    A disk that does not take them never stops the training: they wait until it does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = self._open()
        self._waiting = bytearray()
        self._failed = False

    def log(self, kind: str, **fields: Any) -> None:
        """A line with these fields."""
        self.write(json.dumps({"kind": kind, **fields}))

    def write(self, line: str) -> None:
        """A line as it is: JSON, with a ``kind``."""
        self._waiting += line.encode() + b"\n"
        self._try()

    def restore(self) -> None:
        """Writes the file anew, with all that was in it, if somebody has deleted it."""
        if not self.path.exists():
            self._file.seek(0)  # a deleted file lives for as long as it is open
            with self._file as deleted:
                self._waiting[:0] = deleted.read()
            self._file = self._open()
            self._try()

    def close(self) -> None:
        self._try()
        self._file.close()

    def _open(self) -> io.FileIO:
        return open(self.path, "a+b", buffering=0)

    def _try(self) -> None:
        try:
            while self._waiting:
                del self._waiting[: self._file.write(self._waiting)]
        except OSError as error:
            if not self._failed:
                print(f"warning: {self.path} cannot be written: {error}", flush=True)
            self._failed = True


def rewind(path: Path, step: int, epoch: int) -> None:
    """Drops the lines of what a killed run did beyond its last commit: it is done again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            done = entry["kind"] in ("step", "steps") and entry["step"] <= step
            keep = entry["epoch"] < epoch or done or entry["kind"] == "start"
        except (ValueError, TypeError, KeyError):  # cut off by the kill, or damaged
            continue
        if keep:
            kept.append(line + "\n")
    files.replace(path, "".join(kept))
