"""The local launcher: this very process, or several on this machine that meet over TCP.

No MPI is needed. The ranks are children of a supervisor, which is no rank itself: it keeps the
place where they meet, and tells them by variables who they are (``environ.rank_variables``).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from distgrad.comm.rendezvous import Rendezvous, new_token
from distgrad.launcher import environ, threads
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


class LocalLauncher(Launcher):
    """One rank that meets others over TCP, or the process that starts them.

    Args:
        world: what ``environ.detect()`` found.
    """

    name = "local"

    def __init__(self, world: World) -> None:
        self.world = world

    def launch(self, job: Any, argv: Sequence[str], *, max_restarts: int = 0) -> int:
        """Runs the worker here, or the ranks as children, and returns the exit code.

        Raises:
            UsageError: the job has fewer virtual shards than workers.
        """
        if self.world.is_rank:
            refuse_restarts(self.world, max_restarts)
            return run_job(self.world, job)
        if job.workers > 1 or max_restarts:
            return self.start(program_of(job, argv, sys.executable), max_restarts=max_restarts)
        from distgrad import worker
        from distgrad.comm.communicator import Communicator

        threads.limit(job.threads_per_worker)
        return worker.main(job, Communicator(None))

    def start(self, program: Program, *, max_restarts: int = 0) -> int:
        return supervise(lambda restart: self.team(program, restart), max_restarts=max_restarts)

    def commands(self, program: Program) -> list[str]:
        worlds = _worlds(program.workers, "HOST:PORT")
        return [
            shell_line(
                {**program.settings(), **environ.rank_variables(world, "SECRET")}, program.command
            )
            for world in worlds
        ]

    @staticmethod
    def team(program: Program, restart: int) -> Team:
        """A start of the job: a place to meet and a secret of its own, and the ranks."""
        token = new_token()
        meeting = Rendezvous(program.workers, token, timeout=environ.start_timeout())
        members = [
            Member(
                name=f"rank {world.rank}",
                command=program.words(restart),
                settings={
                    **program.settings(),
                    **environ.rank_variables(world, token, restart),
                },
                mark=None if world.rank == 0 else f"[rank {world.rank}] ",
                log=None if program.logs is None else program.logs / f"rank_{world.rank:05d}.log",
            )
            for world in _worlds(program.workers, meeting.address)
        ]
        return Team(members, begun=meeting.start, ended=meeting.close)


def _worlds(workers: int, address: str) -> list[World]:
    whole = World(world_size=workers, local_size=workers, source="distgrad", address=address)
    return [replace(whole, rank=rank, local_rank=rank) for rank in range(workers)]
