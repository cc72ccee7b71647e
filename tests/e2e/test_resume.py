"""Killed with SIGKILL anywhere, stopped politely, resumed with any number of workers: same bits.

Steps are chosen at random in every session; a failure names them.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
from pathlib import Path

import pytest

from distgrad.testing import process

from ..training import traces

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout_s(500),
    pytest.mark.skipif(sys.platform != "linux", reason="finds ranks in /proc"),
]

EPOCHS, STEPS_PER_EPOCH, EVERY = 28, 23, 29
STEPS = EPOCHS * STEPS_PER_EPOCH
LOST = 2 * EVERY  # more than a kill may cost: while a commit is written, the one before it is there
LAST_KILL = STEPS // 2  # the rest takes longer than a kill, on any machine
_random = random.Random()


@pytest.fixture(scope="module")
def undisturbed(dg, tmp_path_factory):
    """By one process; no commit before the last is at the end of an epoch."""
    job = (dg.digits, f"train.epochs={EPOCHS}", f"checkpoint.every_steps={EVERY}")
    run = dg.train(tmp_path_factory.mktemp("undisturbed") / "run", *job)
    assert run.status["step"] == STEPS
    assert not [s for s in range(EVERY, STEPS, EVERY) if s % STEPS_PER_EPOCH == 0]
    return run


def wait_for_step(dg, run, command: process.Command, step: int) -> None:
    def reached() -> bool:
        return run.steps_logged >= step or not command.is_running()

    process.wait_until(reached, dg.limit, f"step {step}")
    assert run.steps_logged >= step, f"it ended before step {step}\n{command.stderr}"


def kill_at(dg, run, step: int, *options: object, rank: int | None = None, **how: object) -> None:
    """Starts a run, kills its process (or one rank) once it has done ``step`` steps, and waits."""
    with dg.start("train", *run.job, "--run-dir", run.folder, *options, **how) as command:
        wait_for_step(dg, run, command, step)
        os.kill(command.pid if rank is None else dg.rank_pids(command)[rank], signal.SIGKILL)
        result = command.wait(dg.limit)
    assert result.returncode != 0, f"step {step}: too late\n{result.stdout}"
    assert not result.orphans
    assert run.steps_logged < STEPS
    # The dead write nothing; a rank 0 that outlives a peer may still say that it has lost it.
    status = run.status
    assert status["state"] == "running" or (rank == 1 and status["exit_code"] == 6), status


def check(run, undisturbed) -> None:
    """The run has ended as if nothing had happened to it."""
    assert run.sha256 == undisturbed.sha256
    assert run.saved_sha256() == undisturbed.sha256
    steps = [entry["step"] for entry in run.metrics if entry["kind"] == "step"]
    assert steps == list(range(1, STEPS + 1))
    assert run.metrics == undisturbed.metrics  # every loss, every metric, each line once
    assert [p.name for p in run.commits] == [p.name for p in undisturbed.commits]
    hidden = [path for path in run.folder.rglob("*") if path.name.startswith(".")]
    assert hidden == [], "leftovers"


def resumed_at(run) -> int:
    """The step at which a run was taken up; it lies within an epoch."""
    found = re.search(r"resuming .* at step (\d+) \(epoch (\d+), step (\d+) of (\d+)\)", run.stdout)
    assert found is not None, run.stdout
    step, epoch, step_in_epoch, steps = map(int, found.groups())
    assert steps == STEPS_PER_EPOCH and 0 < step_in_epoch < steps
    assert step == (epoch - 1) * steps + step_in_epoch
    return step


@pytest.mark.parametrize("part", [1, 2])
def test_kill_9_of_a_single_process(dg, undisturbed, tmp_path: Path, part: int) -> None:
    run = undisturbed.anew(tmp_path / "run")
    step = _random.randint(LOST, LAST_KILL // 2) + (part - 1) * LAST_KILL // 2
    kill_at(dg, run, step)
    resumed = dg.resume(run)
    assert resumed_at(resumed.result) > step - LOST, f"killed at step {step}"
    check(run, undisturbed)


def test_kill_9_before_the_first_commit(dg, undisturbed, tmp_path: Path) -> None:
    job = [*undisturbed.job, "checkpoint.every_steps=null"]  # the first one is the last
    run = undisturbed.anew(tmp_path / "run", *job)
    kill_at(dg, run, _random.randint(1, LAST_KILL))
    assert run.commits == []
    resumed = dg.resume(run)
    assert f"nothing to resume in {run.folder}: starting anew" in resumed.result.stdout
    assert run.sha256 == undisturbed.sha256
    assert run.metrics == undisturbed.metrics


def test_killed_twice(dg, undisturbed, tmp_path: Path) -> None:
    run = undisturbed.anew(tmp_path / "run")
    first = _random.randint(EVERY + 1, LAST_KILL // 2)
    second = _random.randint(first + EVERY, LAST_KILL)
    kill_at(dg, run, first)
    kill_at(dg, run, second, "--resume", "auto")
    dg.resume(run)
    check(run, undisturbed)


@pytest.mark.mpi
@pytest.mark.parametrize("rank", [0, 1])
def test_kill_9_of_one_rank_and_resume_with_any_number_of_workers(
    dg, undisturbed, tmp_path: Path, rank: int
) -> None:
    killed = undisturbed.anew(tmp_path / "killed")
    step = _random.randint(LOST, LAST_KILL)
    kill_at(dg, killed, step, ranks=2, rank=rank)
    for ranks in [(1, 3), (2,)][rank]:
        run = killed.copy(tmp_path / f"{ranks}")
        resumed = dg.resume(run, ranks=ranks)
        assert resumed_at(resumed.result) > step - LOST, f"killed at step {step}"
        assert run.status["world_size"] == ranks
        check(run, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_stopped_politely(dg, undisturbed, tmp_path: Path, number: int) -> None:
    run = undisturbed.anew(tmp_path / "run")
    step = _random.randint(1, LAST_KILL)
    stop_at(dg, run, step, number)
    check_preempted(run, step)
    resumed = dg.resume(run)
    assert f"resuming {run.folder} at step" in resumed.result.stdout
    check(run, undisturbed)


@pytest.mark.mpi
def test_stopped_politely_under_mpi(dg, undisturbed, tmp_path: Path) -> None:
    run = undisturbed.anew(tmp_path / "run")
    step = _random.randint(1, LAST_KILL)
    stop_at(dg, run, step, signal.SIGTERM, "-n", "2", "--launcher", "mpi")
    check_preempted(run, step)
    dg.resume(run, "-n", "2", "--launcher", "mpi")
    check(run, undisturbed)


# The launcher's patience with a rank that saves is what is tried here.
SLOW_DISK = """
import os, sys, time
fsync = os.fsync
os.fsync = lambda file: (time.sleep(0.6), fsync(file))
from distgrad.cli import main
sys.exit(main())
"""


@pytest.mark.mpi
def test_a_slow_disk_is_waited_for(dg, undisturbed, tmp_path: Path) -> None:
    job = [*undisturbed.job, "checkpoint.every_steps=null"]
    run = undisturbed.anew(tmp_path / "run", *job)
    step = _random.randint(1, LAST_KILL)
    stop_at(dg, run, step, signal.SIGTERM, ranks=2, program=["-c", SLOW_DISK])
    check_preempted(run, step)
    dg.resume(run)
    assert run.sha256 == undisturbed.sha256


@pytest.mark.parametrize(
    "how", [{}, pytest.param({"ranks": 2}, marks=pytest.mark.mpi)], ids=["alone", "mpirun"]
)
def test_a_slow_disk_makes_no_kill_cost_two_intervals(dg, tmp_path: Path, how) -> None:
    """No rank begins the last step of an interval before the commit at its start is written."""
    every, steps = 4, STEPS_PER_EPOCH
    asked = (f"tracking.timeline=[1, {steps}]", f"checkpoint.every_steps={every}")
    job = (dg.digits, "train.epochs=1", *asked)
    disk = SLOW_DISK.replace("0.6", "0.05")  # some ten steps for each file
    run = dg.train(tmp_path / "run", *job, program=["-c", disk], **how)
    path = run.folder / "timeline.json"
    written = {e["name"]: e["ts"] + e["dur"] for e in traces.spans(path, "write checkpoint")}
    for step in range(every, steps - every, every):
        begun = min(e["ts"] for e in traces.spans(path, f"step {step + every}"))
        assert written[f"write checkpoint {step}"] < begun


# A commit takes longer than a collective may.
SLOWER_DISK = """
import sys, time
from distgrad.training import checkpoint
save = checkpoint.save
checkpoint.save = lambda *args: (time.sleep(5 * (args[1] == 46)), save(*args))[1]
from distgrad.cli import main
sys.exit(main())
"""


@pytest.mark.mpi
def test_a_commit_that_takes_long_ends_no_training(dg, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DISTGRAD_TIMEOUT", "4")
    job = (dg.digits, "train.epochs=3", "checkpoint.every_steps=46")
    run = dg.train(tmp_path / "run", *job, ranks=2, program=["-c", SLOWER_DISK])
    assert run.status["step"] == 69


# The test that comes after the last step takes a while.
SLOW_TEST = """
import sys, time
from distgrad import worker
results_on = worker.results_on
worker.results_on = lambda *args: (time.sleep(1.5), results_on(*args))[1]
from distgrad.cli import main
sys.exit(main())
"""


def test_a_run_that_is_stopped_behind_its_last_step_comes_to_its_end(dg, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    last = folder / "checkpoints" / f"step_{2 * STEPS_PER_EPOCH:08d}"
    words = ("train", dg.digits, "train.epochs=2", "--run-dir", folder)
    with dg.start(*words, program=["-c", SLOW_TEST]) as command:
        process.wait_until(lambda: last.exists() or not command.is_running(), dg.limit, last.name)
        command.send_signal(signal.SIGTERM)
        result = command.wait(dg.limit)
    assert result.returncode == 0, result.stderr
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_terminal_that_has_gone_is_a_stop_that_is_saved(
    dg, undisturbed, tmp_path: Path, workers: int
) -> None:
    run = undisturbed.anew(tmp_path / "run")
    step = _random.randint(1, LAST_KILL)
    stop_at(dg, run, step, signal.SIGHUP, "-n", workers)
    check_preempted(run, step)
    dg.resume(run)
    check(run, undisturbed)


@pytest.mark.parametrize("workers", [1, 2])
def test_under_nohup_a_job_goes_on_without_its_terminal(dg, tmp_path: Path, workers: int) -> None:
    folder = tmp_path / "run"
    words = ("train", dg.digits, "train.epochs=3", "--run-dir", folder, "-n", workers)
    program = [sys.executable, "-m", "distgrad", *map(str, words)]
    with process.Command(["nohup", *program], cwd=dg.root) as command:
        process.wait_until((folder / "metrics.jsonl").exists, dg.limit, "the first step")
        for pid in command.family():
            os.kill(pid, signal.SIGHUP)
        result = command.wait(dg.limit)
    assert result.returncode == 0, result.stderr
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"


def stop_at(dg, run, step: int, number: int, *options: object, **how: object) -> None:
    """Starts a run and sends the command a signal once it has done ``step`` steps."""
    with dg.start("train", *run.job, "--run-dir", run.folder, *options, **how) as command:
        wait_for_step(dg, run, command, step)
        command.send_signal(number)
        run.result = command.wait(dg.limit)
    assert not run.result.orphans


def check_preempted(run, step: int) -> None:
    result, status = run.result, run.status
    assert result.returncode == 75, f"step {step}\n{result.stdout}\n{result.stderr}"
    assert "Traceback" not in result.stderr
    assert result.stderr.count(f"error: stopped and saved after step {status['step']}") == 1
    assert f"--run-dir {run.folder} --resume auto" in result.stderr
    assert (status["state"], status["exit_code"]) == ("preempted", 75)
    assert step <= status["step"] < STEPS
    assert run.commits[-1].name == f"step_{status['step']:08d}"


def test_a_finished_run_is_left_as_it_is(dg, undisturbed, tmp_path: Path) -> None:
    run = undisturbed.copy(tmp_path / "run")
    said = ["status.json", "rank_00000.log"]
    before, status = without_events(run.contents(without=said)), run.status
    resumed = dg.resume(run)
    assert without_events(run.contents(without=said)) == before
    assert {**run.status, "heartbeat": 0} == {**status, "heartbeat": 0}
    assert f"weights sha256 {undisturbed.sha256}" in resumed.result.stdout


def without_events(contents: dict[str, str]) -> dict[str, str]:
    """The points of the last epoch are taken away and made again."""
    return {path: found for path, found in contents.items() if not path.startswith("tb")}


def test_a_finished_run_goes_on_for_more_epochs(dg, short, undisturbed, tmp_path: Path) -> None:
    """Two epochs, then four more, are six epochs."""
    run = short.copy(tmp_path / "run")
    more = (f"train.epochs={EPOCHS}", f"checkpoint.every_steps={EVERY}")
    run.job = (*short.job, *more)
    dg.resume(run)
    check(run, undisturbed)


def test_without_a_run_dir_the_newest_run_of_the_name_goes_on(dg, tmp_path: Path) -> None:
    job = (dg.digits, "train.epochs=1", "name=mine")
    first = dg.run("train", *job, cwd=tmp_path)
    other = dg.run("train", *job, "name=mine-too", cwd=tmp_path)
    again = dg.run("train", *job, "--resume", "auto", cwd=tmp_path)
    assert [first.returncode, other.returncode, again.returncode] == [0, 0, 0]
    folders = [re.findall(r"^run folder (.+)$", r.stdout, re.MULTILINE)[0] for r in (first, again)]
    assert folders[0] == folders[1]
    assert re.fullmatch(r"runs/\d{8}-\d{6}-mine-[0-9a-f]{4}", folders[0])
    assert len(list((tmp_path / "runs").glob("2*"))) == 2
    latest = tmp_path / "runs" / "latest"
    mine = latest.readlink()
    assert str(mine) == Path(folders[0]).name
    failed = dg.run("train", *job, "data={source: npz, path: none.npz}", cwd=tmp_path)
    assert failed.returncode == 4 and latest.readlink() == mine  # it has never been a run
