"""Timing a job: the worker's own loop in turns, and what is said of it."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from distgrad import bench, cli
from distgrad.bench import rank, report
from distgrad.config import load
from distgrad.job import Job
from distgrad.launcher import environ
from distgrad.testing import process
from distgrad.training.loop import TrainingLoop
from distgrad.training.reduction import Reduced

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"


def distgrad(*words: str, cwd: Path) -> process.Result:
    return process.run([sys.executable, "-m", "distgrad", *words], cwd=cwd, timeout=110)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["local", pytest.param("mpi", marks=pytest.mark.mpi)])
def test_a_job_is_timed_and_nothing_is_left_behind(launcher: str, tmp_path: Path) -> None:
    if launcher == "mpi":
        pytest.importorskip("mpi4py", exc_type=ImportError)
    words = ["-n", "1,2", "--launcher", launcher, "--steps", "30", "--json"]
    done = distgrad("bench", str(DIGITS), *words, "data.test_fraction=0.5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    alone, two = found["timings"]
    assert (alone["workers"], two["workers"]) == (1, 2)
    for each in (alone, two):
        assert len(each["rounds"]) == bench.ROUNDS and min(each["rounds"]) > 0
        assert 0 < each["data"] < each["step"] and each["compute"] > 0
        # 14 steps of 64 and one of 2 to an epoch, of all workers together
        assert 58 < each["samples_a_step"] < 62
        assert 0 < each["start"] < each["set_up"] and each["memory"] > 10 << 20
    assert alone["communication"] == 0 < two["communication"]
    assert alone["speed_up"] == alone["efficiency"] == 1
    assert two["efficiency"] == pytest.approx(two["speed_up"] / 2)
    assert done.orphans == () and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        ("optimizer.learning_rate=1e30", 5, "learning_rate"),
        ("data={source: csv, path: missing.csv, label: y}", 4, "missing.csv"),
    ],
)
def test_an_error_of_a_rank_is_the_error(change: str, code: int, word: str, tmp_path: Path) -> None:
    done = distgrad("bench", str(DIGITS), "-n", "2", change, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert word in done.stderr and "Traceback" not in done.stderr
    assert done.orphans == () and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", ["9", "0", "two", "1,,2"])
def test_wrong_numbers_of_workers(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", str(DIGITS), "-n", number]) == 2
    assert "workers" in capsys.readouterr().err


# What a rank does


class Loop:
    """A loop of seven batches an epoch, the last of which is short."""

    steps_per_epoch = 7

    def epoch(self, epoch: int, start: int = 0) -> Any:
        for number in range(start, 7):
            yield SimpleNamespace(step_in_epoch=number, size=4 if number < 6 else 1)


def test_a_meter_stops_the_loop_between_turns() -> None:
    steps: list[int] = []

    def step(number: int, batch: Any) -> Reduced:
        steps.append(number)
        time.sleep(0.001)
        return Reduced(1.0, np.zeros(1), False)

    orders, answers = iter(["6\n", "2\n", ""]), io.StringIO()
    at: list[int] = []

    class Lines:
        write, flush = answers.write, answers.flush

        def readline(self) -> str:
            at.append(len(steps))
            return next(orders)

    loop = TrainingLoop(step, Loop(), lambda loss, sums: {})  # type: ignore[arg-type]
    loop.observers.append(rank.Meter(Lines(), loop, lambda: 0.5 * len(steps)))
    with pytest.raises(SystemExit) as end:
        loop.run(100)
    assert end.value.code == 0
    assert at == [1, 8, 11]  # a step that does not count before each turn
    _, long, short = map(json.loads, answers.getvalue().splitlines())
    # steps 3 to 8: four of the first epoch, one short, then one of the second; steps 10 and 11
    assert (long["samples"], short["samples"]) == (4 * 4 + 1 + 4, 8)
    assert long["step"] >= 0.006 and short["step"] >= 0.002
    assert long["data"] < long["step"]
    assert (long["communication"], short["communication"]) == (3.0, 1.0)  # half a second each


# What is said


def timing(workers: int, rounds: list[float], **more: Any) -> report.Timing:
    values = dict(data=0.1, communication=0.2, samples_a_step=64.0, start=1.0)
    return report.Timing(
        workers=workers, steps_a_round=5, rounds=rounds, set_up=2.0, memory=1 << 28, **values | more
    )


def test_speed_up_is_that_of_each_round() -> None:
    """The second round was disturbed for both: that is no speed-up, and no slow-down."""
    one, four = timing(1, [4.0, 40.0, 4.0]), timing(4, [2.0, 20.0, 1.0])
    found = report.Report("digits", "local", [one, four], ["mind this"])
    assert found.speed_up(four) == 2.0 and found.efficiency(four) == 0.5
    assert four.samples_per_second == 32.0 and four.compute == pytest.approx(1.7)
    lines = found.table().splitlines()
    assert "2e+03 (1e+03 to 2e+04)" in lines[2] and "50%" in lines[2]
    assert lines[3] == "note: mind this"
    beside = report.Report("digits", "local", [one, timing(2, [1.0] * 3, communication=None)], [])
    assert "beside" in beside.table()
    assert json.loads(json.dumps(found.as_dict()))["timings"][1]["speed_up"] == 2.0


def test_virtual_shards_that_limit_the_workers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job.from_config(load(str(DIGITS), []))
    assert job.virtual_shards == 8
    monkeypatch.setattr(environ, "usable_cores", lambda: 16)
    assert bench.usual_counts(job) == [1, 8]
    assert "8 is the most workers" in bench.notes(job, [1, 8], 16)[0]
    assert bench.notes(job, [1, 4], 16) == []
    assert "at best 2.67 times" in bench.notes(job, [1, 3], 16)[0]
    assert "2 x 1 threads are more than 1 cores" in bench.notes(job, [1, 2], 1)[0]
    free = dataclasses.replace(job, virtual_shards=None)
    assert bench.usual_counts(free) == [1, 16] and bench.notes(free, [1, 16], 16) == []
