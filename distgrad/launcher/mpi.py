"""The MPI launcher: be a rank when mpirun or srun started us, else start mpirun."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distgrad.comm.mpi import INSTALL
from distgrad.core.errors import MissingExtraError
from distgrad.launcher import environ
from distgrad.launcher.base import (
    Launcher,
    Program,
    program_of,
    refuse_restarts,
    run_job,
    shell_line,
)
from distgrad.launcher.environ import World
from distgrad.launcher.supervisor import Member, Team, supervise

# How mpirun tells that a rank died by a signal: hydra returns the number, Open MPI 128 more.
# A small number may also be an exit code of a script's own; of those only the usual ones count.
_USUAL = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS)
_KILLED = frozenset({*_USUAL, *(128 + n for n in (*_USUAL, signal.SIGABRT))})


class MPILauncher(Launcher):
    """One rank under mpirun or srun, or the process that wraps mpirun.

    Args:
        world: what ``environ.detect()`` found.
    """

    name = "mpi"

    def __init__(self, world: World) -> None:
        self.world = world

    def launch(self, job: Any, argv: Sequence[str], *, max_restarts: int = 0) -> int:
        """Runs this rank of the job, or all ranks under mpirun, and returns the exit code.

        Raises:
            UsageError: the job has fewer virtual shards than workers.
            MissingExtraError: mpi4py or mpirun is missing.
        """
        if self.world.started_by_mpi:
            refuse_restarts(self.world, max_restarts)
            return run_job(self.world, job)
        return self.start(program_of(job, argv, sys.executable), max_restarts=max_restarts)

    def start(self, program: Program, *, max_restarts: int = 0) -> int:
        mpirun = self.mpirun(program)
        settings = program.settings()

        def team(restart: int) -> Team:
            command = [*mpirun, *program.words(restart)]
            own = {**settings, "DISTGRAD_RESTART": str(restart)}
            # It ends its ranks when it is told to, and would leave them behind if it were killed.
            member = Member("mpirun", command, own, death_signal=signal.SIGTERM)
            return Team([member], killed=_KILLED)

        return supervise(team, max_restarts=max_restarts)

    def commands(self, program: Program) -> list[str]:
        return [shell_line(program.settings(), [*self.mpirun(program), *program.command])]

    def mpirun(self, program: Program) -> list[str]:
        """mpirun with its options for ``program.workers`` ranks."""
        mpirun = find_mpirun()
        options = ["-n", str(program.workers)]
        if flavour(mpirun) == "Open MPI":
            if os.geteuid() == 0:
                options.append("--allow-run-as-root")
            if program.workers > environ.usable_cores():
                options.append("--oversubscribe")
            if program.threads != 1:
                options += ["--bind-to", "none"]
        return [mpirun, *options]


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
