"""The verbs that look at runs: what they print, for people and for programs, and how they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distgrad import cli
from distgrad.training import checkpoint

from ..report import folders


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folders.make(tmp_path / "runs" / "one")
    two = folders.make(tmp_path / "runs" / "two", units=9, state="failed", exit_code=5)
    (tmp_path / "runs" / "latest").symlink_to("two")
    for step in (10, 20):
        arrays = {"model": {"w": np.arange(9.0)}}
        checkpoint.save(two / "checkpoints", step, arrays, {}, keep_last=3)
    return tmp_path / "runs"


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert cli.main(list(words)) == code
    return capsys.readouterr().out


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    return json.loads(said(capsys, *words, "--json", code=code))


def test_ls(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head, one, two = said(capsys, "runs", "ls").splitlines()
    assert head.split() == ["run", "started", "state", "epoch", "step", "metrics", "exit", "size"]
    assert one.startswith("one ") and " done " in one and " 4/4 " in one and " 40 " in one
    assert "test_accuracy 0.9000" in one and one.endswith("kB")
    assert " failed " in two and " 5 " in two
    first, second = told(capsys, "runs", "ls")
    assert (first["run"], first["state"], first["exit_code"]) == ("one", "done", 0)
    assert second["metrics"]["test_loss"] == 0.4 and second["bytes"] > 1000
    assert told(capsys, "runs", "ls", "--dir", "runs") == [first, second]


def test_ls_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there are no runs" in said(capsys, "runs", "ls", "--dir", str(tmp_path))
    assert cli.main(["runs", "ls", "--dir", str(tmp_path / "none")]) == 2
    assert "error: there is no folder" in capsys.readouterr().err


def test_a_terminal_gets_a_table(
    base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    out = said(capsys, "runs", "ls")
    assert "─" in out and "one" in out and "failed" in out


def test_show(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "runs", "show", "one")
    for words in ("one\n", "test_accuracy", "distgrad train small.yaml", "units: 8", "abab"):
        assert words in out
    assert said(capsys, "runs", "show").startswith("two\n"), "the latest"
    found = told(capsys, "runs", "show", "latest")
    assert found["checkpoints"] == ["step_00000010", "step_00000020"]
    assert found["config"]["train"] == {"epochs": 4}
    assert cli.main(["runs", "show", "three"]) == 2


def test_compare(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "runs", "compare", "one", "two").splitlines()
    rows = {line.split("  ")[0]: line.split()[1:] for line in lines[1:]}
    assert lines[0].split() == ["one", "two"]
    assert rows["model.layers.0.units"] == ["8", "9"]
    assert rows["test_accuracy"] == ["0.9000", "0.9000"]
    assert rows["state"] == ["done", "failed"]
    assert "seed" not in rows, "what is the same is left out"
    found = told(capsys, "runs", "compare", "one", "two")
    assert found["settings"] == {"model.layers.0.units": ["8", "9"]}
    assert found["metrics"]["test_loss"] == [0.4, 0.4]
    assert cli.main(["runs", "compare", "one"]) == 2


def test_verify(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "2 checkpoints, 0 damaged" in said(capsys, "runs", "verify")
    victim = base / "two" / "checkpoints" / "step_00000010" / "manifest.json"
    victim.write_text(victim.read_text().replace("10", "11"))
    out = said(capsys, "runs", "verify", code=4)
    assert "2 checkpoints, 1 damaged" in out and "manifest.json: its checksum" in out
    bad, good = told(capsys, "runs", "verify", "latest", code=4)
    assert bad["checkpoint"] == "step_00000010" and "checksum" in bad["damage"]
    assert good["damage"] is None
    assert told(capsys, "runs", "verify", "one") == []


def test_report(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert said(capsys, "report", "latest").strip().endswith("two/report.html")
    assert "<svg" in (base / "two" / "report.html").read_text()
    assert said(capsys, "report", "one", "two", "--watch") == "report.html\n"  # both have ended
    assert "Settings that differ" in Path("report.html").read_text()
    assert said(capsys, "report", "one", "-o", "page.html") == "page.html\n"


def test_without_matplotlib(
    base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["report", "latest"]) == 3
    assert "pip install 'distgrad[report]'" in capsys.readouterr().err
    assert not (base / "two" / "report.html").exists()
