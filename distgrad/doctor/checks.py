"""All checks by name, and how one of them is made: in a process that holds nothing else."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

from distgrad.core import files
from distgrad.core.errors import JobError
from distgrad.doctor import gpus, machine, transports
from distgrad.doctor.finding import Finding, failed
from distgrad.launcher import environ
from distgrad.launcher.process import die_with_parent

# Seconds that ranks give each other: less than their check has, so that they speak first.
_RANKS_S, _RANKS_ON_RAY_S = 10.0, 60.0
_REPORT = "report it, with what distgrad env prints"


def all_checks(folder: Path, run_dir: Path) -> dict[str, Callable[[], Finding]]:
    """What each check does, with a folder for its files."""
    return {
        "python": machine.python,
        "threads": machine.threads,
        "kernels": machine.kernels,
        "tcp": lambda: transports.tcp(folder),
        "memory": lambda: transports.memory(folder),
        "mpi": lambda: transports.mpi(folder),
        "ray": lambda: transports.ray(folder),
        "shm": lambda: machine.shared_folder(Path("/dev/shm")),
        "disk": lambda: machine.disk(run_dir),
        "clock": machine.clock,
        "network": machine.network,
        "gpu": gpus.gpu,
    }


def make(name: str, folder: Path, run_dir: Path, longer: float) -> None:
    """The main of a check's process: writes the finding to ``folder/finding.json``.

    Its ranks wait so many times ``longer`` for each other.
    """
    os.setsid()  # whatever it starts can be ended with it
    die_with_parent()
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    seconds = f"{longer * (_RANKS_ON_RAY_S if name == 'ray' else _RANKS_S):g}"
    environ.set_defaults({"DISTGRAD_START_TIMEOUT": seconds, "DISTGRAD_TIMEOUT": seconds})
    try:
        found = all_checks(folder, run_dir)[name]()
    except JobError as error:  # these say what to do
        found = failed(str(error))
    except Exception as error:
        found = failed(f"{type(error).__name__}: {error}", _REPORT)
    files.replace(folder / "finding.json", json.dumps(dataclasses.asdict(found)), sync=False)
