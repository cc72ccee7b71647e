"""Checks of this machine and this Python: nothing here starts another process."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import sys
import time
import uuid
import warnings
from pathlib import Path

import numpy as np

from distgrad.comm import rendezvous
from distgrad.core import files
from distgrad.core.errors import UsageError
from distgrad.doctor.finding import Finding, failed, ok, skipped, warning
from distgrad.launcher import environ, load
from distgrad.launcher.threads import blas_info

_SIZE = 256  # of the products that are compared
_ROOM_SHM, _ROOM_DISK = 64 << 20, 1 << 30
_FSYNC_S = 1.0  # a slower disk holds up every commit
_SOMEWHERE = "192.0.2.1", 9  # of no network (RFC 5737): nothing is sent, only a route is looked up


def python() -> Finding:
    """Python's and NumPy's versions; a product of whole numbers must be exact."""
    whole = np.arange(_SIZE * _SIZE).reshape(_SIZE, _SIZE) % 7
    product = whole.astype(np.float32) @ whole.T.astype(np.float32)
    blas = blas_info()
    names = (
        f"Python {platform.python_version()}, NumPy {np.__version__}, "
        f"{blas['name']} {blas['version']} ({blas['architecture']})"
    )
    if not np.array_equal(product, whole @ whole.T):
        return failed(
            f"{names}: a product of whole numbers is wrong",
            "reinstall NumPy: pip install --force-reinstall numpy",
        )
    return ok(names)


def threads() -> Finding:
    """Threads of one process, beside the cores that this process may really use."""
    count = blas_info()["threads"] or 1
    cores, quota, usable = environ.usable_cores(), load.quota(), load.cores()
    here = f"{count} threads a process, {usable} usable cores"
    if count > usable:
        why = "" if quota is None or quota >= cores else f" (a quota of {quota:g} on {cores})"
        return warning(
            f"{here}{why}: threads wait for each other",
            f"export OMP_NUM_THREADS={usable} (or parallel.threads_per_worker of a job)",
        )
    if count > 1 and load.is_busy():
        return warning(
            f"{here}, {load.described()}: threads of BLAS, which multiplies float64, make a step "
            "many times as long where they find no core of their own",
            "export OMP_NUM_THREADS=1 for float64 on a machine that is shared",
        )
    if count > 1:
        return ok(
            f"{here}; the ranks of a machine have one thread of BLAS each, and share its cores for "
            "generated kernels"
        )
    return ok(here)


def kernels() -> Finding:
    """Compiles a kernel with LLVM, compares it with NumPy, and tries the folder of machine code."""
    from distgrad.compile.llvm import engine

    with warnings.catch_warnings(action="ignore"):  # of what is told here
        lack = engine.lack()
    if lack is not None:
        found = f"{lack}: steps run on NumPy's kernels"
        if lack == engine.MISSING:
            return skipped(found, "pip install 'distgrad[fast]'")
        if lack == engine.NO_FMA:
            return skipped(found)
        return failed(found, "pip install --force-reinstall llvmlite")
    import distgrad as tf

    x = np.arange(-3000, 3000, dtype=np.float32)
    began = time.monotonic()
    compute = tf.function(lambda x: tf.nn.relu(x * 2.0 + 1.0), jit_compile=True)
    found = compute(tf.constant(x)).numpy()
    seconds = time.monotonic() - began
    if not np.array_equal(found, np.maximum(x * 2 + 1, 0)):
        return failed(
            "a generated kernel computes something else than NumPy",
            "pip install -U llvmlite; until then train.jit=numpy",
        )
    names = f"llvmlite {engine.version()} for {engine.cpu()}"
    folder = engine.cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f"probe-{uuid.uuid4().hex}"
        probe.write_bytes(b"probe")
        probe.unlink()
    except OSError as error:
        return warning(
            f"{names}: works, but {folder} cannot be written to ({error.strerror}): every "
            "process compiles its kernels anew",
            "make that folder writable, or set HOME to one that is",
        )
    return ok(f"{names}: first use {seconds:.2f} s, machine code kept in {folder}")


def shared_folder(folder: Path) -> Finding:
    """Room in /dev/shm, through which MPI and Ray move bytes; ours needs no name there."""
    if not folder.is_dir():
        if sys.platform != "linux":
            return skipped(f"there is no {folder} on {platform.system()}")
        return warning(f"there is no {folder}", "mount a tmpfs there, for MPI and Ray")
    free = shutil.disk_usage(folder).free
    path = folder / f"distgrad-doctor-{uuid.uuid4().hex}"
    try:
        try:
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, min(free, 1 << 20) or 1)
        finally:
            path.unlink(missing_ok=True)
    except OSError as error:
        return warning(
            f"{folder} cannot be written to: {error.strerror}",
            "make it writable (mode 1777), for MPI and Ray",
        )
    if free < _ROOM_SHM:
        return warning(
            f"{_bytes(free)} free in {folder}: MPI and Ray may crash there (SIGBUS)",
            "remove what old jobs have left there; in a container: docker run --shm-size=1g",
        )
    return ok(f"{_bytes(free)} free in {folder}")


def disk(run_dir: Path) -> Finding:
    """Writes, syncs and renames a file where runs would lie, as a commit does it."""
    folder = run_dir.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    probe = folder / f"distgrad-doctor-{uuid.uuid4().hex}"
    text = os.urandom(1 << 16)
    began = time.monotonic()
    try:
        try:
            files.replace(probe, text)
            seconds = time.monotonic() - began
            same = probe.read_bytes() == text
        finally:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)
    except OSError as error:
        return failed(
            f"{folder} cannot take a run: {error.strerror}",
            "name another --run-dir, or change the folder's owner and permissions",
        )
    if not same:
        return failed(f"{folder} gives back other bytes than were written", "use another disk")
    free = shutil.disk_usage(folder).free
    seen = f"write, fsync and rename {1e3 * seconds:.0f} ms, {_bytes(free)} free in {folder}"
    if free < _ROOM_DISK:
        return warning(seen, "make room, or lower checkpoint.keep_last")
    if seconds > _FSYNC_S:
        return warning(f"{seen}: slow", "raise checkpoint.every_steps, or use a local disk")
    return ok(seen)


def clock() -> Finding:
    """The clocks of deadlines: they must go forward, and as fast as the one on the wall."""
    start, wall, last, back = time.monotonic(), time.time(), time.monotonic(), 0.0
    while last - start < 0.2:
        now = time.monotonic()
        back, last = max(back, last - now), now
        if time.time() - wall > 5.0:  # it stands still
            break
    rate = (last - start) / max(time.time() - wall, 1e-9)
    if back > 0 or not 0.5 < rate < 2.0:
        return failed(
            f"time.monotonic goes back by {back:g} s, or {rate:.2f} times as fast as time.time",
            "mend the clock of this machine (chronyc tracking; a virtual machine: its clock "
            "source): every deadline depends on it",
        )
    step = time.get_clock_info("monotonic").resolution
    return ok(f"time.monotonic goes forward, in steps of {1e9 * step:.0f} ns")


def network() -> Finding:
    """The loopback device, and the address at which peers of other hosts would find this one."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(5.0)
            address = server.getsockname()
            with socket.create_connection(address, 5.0) as one, server.accept()[0] as two:
                one.sendall(b"hello")
                two.settimeout(5.0)
                heard = two.recv(5, socket.MSG_WAITALL)
    except OSError as error:
        return failed(
            f"127.0.0.1 cannot be reached: {error}", "bring it up: ip link set lo up; or a firewall"
        )
    if heard != b"hello":
        return failed("127.0.0.1 gives back other bytes than were sent", "look at its firewall")
    wanted = environ.network_interface()
    if wanted is not None:
        return ok(f"loopback works; DISTGRAD_INTERFACE={wanted} is {_address_of(wanted)}")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_SOMEWHERE)
            address = probe.getsockname()[0]
    except OSError:
        return ok("loopback works; there is no way to other hosts")
    others = [f"{name} {own}" for name, own in _interfaces() if own not in (address, "127.0.0.1")]
    name = next((name for name, own in _interfaces() if own == address), "?")
    more = f" (others: {', '.join(others)}; --interface chooses)" if others else ""
    return ok(f"loopback works; other hosts find this one at {address} ({name}){more}")


def _address_of(interface: str) -> str:
    address = rendezvous.interface_address(interface)
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            raise UsageError(
                f"DISTGRAD_INTERFACE={interface} is {address}, which is no address of this host: "
                f"name one of {', '.join(name for name, _ in _interfaces())}."
            ) from None
    return address


def _interfaces() -> list[tuple[str, str]]:
    found = []
    for _, name in socket.if_nameindex():
        with contextlib.suppress(UsageError):
            found.append((name, rendezvous.interface_address(name)))
    return found


def _bytes(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MiB"
