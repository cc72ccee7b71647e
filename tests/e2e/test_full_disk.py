"""A disk that takes no checkpoint for a while, or for good.

A limit on the size of files is what a full disk is to a program: the write fails, without a signal.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
from pathlib import Path

import pytest

from distgrad.testing import process
from distgrad.training import checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout_s(200),
    pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits others by prlimit(2)"),
]
EPOCHS = 120
JOB = (f"train.epochs={EPOCHS}", "checkpoint.every_steps=20")
SHARDED = "parallel.shard_optimizer=true"
TOO_SMALL = 40_000  # bytes: metrics.jsonl still fits for a while, no file of a commit does
NO_LIMIT = resource.RLIM_INFINITY


def limit_files(pid: int, size: int) -> None:
    hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


@pytest.mark.parametrize("more", [(), (SHARDED,)], ids=["whole", "sharded"])
def test_training_goes_on_and_saves_again(dg, tmp_path: Path, more) -> None:
    rarely = "checkpoint.every_steps=300"  # the limit goes before a third commit fails
    undisturbed = dg.train(tmp_path / "undisturbed", dg.digits, *JOB, rarely, *more)
    run = undisturbed.anew(tmp_path / "run")
    with dg.start("train", *run.job, "--run-dir", run.folder, "-n", 2) as command:
        process.wait_until(lambda: run.steps_logged > 310, 60, "the first commit")
        rank_0 = dg.rank_pids(command)[0]
        limit_files(rank_0, TOO_SMALL)
        process.wait_until(lambda: "warning:" in command.stderr, 60, "a warning")
        limit_files(rank_0, NO_LIMIT)
        result = command.wait(120)
    assert result.returncode == 0, result.stderr
    assert "cannot be written ([Errno 27] File too large); the newest one is " in result.stderr
    assert "Training goes on, and tries again (miss 1)." in result.stderr
    assert run.sha256 == undisturbed.sha256 == run.saved_sha256()
    missed = [line for line in run.metrics if line["kind"] == "missed_save"]
    assert 1 <= len(missed) <= 2
    assert [line for line in run.metrics if line not in missed] == undisturbed.metrics
    assert not list((run.folder / "checkpoints").glob(".*"))


def test_three_misses_end_the_run_and_the_commit_before_them_stays(dg, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    words = ("train", dg.digits, *JOB, "--run-dir", run_dir, "-n", 2)
    with dg.start(*words) as command:
        metrics = run_dir / "metrics.jsonl"
        process.wait_until(
            lambda: metrics.exists() and metrics.read_bytes().count(b"\n") > 30, 60, "a commit"
        )
        limit_files(dg.rank_pids(command)[0], TOO_SMALL)
        result = command.wait(60)
    assert result.returncode == 4, result.stderr
    assert result.stderr.count("warning: the checkpoint of step ") == 2
    assert result.stderr.count("error:") == 1
    assert "3 in a row are too many: make room, and go on with --resume auto." in result.stderr
    assert not result.orphans
    commits = checkpoint.commits(run_dir / "checkpoints")
    newest = checkpoint.load(commits[-1])
    status = json.loads((run_dir / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 4)
    missed = status["step"] // 20 * 20  # the last of three, found out while it trained on
    assert newest.state["cursor"]["step"] == missed - 60
    again = dg.run("train", dg.digits, *JOB, "--run-dir", run_dir, "--resume", "auto")
    assert again.returncode == 0, again.stderr


def test_a_deleted_run_folder_is_written_anew(dg, short, tmp_path: Path) -> None:
    run = short.anew(tmp_path / "run")
    with dg.start("train", dg.digits, *JOB, "--run-dir", run.folder) as command:
        process.wait_until(lambda: run.steps_logged > 110, 60, "the first commit")
        shutil.rmtree(run.folder, ignore_errors=True)  # it may be writing meanwhile
        result = command.wait(120)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count(f"warning: somebody has deleted {run.folder}") == 1
    steps = [line["step"] for line in run.metrics if line["kind"] == "step"]
    assert steps == list(range(1, len(steps) + 1))
    assert run.sha256 == run.saved_sha256()
    assert dg.run("evaluate", run.folder).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such a folder cannot be removed")
def test_a_deleted_working_folder_ends_no_training(dg, short, tmp_path: Path) -> None:
    run = short.anew(tmp_path / "run")
    here = tmp_path / "here"
    here.mkdir()
    main = (
        "import os; os.rmdir(os.getcwd()); from distgrad.cli import main; raise SystemExit(main())"
    )
    words = ("train", *run.job, "--run-dir", run.folder, "-n", 2)
    result = dg.run(*words, program=("-c", main), cwd=here)
    assert result.returncode == 0, result.stderr
    assert run.sha256 == short.sha256


@pytest.mark.skipif(sys.platform != "linux", reason="a small tmpfs is Linux's")
def test_a_disk_that_is_really_full(dg, tmp_path: Path) -> None:
    """In a mount namespace of its own, where the kernel lets us make one."""
    unshare = shutil.which("unshare")
    inside = f"mount -t tmpfs -o size=300k tmpfs {tmp_path} && exec "
    probe = [str(unshare), "-m", "sh", "-c", inside + "true"]
    if unshare is None or process.run(probe).returncode:
        pytest.skip("no tmpfs can be mounted here (needs root, and unshare)")
    train = f"{sys.executable} -m distgrad train {dg.digits} {' '.join(JOB)} --run-dir {tmp_path}/r"
    result = process.run([unshare, "-m", "sh", "-c", inside + train], timeout=100)
    assert result.returncode == 4, result.stderr
    assert "No space left on device" in result.stderr
    assert result.stderr.count("warning: the checkpoint of step ") == 2
    full = f"mkdir {tmp_path}/r; cat /dev/zero > {tmp_path}/x 2>&-; "  # from the start
    shell = inside.replace("exec ", "{ ") + full + train + "; }"
    result = process.run([unshare, "-m", "sh", "-c", shell], timeout=100)
    assert result.returncode == 2, result.stderr
    assert f"error: the run folder {tmp_path}/r cannot be used: [Errno 28]" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_log_that_cannot_be_written_ends_no_training(dg, tmp_path: Path, workers: int) -> None:
    train = f"{sys.executable} -m distgrad train {dg.digits} {' '.join(JOB)} -n {workers}"
    shell = f"{train} --run-dir {tmp_path}/r > /dev/full"
    result = process.run(["sh", "-c", shell], timeout=100)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("warning: stdout cannot be written ([Errno 28]") == 1
    assert "Exception ignored" not in result.stderr
    assert json.loads((tmp_path / "r" / "status.json").read_text())["state"] == "finished"
