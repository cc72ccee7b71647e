"""Which launcher a command gets, the mpirun command it builds, and how it looks after children."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import distgrad
from distgrad.core.errors import MissingExtraError, UsageError
from distgrad.launcher import environ, mpi
from distgrad.launcher.base import choose
from distgrad.launcher.environ import World
from distgrad.launcher.local import LocalLauncher
from distgrad.launcher.mpi import MPILauncher
from distgrad.testing import process

ALONE = World()
UNDER_MPIRUN = World(1, 4, 1, 4, "MPICH (hydra)")
UNDER_TORCHRUN = World(1, 4, 1, 4, "torchrun")
IMPORT_ROOT = str(Path(distgrad.__path__[0]).parent)


def job(workers: int = 2, threads: int | None = 1, shards: int | None = None) -> SimpleNamespace:
    return SimpleNamespace(
        workers=workers, launcher="mpi", threads_per_worker=threads, virtual_shards=shards
    )


@pytest.mark.parametrize(
    ("requested", "yaml", "world", "expected"),
    [
        (None, "local", ALONE, LocalLauncher),
        (None, "mpi", ALONE, MPILauncher),
        ("mpi", "local", ALONE, MPILauncher),
        ("local", "mpi", ALONE, LocalLauncher),
        ("local", "local", UNDER_MPIRUN, MPILauncher),
        (None, "ray", UNDER_MPIRUN, MPILauncher),
        ("mpi", "local", UNDER_TORCHRUN, MPILauncher),
        ("local", "local", UNDER_TORCHRUN, LocalLauncher),
    ],
)
def test_started_by_mpirun_wins_then_flag_then_yaml(requested, yaml, world, expected) -> None:
    assert type(choose(requested, yaml, world)) is expected


def test_what_has_not_landed_is_said() -> None:
    with pytest.raises(UsageError, match="ray launcher has not landed"):
        choose(None, "ray", ALONE)
    with pytest.raises(UsageError, match="rank 1 of 4.*style of torchrun.*use|start"):
        choose(None, "local", UNDER_TORCHRUN)
    with pytest.raises(UsageError, match="unknown launcher 'slurm': use local, mpi or ray"):
        choose("slurm", "local", ALONE)
    with pytest.raises(UsageError, match="3 local workers.*--launcher mpi"):
        LocalLauncher().launch(job(workers=3), [])


def test_more_workers_than_shards_stops_before_mpirun() -> None:
    with pytest.raises(UsageError, match="4 workers cannot share 2 virtual shards"):
        MPILauncher(ALONE).launch(job(workers=4, shards=2), ["train", "job.yaml"])


@pytest.mark.parametrize(
    "argv",
    [
        ["train", "-n", "4", "job.yaml", "--launcher", "mpi", "a.b=1"],
        ["train", "job.yaml", "a.b=1", "-n4", "--launcher=mpi"],
        ["train", "job.yaml", "--workers", "4", "a.b=1"],
        ["train", "job.yaml", "--workers=4", "a.b=1"],
    ],
)
def test_ranks_get_the_command_without_its_launch_options(argv: list[str]) -> None:
    assert mpi.without_launch_options(argv) == ["train", "job.yaml", "a.b=1"]


def test_names_that_begin_like_an_option_stay() -> None:
    argv = ["train", "-name", "--new", "n=4", "job.yaml"]
    assert mpi.without_launch_options(argv) == argv


def fake_mpirun(folder: Path, says: str) -> str:
    """An executable that answers ``--version`` as another MPI would."""
    path = folder / "mpirun"
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("mpirun (Open MPI) 5.0.11", "Open MPI"),
        ("HYDRA build details:", "MPICH (hydra)"),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.19", "MPICH (hydra)"),
        ("something else", "unknown"),
    ],
)
def test_flavour(tmp_path: Path, says: str, expected: str) -> None:
    assert mpi.flavour(fake_mpirun(tmp_path, says)) == expected


def test_flavour_of_nothing(tmp_path: Path) -> None:
    assert mpi.flavour(str(tmp_path / "absent")) == "unknown"


def test_command_for_open_mpi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mpirun = fake_mpirun(tmp_path, "mpirun (Open MPI) 5.0.11")
    monkeypatch.setattr(mpi, "find_mpirun", lambda: mpirun)
    monkeypatch.setattr(environ, "usable_cores", lambda: 2)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    rank = [sys.executable, "-m", "distgrad", "train", "job.yaml"]
    launcher = MPILauncher(ALONE)
    argv = ["train", "job.yaml", "-n", "4"]
    assert launcher.command(job(workers=4), argv) == [
        *[mpirun, "-n", "4", "--allow-run-as-root", "--oversubscribe"],
        *rank,
    ]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert launcher.command(job(workers=2), argv) == [mpirun, "-n", "2", *rank]
    assert launcher.command(job(workers=2, threads=2), argv) == [
        *[mpirun, "-n", "2", "--bind-to", "none"],
        *rank,
    ]


def test_missing_mpirun_gives_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mpi4py", exc_type=ImportError)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtraError) as caught:
        MPILauncher(ALONE).launch(job(), ["train", "job.yaml"])
    assert "pip install 'distgrad[mpich]'" in str(caught.value)
    beside = fake_mpirun(tmp_path, "HYDRA")
    assert mpi.find_mpirun() == beside


def wrapper(command: list[str]) -> list[str]:
    """A command line whose process supervises ``command``."""
    code = (
        "import sys; from distgrad.launcher.process import supervise; from os import environ;"
        "sys.exit(supervise(sys.argv[1:], dict(environ)))"
    )
    return [sys.executable, "-c", code, *command]


def start(command: list[str], tmp_path: Path) -> process.Command:
    return process.Command(wrapper(command), cwd=tmp_path, env={"PYTHONPATH": IMPORT_ROOT})


@pytest.mark.timeout_s(30)
def test_supervise_passes_exit_codes(tmp_path: Path) -> None:
    for code in (0, 5, 75):
        with start(["sh", "-c", f"exit {code}"], tmp_path) as command:
            assert command.wait(20).returncode == code
    with start(["sh", "-c", "kill -9 $$"], tmp_path) as command:
        assert command.wait(20).returncode == 137


TRAP = """
import pathlib, signal, sys, time
for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
    signal.signal(getattr(signal, name), lambda n, f, name=name: (
        pathlib.Path("got").write_text(name), sys.exit(75)))
