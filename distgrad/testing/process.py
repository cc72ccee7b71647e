"""Commands with a time limit that leave no process behind, however they end. POSIX.

A launcher moves its ranks into sessions of their own (mpirun does), so that a signal to the process
group misses them. Every process started here carries a mark in its environment, which its children
inherit: where there is a ``/proc``, the family is found by that mark and by parenthood.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_MARK = "DISTGRAD_TESTING_FAMILY"


@dataclass(frozen=True)
class Result:
    """How a command ended; ``orphans`` are the processes that outlived it, and are killed now."""

    args: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    seconds: float
    orphans: tuple[int, ...]


class Command:
    """A running command; leaving the ``with`` block kills whatever is left of its family.

    ``env`` holds changes to the inherited environment: a value, or None to leave a variable out.
    """

    def __init__(
        self,
        args: Sequence[str | os.PathLike],
        *,
        cwd: str | os.PathLike | None = None,
        env: Mapping[str, str | None] | None = None,
    ) -> None:
        self.args = tuple(os.fspath(arg) for arg in args)
        self._mark = f"{_MARK}={uuid.uuid4().hex}"
        changes = {} if env is None else env
        removed = [f"-u{name}" for name, value in changes.items() if value is None]
        added = [f"{name}={value}" for name, value in changes.items() if value is not None]
        # Files, not pipes: an orphan that holds a pipe open would keep its reader waiting.
        self._folder = tempfile.TemporaryDirectory(prefix="distgrad-")
        self._started = time.monotonic()
        with self._file("stdout").open("wb") as stdout, self._file("stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                # env(1) changes the environment, so that nothing here has to read it.
                ["env", *removed, *added, self._mark, *self.args],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stdout(self) -> str:
        """What it has written so far."""
        return self._file("stdout").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What it has written so far."""
        return self._file("stderr").read_text(errors="replace")

    def is_running(self) -> bool:
        return self._process.poll() is None

    def family(self) -> list[int]:
        """Process ids of the command and all its descendants that are alive."""
        return _family(self.pid, self._mark.encode())

    def send_signal(self, number: int) -> None:
        """Signal the command itself, not its children."""
        self._process.send_signal(number)

    def wait(self, timeout: float = 60.0, grace: float = 2.0) -> Result:
        """The result, once the command has ended by itself.

        Its children get ``grace`` seconds to follow; later ones are killed and named as orphans.
        Raises TimeoutError, with the end of the output, after killing the whole family.
        """
        try:
            returncode = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(
                f"{' '.join(self.args)} was still running after {timeout:g} s\n"
                f"--- stdout\n{self.stdout[-4000:]}\n--- stderr\n{self.stderr[-4000:]}"
            ) from None
        seconds = time.monotonic() - self._started
        deadline = time.monotonic() + grace
        while (orphans := self.family()) and time.monotonic() < deadline:
            time.sleep(0.02)
        self.kill()
        return Result(self.args, returncode, self.stdout, self.stderr, seconds, tuple(orphans))

    def kill(self) -> None:
        """SIGKILL to the whole family, until none of it is alive; reaps the command."""
        if self.is_running():
            _kill(os.killpg, self.pid)  # where there is no /proc, the group is the best there is
        deadline = time.monotonic() + 5.0
        # Again, for a child that was born while the others were killed.
        while (family := self.family()) and time.monotonic() < deadline:
            for pid in family:
                _kill(os.kill, pid)
            time.sleep(0.01)
        self._process.wait(5.0)

    def __enter__(self) -> Command:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        self._folder.cleanup()

    def _file(self, name: str) -> Path:
        return Path(self._folder.name) / name


def run(
    args: Sequence[str | os.PathLike],
    *,
    timeout: float = 60.0,
    cwd: str | os.PathLike | None = None,
    env: Mapping[str, str | None] | None = None,
) -> Result:
    """Run a command to its end. Raises TimeoutError after ``timeout`` seconds, all of it killed."""
    with Command(args, cwd=cwd, env=env) as command:
        return command.wait(timeout)


def wait_until(condition: Callable[[], object], timeout: float, what: str) -> None:
    """Return once ``condition()`` is true. Raises TimeoutError, which says what was waited for."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(0.01)


def _kill(send: Callable[[int, int], None], pid: int) -> None:
    try:
        send(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it ended by itself in the meantime


def _family(root: int, mark: bytes) -> list[int]:
    children: dict[int, list[int]] = {}
    alive, members = set(), set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            marked = mark in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended, or it belongs to someone else
        pid = int(entry.name)
        if state in "ZX":
            continue  # dead already; its parent has not looked yet
        alive.add(pid)
        children.setdefault(int(parent), []).append(pid)
        if marked or pid == root:
            members.add(pid)
    frontier = list(members)
    while frontier:
        for child in children.get(frontier.pop(), []):
            if child not in members:
                members.add(child)
                frontier.append(child)
    return sorted(members)
