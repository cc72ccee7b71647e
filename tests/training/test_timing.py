"""timing.jsonl: what it adds up to, how seldom it is written, and what a resumed run keeps."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distgrad.training import timing
from distgrad.training.journal import Journal
from distgrad.training.loop import Cursor
from distgrad.training.run_files import rewind
from distgrad.training.timing import Timing
from distgrad.training.trackers import Trackers


class Kept:
    """Where lines go, and points."""

    name = "kept"

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.points: list[tuple[int, dict[str, float]]] = []

    def log(self, first: Any, values: Any = None, **fields: Any) -> None:
        if values is None:
            self.lines.append({"kind": first, **fields})
        else:
            self.points.append((first, values))


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        fake = SimpleNamespace(perf_counter=lambda: self.now, time=lambda: 5000 + self.now)
        monkeypatch.setattr(timing, "time", fake)


def run_steps(clock: Clock, made: Timing, loop: Any, steps: int, seconds: float) -> None:
    for _ in range(steps):
        loop.waited = 0.25 * seconds
        clock.now += loop.waited
        made.on_train_batch_begin(0)
        clock.now += 0.75 * seconds
        loop.communicated += 0.5 * seconds
        loop.cursor.step += 1
        loop.cursor.samples += 8
        made.on_train_batch_end(0)


def make(kept: Kept, communication: bool = True) -> tuple[Timing, Any]:
    loop: Any = SimpleNamespace(cursor=Cursor(), waited=0.0, last_loss=2.0, communicated=0.0)
    return Timing(
        loop,
        kept,  # type: ignore[arg-type]
        Trackers([kept]),  # type: ignore[list-item]
        lambda: 0.125,
        (lambda: loop.communicated) if communication else None,
    ), loop


@pytest.mark.parametrize("communication", [False, True])
def test_lines_add_up_to_all_steps(monkeypatch: pytest.MonkeyPatch, communication: bool) -> None:
    clock, kept = Clock(monkeypatch), Kept()
    made, loop = make(kept, communication)
    made.on_train_begin()
    run_steps(clock, made, loop, 100, 0.002)
    made.tell()
    assert sum(line["steps"] for line in kept.lines) == 100
    assert sum(line["samples"] for line in kept.lines) == 800
    assert sum(line["seconds"] for line in kept.lines) == pytest.approx(0.2)
    assert sum(line["data"] for line in kept.lines) == pytest.approx(0.05)
    assert kept.lines[-1]["step"] == 100
    if communication:
        assert sum(line["communication"] for line in kept.lines) == pytest.approx(0.1)
    else:
        assert all("communication" not in line for line in kept.lines)
    made.tell()
    assert sum(line["steps"] for line in kept.lines) == 100, "nothing is told twice"


def test_time_between_steps_is_no_time_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints, validation, what other observers do."""
    clock, kept = Clock(monkeypatch), Kept()
    made, loop = make(kept)
    made.on_train_begin()
    for _ in range(5):
        run_steps(clock, made, loop, 1, 0.5)
        clock.now += 100
        loop.communicated += 50
    assert sum(line["seconds"] for line in kept.lines) == pytest.approx(2.5)
    assert sum(line["communication"] for line in kept.lines) == pytest.approx(1.25)


def test_fast_steps_are_told_seldom_and_slow_ones_all(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, kept = Clock(monkeypatch), Kept()
    made, loop = make(kept)
    made.on_train_begin()
    run_steps(clock, made, loop, 10_000, 0.001)  # ten seconds
    assert len(kept.lines) == len(kept.points) <= 10 / timing._EVERY
    before = len(kept.lines)
    run_steps(clock, made, loop, 100, 2.0)
    assert len(kept.lines) == before + 100
    before = len(kept.lines)
    clock.now += 1e6
    run_steps(clock, made, loop, 3000, 2.0)
    assert len(kept.lines) < before + 10, "of a long run, no more than a thousandth of its time"


def test_trackers_get_the_loss_of_that_step_and_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, kept = Clock(monkeypatch), Kept()
    made, loop = make(kept)
    made.on_train_begin()
    run_steps(clock, made, loop, 1, 0.5)
    assert kept.points == [
        (
            1,
            {
                "batch_loss": 2.0,
                "learning_rate": 0.125,
                "samples_per_second": pytest.approx(16.0),
                "milliseconds_per_step": pytest.approx(500.0),
            },
        )
    ]


def test_a_resumed_run_keeps_every_start_and_no_step_twice(tmp_path: Path) -> None:
    path = tmp_path / "timing.jsonl"
    kinds = [("start", 0), ("steps", 4), ("steps", 8), ("start", 4), ("steps", 9), ("steps", 12)]
    lines = [json.dumps({"kind": kind, "step": step, "epoch": 1}) for kind, step in kinds]
    path.write_text("\n".join(lines) + "\n")
    rewind(path, 8, 1)
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in kept] == kinds[:4]


def test_the_journal_of_a_run(tmp_path: Path) -> None:
    """Every file as a reader finds it, the lines of steps written by hand among them."""
    kept = Kept()
    kept.start = lambda step: kept.points.append((step, {}))  # type: ignore[attr-defined]
    kept.finish = lambda state: kept.points.append((-1, {"state": state}))  # type: ignore[attr-defined]
    loop: Any = SimpleNamespace(cursor=Cursor(), waited=0.0, last_loss=1e-20)
    journal = Journal(
        *(tmp_path, loop, Trackers([kept]), lambda: 5e-324, None),  # type: ignore[list-item]
        command="distgrad train x",
        world_size=2,
    )
    journal.on_train_begin({})
    journal.on_train_batch_begin(0, {})
    loop.cursor.step, loop.cursor.samples = 1, 8
    journal.on_train_batch_end(0, None)
    journal.on_epoch_end(0, {"loss": 0.5, "val_loss": 0.25})
    journal.missed_save("full")
    journal.final({"loss": 0.5, "test_loss": 0.125})
    journal.close("finished", exit_code=0)
    at = {"step": 1, "epoch": 0}
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        {"kind": "step", **at, "loss": 1e-20, "learning_rate": 5e-324},
        {"kind": "epoch", **at, "loss": 0.5, "val_loss": 0.25},
        {"kind": "missed_save", **at, "error": "full"},
        {"kind": "final", **at, "loss": 0.5, "test_loss": 0.125},
    ]
    start, steps = map(json.loads, (tmp_path / "timing.jsonl").read_text().splitlines())
    assert (start["kind"], start["step"], start["world_size"]) == ("start", 0, 2)
    assert start["command"] == "distgrad train x"
    assert (steps["kind"], steps["steps"], steps["samples"]) == ("steps", 1, 8)
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["state"] == "finished" and status["exit_code"] == 0
    assert status["metrics"] == {"loss": 0.5, "val_loss": 0.25, "test_loss": 0.125}
    assert kept.points[0] == (0, {})
    assert kept.points[2:] == [
        (1, {"epoch_loss": 0.5, "val_loss": 0.25}),
        (1, {"test_loss": 0.125}),
        (-1, {"state": "finished"}),
    ]
