"""What a launcher is, and which one a command gets."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import worker_shards
from distgrad.core.errors import UsageError
from distgrad.launcher import environ, threads
from distgrad.launcher.environ import World


@dataclass(frozen=True)
class Program:
    """What every rank runs, whatever starts it.

    Args:
        command: the program of a rank and its arguments.
        workers: number of ranks.
        again: the command after a restart; None means the same.
        threads: threads per worker; None: one of libraries, and a share of the cores for kernels.
        virtual_shards: for scripts, in DISTGRAD_VIRTUAL_SHARDS.
        logs: folder for the output of all ranks but the first.
        gpus: GPUs per worker, for a launcher that hands them out.
    """

    command: Sequence[str]
    workers: int
    again: Sequence[str] | None = None
    threads: int | None = None
    virtual_shards: int | None = None
    logs: Path | None = None
    gpus: int = 0

    def settings(self) -> dict[str, str]:
        """The environment variables of every rank."""
        return environ.rank_settings(self.threads, self.virtual_shards)

    def words(self, restart: int) -> list[str]:
        """The command of a rank after so many restarts."""
        return list(self.again if restart and self.again is not None else self.command)


class Launcher(ABC):
    """Brings the ranks of a job to life and returns the exit code of the whole."""

    name: str

    @abstractmethod
    def start(self, program: Program, *, max_restarts: int = 0) -> int:
        """Runs a program on all ranks to its end.

        Args:
            program: what the ranks run.
            max_restarts: how often to start all ranks again when one was lost or killed.

        Raises:
            JobError: the ranks cannot be started.
        """

    @abstractmethod
    def commands(self, program: Program) -> list[str]:
        """The lines, for a shell, of what ``start`` would run."""

    @abstractmethod
    def launch(self, job: Any, argv: Sequence[str], *, max_restarts: int = 0) -> int:
        """Runs the job to its end: as the rank that this process is, or by starting ranks.

        Args:
            job: the job; a launcher reads ``workers``, ``threads_per_worker``, ``run_dir`` and
                ``virtual_shards`` and hands the rest on.
            argv: the command line after ``distgrad``, for launchers that start it again as ranks.
            max_restarts: how often to start all ranks again when one was lost or killed.

        Raises:
            JobError: the job cannot start; a process that is one rank of several prints its
                errors itself and returns their exit code.
        """


def choose(requested: str | None, yaml: str, world: World) -> Launcher:
    """The launcher of a job: who started us wins over the flag, the flag over the YAML.

    The variables of torchrun may be meant for another program: a flag wins over them.

    Args:
        requested: the ``--launcher`` flag, or None.
        yaml: ``parallel.launcher`` of the job.
        world: what ``environ.detect()`` found.

    Raises:
        UsageError: there is no such launcher.
    """
    from distgrad.launcher.local import LocalLauncher
    from distgrad.launcher.mpi import MPILauncher
    from distgrad.launcher.ray.launcher import RayLauncher

    if world.started_by_mpi:
        return MPILauncher(world)
    if world.is_rank and (world.source != "torchrun" or requested is None):
        return LocalLauncher(world)
    name = requested or yaml
    if name == "local":
        return LocalLauncher(World())
    if name == "mpi":
        return MPILauncher(World())
    if name == "ray":
        return RayLauncher()
    raise UsageError(f"unknown launcher {name!r}: use local, mpi or ray.")


def run_job(world: World, job: Any) -> int:
    """Runs the worker of a job as the rank that somebody has started; returns its exit code."""
    from distgrad.launcher.connect import run_rank

    def main(communicator: Communicator) -> int:
        from distgrad import worker

        check_workers(job, communicator.world_size)
        threads.limit(job.threads_per_worker)
        return worker.main(job, communicator)

    return run_rank(world, main)


def program_of(job: Any, argv: Sequence[str], python: str) -> Program:
    """The program of the ranks of a job: ``distgrad argv...`` without its launch options."""
    check_workers(job, job.workers)
    words = without_launch_options(argv)
    return Program(
        command=[python, "-m", "distgrad", *words],
        again=[python, "-m", "distgrad", *_resuming(words)],
        workers=job.workers,
        threads=job.threads_per_worker,
        logs=None if job.run_dir is None else Path(job.run_dir) / "logs",
        gpus=int(job.device == "cuda"),
    )


def refuse_restarts(world: World, max_restarts: int) -> None:
    """Raises UsageError where somebody else has started the ranks, who alone could restart them."""
    if max_restarts:
        raise UsageError(
            f"--max-restarts cannot work here: {world.source} has started this process, and only "
            "who starts the ranks can start them again. Let distgrad do it: -n N --launcher mpi."
        )


def check_workers(job: Any, world_size: int) -> None:
    """Raises UsageError when the job has fewer virtual shards than workers."""
    if job.virtual_shards is not None:
        worker_shards(job.virtual_shards, 0, world_size)


def without_launch_options(argv: Sequence[str]) -> list[str]:
    """``argv`` without ``-n N``, ``--launcher NAME`` and ``--max-restarts K`` in any spelling."""
    kept: list[str] = []
    words = iter(argv)
    for word in words:
        if word in ("-n", "-np", "--workers", "--launcher", "--max-restarts"):
            next(words, None)
        elif not (
            word.startswith(("--workers=", "--launcher=", "--max-restarts="))
            or (word.startswith("-n") and word[2:].lstrip("=").isdigit())
        ):
            kept.append(word)
    return kept


def shell_line(settings: Mapping[str, str], command: Sequence[str]) -> str:
    """A command as one line for a shell, with its variables before it."""
    words = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    return " ".join([*words, shlex.join(command)])


def _resuming(argv: Sequence[str]) -> list[str]:
    """The same command line, going on from the last commit of the run."""
    words = list(argv)
    if "--resume" in words:
        place = words.index("--resume")
        del words[place : place + 2]
    return [*words, "--resume", "auto"]
