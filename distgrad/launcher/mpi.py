"""The MPI launcher: be a rank when mpirun or srun started us, else start mpirun or srun."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Any

from distgrad.launcher.base import (
    Launcher,
    Program,
    program_of,
    refuse_restarts,
    run_job,
    shell_line,
)
from distgrad.launcher.environ import World
from distgrad.launcher.starters import find_starter
from distgrad.launcher.supervisor import Member, Team, supervise


class MPILauncher(Launcher):
    """One rank under mpirun or srun, or the process that wraps one of them.

    Args:
        world: what ``environ.detect()`` found.
    """

    name = "mpi"

    def __init__(self, world: World) -> None:
        self.world = world

    def launch(self, job: Any, argv: Sequence[str], *, max_restarts: int = 0) -> int:
        """Runs this rank of the job, or all ranks under mpirun or srun; returns the exit code.

        Raises:
            UsageError: the job has fewer virtual shards than workers.
            MissingExtraError: mpi4py or mpirun is missing, or they do not belong together.
        """
        if self.world.started_by_mpi:
            refuse_restarts(self.world, max_restarts)
            return run_job(self.world, job)
        return self.start(program_of(job, argv, sys.executable), max_restarts=max_restarts)

    def start(self, program: Program, *, max_restarts: int = 0) -> int:
        starter = find_starter()
        before = starter.command(program)
        settings = program.settings()

        def team(restart: int) -> Team:
            member = Member(
                starter.name,
                [*before, *program.words(restart)],
                {**settings, "DISTGRAD_RESTART": str(restart)},
                killed_words=starter.killed_words,
                # It ends its ranks when told to, and would leave them behind if it were killed.
                death_signal=signal.SIGTERM,
            )
            return Team([member], killed=starter.killed)

        return supervise(team, max_restarts=max_restarts)

    def commands(self, program: Program) -> list[str]:
        words = [*find_starter().command(program), *program.command]
        return [shell_line(program.settings(), words)]
