"""Trackers: event files read back, what a resumed run adds to them, and that none stops a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from distgrad.core.errors import MissingExtraError
from distgrad.training.tensorboard import TensorBoard
from distgrad.training.trackers import Trackers, chosen, trackers_of

from . import events


class Recorder:
    """A tracker that fails at what it is told to fail at."""

    name = "recorder"

    def __init__(self, fails_at: str = "") -> None:
        self.fails_at = fails_at
        self.told: list[tuple[Any, ...]] = []

    def _told(self, *words: Any) -> None:
        self.told.append(words)
        if words[0] == self.fails_at:
            raise OSError("no network")

    def start(self, step: int) -> None:
        self._told("start", step)

    def log(self, step: int, values: Any) -> None:
        self._told("log", step, values)

    def finish(self, state: str) -> None:
        self._told("finish", state)


@pytest.mark.parametrize("fails_at", ["start", "log", "finish"])
def test_one_that_fails_is_a_warning_and_told_no_more(
    fails_at: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = Recorder(fails_at), Recorder()
    trackers = Trackers([bad, good])
    trackers.start(5)
    trackers.log(6, {"a": 1})
    trackers.log(7, {"a": 2})
    trackers.finish("finished")
    assert good.told == [
        *(("start", 5), ("log", 6, {"a": 1.0}), ("log", 7, {"a": 2.0}), ("finish", "finished"))
    ]
    said = capsys.readouterr().err
    assert said == "warning: recorder is told no more of this run, which goes on: no network\n"
    assert sum(words[0] == fails_at for words in bad.told) <= 2
    if fails_at != "finish":
        assert bad.told[-1] == ("finish", "failed")  # it may have files to close


def test_a_metric_of_several_parts_is_several() -> None:
    told = Recorder()
    Trackers([told]).log(1, {"f1": [0.5, 0.25], "loss": 2})
    assert told.told == [("log", 1, {"f1_0": 0.5, "f1_1": 0.25, "loss": 2.0})]


def test_points_are_read_back(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    board.start(0)
    for step in (10, 20):
        board.log(step, {"batch_loss": 1 / step, "learning_rate": 0.5})
        assert events.points(tmp_path / "train")["batch_loss"][-1][0] == step  # on disk at once
    board.log(20, {"epoch_loss": 0.5, "val_loss": 0.25, "val_accuracy": 1.0})
    board.log(20, {"test_loss": 0.125})
    board.finish("finished")
    assert events.points(tmp_path / "train") == {
        "batch_loss": [(10, pytest.approx(0.1)), (20, pytest.approx(0.05))],
        "learning_rate": [(10, 0.5), (20, 0.5)],
        "epoch_loss": [(20, 0.5)],
    }
    # Under the names of those in train: TensorBoard draws them into one chart.
    assert events.points(tmp_path / "validation") == {
        "epoch_loss": [(20, 0.25)],
        "epoch_accuracy": [(20, 1.0)],
    }
    assert events.points(tmp_path / "test") == {"epoch_loss": [(20, 0.125)]}
    first = next(iter(events.read(tmp_path / "train")))
    assert first.file_version == "brain.Event:2"


@pytest.mark.parametrize("cut", [0, 7])
def test_a_resumed_run_has_every_point_once(tmp_path: Path, cut: int) -> None:
    """The first run has gone on behind its last commit, and was killed while it wrote."""
    for start in (0, 3):
        board = TensorBoard(tmp_path)
        board.start(start)
        for step in range(start + 1, 7):
            board.log(step, {"batch_loss": float(step)})
        board.finish("failed")
        (newest,) = [*(tmp_path / "train").iterdir()][-1:]
        if start == 0 and cut:
            newest.write_bytes(newest.read_bytes()[:-cut])
    steps = [step for step, _ in events.points(tmp_path / "train")["batch_loss"]]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert len(list((tmp_path / "train").iterdir())) == 2


def test_a_run_resumed_at_the_end_of_an_epoch_makes_its_point_again(tmp_path: Path) -> None:
    for first in (1, 5):
        board = TensorBoard(tmp_path)
        board.start(first - 1)
        for step in range(first, 5):
            board.log(step, {"batch_loss": float(step)})
        board.log(4, {"epoch_loss": 0.5, "val_loss": 0.25})
        board.log(4, {"test_loss": 0.125})
        board.finish("finished")
    assert [step for step, _ in events.points(tmp_path / "train")["batch_loss"]] == [1, 2, 3, 4]
    for part in ("train", "validation", "test"):
        assert len(events.points(tmp_path / part)["epoch_loss"]) == 1


def test_a_run_that_begins_anew_leaves_no_point_of_the_old_one(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        board = TensorBoard(tmp_path)
        board.start(0)
        board.log(1, {"batch_loss": value})
        board.finish("failed")
    assert events.points(tmp_path / "train") == {"batch_loss": [(1, 2.0)]}


def test_a_full_disk_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trackers = trackers_of(tmp_path, ["TensorBoard"])
    trackers.start(0)
    trackers.log(1, {"batch_loss": 1.0})
    (board,) = trackers._trackers
    file = board._files["train"]
    file._file.close()
    file._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115 (the tracker closes it)
    for step in (2, 3):
        trackers.log(step, {"batch_loss": 1.0})
    trackers.finish("finished")
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "TensorBoard is told no more" in said and "space" in said


def test_on_by_itself_where_it_is_installed_and_strictly_where_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("tensorboardX")
    assert chosen("auto") == chosen(True) == ["TensorBoard"]
    assert chosen(False) == []
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert chosen("auto") == chosen(False) == []
    with pytest.raises(MissingExtraError, match=r"pip install 'distgrad\[tb\]'"):
        chosen(True)
