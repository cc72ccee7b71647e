"""What a launcher is, and which one a command gets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from distgrad.core.errors import UsageError
from distgrad.launcher.environ import World


class Launcher(ABC):
    """Brings the ranks of a job to life and returns the exit code of the whole."""

    name: str

    @abstractmethod
    def launch(self, job: Any, argv: Sequence[str]) -> int:
        """Runs the job to its end.

        Args:
            job: the job; a launcher reads ``workers``, ``threads_per_worker`` and
                ``virtual_shards`` and hands the rest on.
            argv: the command line after ``distgrad``, for launchers that start it again as ranks.

        Raises:
            JobError: the job cannot start; a process that is one rank of several prints its
                errors itself and returns their exit code.
        """


def choose(requested: str | None, yaml: str, world: World) -> Launcher:
    """The launcher of a job: who started us wins over the flag, the flag over the YAML.

    Args:
        requested: the ``--launcher`` flag, or None.
        yaml: ``parallel.launcher`` of the job.
        world: what ``environ.detect()`` found.

    Raises:
        UsageError: there is no such launcher, or its turn has not come yet.
    """
    from distgrad.launcher.local import LocalLauncher
    from distgrad.launcher.mpi import MPILauncher

    if world.started_by_mpi:
        return MPILauncher(world)
    if world.source != "none" and world.world_size > 1 and requested is None:
        raise UsageError(
            f"this process was started as rank {world.rank} of {world.world_size} by variables in "
            f"the style of {world.source}, and the TCP launcher that would use them has not landed "
            "yet. Start the job with mpirun, or give --launcher to ignore these variables."
        )
    name = requested or yaml
    if name == "local":
        return LocalLauncher()
    if name == "mpi":
        return MPILauncher(world)
    if name == "ray":
        raise UsageError("the ray launcher has not landed yet: use --launcher mpi or local.")
    raise UsageError(f"unknown launcher {name!r}: use local, mpi or ray.")


def check_workers(job: Any, world_size: int) -> None:
    """Raises UsageError when the job has fewer virtual shards than workers."""
    shards = job.virtual_shards
    if shards is not None and world_size > shards:
        raise UsageError(
            f"{world_size} workers cannot share {shards} virtual shards: "
            f"use at most {shards} workers, or raise parallel.virtual_shards."
        )
