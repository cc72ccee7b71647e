"""Checks in which two ranks add whole numbers, by each way in which ranks reach each other."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distgrad.comm import shared_memory
from distgrad.comm.mpi import INSTALL, family, library_version
from distgrad.compile.llvm import engine
from distgrad.core.errors import MissingExtraError, PeerLostError
from distgrad.doctor.finding import Finding, failed, last_words, ok, skipped, warning
from distgrad.launcher import environ, load, starters
from distgrad.launcher.base import Launcher, Program
from distgrad.launcher.environ import World
from distgrad.launcher.local import LocalLauncher
from distgrad.launcher.mpi import MPILauncher

RANKS = 2


def tcp(folder: Path) -> Finding:
    """Over sockets, as between hosts."""
    environ.keep_memory_apart()
    return _allreduce(LocalLauncher(World()), folder, lambda found: ok(_speed(found)))


def memory(folder: Path) -> Finding:
    """Through memory that the ranks share."""
    if not environ.share_memory():
        return skipped("DISTGRAD_SHARED_MEMORY=off", "unset DISTGRAD_SHARED_MEMORY")

    def judge(found: dict[str, Any]) -> Finding:
        if found["shares_memory"]:
            return ok(_speed(found))
        if (lack := engine.lack()) is not None:
            return skipped(f"{_speed(found)}: {lack}", "pip install 'distgrad[fast]'")
        if shared_memory.place() is None:
            return skipped("this system has no memory that ranks can share: they use TCP")
        return warning(
            f"ranks cannot share memory here, and use TCP: {_speed(found)}",
            "let processes of one user see each other's /proc/PID/fd (no hidepid, no sandbox)",
        )

    return _allreduce(LocalLauncher(World()), folder, judge)


def mpi(folder: Path) -> Finding:
    """By MPI's messages, under a real mpirun (or srun), whose family is named."""
    if importlib.util.find_spec("mpi4py") is None:
        try:
            there = f" ({starters.find_mpirun()} is there)"
        except MissingExtraError:
            there = ""
        return skipped(f"mpi4py is not installed{there}", INSTALL)
    library = library_version()
    starter = starters.find_starter()
    who = f"{starter.path} ({starter.family}), mpi4py loads {library}"
    first = shutil.which("mpirun")
    if first is not None and starters.flavour(first) not in ("unknown", family(library)):
        return failed(
            f"the mpirun on PATH, {first}, is that of {starters.flavour(first)}, but mpi4py loads "
            f"{library}: after mpirun -n 4 every rank would think that it is alone",
            f"put the mpirun of that library first on PATH (distgrad itself takes {starter.path})",
        )
    environ.keep_memory_apart()
    found = _allreduce(MPILauncher(World()), folder, lambda found: ok(f"{_speed(found)}; {who}"))
    if found.state != "failed":
        return found
    return failed(
        f"{who}: {found.detail}",
        found.advice
        or "use the mpirun of the MPI that mpi4py loads: first on PATH, or in DISTGRAD_MPIRUN",
    )


def ray(folder: Path) -> Finding:
    """On Ray: its cluster, or one that is started for this."""
    if importlib.util.find_spec("ray") is None:
        return skipped("Ray is not installed", "pip install 'distgrad[ray]'")
    from distgrad.launcher.ray.launcher import RayLauncher

    return _allreduce(RayLauncher(), folder, lambda found: ok(_speed(found)))


def _allreduce(
    launcher: Launcher, folder: Path, judge: Callable[[dict[str, Any]], Finding]
) -> Finding:
    """Starts the ranks by a launcher, and judges what rank 0 has measured."""
    result = folder / "ranks.json"
    words = [sys.executable, "-m", "distgrad.doctor.ranks", str(result), str(RANKS)]
    code = launcher.start(Program(words, RANKS, threads=1))
    if code == 0 and result.exists():
        return judge(json.loads(result.read_text()))
    last = last_words(folder / "log")
    ended = f"{RANKS} ranks ended with exit code {code}" + (f": {last}" if last else "")
    if code == PeerLostError.exit_code and load.is_busy():
        return warning(f"slow or broken: {ended}", load.advice())
    return failed(ended)


def _speed(found: dict[str, Any]) -> str:
    return (
        f"{RANKS} ranks, exact sums, 4 KiB in {found['small_us']:.0f} us, "
        f"4 MiB at {found['large_gb_s']:.1f} GB/s"
    )
