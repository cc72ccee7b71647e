"""The ranks of one number of workers, seen from who measures, and the lines to them."""

from __future__ import annotations

import contextlib
import json
import pickle
import secrets
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from distgrad.bench.spec import Spec
from distgrad.core.errors import JobError, PeerLostError
from distgrad.job import Job
from distgrad.launcher import environ, process

_START_S = 600.0  # until all ranks have made their first step: data may have to be downloaded
_ANSWER_S = 600.0
_LAST_WORDS = 5.0


@dataclass(frozen=True)
class Answer:
    """Seconds of one step of the slowest rank, and of its parts; samples a step of all ranks.

    ``communication`` is None where it goes on beside the computation.
    """

    step: float
    data: float
    communication: float | None
    samples: float
    memory: int


class World:
    """A context: starts the ranks of a job, and ends them. Raises the JobError of one that ends."""

    def __init__(self, job: Job, launcher: str) -> None:
        assert job.run_dir is not None
        self.workers = job.workers
        self._log = Path(job.run_dir).with_name("log")
        self._lines: list[IO[str]] = []
        token = secrets.token_hex(16)
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(0.2)
            address = f"127.0.0.1:{server.getsockname()[1]}"
            spec = Path(job.run_dir).with_name("spec")
            spec.write_bytes(pickle.dumps(Spec(job, launcher, address, token)))
            began = time.monotonic()
            with self._log.open("wb") as output:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "distgrad.bench.rank", str(spec)],
                    env=environ.child_environment({"DISTGRAD_PROGRESS": "off"}),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            try:
                hellos = [self._accept(server, token, began + _START_S) for _ in range(job.workers)]
                first = [self._read(line) for line in self._lines]
            except BaseException:
                self.close()
                raise
        # Seconds until the slowest rank has everything imported; until its first step is done.
        self.start = max(hello["now"] for hello in hellos) - began
        self.set_up = max(answer["now"] for answer in first) - began

    def __enter__(self) -> World:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def ask(self, steps: int) -> Answer:
        """Lets the ranks make so many steps, and one before them that does not count."""
        for line in self._lines:
            try:
                print(steps, file=line, flush=True)
            except OSError:
                raise self._lost() from None
        answers = [self._read(line) for line in self._lines]
        slowest = max(answers, key=lambda answer: answer["data"] + answer["step"])
        communicated = slowest["communication"]
        return Answer(
            step=(slowest["data"] + slowest["step"]) / steps,
            data=slowest["data"] / steps,
            communication=None if communicated is None else communicated / steps,
            samples=slowest["samples"] / steps,
            memory=max(answer["memory"] for answer in answers),
        )

    def close(self) -> None:
        for line in self._lines:
            with contextlib.suppress(OSError):
                line.close()
        self._lines = []
        # They leave by themselves; then they are asked, then killed, as ctrl-C twice would do it.
        for ask in (lambda: None, self._process.terminate, self._process.terminate):
            ask()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LAST_WORDS)
                break
        process.kill_session(self._process)
        self._process.wait()

    def _accept(self, server: socket.socket, token: str, end: float) -> dict[str, Any]:
        """Lets one rank in; whoever does not know the secret is sent away."""
        while time.monotonic() < end:
            with contextlib.suppress(TimeoutError):
                connection, _ = server.accept()
                connection.settimeout(_ANSWER_S)
                line = connection.makefile("rw")
                connection.close()  # the lines keep it open
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    hello: dict[str, Any] = json.loads(line.readline())
                    if secrets.compare_digest(hello["token"], token):
                        self._lines.append(line)
                        return hello
                line.close()
            if self._process.poll() is not None:
                raise self._lost()
        raise PeerLostError(
            f"{self.workers} workers have not started within {_START_S:g} s; their last words: "
            f"{self._said()}"
        )

    def _read(self, line: IO[str]) -> dict[str, Any]:
        try:
            text = line.readline()
        except TimeoutError:
            raise PeerLostError(
                f"{self.workers} workers have not answered within {_ANSWER_S:g} s: lower --steps."
            ) from None
        except OSError:
            text = ""
        if not text:
            raise self._lost()
        found: dict[str, Any] = json.loads(text)
        return found

    def _lost(self) -> JobError:
        """The error of the ranks, with their exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_WORDS)
        error = JobError(f"{self._said()} (-n {self.workers})")
        error.exit_code = max(self._process.poll() or 1, 1)
        return error

    def _said(self) -> str:
        text = self._log.read_text(errors="replace").strip()
        _, found, last = text.rpartition("error: ")
        return last if found else "\n".join(text.splitlines()[-20:])
