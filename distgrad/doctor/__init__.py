"""The doctor: it does what a job would do, one thing at a time, and says what does not work here.

Every check runs in a process of its own, with a deadline: a hang, or a crash in C code, is a check
that failed, and none of its processes is left.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distgrad.core.errors import UsageError
from distgrad.doctor.finding import Finding, failed, last_words, warning
from distgrad.launcher import environ, load

# Seconds for each check, in the order in which they are made.
CHECKS = {
    "python": 20.0,
    "threads": 20.0,
    "kernels": 60.0,
    "tcp": 30.0,
    "memory": 30.0,
    "mpi": 40.0,
    "shm": 10.0,
    "disk": 10.0,
    "clock": 10.0,
    "network": 10.0,
    "gpu": 60.0,
}
WITH_RAY = {"ray": 150.0}
_LAST_WORDS = 1.0
_HANGS = {
    "tcp": "see whether a firewall closes the loopback device, and whether any core is free",
    "mpi": "run mpirun -n 2 hostname: if that hangs too, it is mpirun (its network, its settings); "
    "else put the mpirun of the MPI that mpi4py loads first on PATH",
    "disk": "the file system of the run folder does not answer: name another --run-dir",
    "gpu": "see whether nvidia-smi answers: a GPU may be lost, or its driver stuck",
    "ray": "see whether ray status has room for 2 workers; ray stop ends a broken cluster",
}


def examine(run_dir: Path, *, ray: bool = False) -> Iterator[Finding]:
    """Makes every check, and yields each finding as soon as it is there.

    Args:
        run_dir: where runs would lie; it need not exist.
        ray: whether to start Ray, too.

    Raises:
        UsageError: this process is a rank, whose variables the checks would take for theirs.
    """
    world = environ.detect()
    if world.is_rank:
        raise UsageError(
            f"{world.source} has started this process as rank {world.rank} of {world.world_size}: "
            "run distgrad doctor by itself, it starts ranks of its own."
        )
    for name, seconds in {**CHECKS, **(WITH_RAY if ray else {})}.items():
        yield check(name, run_dir, seconds)


def check(name: str, run_dir: Path, seconds: float) -> Finding:
    """Makes one check in a process of its own, which ends within about ``seconds``.

    Within up to four times that, on a busy machine.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="distgrad-doctor-") as folder:
        found = _made(name, run_dir, Path(folder), seconds, load.factor())
    return found.named(name, time.monotonic() - began)


def summary(findings: Sequence[Finding]) -> str:
    """One line: how many there are of each state."""
    states = ("ok", "warning", "skipped", "failed")
    counts = {state: sum(each.state == state for each in findings) for state in states}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def _made(name: str, run_dir: Path, folder: Path, seconds: float, longer: float) -> Finding:
    from distgrad.doctor import checks

    # A fork has everything loaded; elsewhere than on Linux, libraries may not survive one.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    child = context.Process(target=checks.make, args=(name, folder, run_dir, longer))
    child.start()
    try:
        child.join(seconds * longer)
        timed_out = child.exitcode is None
    finally:
        _end(child)
    last = last_words(folder / "log")
    if timed_out:
        waited = f"no answer within {seconds * longer:.0f} s" + (f": {last}" if last else "")
        if load.is_busy():
            return warning(f"slow or broken: {waited}", load.advice())
        return failed(waited, _HANGS.get(name, "report it, with what distgrad env prints"))
    try:
        return Finding(**json.loads((folder / "finding.json").read_text()))
    except (OSError, ValueError):
        code = child.exitcode or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return failed(
            f"the process of this check {how}" + (f": {last}" if last else ""),
            "reinstall what this check is about: a library has crashed" if code < 0 else "",
        )


def _end(child: Any) -> None:
    """Ends a check and what it has started; a supervisor in it kills at the second SIGTERM."""
    for _ in range(2):
        if child.exitcode is None:
            child.terminate()
            child.join(_LAST_WORDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.join()
