"""The only reader of the process environment: launcher variables, threads, terminal, settings."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distgrad.core.errors import UsageError

MPI_SOURCES = ("Open MPI", "MPICH (hydra)", "MVAPICH", "Slurm")

# Names as each launcher sets them: rank, world size, local rank, local size.
_LAUNCHERS = {
    "distgrad": (
        "DISTGRAD_RANK",
        "DISTGRAD_WORLD_SIZE",
        "DISTGRAD_LOCAL_RANK",
        "DISTGRAD_LOCAL_SIZE",
    ),
    "Open MPI": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    "MPICH (hydra)": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    "MVAPICH": (
        "MV2_COMM_WORLD_RANK",
        "MV2_COMM_WORLD_SIZE",
        "MV2_COMM_WORLD_LOCAL_RANK",
        "MV2_COMM_WORLD_LOCAL_SIZE",
    ),
    "Slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"),
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
}

_MOST = 1_000_000  # seconds, of which the system knows no more than some, and virtual shards

_SLURM_OWN_STEPS = 0xFFFFFFF0  # from here on steps are shells of sbatch and salloc

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
_KERNEL_THREADS = "DISTGRAD_KERNEL_THREADS"  # from a launcher: a number, or
_SHARE = "share"  # of the cores


@dataclass(frozen=True)
class World:
    """Where this process stands according to whoever started it.

    ``source`` is ``"none"`` for a process that nobody's variables describe. Once a transport is
    up, trust its rank and size instead. ``address`` is where the ranks meet over TCP; None where
    MPI brings them together.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1
    source: str = "none"
    address: str | None = None

    @property
    def started_by_mpi(self) -> bool:
        """Whether mpirun or srun started this process as a rank that MPI connects."""
        # A lone Slurm task is usually an interactive shell (srun --pty), not a rank.
        alone = self.source == "Slurm" and self.world_size == 1
        return self.source in MPI_SOURCES and self.address is None and not alone

    @property
    def is_rank(self) -> bool:
        """Whether somebody has started this process as one rank of a world."""
        over_tcp = self.source == "distgrad" or (self.source != "none" and self.world_size > 1)
        return self.started_by_mpi or over_tcp


def detect(env: Mapping[str, str] = os.environ) -> World:
    """Reads the world from the environment; the first launcher of the table that fits wins.

    Order: distgrad's own variables, Open MPI, hydra (MPICH, Intel MPI), MVAPICH, a Slurm step,
    torchrun. The variables of an sbatch shell are not a Slurm step and do not count.

    Whoever sets DISTGRAD_ADDRESS (``host:port`` where the ranks meet) and DISTGRAD_TOKEN (their
    secret) beside a launcher's variables gets TCP instead of MPI: ``srun`` without an MPI, say.
    Ranks with torchrun's variables meet at MASTER_ADDR:MASTER_PORT unless told otherwise, or where
    torchrun itself listens at it.

    Raises:
        UsageError: a launcher's variable is not a number, or there is no such rank.
    """
    for source, (rank, size, local_rank, local_size) in _LAUNCHERS.items():
        if not (env.get(rank) and env.get(size)):
            continue
        if source == "Slurm" and not in_slurm_step(env, of_ranks=True):
            continue
        number, ranks = _number(env, rank), _number(env, size)
        if number >= ranks:
            raise _refused(
                f"there is no rank {number} among {ranks}, which are numbered from 0 ({rank}, "
                f"{size})."
            )
        return World(
            rank=number,
            world_size=ranks,
            local_rank=_number(env, local_rank, default=0),
            local_size=_number(env, local_size, default=1),
            source=source,
            address=env.get("DISTGRAD_ADDRESS") or _master(env, source),
        )
    return World()


def mpi_starter(env: Mapping[str, str] = os.environ) -> str | None:
    """DISTGRAD_MPIRUN: what the mpi launcher starts ranks with, ``srun`` or (a path to) mpirun."""
    return env.get("DISTGRAD_MPIRUN") or None


def in_slurm_allocation(env: Mapping[str, str] = os.environ) -> bool:
    """Whether Slurm has given this process nodes: by sbatch, salloc or srun."""
    return bool(env.get("SLURM_JOB_ID"))


