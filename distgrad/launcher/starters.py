"""What starts the ranks of an MPI job: mpirun, or srun within a Slurm allocation.

The rule: DISTGRAD_MPIRUN, if it is set. Else srun, where a Slurm allocation and srun are there and
srun speaks to the MPI that mpi4py loads (``srun --mpi=list``). Else the mpirun beside this Python,
else the one on PATH. Whoever would start ranks that cannot find each other is refused.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from distgrad.comm.mpi import INSTALL, family, library_version
from distgrad.core.errors import MissingExtraError, UsageError
from distgrad.launcher import environ
from distgrad.launcher.base import Program

_ANSWER_S = 20.0
_SLURM_PLUGINS = {"MPICH": "pmi2", "Open MPI": "pmix"}
_SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT)
# Hydra's exit code of a rank that died by a signal is the number of the signal, which is also what
# a user's sys.exit(9) gives. Only its words tell them apart. The last of them has the bits of the
# SIGKILL, too, by which it ended the other ranks; the first is of one rank, which may be the one.
_HYDRA_SAYS = re.compile(
    rb"EXIT CODE: (?!9\n)(\d+)\n[^()]*\(signal \d+\)|\(signal (\d+)\)|KILLED BY SIGNAL: (\d+)"
)


@dataclass(frozen=True)
class Starter:
    """A program that starts ranks.

    Args:
        path: the program.
        family: ``"Slurm"``, or the MPI family of an mpirun.
        plugin: for srun, what of it speaks to the MPI; None leaves it to the site's settings.
    """

    path: str
    family: str
    plugin: str | None = None

    @property
    def name(self) -> str:
        return "srun" if self.family == "Slurm" else "mpirun"

    @property
    def killed(self) -> frozenset[int]:
        """Exit codes which tell that a rank died by a signal."""
        if self.family == "MPICH":
            return frozenset()
        found = frozenset(128 + number for number in _SIGNALS)
        return found if self.family != "unknown" else found | {*_SIGNALS} - {signal.SIGABRT}

    @property
    def killed_words(self) -> re.Pattern[bytes] | None:
        """The same for its last words on stdout, where the code does not tell."""
        return _HYDRA_SAYS if self.family == "MPICH" else None

    def command(self, program: Program) -> list[str]:
        """The words before those of a rank."""
        words = [self.path, "-n", str(program.workers)]
        if self.family == "Slurm":
            # One rank that ends badly ends all; ctrl-C ends them at once instead of asking.
            words += ["--kill-on-bad-exit=1", "--quit-on-interrupt"]
            if environ.in_slurm_step():
                words.append("--overlap")  # else it waits until the step it runs in has ended
            if self.plugin is not None:
                words.append(f"--mpi={self.plugin}")
            if program.threads != 1:
                words.append("--cpu-bind=none")
        elif self.family == "Open MPI":
            if os.geteuid() == 0:
                words.append("--allow-run-as-root")
            if program.workers > environ.usable_cores():
                words.append("--oversubscribe")
            if program.threads != 1:
                words += ["--bind-to", "none"]
            # Hydra and srun pass all variables on to other hosts, Open MPI those that it is told.
            settings = program.settings()
            for name, value in settings.items():
                words += ["-x", f"{name}={value}"]
            for name in environ.own_settings():
                if name not in settings:
                    words += ["-x", name]
        return words


def find_starter() -> Starter:
    """What starts the ranks here, by the rule above.

    Raises:
        MissingExtraError: there is nothing, or mpi4py is missing or belongs to another family.
        UsageError: DISTGRAD_MPIRUN names no program.
    """
    if importlib.util.find_spec("mpi4py") is None:
        raise MissingExtraError(f"the mpi launcher needs mpi4py: {INSTALL}")
    wanted = environ.mpi_starter()
    if wanted is not None and wanted != "mpirun":  # the mere word: the one beside this Python
        path = shutil.which(wanted)
        if path is None:
            raise UsageError(f"DISTGRAD_MPIRUN is {wanted}, and there is no such program.")
        if os.path.basename(path) != "srun":
            return _checked(path)
        return Starter(path, "Slurm", _plugin(library_version()))
    srun = shutil.which("srun") if environ.in_slurm_allocation() and wanted is None else None
    if srun is not None:
        plugin = _plugin(library_version())
        if plugin is None or plugin in _offered(srun):
            return Starter(srun, "Slurm", plugin)
    return _checked(find_mpirun())


def find_mpirun() -> str:
    """Path of mpirun or mpiexec: beside this Python first, since mpi4py loads the MPI there.

    Raises:
        MissingExtraError: there is none.
    """
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
    """``"MPICH"``, ``"Open MPI"`` or ``"unknown"``, by ``mpirun --version``."""
    return family(_ask(mpirun, "--version"))


def _checked(mpirun: str) -> Starter:
    found = flavour(mpirun)
    if found != "unknown":
        library = library_version()
        if family(library) not in ("unknown", found):
            raise MissingExtraError(
                f"{mpirun} is that of {found}, but mpi4py loads {library}: its ranks would not "
                f"find each other. Put the mpirun of that library first on PATH, or beside "
                f"{sys.executable}, or name it in DISTGRAD_MPIRUN."
            )
    return Starter(mpirun, found)


def _plugin(library: str) -> str | None:
    """The srun plugin for an MPI library; None where the user has chosen, or nobody knows."""
    return None if environ.slurm_mpi_type() else _SLURM_PLUGINS.get(family(library))


def _offered(srun: str) -> set[str]:
    """The plugins that srun has; all of them where it does not say."""
    found = set(re.findall(r"\b(?:none|pmi2|pmix)\b", _ask(srun, "--mpi=list")))
    return found or set(_SLURM_PLUGINS.values())


def _ask(program: str, option: str) -> str:
    try:
        done = subprocess.run(
            [program, option], capture_output=True, text=True, timeout=_ANSWER_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr
