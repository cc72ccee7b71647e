"""Workers that are killed, frozen or wrong: the job goes on by itself, or ends with the reason.

Steps and ranks are chosen at random in every session; a failure names them.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import statistics
import sys
import time
from pathlib import Path

import pytest

from distgrad.testing import process

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout_s(400),
    pytest.mark.skipif(sys.platform != "linux", reason="finds ranks in /proc"),
]

EPOCHS, EVERY = 30, 10
STEPS = EPOCHS * 23
LAST_KILL = STEPS // 2  # the rest takes longer than a kill, on any machine
LAUNCHERS = ["local", pytest.param("mpi", marks=pytest.mark.mpi)]
_random = random.Random()


@pytest.fixture(scope="module")
def undisturbed(dg, tmp_path_factory):
    job = (dg.digits, f"train.epochs={EPOCHS}", f"checkpoint.every_steps={EVERY}")
    return dg.train(tmp_path_factory.mktemp("undisturbed") / "run", *job)


def wait_for_step(run, command: process.Command, step: int) -> None:
    process.wait_until(
        lambda: run.steps_logged >= step or not command.is_running(), 120, f"step {step}"
    )
    assert command.is_running(), f"it ended before step {step}\n{command.stderr}"


def check(run, undisturbed) -> None:
    assert run.sha256 == undisturbed.sha256
    assert run.metrics == undisturbed.metrics
    assert run.saved_sha256() == undisturbed.sha256


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("workers", [2, 3])
def test_kill_9_of_a_worker_and_the_job_goes_on(
    dg, undisturbed, tmp_path: Path, launcher: str, workers: int, capsys, monkeypatch
) -> None:
    if (launcher, workers) == ("mpi", 3):  # by MPI's own messages
        monkeypatch.setenv("DISTGRAD_SHARED_MEMORY", "off")
    run = undisturbed.anew(tmp_path / "run")
    options = ("-n", workers, "--launcher", launcher, "--max-restarts", 2)
    seconds = []
    with dg.start("train", *run.job, "--run-dir", run.folder, *options) as command:
        for number in range(2):
            step = _random.randint(1, LAST_KILL // 2) + number * LAST_KILL // 2
            rank = _random.randrange(workers)
            wait_for_step(run, command, step)
            # The step may have been logged before the first kill, when ranks are starting again.
            process.wait_until(
                lambda: len(dg.rank_pids(command)) == workers, 60, "every rank to run"
            )
            os.kill(dg.rank_pids(command)[rank], signal.SIGKILL)
            killed = time.monotonic()
            said = f"(restart {number + 1} of 2)"
            process.wait_until(lambda said=said: said in command.stderr, 20, said)
            seconds.append(time.monotonic() - killed)
        result = command.wait(200)
    assert result.returncode == 0, f"{step} {rank}\n{result.stderr}"
    assert not result.orphans
    check(run, undisturbed)
    with capsys.disabled():
        print(f" [{launcher}: median {statistics.median(seconds):.2f} s to the restart] ", end="")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_killed_worker_ends_the_job_with_6(dg, undisturbed, tmp_path: Path, launcher) -> None:
    run = undisturbed.anew(tmp_path / "run")
    options = ("-n", 2, "--launcher", launcher)
    with dg.start("train", *run.job, "--run-dir", run.folder, *options) as command:
        wait_for_step(run, command, _random.randint(1, LAST_KILL))
        os.kill(dg.rank_pids(command)[1], signal.SIGKILL)
        killed = time.monotonic()
        result = command.wait(30)
    assert time.monotonic() - killed < 10
    assert result.returncode == 6, result.stderr
    assert not result.orphans
    if launcher == "local":
        assert result.stderr.startswith("error: rank 1 (process "), result.stderr
    # Another way of starting it goes on from there.
    dg.resume(run)
    check(run, undisturbed)


def test_a_restart_before_the_first_commit_begins_anew(dg, undisturbed, tmp_path: Path) -> None:
    # The first commit is the last one.
    run = undisturbed.anew(tmp_path / "run", *undisturbed.job, "checkpoint.every_steps=null")
    options = ("-n", 2, "--max-restarts", 1)
    with dg.start("train", *run.job, "--run-dir", run.folder, *options) as command:
        wait_for_step(run, command, _random.randint(1, LAST_KILL))
        os.kill(dg.rank_pids(command)[_random.randrange(2)], signal.SIGKILL)
        result = command.wait(200)
    assert result.returncode == 0, result.stderr
    assert f"nothing to resume in {run.folder}: starting anew" in result.stdout
    assert run.sha256 == undisturbed.sha256
    assert run.metrics == undisturbed.metrics


def test_a_lone_worker_is_restarted_too(dg, undisturbed, tmp_path: Path) -> None:
    run = undisturbed.anew(tmp_path / "run")
    words = ("train", *run.job, "--run-dir", run.folder, "--max-restarts", 1)
    with dg.start(*words) as command:
        wait_for_step(run, command, _random.randint(1, LAST_KILL))
        os.kill(dg.rank_pids(command)[0], signal.SIGKILL)
        result = command.wait(200)
    assert result.returncode == 0, result.stderr
    check(run, undisturbed)


def test_a_frozen_worker_is_named_and_replaced(
    dg, undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTGRAD_TIMEOUT", "3")
    run = undisturbed.anew(tmp_path / "run")
    options = ("-n", 3, "--max-restarts", 1)
    with dg.start("train", *run.job, "--run-dir", run.folder, *options) as command:
        wait_for_step(run, command, _random.randint(1, LAST_KILL))
        os.kill(dg.rank_pids(command)[2], signal.SIGSTOP)
        result = command.wait(200)
    assert result.returncode == 0, result.stderr
    assert re.search(r"warning: rank 0 has waited \d\.\d s for rank 2 in", result.stderr)
    assert re.search(r"error: .* waited (3|30)\.0 s for rank 2 in", result.stderr)  # in a commit
    assert result.stderr.count("error:") == 1
    assert not result.orphans
    check(run, undisturbed)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_slow_worker_costs_time_and_no_bit(dg, short, tmp_path: Path, launcher: str) -> None:
    run = short.anew(tmp_path / "run")
    options = ("-n", 2, "--launcher", launcher)
    with dg.start("train", *run.job, "--run-dir", run.folder, *options) as command:
        wait_for_step(run, command, 3)
        slow = dg.rank_pids(command)[1]
        while command.is_running():  # it gets a third of the time
            with contextlib.suppress(ProcessLookupError):
                os.kill(slow, signal.SIGSTOP)
                time.sleep(0.02)
                os.kill(slow, signal.SIGCONT)
            time.sleep(0.01)
        result = command.wait(60)
    assert result.returncode == 0, result.stderr
    assert "error" not in result.stderr
    assert not result.orphans
    check(run, short)


def test_killing_the_supervisor_leaves_no_worker(dg, undisturbed, tmp_path: Path) -> None:
    run = undisturbed.anew(tmp_path / "run")
    words = ("train", *run.job, "--run-dir", run.folder, "-n", 3)
    with dg.start(*words) as command:
        wait_for_step(run, command, _random.randint(1, LAST_KILL))
        assert len(dg.rank_pids(command)) == 3
        command.send_signal(signal.SIGKILL)
        result = command.wait(20, grace=5)
    assert not result.orphans
    dg.resume(run, "-n", 2)
    check(run, undisturbed)


def test_a_bug_is_not_tried_again(dg, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from distgrad.launcher.connect import connect\nc = connect()\nc.barrier()\n"
        "if c.rank == 1:\n    raise ZeroDivisionError('a bug')\n"
        "import time\ntime.sleep(60)\n"
    )
    result = dg.run("launch", "-n", 3, "--max-restarts", 3, script)
    assert result.returncode == 1
    assert result.seconds < 15
    assert result.stderr.count("Traceback") == 1
    assert result.stderr.startswith("[rank 1] Traceback")
    assert result.stderr.endswith("[rank 1] ZeroDivisionError: a bug\n")
