"""Runs as they are seen: a killed and resumed one, the points of its curves, what ranks print."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from distgrad.report.run import Run
from distgrad.testing import process

from ..training import events

JOB = ("train.epochs=30", "checkpoint.every_steps=29", "data.validation_fraction=0.1")


def test_a_killed_and_resumed_run(dg, tmp_path: Path) -> None:
    """It is dead, then done; its times add up, and TensorBoard has every point once."""
    pytest.importorskip("tensorboardX")
    run_dir = tmp_path / "run"
    words = ("train", dg.digits, *JOB, "tracking.tensorboard=true", "--run-dir", run_dir)
    with dg.start(*words, "-n", 2) as command:
        metrics, third = run_dir / "metrics.jsonl", run_dir / "checkpoints" / "step_00000087"
        process.wait_until(
            lambda: third.exists() and metrics.read_bytes().count(b"\n") > 100, 60, "step 100"
        )
        command.send_signal(signal.SIGKILL)
        command.wait(60)
    process.wait_until(lambda: Run(run_dir).state == "dead", 20, "the silence to be noticed")
    result = dg.run(*words, "--resume", "auto")
    assert result.returncode == 0, result.stderr
    run = Run(run_dir)
    assert run.state == "done"
    first, second = run.starts
    assert (first["step"], first["world_size"]) == (0, 2) and first["command"].startswith(
        "distgrad"
    )
    assert second["step"] >= 87 and second["world_size"] == 1
    assert sum(line["steps"] for line in run.timing if line["kind"] == "steps") <= 30 * 21
    known = {"train": 4 + 2, "validation": 2, "test": 2}
    for part, count in known.items():
        points = events.points(run_dir / "tb" / part)
        assert len(points) == count
        for tag, found in points.items():
            steps = [step for step, _ in found]
            assert steps == sorted(set(steps)), f"{part}/{tag}: a point twice, or out of order"
    losses = dict(zip(*run.by_step("loss"), strict=True))
    points = events.points(run_dir / "tb" / "train")
    assert all(losses[step] == pytest.approx(value) for step, value in points["batch_loss"])
    epochs = dict(zip(*run.by_epoch("val_loss", steps=True), strict=True))
    found = events.points(run_dir / "tb" / "validation")["epoch_loss"]
    assert len(found) == len(epochs) == 30
    assert all(epochs[step] == pytest.approx(value) for step, value in found)
    assert events.points(run_dir / "tb" / "test")["epoch_accuracy"][0][1] == pytest.approx(
        run.at_end("test_accuracy")
    )


def test_without_tensorboard_there_are_no_events(dg, tmp_path: Path) -> None:
    words = ("train", dg.digits, "train.epochs=1", "tracking.tensorboard=false")
    assert dg.run(*words, "--run-dir", tmp_path / "run").returncode == 0
    assert not (tmp_path / "run" / "tb").exists()


def test_a_missing_tensorboardx_that_is_asked_for_ends_all_ranks(dg, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden" / "tensorboardX"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('hidden')\n")
    words = ("train", dg.digits, "train.epochs=1", "--run-dir", tmp_path / "run", "-n", 2)
    program = ["-c", f"import sys; sys.path.insert(0, {str(hidden.parent)!r}); "
               "from distgrad.cli import main; sys.exit(main())"]  # fmt: skip
    alone = [word for word in words if word not in ("-n", 2)]
    said = dg.refuses(*alone, "tracking.tensorboard=true", code=3, program=program)
    assert "pip install 'distgrad[tb]'" in said
    broken = dg.run(*alone[:3], "--run-dir", tmp_path / "other", program=program)
    assert broken.returncode == 0, "by itself, it is only told of"
    assert broken.stderr.count("warning: TensorBoard is told no more of this run") == 1


@pytest.mark.mpi
def test_every_rank_under_mpirun_has_a_log(dg, tmp_path: Path) -> None:
    """One rank warns from within training; the terminal sees what it saw without logs."""
    run = dg.train(tmp_path / "run", dg.digits, "train.epochs=2", ranks=3)
    logs = {path.name: path.read_text() for path in (run.folder / "logs").iterdir()}
    assert sorted(logs) == [f"rank_0000{rank}.log" for rank in range(3)]
    assert logs["rank_00000.log"] == run.result.stdout
    assert re.search(r"^test accuracy 0\.\d{4}$", logs["rank_00000.log"], re.MULTILINE)
    assert logs["rank_00001.log"] == logs["rank_00002.log"] == run.result.stderr == ""


@pytest.mark.mpi
def test_the_error_of_a_rank_is_in_its_log(dg, tmp_path: Path) -> None:
    words = ("train", dg.digits, "optimizer.learning_rate=1e30", "--run-dir", tmp_path / "run")
    said = dg.refuses(*words, code=5, ranks=2)
    for rank in range(2):
        log = (tmp_path / "run" / "logs" / f"rank_0000{rank}.log").read_text()
        assert log.splitlines()[-1] in said, "the same words"
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert Run(tmp_path / "run").state == status["state"] == "diverged"
