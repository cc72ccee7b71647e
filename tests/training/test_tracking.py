"""The run folder: which one a run gets, what is written to it, and when."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from pathlib import Path

import pytest

from distgrad.core.errors import UsageError
from distgrad.training import tracking

# Which folder.


def make_run(base: Path, name: str) -> Path:
    folder = base / name
    folder.mkdir(parents=True)
    (folder / "resolved.yaml").write_text("name: x\n")
    return folder


def test_a_new_folder_and_the_link_to_it(tmp_path: Path) -> None:
    first = tracking.new_run_folder("mlp", tmp_path)
    second = tracking.new_run_folder("mlp", tmp_path)
    assert first != second and first.is_dir() and second.is_dir()
    assert not (tmp_path / "latest").exists()  # neither is a run yet
    tracking.point_latest(first, tmp_path)
    tracking.point_latest(second, tmp_path)
    tracking.point_latest(make_run(tmp_path / "elsewhere", "other"), tmp_path)
    assert (tmp_path / "latest").resolve() == second.resolve()
    assert sorted(os.listdir(tmp_path)) == sorted(["elsewhere", first.name, second.name, "latest"])


def test_a_start_that_failed_leaves_nothing_and_a_run_stays(tmp_path: Path) -> None:
    failed = tracking.new_run_folder("mlp", tmp_path)
    (failed / "logs").mkdir()
    (failed / "logs" / "rank_00000.log").write_text("error: no such file\n")
    (failed / ".tmp-status").write_text("{")
    tracking.drop_start(failed)
    assert not failed.exists()
    run = make_run(tmp_path, "run")
    tracking.drop_start(run)
    assert (run / "resolved.yaml").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("not ours")
    tracking.drop_start(other)
    assert (other / "mine.txt").exists()


def test_the_newest_run_of_a_name(tmp_path: Path) -> None:
    make_run(tmp_path, "20260101-000000-mlp-0001")
    newest = make_run(tmp_path, "20260301-120000-mlp-0000")
    make_run(tmp_path, "20260201-120000-mlp-ffff")
    make_run(tmp_path, "20260401-000000-big-mlp-0001")  # another name that ends like it
    make_run(tmp_path, "20260401-000000-mlp-big-0001")
    (tmp_path / "20260501-000000-mlp-0001").mkdir()  # not begun: there is nothing to resume
    (tmp_path / "20260601-000000-mlp-0001").write_text("a file")
    assert tracking.newest_run_folder("mlp", tmp_path) == newest
    assert tracking.newest_run_folder("none", tmp_path) is None
    assert tracking.newest_run_folder("mlp", tmp_path / "missing") is None


def test_without_a_run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, resumed = tracking.open_run_folder(None, "mlp", resume=True)
    assert not resumed, "there was none to resume"
    (first / "resolved.yaml").write_text("name: mlp\n")
    assert tracking.open_run_folder(None, "mlp", resume=True) == (first, True)
    other, resumed = tracking.open_run_folder(None, "mlp", resume=False)
    assert other != first and not resumed


@pytest.mark.parametrize("resume", [False, True])
def test_a_missing_or_empty_run_dir_is_a_fresh_one(tmp_path: Path, resume: bool) -> None:
    folder = tmp_path / "a" / "b"
    assert tracking.open_run_folder(str(folder), "mlp", resume) == (folder, False)
    assert tracking.open_run_folder(str(folder), "mlp", resume) == (folder, False)


@pytest.mark.parametrize("resume", [False, True])
def test_killed_before_anything_was_written(tmp_path: Path, resume: bool) -> None:
    (tmp_path / ".tmp-resolved.yaml-123").write_text("name: m")
    assert tracking.open_run_folder(str(tmp_path), "mlp", resume) == (tmp_path, False)
    tracking.write_folder(tmp_path, {"resolved.yaml": "name: mlp\n"})
    assert os.listdir(tmp_path) == ["resolved.yaml"]


def test_a_run_is_resumed_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "resolved.yaml").write_text("name: mlp\n")
    with pytest.raises(UsageError, match=r"is not empty: add --resume auto"):
        tracking.open_run_folder(str(tmp_path), "mlp", resume=False)
    assert tracking.open_run_folder(str(tmp_path), "mlp", resume=True) == (tmp_path, True)


def test_a_folder_of_something_else_is_never_used(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    for resume in (False, True):
        with pytest.raises(UsageError, match="is not empty"):
            tracking.open_run_folder(str(tmp_path), "mlp", resume)
    with pytest.raises(UsageError, match="is a file"):
        tracking.open_run_folder(str(tmp_path / "thesis.tex"), "mlp", resume=True)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


# metrics.jsonl


def log_epochs(folder: Path, epochs: int, steps: int) -> list[str]:
    log = tracking.Lines(folder / "metrics.jsonl")
    for epoch in range(epochs):
        for step in range(steps * epoch + 1, steps * (epoch + 1) + 1):
            log.log("step", step=step, epoch=epoch, loss=1 / step)
        log.log("epoch", step=steps * (epoch + 1), epoch=epoch, loss=0.5)
    log.log("final", step=steps * epochs, epoch=epochs - 1, test_loss=0.25)
    log.close()
    return (folder / "metrics.jsonl").read_text().splitlines()


@pytest.mark.parametrize(
    ("step", "epoch", "kept"),
    [
        (0, 0, 0),
        (2, 0, 2),
        (5, 0, 5),  # all steps of the first epoch: its end is told again by the resumed run
        (6, 1, 7),
        (10, 1, 11),
        (12, 2, 14),
    ],
)
def test_what_the_resumed_run_logs_again_is_dropped(
    tmp_path: Path, step: int, epoch: int, kept: int
) -> None:
    lines = log_epochs(tmp_path, epochs=3, steps=5)
    tracking.rewind(tmp_path / "metrics.jsonl", step, epoch)
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == lines[:kept]


def test_a_line_that_the_kill_has_cut_off(tmp_path: Path) -> None:
    lines = log_epochs(tmp_path, epochs=1, steps=5)
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join([*lines[:3], lines[3][:20]]))
    tracking.rewind(tmp_path / "metrics.jsonl", 4, 0)
    assert path.read_text() == "".join(line + "\n" for line in lines[:3])


def test_lines_that_a_disk_has_damaged(tmp_path: Path) -> None:
    lines = [line.encode() for line in log_epochs(tmp_path, epochs=1, steps=5)]
    damaged = [b"\xff\x00", b"7", b'{"kind": "step", "stop": 1}', b'{"kind": "step", "step": "a"}']
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([*lines[:3], *damaged, lines[3], b""]))
    tracking.rewind(path, 4, 0)
    assert path.read_bytes().splitlines() == lines[:4]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_lines_that_the_disk_did_not_take_are_tried_again_at_the_end(tmp_path: Path) -> None:
    log = tracking.Lines(tmp_path / "metrics.jsonl")
    taking = log._file
    with open("/dev/full", "ab", buffering=0) as full:
        log._file = full
        log.log("step", step=1, epoch=0)
    log._file = taking
    log.close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"kind": "step", "step": 1, "epoch": 0}\n'


def test_nothing_to_rewind(tmp_path: Path) -> None:
    tracking.rewind(tmp_path / "metrics.jsonl", 5, 0)
    assert os.listdir(tmp_path) == []


def test_a_metric_is_on_disk_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    log = tracking.Lines(tmp_path / "metrics.jsonl")
    log.log("step", step=1, epoch=0, loss=0.5)
    entry = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert entry == {"kind": "step", "step": 1, "epoch": 0, "loss": 0.5}
    log.close()


# status.json


def read(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def test_status_is_there_at_once_and_at_the_end(tmp_path: Path) -> None:
    status = tracking.Status(tmp_path, state="running", step=0)
    assert read(tmp_path)["state"] == "running"
    status.update(step=7)
    status.close(state="finished", exit_code=0)
    found = read(tmp_path)
    assert {**found, "heartbeat": 0} == {
        "state": "finished",
        "step": 7,
        "exit_code": 0,
        "heartbeat": 0,
    }
    assert abs(found["heartbeat"] - time.time()) < 5
    assert os.listdir(tmp_path) == ["status.json"]
    assert "status" not in [thread.name for thread in threading.enumerate()]


def test_status_is_current_every_second_and_always_whole(tmp_path: Path) -> None:
    """A reader that never rests sees whole files, beats at most a second apart, and every step."""
    status = tracking.Status(tmp_path, state="running", step=0)
    beats, behind, end = set(), 0.0, time.monotonic() + 2.5
    changed, step = time.monotonic(), 0
    while time.monotonic() < end:
        found = read(tmp_path)  # raises for half a file
        beats.add(found["heartbeat"])
        if found["step"] == step:
            behind = max(behind, time.monotonic() - changed)
            step += 1
            changed = time.monotonic()
            status.update(step=step)
    status.close()
    times = sorted(beats)
    assert len(times) >= 3
    assert max(b - a for a, b in itertools.pairwise(times)) <= 1.0
    assert behind <= 1.0


def test_a_disk_that_does_not_take_the_status_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    status = tracking.Status(folder, state="running")
    (folder / "status.json").unlink()
    folder.rmdir()
    status.write()
    status.write()
    status.close(state="finished")
    said = capsys.readouterr().out
    assert said.count("warning:") == 1 and "status.json cannot be written" in said


def test_a_file_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "resolved.yaml"
    tracking.write_atomically(path, "old")

    def killed(source: object, target: object) -> None:
        assert Path(str(source)).read_text() == "new"
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            tracking.write_atomically(path, "new")
    assert path.read_text() == "old"
    tracking.write_folder(tmp_path, {"resolved.yaml": "new", "source.yaml": "text"})
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "resolved.yaml": "new",
        "source.yaml": "text",
    }