pathlib.Path("ready").touch()
time.sleep(60)
"""


@pytest.mark.timeout_s(60)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_supervise_forwards_signals(tmp_path: Path, name: str) -> None:
    with start([sys.executable, "-c", TRAP], tmp_path) as command:
        process.wait_until((tmp_path / "ready").exists, 20, "the child")
        command.send_signal(getattr(signal, name))
        result = command.wait(20)
    assert result.returncode == 75
    assert (tmp_path / "got").read_text() == name
    assert not result.orphans


@pytest.mark.timeout_s(60)
def test_a_second_signal_kills_a_deaf_child(tmp_path: Path) -> None:
    deaf = "trap '' TERM; touch ready; while :; do sleep 0.1; done"
    with start(["sh", "-c", deaf], tmp_path) as command:
        process.wait_until((tmp_path / "ready").exists, 20, "the child")
        command.send_signal(signal.SIGTERM)
        command.send_signal(signal.SIGINT)
        result = command.wait(20)
    assert result.returncode == 137
    assert not result.orphans


@pytest.mark.mpi
@pytest.mark.timeout_s(60)
@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_killing_the_wrapper_leaves_no_rank_behind(tmp_path: Path) -> None:
    try:
        mpirun = mpi.find_mpirun()
    except MissingExtraError as error:
        pytest.skip(str(error))
    rank = (
        "import pathlib, time; from mpi4py import MPI; r = MPI.COMM_WORLD.rank;"
        "pathlib.Path(f'ready{r}').touch(); time.sleep(60)"
    )
    with start([mpirun, "-n", "2", sys.executable, "-c", rank], tmp_path) as command:
        ready = [tmp_path / "ready0", tmp_path / "ready1"]
        process.wait_until(lambda: all(p.exists() for p in ready), 30, "both ranks")
        assert len(command.family()) >= 4
        command.send_signal(signal.SIGKILL)
        result = command.wait(20, grace=10)
    assert not result.orphans
