"""The doctor on this machine, and on machines that are broken in one way each."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import cli, doctor
from distgrad.backend import cupy
from distgrad.comm.mpi import family, library_version
from distgrad.core.errors import PeerLostError
from distgrad.doctor import checks, gpus, machine, ranks, transports
from distgrad.doctor.finding import Finding, ok
from distgrad.launcher import environ, load, starters
from distgrad.testing import cuda_on_cpu, fake_cupy, process

NAMES = list(doctor.CHECKS)


@pytest.fixture
def library() -> str:
    pytest.importorskip("mpi4py", exc_type=ImportError)
    return library_version()


def executable(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.mpi
@pytest.mark.slow
def test_every_check_is_made_and_nothing_is_left_behind(tmp_path: Path, library: str) -> None:
    command = [sys.executable, "-m", "distgrad", "doctor", "--json", "--run-dir", "new/runs"]
    found = process.run(command, cwd=tmp_path, timeout=100)
    findings = json.loads(found.stdout)
    assert [each["name"] for each in findings] == NAMES
    states = {each["name"]: each["state"] for each in findings}
    assert {states[name] for name in ("python", "tcp", "clock", "network")} == {"ok"}, findings
    assert "exact sums" in {each["name"]: each["detail"] for each in findings}["mpi"]
    assert found.returncode == (3 if "failed" in states.values() else 0)
    assert found.orphans == () and list(tmp_path.iterdir()) == []


def test_the_exit_code_tells_of_failures_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Finding("ok", "fine"), Finding("skipped", "none", "pip install it")]
    monkeypatch.setattr(doctor, "examine", lambda run_dir, ray: iter(found))
    assert cli.main(["doctor"]) == 0
    assert "-> pip install it" in capsys.readouterr().out
    found.append(Finding("failed", "broken", "mend it"))
    assert cli.main(["doctor"]) == 3
    assert capsys.readouterr().out.endswith("1 ok, 1 skipped, 1 failed\n")


def test_a_rank_is_no_place_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PMI_RANK", "1")
    monkeypatch.setenv("PMI_SIZE", "2")
    assert cli.main(["doctor"]) == 2
    assert cli.main(["bench", "no.yaml"]) == 2


# A check that goes wrong as a process


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with nothing else, as far as the doctor sees."""
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))


def made(monkeypatch: pytest.MonkeyPatch, what: Any, seconds: float = 20.0) -> Finding:
    monkeypatch.setattr(checks, "all_checks", lambda folder, run_dir: {"clock": what})
    return doctor.check("clock", Path("runs"), seconds)


def test_a_hang_is_a_failure_and_takes_its_children_along(
    idle: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def hang() -> Finding:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "600"])
        (tmp_path / "pid").write_text(str(child.pid))
        os.write(1, b"looking for the file server\n")
        time.sleep(600)
        return ok("never")

    began = time.monotonic()
    found = made(monkeypatch, hang, seconds=2.0)  # time for it to have begun
    assert found.state == "failed" and time.monotonic() - began < 10
    assert found.detail == "no answer within 2 s: looking for the file server"
    process.wait_until(
        lambda: not alive(int((tmp_path / "pid").read_text())), 5.0, "the end of its child"
    )


def test_slow_on_a_busy_machine_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0 * os.cpu_count(), 0.0, 0.0))

    def slow() -> Finding:
        time.sleep(1.5)  # more than the second that it has
        return ok("late")

    assert made(monkeypatch, slow, seconds=1.0).state == "ok"
    found = made(monkeypatch, lambda: time.sleep(600), seconds=0.2)
    assert found.state == "warning" and "slow or broken: no answer within 1 s" in found.detail
    assert "busy (load" in found.advice