def in_slurm_step(env: Mapping[str, str] = os.environ, *, of_ranks: bool = False) -> bool:
    """Whether srun started this process or its parents; ``of_ranks``: and salloc's shell not."""
    step = env.get("SLURM_STEP_ID", "")
    return step.isdigit() and (int(step) < _SLURM_OWN_STEPS or not of_ranks)


def slurm_mpi_type(env: Mapping[str, str] = os.environ) -> str | None:
    """SLURM_MPI_TYPE, by which a user tells srun how ranks find each other."""
    return env.get("SLURM_MPI_TYPE") or None


def launcher_name(env: Mapping[str, str] = os.environ) -> str:
    """What has started this rank: DISTGRAD_LAUNCHER if it is set, else ``mpi`` or ``local``."""
    return env.get("DISTGRAD_LAUNCHER") or ("mpi" if detect(env).started_by_mpi else "local")


def token(env: Mapping[str, str] = os.environ) -> str:
    """DISTGRAD_TOKEN, the secret that the ranks of one start share.

    Raises:
        UsageError: it is not set.
    """
    if not env.get("DISTGRAD_TOKEN"):
        raise UsageError(
            "ranks that meet over TCP must prove that they belong together: set DISTGRAD_TOKEN to "
            "the same secret for all of them, such as $(openssl rand -hex 16), or start them with "
            "distgrad launch or mpirun."
        )
    return env["DISTGRAD_TOKEN"]


def rank_variables(world: World, token: str, restart: int = 0) -> dict[str, str]:
    """The variables by which ``detect`` and ``token`` find this world in a child process."""
    rank, size, local_rank, local_size = _LAUNCHERS["distgrad"]
    assert world.address is not None
    return {
        rank: str(world.rank),
        size: str(world.world_size),
        local_rank: str(world.local_rank),
        local_size: str(world.local_size),
        "DISTGRAD_ADDRESS": world.address,
        "DISTGRAD_TOKEN": token,
        "DISTGRAD_RESTART": str(restart),
    }


def pipe_variable(name: str, pipe: int) -> dict[str, str]:
    """The variable by which a child finds a pipe that it inherits: its descriptor and inode."""
    return {name: f"{pipe}:{os.fstat(pipe).st_ino}"}


def pipe(name: str, env: Mapping[str, str] = os.environ) -> int | None:
    """The pipe that ``pipe_variable`` has told this process of; None where there is none."""
    found, _, number = env.get(name, "").partition(":")
    # A program that a rank has started has the variable, and may have another file there.
    with contextlib.suppress(OSError):
        if found.isdigit() and str(os.fstat(int(found)).st_ino) == number:
            return int(found)
    return None


def network_interface(env: Mapping[str, str] = os.environ) -> str | None:
    """DISTGRAD_INTERFACE: by which network (its name, or an own address) peers reach this host."""
    return env.get("DISTGRAD_INTERFACE") or None


def set_network_interface(interface: str) -> None:
    """Sets DISTGRAD_INTERFACE for this process and those that it starts."""
    os.environ["DISTGRAD_INTERFACE"] = interface


def start_timeout(env: Mapping[str, str] = os.environ, default: float = 60.0) -> float:
    """Seconds until all ranks must have met: DISTGRAD_START_TIMEOUT, or ``default``.

    Raises:
        UsageError: it is not a number above 0, a million at most.
    """
    return _seconds(env, "DISTGRAD_START_TIMEOUT", f"{default:g}")


def thread_variables(count: int | None) -> dict[str, str]:
    """The variables that give a process ``count`` threads in each library, and in kernels.

    With None a library has one, and kernels as many as the user's variables say, or a share.

    Raises:
        UsageError: ``count`` is less than 1.
    """
    if count is not None and count < 1:
        raise UsageError(f"threads_per_worker must be 1 or more, got {count}.")
    asked = os.environ.get(_KERNEL_THREADS) or _libraries_threads() or _SHARE
    kernels = str(asked if count is None else count)
    return {**dict.fromkeys(_THREAD_VARIABLES, str(count or 1)), _KERNEL_THREADS: kernels}


def set_threads(count: int | None) -> None:
    """Sets ``thread_variables`` in this process, for the libraries that it still loads."""
    os.environ.update(thread_variables(count))


def kernel_threads_are_set() -> bool:
    """Whether ``thread_variables`` are those of this process."""
    return bool(os.environ.get(_KERNEL_THREADS))


