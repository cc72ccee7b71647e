"""For every test: a wall-clock limit, no network but loopback, and helpers to start processes."""

from __future__ import annotations

import faulthandler
import gc
import ipaddress
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import threadpoolctl

import distgrad
from distgrad.compile import eager
from distgrad.core import devices
from distgrad.launcher import environ
from distgrad.launcher.base import Program
from distgrad.launcher.starters import Starter, flavour
from distgrad.ops import streams
from distgrad.testing import process

DEFAULT_LIMIT_S = 120.0
_IMPORT_ROOT = str(Path(distgrad.__path__[0]).parent)
_terminal_fd = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=("cpu", "cuda", "fake"),
        default="cpu",
        help="where the tests make their arrays; fake: the code for GPUs, on the CPU",
    )


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # until the tests are collected, all of which stay
    # The same examples in every session, however long a busy machine takes for one.
    hypothesis.settings.load_profile("ci")
    device = config.getoption("--device")
    if device == "fake":
        from distgrad.testing import fake_cupy

        installed = fake_cupy.installed()
        installed.__enter__()
        config.add_cleanup(lambda: installed.__exit__(None, None, None))
    if device != "cpu":
        devices.use("cuda")
    if hasattr(config, "workerinput"):  # several share the cores: a BLAS thread each, as workers
        threadpoolctl.threadpool_limits(1)
    # A shell lets what it starts in the background ignore Ctrl-C, and children inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # The real standard error, for the last words of a process that is stuck in C code.
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        config.stash[_terminal_fd] = os.dup(2)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For ``-n auto``: two more than cores, since a third of the time is spent in waiting."""
    return min(environ.usable_cores() + 2, 8)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # It takes longest and waits most: it begins, beside what computes.
    items.sort(key=lambda item: item.path.name != "test_ray.py")
    if config.getoption("--device") == "cpu":
        return
    skip = pytest.mark.skip(reason="looks at NumPy's memory, or at what only CPUs have so far")
    for item in items:
        parts = item.path.parts
        on_cpu = "compile" in parts and "cuda" not in parts
        if item.get_closest_marker("cpu") or on_cpu:
            item.add_marker(skip)


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[_terminal_fd])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how many primitives, and how many cases of them, the generic tests went through."""
    files = ("ops/test_registry.py", "ops/test_references.py")
    passed = [r.nodeid for r in terminalreporter.getreports("passed")]
    cases = [n for n in passed if n.split("::")[0].endswith(files) and "[" in n]
    names = {n.partition("[")[2].rstrip("]").split("-")[0] for n in cases}
    if cases:
        terminalreporter.write_line(f"primitives: {len(names)} checked in {len(cases)} cases")


@pytest.fixture
def new_threads() -> Callable[[], set[threading.Thread]]:
    """Gives the threads that did not run before this test, and do not end within 10 seconds."""
    before = set(threading.enumerate())

    def left() -> set[threading.Thread]:
        end = time.monotonic() + 10
        while (found := set(threading.enumerate()) - before) and time.monotonic() < end:
            time.sleep(0.01)
        return found

    return left


@pytest.fixture(scope="module")
def plain_kernels() -> Iterator[None]:
    """Eager operations on the primitives' own kernels, for tests that compare with them."""
    before = eager.used()
    eager.use("numpy")
    yield
    eager.use(before)


@pytest.fixture(scope="module")
def on_gpu(request: pytest.FixtureRequest) -> Iterator[None]:
    """Arrays on the GPU that ``--device`` asks for; without it, on the stand-in."""
    from distgrad.testing import cuda_on_cpu, fake_cupy

    if request.config.getoption("--device") != "cpu":
        yield
        return
    if not cuda_on_cpu.available():
        pytest.skip("no g++")
    with fake_cupy.installed():
        devices.use("cuda")
        yield


@contextmanager
def _time_limit(item: pytest.Item) -> Iterator[None]:
    """Fail the test after its limit; end the process, printing its stacks, if C code hangs."""
    marker = item.get_closest_marker("timeout_s")
    limit = float(marker.args[0]) if marker else DEFAULT_LIMIT_S

    def give_up(_signal: int, _frame: object) -> None:
        pytest.fail(f"{item.nodeid} ran past its limit of {limit:g} s")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, limit)
    faulthandler.dump_traceback_later(limit + 15, exit=True, file=item.config.stash[_terminal_fd])
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    # A test that sets no seed draws the same in every session, and so do its fixtures.
    streams._global = streams.Stream(1729)
    with _time_limit(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with _time_limit(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    with _time_limit(item):
        return (yield)


def pytest_collection_finish() -> None:
    """Collections of garbage leave out the tests, and what they have imported."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _own_numbers(request: pytest.FixtureRequest) -> None:
    """A test draws the same from its module's generators, whichever tests ran before it."""
    for value in vars(request.module).values():
        if isinstance(value, np.random.Generator):
            own = value.bit_generator
            # Far behind what the module drew when it was imported.
            own.state = type(own)(own.seed_seq).jumped().state


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for the network fails, instead of depending on it."""

    def guarded(connect: Callable) -> Callable:
        def checked(self: socket.socket, address: object) -> object:
            if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
                pytest.fail(f"a test may not connect to {address}")
            return connect(self, address)

        return checked

    monkeypatch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@pytest.fixture
def run_cli(tmp_path: Path) -> Callable[..., process.Result]:
    """``run_cli("train", "job.yaml", timeout=60)`` runs ``distgrad`` in the test's own folder."""

    def run(*args: object, timeout: float = 60.0, cwd: object = tmp_path, env: dict | None = None):
        command = [sys.executable, "-m", "distgrad", *map(str, args)]
        return process.run(command, timeout=timeout, cwd=cwd, env=_importable(env))

    return run


@pytest.fixture
def mpi_command() -> Callable[..., list[str]]:
    """``mpi_command(4, "script.py")`` is the command that runs Python under ``mpirun -n 4``."""
    # The environment's own first: it is the one that mpi4py beside it was made for.
    beside = str(Path(sys.executable).parent)
    mpirun = shutil.which("mpirun", path=beside) or shutil.which("mpirun")
    if mpirun is None:
        pytest.skip("no mpirun: pip install 'distgrad[mpich]'")

    def command(n: int, *args: object) -> list[str]:
        start = Starter(mpirun, flavour(mpirun)).command(Program([], n, threads=1))
        return [*start, sys.executable, *map(str, args)]

    return command


@pytest.fixture
def run_mpi(tmp_path: Path, mpi_command: Callable[..., list[str]]) -> Callable[..., process.Result]:
    """``run_mpi(4, "-m", "distgrad", "train", "job.yaml")`` runs Python under ``mpirun -n 4``."""

    def run(
        n: int,
        *args: object,
        timeout: float = 60.0,
        cwd: object = tmp_path,
        env: dict | None = None,
    ):
        return process.run(mpi_command(n, *args), timeout=timeout, cwd=cwd, env=_importable(env))

    return run


def _importable(env: dict | None) -> dict:
    return {"PYTHONPATH": _IMPORT_ROOT, **(env or {})}