def test_a_crash_and_an_exception_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    found = made(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert (found.state, found.name) == ("failed", "clock")
    assert "killed by signal 9" in found.detail and "reinstall" in found.advice
    found = made(monkeypatch, lambda: 1 // 0)
    assert found.detail.startswith("ZeroDivisionError") and found.advice


# mpirun


@pytest.mark.mpi
def test_an_mpirun_that_hangs(
    idle: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: str
) -> None:
    version = {"Open MPI": "mpirun (Open MPI) 5", "MPICH": "HYDRA build details"}[family(library)]
    script = f"""#!/bin/sh
[ "$1" = --version ] && echo "{version}" && exit
trap '' TERM
echo $$ >{tmp_path}/pid
while :; do sleep 1; done
"""
    monkeypatch.setenv("DISTGRAD_MPIRUN", executable(tmp_path / "mpirun", script))
    found = doctor.check("mpi", tmp_path, 5.0)
    assert found.state == "failed" and "no answer within 5 s" in found.detail
    assert "mpirun -n 2 hostname" in found.advice and found.seconds < 15
    process.wait_until(
        lambda: not alive(int((tmp_path / "pid").read_text())), 5.0, "the end of mpirun"
    )


@pytest.mark.mpi
def test_an_mpirun_of_another_family(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: str
) -> None:
    other = {"Open MPI": "HYDRA build details", "MPICH": "mpirun (Open MPI) 5"}[family(library)]
    own = starters.find_mpirun()
    mpirun = executable(tmp_path / "mpirun", f'#!/bin/sh\necho "{other}"\n')
    monkeypatch.setenv("DISTGRAD_MPIRUN", mpirun)
    found = doctor.check("mpi", tmp_path, 30.0)
    assert found.state == "failed" and mpirun in found.detail and library in found.detail
    # Beside Python lies the right one, but a user's shell finds the other.
    monkeypatch.setenv("DISTGRAD_MPIRUN", own)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = transports.mpi(tmp_path)
    assert found.state == "failed" and "every rank would think that it is alone" in found.detail
    assert own in found.advice


@pytest.mark.mpi
def test_an_mpirun_that_starts_loners(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: str
) -> None:
    loners = executable(tmp_path / "start", '#!/bin/sh\nshift 2\n"$@" & "$@"\n')
    monkeypatch.setenv("DISTGRAD_MPIRUN", loners)
    found = doctor.check("mpi", tmp_path, 60.0)
    assert found.state == "failed"
    assert "thinks that it is one of 1, not of 2" in found.detail and loners in found.detail


def test_without_mpi4py_it_is_skipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(transports.importlib.util, "find_spec", lambda name: None)
    found = transports.mpi(tmp_path)
    assert found.state == "skipped" and found.advice == "pip install 'distgrad[mpich]'"
    assert transports.ray(tmp_path).advice == "pip install 'distgrad[ray]'"


# The sums of ranks


def test_a_sum_that_is_off_by_a_bit_is_found() -> None:
    class Wrong:
        rank, world_size, at = 0, 2, 5

        def allreduce(self, array: np.ndarray) -> None:
            array *= 3
            if array.size > self.at:
                array[self.at] += 1

    with pytest.raises(PeerLostError, match="at 5 of 7 float32 values is 16.0, not 15"):
        ranks._exact(Wrong(), 7, np.float32)  # type: ignore[arg-type]
    Wrong.at = 1 << 30
    ranks._exact(Wrong(), 1 << 20, np.float32)  # type: ignore[arg-type]


def test_ranks_that_die_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTGRAD_INTERFACE", "no-such-network")
    found = doctor.check("tcp", tmp_path, 60.0)
    assert found.state == "failed" and "no-such-network" in found.detail
    found = doctor.check("network", tmp_path, 60.0)
    assert found.state == "failed" and "no-such-network" in found.detail


def test_shared_memory_that_is_switched_off_is_skipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DISTGRAD_SHARED_MEMORY", "off")
    assert transports.memory(tmp_path).state == "skipped"


# The machine


def test_more_threads_than_cores_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "blas_info", lambda: {"threads": 8})
    monkeypatch.setattr(environ, "usable_cores", lambda: 8)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(load, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 90.0, 90.0))
    assert machine.threads().state == "ok"
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    found = machine.threads()
    assert found.state == "warning" and "a quota of 2 on 8" in found.detail
    assert "OMP_NUM_THREADS=2" in found.advice
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.threads().state == "ok"
    monkeypatch.setattr(os, "getloadavg", lambda: (90.0, 0.5, 0.5))
    found = machine.threads()
    assert found.state == "warning" and "load 90 on 8 cores: threads" in found.detail


