"""Ranks of one host under mpirun: through shared memory where it can be, by messages elsewhere."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import pytest

from distgrad.comm import native, shared_memory

pytestmark = [pytest.mark.mpi, pytest.mark.timeout_s(60)]

SAYS = """
from distgrad.launcher.connect import connect
world = connect()
print(f"{world.rank} {type(world._transport).__name__} {world.allgather_object(world.rank)}")
"""
# Rank 0 does nothing in which it could hear of the end of rank 1.
COMPUTES = """
from distgrad.launcher.connect import connect
world = connect()
if world.rank == 1:
    raise ValueError("wrong")
while True:
    pass
"""
# MPICH's, which it would remove at the end; a rank that is killed has none.
NAMES_ITS_MEMORY = """
import re
from pathlib import Path
from distgrad.launcher.connect import connect
world = connect()
world.barrier()
mapped = set(re.findall(r"/dev/shm/mpich_\\S+", Path("/proc/self/maps").read_text()))
print(f"{world.rank} left {[name for name in mapped if Path(name).exists()]}")
"""


def said(text: str) -> list[str]:
    """What the ranks print, whose lines may run into each other."""
    return sorted(re.findall(r"\d \w+ \[.*?\]", text))


@pytest.mark.skipif(
    native.ring_exchange() is None or shared_memory.Offer(1).show() is None,
    reason="no llvmlite, or no memory can be shared",
)
def test_ranks_of_one_host_share_memory(run_mpi, tmp_path) -> None:
    (tmp_path / "says.py").write_text(SAYS)
    result = run_mpi(3, str(tmp_path / "says.py"))
    assert result.returncode == 0, result.stderr
    assert said(result.stdout) == [f"{r} TCPTransport [0, 1, 2]" for r in range(3)]


def test_they_can_be_told_not_to(run_mpi, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTGRAD_SHARED_MEMORY", "off")
    (tmp_path / "says.py").write_text(SAYS)
    result = run_mpi(2, str(tmp_path / "says.py"))
    assert result.returncode == 0, result.stderr
    assert said(result.stdout) == [f"{r} MPITransport [0, 1]" for r in range(2)]


@pytest.mark.skipif(sys.platform != "linux", reason="looks in /proc and /dev/shm")
def test_nothing_of_a_rank_that_is_killed_could_stay_in_dev_shm(run_mpi, tmp_path) -> None:
    (tmp_path / "names.py").write_text(NAMES_ITS_MEMORY)
    result = run_mpi(2, str(tmp_path / "names.py"))
    assert result.returncode == 0, result.stderr
    assert sorted(re.findall(r"\d left \[.*?\]", result.stdout)) == ["0 left []", "1 left []"]


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no /dev/shm")
def test_what_ranks_that_were_killed_while_they_started_have_left_is_removed(
    run_mpi, tmp_path
) -> None:
    old, new = (Path(f"/dev/shm/mpich_shm_{age}_{os.getpid()}") for age in ("old", "new"))
    try:
        for path in (old, new):
            path.touch()
        os.utime(old, (time.time() - 5000,) * 2)
        (tmp_path / "says.py").write_text(SAYS)
        assert run_mpi(2, str(tmp_path / "says.py")).returncode == 0
        assert not old.exists() and new.exists()
    finally:
        old.unlink(missing_ok=True)
        new.unlink(missing_ok=True)


@pytest.mark.parametrize("sharing", ["auto", "off"])
def test_an_error_ends_ranks_that_compute(
    run_mpi, tmp_path, monkeypatch: pytest.MonkeyPatch, sharing: str
) -> None:
    monkeypatch.setenv("DISTGRAD_SHARED_MEMORY", sharing)
    (tmp_path / "computes.py").write_text(COMPUTES)
    result = run_mpi(2, str(tmp_path / "computes.py"), timeout=30)
    assert result.returncode == 1
    assert "[rank 1] ValueError: wrong" in result.stderr
    assert not result.orphans
