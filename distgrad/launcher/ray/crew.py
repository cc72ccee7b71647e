"""The driver's end: the agents of one start of a job, their output, and how they have ended."""

from __future__ import annotations

import codecs
import contextlib
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from distgrad.comm.rendezvous import Gate
from distgrad.launcher.ray.wire import BEGUN, ENDED, ERR, KILL, OUT, SIGNAL, Wire

_LAST_LINES = 5.0  # seconds for what is under way once a rank has ended
_LATE = 60.0  # seconds for which late agents are awaited


class Rank:
    """One rank as the driver sees it; with ``poll`` and ``pid`` as a child process has them."""

    def __init__(self, number: int, logs: Path | None) -> None:
        self.number = number
        self.pid = 0
        self.host: str | None = None
        self.code: int | None = None
        self._said: bool | None = None
        mark = f"[rank {number}] " if number else ""
        log = None if logs is None or number == 0 else logs / f"rank_{number:05d}.log"
        self._outputs = {kind: _Output(out, mark, log) for kind, out in _streams().items()}
        self._wire: Wire | None = None
        self._thread: threading.Thread | None = None

    @property
    def has_come(self) -> bool:
        return self._wire is not None

    def poll(self) -> int | None:
        """The exit code of the rank, negative where a signal killed it; None while it runs."""
        return self.code

    def said(self) -> bool | None:
        """Whether it has said why it has ended; None where that is not known."""
        return self._said

    def attach(self, wire: Wire) -> None:
        """Listens to its agent from now on."""
        self._wire = wire
        self._thread = threading.Thread(target=self._listen, args=(wire,), daemon=True)
        self._thread.start()

    def send(self, kind: int, value: Any = None) -> None:
        if self._wire is not None and self.code is None:
            with contextlib.suppress(OSError):
                self._wire.send(kind, value)

    def finish(self) -> None:
        """Reads what is still under way and hangs up."""
        if self._thread is not None and self._wire is not None:
            if self.code is not None:
                self._thread.join(_LAST_LINES)
            self._wire.close()
            self._thread.join(_LAST_LINES)

    def _listen(self, wire: Wire) -> None:
        code = -signal.SIGKILL  # unless it tells another end: its Ray worker was killed with it
        while (frame := wire.receive()) is not None:
            kind, value = frame
            if kind in self._outputs:
                self._outputs[kind].write(value)
            elif kind == BEGUN:
                self.pid, self.host = value["pid"], value["host"]
            elif kind == ENDED:
                code, self._said = value["code"], value["said"]
                break
        for output in self._outputs.values():
            output.close()
        self.code = code
        wire.close()


class Crew:
    """All ranks of one start. Agents come through ``gate``; nobody else has its token.

    Args:
        gate: where they knock.
        workers: number of ranks.
        logs: folder for the output of all ranks but the first.
    """

    def __init__(self, gate: Gate, workers: int, logs: Path | None) -> None:
        self.ranks = [Rank(number, logs) for number in range(workers)]
        self._gate = gate
        self._closed: float | None = None  # when
        self._early: list[int] = []  # signals that came before some agent
        self._lock = threading.RLock()  # a signal handler may send, too
        self._thread = threading.Thread(target=self._admit, name="gate", daemon=True)
        self._thread.start()

    def missing(self) -> list[int]:
        """The ranks whose agents have not come yet."""
        return [rank.number for rank in self.ranks if not rank.has_come]

    def signal(self, number: int) -> None:
        """Sends a signal to every rank, to those that are still to come as well."""
        with self._lock:
            self._early.append(number)
            for rank in self.ranks:
                rank.send(SIGNAL, number)

    def kill(self) -> None:
        """SIGKILL to every rank."""
        with self._lock:
            for rank in self.ranks:
                rank.send(KILL)

    def close(self) -> None:
        """Ends every rank that still runs; agents that are late are sent home as they come."""
        self._closed = time.monotonic()
        self.kill()
        for rank in self.ranks:
            rank.finish()

    def _admit(self) -> None:
        while self.missing() and (self._closed is None or time.monotonic() < self._closed + _LATE):
            guest = self._gate.accept(0.1)
            if guest is None:
                continue
            number, connection = guest
            if number >= len(self.ranks) or self.ranks[number].has_come:
                connection.close()
                continue
            with self._lock:
                self.ranks[number].attach(Wire(connection))
                for early in self._early:
                    self.ranks[number].send(SIGNAL, early)
                if self._closed is not None:
                    self.ranks[number].send(KILL)
        self._gate.close()


class _Output:
    """Where the output of a rank goes: rank 0's as it comes, the others' in marked whole lines."""

    def __init__(self, out: IO[str], mark: str, log: Path | None) -> None:
        self._out = out
        self._mark = mark
        self._log = log
        self._file: IO[str] | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def write(self, data: bytes, final: bool = False) -> None:
        text = self._decoder.decode(data, final)
        if self._mark:
            lines = (self._rest + text).split("\n")
            self._rest = lines.pop()
            if final and self._rest:
                lines, self._rest = [*lines, self._rest], ""
            plain = [line.removeprefix(self._mark) for line in lines]
            text = "".join(f"{self._mark}{line}\n" for line in plain)
            self._keep("".join(f"{line}\n" for line in plain))
        else:
            self._keep(text)
        if text:
            with contextlib.suppress(OSError, ValueError):  # our reader has gone
                self._out.write(text)
                self._out.flush()

    def close(self) -> None:
        self.write(b"", final=True)
        if self._file is not None:
            self._file.close()

    def _keep(self, text: str) -> None:
        if self._log is None or not text:
            return
        with contextlib.suppress(OSError):  # a full disk ends no training
            if self._file is None:
                self._log.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._log.open("a", buffering=1, encoding="utf-8")
            self._file.write(text)


def _streams() -> dict[int, IO[str]]:
    return {OUT: sys.stdout, ERR: sys.stderr}