def test_a_cache_folder_that_cannot_be_written_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("llvmlite")
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    found = doctor.check("kernels", tmp_path, 60.0)
    assert found.state in ("warning", "skipped")  # a CPU without FMA has no kernels
    assert found.state == "skipped" or "set HOME" in found.advice


@pytest.fixture
def broken_llvmlite(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose llvmlite needs another C library, as on old clusters."""
    package = tmp_path / "path" / "llvmlite"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = '0.44'\n")
    (package / "binding.py").write_text("raise OSError('GLIBC_2.38 not found')\n")
    return {"PYTHONPATH": f"{package.parent}{os.pathsep}{Path(distgrad.__path__[0]).parent}"}


def test_an_llvmlite_that_does_not_load(broken_llvmlite) -> None:
    """It is told, and what it would have made faster runs on NumPy's kernels."""
    script = (
        "import numpy as np, distgrad as tf\n"
        "x = np.linspace(-1, 1, 1 << 15).astype('f')\n"
        "square = tf.function(lambda x: tf.reduce_sum(tf.tanh(x) ** 2))\n"
        "print(float(square(x)), tf.compile.eager.used())\n"
    )
    result = process.run([sys.executable, "-c", script], env=broken_llvmlite, timeout=60)
    assert result.returncode == 0, result.stderr
    value, kernels = result.stdout.split()
    assert kernels == "numpy"
    assert float(value) == pytest.approx((np.tanh(np.linspace(-1, 1, 1 << 15)) ** 2).sum(), 1e-5)
    assert result.stderr.count("llvmlite is installed, and cannot be loaded (GLIBC_2.38") == 1


def test_commands_name_an_llvmlite_that_does_not_load(broken_llvmlite, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "distgrad", "doctor"]
    result = process.run(words, env=broken_llvmlite, cwd=tmp_path, timeout=120)
    found = " ".join(result.stdout.split())
    assert "failed kernels llvmlite is installed, and cannot be loaded (GLIBC_2.38" in found
    assert "-> pip install --force-reinstall llvmlite" in found
    assert "skipped memory" in found
    job = ["train", "digits", "train.epochs=1", "--run-dir", "run"]
    result = process.run([*words[:-1], *job], env=broken_llvmlite, cwd=tmp_path, timeout=120)
    assert result.returncode == 0 and "steps captured, on NumPy" in result.stdout
    assert re.fullmatch("warning: llvmlite is installed, and cannot .*\n", result.stderr)


def test_a_run_folder_that_cannot_be(tmp_path: Path) -> None:
    assert machine.disk(tmp_path / "not" / "yet").state in ("ok", "warning")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    found = machine.disk(tmp_path / "file")
    assert found.state == "failed" and "--run-dir" in found.advice


def test_little_room_in_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert machine.shared_folder(tmp_path / "missing").state in ("warning", "skipped")
    assert machine.shared_folder(tmp_path).state == "ok"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(machine, "_ROOM_SHM", 1 << 60)
    assert "--shm-size" in machine.shared_folder(tmp_path).advice


def test_a_clock_that_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.clock().state == "ok"
    true = time.monotonic
    steps = iter(range(1 << 60))
    monkeypatch.setattr(machine.time, "monotonic", lambda: true() - 0.01 * (next(steps) % 3))
    found = machine.clock()
    monkeypatch.undo()
    assert found.state == "failed" and "goes back" in found.detail


@pytest.mark.cpu
@pytest.mark.skipif(not cuda_on_cpu.available(), reason="no g++")
def test_gpus_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_cupy.installed(2):
        found = gpus.gpu()
        assert found.state in ("ok", "warning") and "2 x " in found.detail, found
        monkeypatch.setattr(
            cupy, "distributions", lambda: {"cupy-cuda12x": "14", "cupy-cuda13x": "14"}
        )
        cupy.load.cache_clear()
        found = gpus.gpu()
        assert found.state == "failed" and "pip uninstall -y" in found.detail
    cupy.load.cache_clear()
