"""The MPI launcher: be a rank when mpirun or srun started us, else start mpirun.

A rank that fails must take the others with it: MPI alone would let them wait for ever. How an
error ends the world, and that it is printed once, is decided here (``run_rank``, ``end_world``).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from distgrad.comm.communicator import Communicator
from distgrad.comm.mpi import INSTALL, MPITransport
from distgrad.core.errors import JobError, MissingExtraError, PeerLostError, PreemptedError
from distgrad.launcher import environ
from distgrad.launcher.base import Launcher, check_workers
from distgrad.launcher.environ import World
from distgrad.launcher.process import die_with_parent, supervise

# Seconds: for how long a rank with an error waits for all others to have the same one; and for
# how long it keeps silent so that one with a better claim can speak and end the world (the
# culprit before those who lost it, rank 0 before the others).
_TOGETHER = 2.0
_AFTER_CULPRIT = 3.0
_AFTER_RANK_0 = 0.5
_PER_RANK = 0.05


class MPILauncher(Launcher):
    """One rank under mpirun or srun, or the process that wraps mpirun."""

    name = "mpi"

    def __init__(self, world: World) -> None:
        self.world = world

    def launch(self, job: Any, argv: Sequence[str]) -> int:
        """Runs this rank of the job, or all ranks under mpirun, and returns the exit code.

        Raises:
            UsageError: the job has fewer virtual shards than workers.
            MissingExtraError: mpi4py or mpirun is missing.
        """
        if not self.world.started_by_mpi:
            check_workers(job, job.workers)
            env = environ.child_environment(job.threads_per_worker)
            return supervise(self.command(job, argv), env)

        def main(communicator: Communicator) -> int:
            from distgrad import worker

            check_workers(job, communicator.world_size)
            if job.threads_per_worker is not None:
                environ.limit_threads(job.threads_per_worker)
            return worker.main(job, communicator)

        return run_rank(self.world, main)

    def command(self, job: Any, argv: Sequence[str]) -> list[str]:
        """The mpirun command that starts ``distgrad argv...`` on ``job.workers`` ranks."""
        mpirun = find_mpirun()
        options = ["-n", str(job.workers)]
        if flavour(mpirun) == "Open MPI":
            if os.geteuid() == 0:
                options.append("--allow-run-as-root")
            if job.workers > environ.usable_cores():
                options.append("--oversubscribe")
            if job.threads_per_worker != 1:
                options += ["--bind-to", "none"]
        rank = [sys.executable, "-m", "distgrad", *without_launch_options(argv)]
        return [mpirun, *options, *rank]


def find_mpirun() -> str:
    """Path of mpirun or mpiexec: beside this Python first, since mpi4py loads the MPI there.

    Raises:
        MissingExtraError: there is none, or mpi4py is missing.
    """
    if importlib.util.find_spec("mpi4py") is None:
        raise MissingExtraError(f"the mpi launcher needs mpi4py: {INSTALL}")
    beside = str(Path(sys.executable).parent)
    for folder in (beside, None):
        for name in ("mpirun", "mpiexec"):
            found = shutil.which(name, path=folder)
            if found:
                return found
    raise MissingExtraError(
        f"the mpi launcher found neither mpirun nor mpiexec in {beside} or on PATH: {INSTALL}"
    )


def flavour(mpirun: str) -> str:
    """``"MPICH (hydra)"``, ``"Open MPI"`` or ``"unknown"``, by ``mpirun --version``."""
    try:
        done = subprocess.run(
            [mpirun, "--version"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    text = (done.stdout + done.stderr).lower()
    if "open mpi" in text or "open-mpi" in text or "openrte" in text:
        return "Open MPI"
    return "MPICH (hydra)" if "hydra" in text or "intel" in text else "unknown"


def without_launch_options(argv: Sequence[str]) -> list[str]:
    """``argv`` without ``-n N`` and ``--launcher NAME`` in any spelling."""
    kept: list[str] = []
    words = iter(argv)
    for word in words:
        if word in ("-n", "--workers", "--launcher"):
            next(words, None)
        elif not (
            word.startswith(("--workers=", "--launcher="))
            or (word.startswith("-n") and word[2:].lstrip("=").isdigit())
        ):
            kept.append(word)
    return kept


def run_rank(world: World, main: Callable[[Communicator], int]) -> int:
    """Runs ``main(communicator)`` as one MPI rank and returns the exit code of this process.

    An error on any rank ends all of them with its exit code, and is printed once.
    """
    die_with_parent()
    try:
        timeout = environ.operation_timeout()
        transport = MPITransport(expected_size=world.world_size, started_by=world.source)
    except JobError as error:
        if world.local_rank == 0:  # once per machine: an installation is a machine's affair
            _say(f"error: {error}", world.rank)
        return error.exit_code
    communicator = Communicator(transport, timeout=timeout)
    try:
        code = main(communicator)
    except BaseException as error:
        return end_world(communicator, error)
    communicator.close()
    return code


def end_world(communicator: Communicator, error: BaseException) -> int:
    """Prints ``error`` once in the whole world and ends every rank with its exit code.

    A job error that all ranks raise together (a bad setting, a diverged loss, preemption) lets
    them exit by themselves; then this returns the exit code. In every other case the world is
    aborted, so that no rank goes on waiting for this one.
    """
    rank = communicator.rank
    code, text = _verdict(error)
    if isinstance(error, SystemExit) and code == 0:
        communicator.close()
        return 0
    if isinstance(error, PeerLostError):
        time.sleep(_AFTER_CULPRIT + _PER_RANK * rank)
    elif isinstance(error, JobError | SystemExit):
        # A preempted rank 0 is still saving; of other errors everyone knows at the same time.
        patience = communicator.timeout if isinstance(error, PreemptedError) else _TOGETHER
        if communicator.leave(code, timeout=patience):
            if rank == 0:
                _say(text)
            return code
    elif rank > 0:
        time.sleep(_AFTER_RANK_0 + _PER_RANK * rank)
    _say(text, rank)
    communicator.abort(code, text)
    return code


def install_excepthook(communicator: Communicator) -> None:
    """Makes an uncaught exception of this script end every rank, for scripts run by mpirun."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        raise SystemExit(end_world(communicator, error.with_traceback(trace)))

    sys.excepthook = hook


def _verdict(error: BaseException) -> tuple[int, str]:
    """Exit code and text of an error: one line for the expected ones, else a traceback."""
    if isinstance(error, JobError):
        return error.exit_code, f"error: {error}"
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return error.code or 0, ""
        return 1, str(error.code)
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted"
    return 1, "".join(traceback.format_exception(error)).rstrip()


def _say(text: str, rank: int | None = None) -> None:
    """Writes to stderr, after all of stdout; every line says which rank speaks, if one is given."""
    sys.stdout.flush()
    if text:
        mark = "" if rank is None else f"[rank {rank}] "
        print(mark + text.replace("\n", "\n" + mark), file=sys.stderr, flush=True)