def kernel_threads() -> int | None:
    """The threads of kernels as ``thread_variables`` have set them; None: a share of the cores."""
    found = os.environ.get(_KERNEL_THREADS, "")
    return int(found) if found.isdigit() else None


def threads_are_asked_for() -> bool:
    """Whether a variable of the user says how many threads: ``OMP_NUM_THREADS=4``."""
    return any(os.environ.get(name) for name in _THREAD_VARIABLES)


def _libraries_threads() -> int | None:
    """The threads that a variable of the user gives to libraries."""
    found = (os.environ.get(name, "").partition(",")[0] for name in _THREAD_VARIABLES)
    return next((int(count) for count in found if count.isdigit() and int(count)), None)


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """The environment of this process with ``changes``, for the ranks that it starts."""
    return {**os.environ, **changes}


def own_settings(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """PYTHONPATH and all DISTGRAD_ variables."""
    return {k: v for k, v in env.items() if k == "PYTHONPATH" or k.startswith("DISTGRAD_")}


def inherited_settings(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a rank on another machine needs of our variables: PYTHONPATH and all DISTGRAD_ ones."""
    # Ray sets it, and a line of several words would then arrive in pieces.
    return {"PYTHONUNBUFFERED": env.get("PYTHONUNBUFFERED", ""), **own_settings(env)}


def ray_address(env: Mapping[str, str] = os.environ) -> str | None:
    """RAY_ADDRESS, the Ray cluster to join, unless it leaves the choice to Ray."""
    address = env.get("RAY_ADDRESS")
    return None if address in (None, "", "auto") else address


def set_defaults(values: Mapping[str, str]) -> None:
    """Sets variables of this process that nobody has set."""
    for name, value in values.items():
        os.environ.setdefault(name, value)


def rank_settings(threads: int | None, virtual_shards: int | None = None) -> dict[str, str]:
    """The variables that every rank of a job gets.

    Args:
        threads: threads per worker; None: see ``thread_variables``.
        virtual_shards: for a script that has no job.
    """
    settings = thread_variables(threads)
    if virtual_shards is not None:
        settings["DISTGRAD_VIRTUAL_SHARDS"] = str(virtual_shards)
    if sys.stdout.isatty():
        settings["DISTGRAD_TTY"] = "1"  # under mpirun a rank's stdout is a pipe
    return settings


def usable_cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def progress_mode(env: Mapping[str, str] = os.environ) -> str:
    """``"auto"``, ``"plain"`` or ``"off"``, from DISTGRAD_PROGRESS.

    Raises:
        UsageError: it is something else.
    """
    mode = env.get("DISTGRAD_PROGRESS") or "auto"
    if mode not in ("auto", "plain", "off"):
        raise _refused(f"DISTGRAD_PROGRESS must be auto, plain or off, got {mode!r}.")
    return mode


def stdout_is_terminal(env: Mapping[str, str] = os.environ) -> bool:
    """Whether stdout ends at a terminal, also for a rank whose stdout mpirun carries there."""
    if env.get("DISTGRAD_TTY") == "1":
        return True
    if "OMPI_COMM_WORLD_RANK" in env:  # Open MPI gives each rank a terminal of its own
        with contextlib.suppress(OSError):
            return os.readlink(f"/proc/{os.getppid()}/fd/1").startswith(("/dev/pts/", "/dev/tty"))
        return False
    return sys.stdout.isatty()


def hangs_up() -> bool:
    """Whether the end of its terminal ends this process: not under ``nohup``."""
    return signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN


def keras_home() -> Path:
    """KERAS_HOME: the folder of Keras's downloads and settings; ``~/.keras`` without it."""
    given = os.environ.get("KERAS_HOME")
    return Path(given).expanduser() if given else Path.home() / ".keras"


def names_device(env: Mapping[str, str] = os.environ) -> bool:
    """Whether DISTGRAD_DEVICE names something else than the CPU."""
    return env.get("DISTGRAD_DEVICE", "") not in ("", "cpu")


def device(env: Mapping[str, str] = os.environ) -> str | None:
    """DISTGRAD_DEVICE, ``"cpu"`` or ``"cuda"``: where scripts compute; None when it is not set.

    Raises:
        UsageError: it is something else.
    """
    name = env.get("DISTGRAD_DEVICE") or None
    if name not in (None, "cpu", "cuda"):
        raise _refused(f"DISTGRAD_DEVICE must be cpu or cuda, got {name!r}.")
    return name


def use_nccl(env: Mapping[str, str] = os.environ) -> bool:
    """Whether NCCL may move the arrays of GPUs: not where DISTGRAD_NCCL is ``off``, not ``auto``.

    Raises:
        UsageError: it is something else.
    """
    return _auto(env, "DISTGRAD_NCCL")


def use_cudnn(env: Mapping[str, str] = os.environ) -> bool:
    """Whether cuDNN may be used where it is installed: not where DISTGRAD_CUDNN is ``off``.

    Raises:
        UsageError: it is neither that nor ``auto``.
    """
    return _auto(env, "DISTGRAD_CUDNN")


def _auto(env: Mapping[str, str], name: str) -> bool:
    value = env.get(name) or "auto"
    if value not in ("auto", "off"):
        raise _refused(f"{name} must be auto or off, got {value!r}.")
    return value == "auto"


def share_memory(env: Mapping[str, str] = os.environ) -> bool:
    """Whether ranks of one host exchange through shared memory: DISTGRAD_SHARED_MEMORY, auto or
    off.

    Raises:
        UsageError: it is something else.
    """
    return _auto(env, "DISTGRAD_SHARED_MEMORY")


def keep_memory_apart() -> None:
    """Sets DISTGRAD_SHARED_MEMORY to ``off`` for this process and those that it starts."""
    os.environ["DISTGRAD_SHARED_MEMORY"] = "off"


def timeline(env: Mapping[str, str] = os.environ) -> str | None:
    """DISTGRAD_TIMELINE: the file, or folder, that gets a timeline of the process; None: none."""
    return env.get("DISTGRAD_TIMELINE") or None


def operation_timeout(env: Mapping[str, str] = os.environ) -> float:
    """Seconds that one collective may take: DISTGRAD_TIMEOUT, or 60.

    Raises:
        UsageError: it is not a number above 0, a million at most.
    """
    return _seconds(env, "DISTGRAD_TIMEOUT", "60")


def script_virtual_shards(env: Mapping[str, str] = os.environ) -> int | None:
    """DISTGRAD_VIRTUAL_SHARDS, for scripts that have no job; None when it is not set.

    Raises:
        UsageError: it is not a number from 1 to a million.
    """
    if not env.get("DISTGRAD_VIRTUAL_SHARDS"):
        return None
    count = _number(env, "DISTGRAD_VIRTUAL_SHARDS")
    if not 1 <= count <= _MOST:
        raise _refused(f"DISTGRAD_VIRTUAL_SHARDS must be 1 or more, {_MOST} at most, got {count}.")
    return count


def _master(env: Mapping[str, str], source: str) -> str | None:
    if source != "torchrun" or "MASTER_ADDR" not in env or "MASTER_PORT" not in env:
        return None
    if env.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return None  # torchrun itself listens there; variables set by hand leave the port free
    host = env["MASTER_ADDR"]
    return f"[{host}]:{env['MASTER_PORT']}" if ":" in host else f"{host}:{env['MASTER_PORT']}"


def _seconds(env: Mapping[str, str], name: str, default: str) -> float:
    text = env.get(name) or default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _MOST:
        raise _refused(
            f"{name} must be a number of seconds above 0, {_MOST} at most, got {text!r}."
        )
    return seconds


def _number(env: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = env.get(name, "" if default is None else str(default))
    # SLURM_NTASKS_PER_NODE may read "4(x2)".
    digits = text.partition("(")[0].strip()
    if not digits.isdigit():
        raise _refused(f"the environment variable {name} must be a number, got {text!r}.")
    return int(digits)


def _refused(text: str) -> UsageError:
    """The error of a variable: one that nobody catches ends a script with one line and its exit
    code, not with a traceback."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _say_plainly
    return UsageError(text)


def _say_plainly(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if not isinstance(error, UsageError):
        return sys.__excepthook__(kind, error, trace)
    try:
        world = detect()
    except UsageError:
        world = World()
    if world.local_rank == 0:  # once per machine
        mark = f"[rank {world.rank}] " if world.is_rank else ""
        print(f"{mark}error: {error}", file=sys.stderr, flush=True)
    raise SystemExit(error.exit_code)
