"""The files of a run that grow or change: ``metrics.jsonl`` and ``status.json``."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from distgrad.training import run_files

# metrics.jsonl


def log_epochs(folder: Path, epochs: int, steps: int) -> list[str]:
    log = run_files.Lines(folder / "metrics.jsonl")
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
    run_files.rewind(tmp_path / "metrics.jsonl", step, epoch)
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == lines[:kept]


def test_a_line_that_the_kill_has_cut_off(tmp_path: Path) -> None:
    lines = log_epochs(tmp_path, epochs=1, steps=5)
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join([*lines[:3], lines[3][:20]]))
    run_files.rewind(tmp_path / "metrics.jsonl", 4, 0)
    assert path.read_text() == "".join(line + "\n" for line in lines[:3])


def test_lines_that_a_disk_has_damaged(tmp_path: Path) -> None:
    lines = [line.encode() for line in log_epochs(tmp_path, epochs=1, steps=5)]
    damaged = [b"\xff\x00", b"7", b'{"kind": "step", "stop": 1}', b'{"kind": "step", "step": "a"}']
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([*lines[:3], *damaged, lines[3], b""]))
    run_files.rewind(path, 4, 0)
    assert path.read_bytes().splitlines() == lines[:4]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_lines_that_the_disk_did_not_take_are_tried_again_at_the_end(tmp_path: Path) -> None:
    log = run_files.Lines(tmp_path / "metrics.jsonl")
    taking = log._file
    with open("/dev/full", "ab", buffering=0) as full:
        log._file = full
        log.log("step", step=1, epoch=0)
    log._file = taking
    log.close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"kind": "step", "step": 1, "epoch": 0}\n'


def test_lines_of_a_deleted_file_are_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("before\n")
    log = run_files.Lines(path)
    log.write("one")
    for _ in range(2):
        log.restore()  # it is there
        path.unlink()
        log.write("lost?")
        log.restore()
    log.close()
    assert path.read_text() == "before\none\nlost?\nlost?\n"


def test_nothing_to_rewind(tmp_path: Path) -> None:
    run_files.rewind(tmp_path / "metrics.jsonl", 5, 0)
    assert os.listdir(tmp_path) == []


def test_a_metric_is_on_disk_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    log = run_files.Lines(tmp_path / "metrics.jsonl")
    log.log("step", step=1, epoch=0, loss=0.5)
    entry = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert entry == {"kind": "step", "step": 1, "epoch": 0, "loss": 0.5}
    log.close()


# status.json


def read(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def test_status_is_there_at_once_and_at_the_end(tmp_path: Path) -> None:
    status = run_files.Status(tmp_path, state="running", step=0)
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


def test_status_is_current_every_second_and_always_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that never rests sees whole files, beats at most a second apart, and every step.

    For as long as the machine has kept the reader from reading, the writer may be late as well,
    and for as long as the disk has taken to write.
    """
    written, replace = [0.0], run_files.files.replace

    def timed(*args: Any, **how: Any) -> None:
        began = time.monotonic()
        replace(*args, **how)
        written.append(time.monotonic() - began)

    monkeypatch.setattr(run_files.files, "replace", timed)
    status = run_files.Status(tmp_path, state="running", step=0)
    beats, behind, end = set(), 0.0, time.monotonic() + 2.5
    changed, step = time.monotonic(), 0
    kept, before = 0.0, changed
    while time.monotonic() < end:
        found = read(tmp_path)  # raises for half a file
        before, kept = time.monotonic(), max(kept, time.monotonic() - before)
        beats.add(found["heartbeat"])
        if found["step"] == step:
            behind = max(behind, time.monotonic() - changed)
            step += 1
            changed = time.monotonic()
            status.update(step=step)
    status.close()
    times = sorted(beats)
    assert len(times) >= 3
    late = kept + max(written)
    assert max(b - a for a, b in itertools.pairwise(times)) <= 1.0 + late
    assert behind <= 1.0 + late


def test_a_disk_that_does_not_take_the_status_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    status = run_files.Status(folder, state="running")
    (folder / "status.json").unlink()
    folder.rmdir()
    status.write()
    status.write()
    status.close(state="finished")
    said = capsys.readouterr().out
    assert said.count("warning:") == 1 and "status.json cannot be written" in said
