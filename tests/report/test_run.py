"""What a run folder tells: its state, its time, its curves, its damage."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distgrad.core.errors import UsageError
from distgrad.report.facts import clock, differences, facts, number, size
from distgrad.report.run import Run, find, runs_in
from distgrad.training import checkpoint

from . import folders


def gone_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(30)
    return child.pid


@pytest.mark.parametrize(
    ("state", "silence", "pid", "host", "shown"),
    [
        ("finished", 1e6, None, None, "done"),
        ("failed", 1e6, None, None, "failed"),
        ("preempted", 1e6, None, None, "preempted"),
        ("diverged", 1e6, None, None, "diverged"),
        ("running", 0.0, "own", "here", "running"),
        ("running", 30.0, "own", "here", "running"),  # a step may hold the interpreter for long
        ("running", 30.0, "gone", "here", "dead"),
        ("running", 0.0, "gone", "here", "running"),  # its successor may be starting
        ("running", 30.0, "gone", "elsewhere", "running"),
        ("running", 100.0, "own", "here", "dead"),
        ("running", 100.0, "gone", "elsewhere", "dead"),
    ],
)
def test_state(
    tmp_path: Path, state: str, silence: float, pid: str | None, host: str | None, shown: str
) -> None:
    more: dict[str, object] = {"state": state}
    if pid:
        more["pid"] = os.getpid() if pid == "own" else gone_pid()
        more["host"] = platform.node() if host == "here" else "another"
    more["heartbeat"] = folders.now() - silence
    assert Run(folders.make(tmp_path / "run", **more)).state == shown


def test_killed_before_its_first_status(tmp_path: Path) -> None:
    (tmp_path / "resolved.yaml").write_text("name: x\n")
    run = Run(tmp_path)
    assert (run.state, run.results, run.duration, run.metric_names) == ("dead", {}, None, ["loss"])
    assert facts(run)["state"] == "dead"


def test_duration_leaves_out_the_time_between_death_and_resumption(tmp_path: Path) -> None:
    path = folders.make(tmp_path / "run", steps=40)
    assert Run(path).duration == pytest.approx(5.0)
    lines = Run(path).timing
    folders.write(
        path / "timing.jsonl", [*lines, folders.start(40, 9000.0), {**lines[-1], "time": 9002.0}]
    )
    run = Run(path)
    assert run.duration == pytest.approx(4.0 + 2.0)
    assert facts(run)["resumed"] == "once" and facts(run)["duration"] == "6.0 s"


def test_curves(tmp_path: Path) -> None:
    run = Run(folders.make(tmp_path / "run", steps=8, epochs=4))
    assert run.by_step("learning_rate")[0] == list(range(1, 9))
    assert run.by_epoch("val_loss")[0] == [1, 2, 3, 4]
    assert run.by_epoch("val_loss", steps=True)[0] == [2, 4, 6, 8]
    assert run.at_end("test_accuracy") == 0.9 and run.at_end("test_nothing") is None
    assert run.metric_names == ["loss", "accuracy"]
    assert len(run.paces) == 7, "the first steps of a start warm up"


def test_a_line_that_is_half_written_is_left_out(tmp_path: Path) -> None:
    path = folders.make(tmp_path / "run", steps=8)
    text = (path / "metrics.jsonl").read_text()
    (path / "metrics.jsonl").write_text(text[:-10])
    assert len(Run(path).metrics) == len(text.splitlines()) - 1


def test_differences_name_the_keys_alone_that_differ(tmp_path: Path) -> None:
    runs = [Run(folders.make(tmp_path / "a", seed=1)), Run(folders.make(tmp_path / "b", units=9))]
    assert differences(runs) == {"seed": ["1", "0"], "model.layers.0.units": ["8", "9"]}


def test_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "runs"
    folders.make(base / "one")
    folders.make(base / "two")
    (base / "latest").symlink_to("two")
    (base / "not-a-run").mkdir()
    assert [run.name for run in runs_in(base)] == ["one", "two"]
    assert find("one", base).name == "one"
    assert find(str(base / "one"), Path("elsewhere")).name == "one"
    assert find("latest", base).name == "two"
    for folder in ("20260101-000000-mlp-0001", "20260201-000000-mlp-0000"):
        folders.make(base / folder)
    assert find("mlp", base).name == "20260201-000000-mlp-0000"
    (base / "latest").unlink()
    for folder in base.glob("2026*"):
        shutil.rmtree(folder)
    assert find("latest", base).name == "two"
    with pytest.raises(UsageError, match=r"there is no run three: the newest in .* are two, one"):
        find("three", base)
    with pytest.raises(UsageError, match="holds no run"):
        find(str(base / "not-a-run"), base)
    with pytest.raises(UsageError, match="there are no runs in"):
        find("latest", tmp_path / "none")
    with pytest.raises(UsageError, match="there is no folder"):
        runs_in(tmp_path / "none")


def test_damage_is_found_by_what_resuming_uses(tmp_path: Path) -> None:
    path = folders.make(tmp_path / "run")
    for step in (1, 2):
        arrays = {"model": {"w": np.arange(100.0)}}
        checkpoint.save(path / "checkpoints", step, arrays, {}, keep_last=3)
    assert [wrong for _, wrong in Run(path).damaged()] == [None, None]
    victim = path / "checkpoints" / "step_00000002" / "model.safetensors"
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    whole, damaged = Run(path).damaged()
    assert whole[1] is None
    assert damaged[1] is not None and "its checksum is not the one committed" in damaged[1]


def test_numbers_that_fit() -> None:
    assert [number(v) for v in (0, 0.5, 12.34567, 1e-5, 123456.0)] == [
        *("0.0000", "0.5000", "12.3457", "1e-05", "1.235e+05")
    ]
    assert [clock(s) for s in (0.84, 125, 12000)] == ["0.8 s", "2:05 min", "3:20:00 h"]
    assert [size(s) for s in (12, 1200, 3.4e6, 5e13)] == ["12 B", "1.2 kB", "3.4 MB", "50.0 TB"]


def test_facts_are_words(tmp_path: Path) -> None:
    run = Run(folders.make(tmp_path / "run", state="failed", error="it broke", exit_code=1))
    known = facts(run)
    assert known["error"] == "it broke" and known["exit code"] == "1"
    assert known["samples per second"] == "640"
    assert json.loads(json.dumps(known)) == known
