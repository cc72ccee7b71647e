"""The local launcher: this very process is the only rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distgrad.comm.communicator import Communicator
from distgrad.core.errors import UsageError
from distgrad.launcher import environ
from distgrad.launcher.base import Launcher


class LocalLauncher(Launcher):
    """Runs the job here, in a world of one."""

    name = "local"

    def launch(self, job: Any, argv: Sequence[str]) -> int:
        """Runs the worker in this process and returns its exit code.

        Raises:
            UsageError: the job asks for more than one worker.
        """
        if job.workers > 1:
            raise UsageError(
                f"{job.workers} local workers without MPI have not landed yet: "
                f"use --launcher mpi for {job.workers} workers, or one worker."
            )
        from distgrad import worker

        if job.threads_per_worker is not None:
            environ.limit_threads(job.threads_per_worker)
        return worker.main(job, Communicator(None))
