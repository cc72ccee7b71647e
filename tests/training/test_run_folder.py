"""The run folder: which one a run gets, and who may have it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distgrad.core.errors import UsageError
from distgrad.training import run_folder

# Which folder.


def make_run(base: Path, name: str) -> Path:
    folder = base / name
    folder.mkdir(parents=True)
    (folder / "resolved.yaml").write_text("name: x\n")
    return folder


def test_a_new_folder_and_the_link_to_it(tmp_path: Path) -> None:
    first = run_folder.new_run_folder("mlp", tmp_path)
    second = run_folder.new_run_folder("mlp", tmp_path)
    assert first != second and first.is_dir() and second.is_dir()
    assert not (tmp_path / "latest").exists()  # neither is a run yet
    run_folder.point_latest(first, tmp_path)
    run_folder.point_latest(second, tmp_path)
    run_folder.point_latest(make_run(tmp_path / "elsewhere", "other"), tmp_path)
    assert (tmp_path / "latest").resolve() == second.resolve()
    assert sorted(os.listdir(tmp_path)) == sorted(["elsewhere", first.name, second.name, "latest"])


def test_a_start_that_failed_leaves_nothing_and_a_run_stays(tmp_path: Path) -> None:
    failed = run_folder.new_run_folder("mlp", tmp_path)
    (failed / "logs").mkdir()
    (failed / "logs" / "rank_00000.log").write_text("error: no such file\n")
    (failed / ".tmp-status").write_text("{")
    run_folder.drop_start(failed)
    assert not failed.exists()
    run = make_run(tmp_path, "run")
    run_folder.drop_start(run)
    assert (run / "resolved.yaml").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("not ours")
    run_folder.drop_start(other)
    assert (other / "mine.txt").exists()


def test_the_newest_run_of_a_name(tmp_path: Path) -> None:
    make_run(tmp_path, "20260101-000000-mlp-0001")
    newest = make_run(tmp_path, "20260301-120000-mlp-0000")
    make_run(tmp_path, "20260201-120000-mlp-ffff")
    make_run(tmp_path, "20260401-000000-big-mlp-0001")  # another name that ends like it
    make_run(tmp_path, "20260401-000000-mlp-big-0001")
    (tmp_path / "20260501-000000-mlp-0001").mkdir()  # not begun: there is nothing to resume
    (tmp_path / "20260601-000000-mlp-0001").write_text("a file")
    assert run_folder.newest_run_folder("mlp", tmp_path) == newest
    assert run_folder.newest_run_folder("none", tmp_path) is None
    assert run_folder.newest_run_folder("mlp", tmp_path / "missing") is None


def test_without_a_run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, resumed = run_folder.open_run_folder(None, "mlp", resume=True)
    assert not resumed, "there was none to resume"
    (first / "resolved.yaml").write_text("name: mlp\n")
    assert run_folder.open_run_folder(None, "mlp", resume=True) == (first, True)
    other, resumed = run_folder.open_run_folder(None, "mlp", resume=False)
    assert other != first and not resumed


@pytest.mark.parametrize("resume", [False, True])
def test_a_missing_or_empty_run_dir_is_a_fresh_one(tmp_path: Path, resume: bool) -> None:
    folder = tmp_path / "a" / "b"
    assert run_folder.open_run_folder(str(folder), "mlp", resume) == (folder, False)
    assert run_folder.open_run_folder(str(folder), "mlp", resume) == (folder, False)


@pytest.mark.parametrize("resume", [False, True])
def test_killed_before_anything_was_written(tmp_path: Path, resume: bool) -> None:
    (tmp_path / ".tmp-resolved.yaml-123").write_text("name: m")
    assert run_folder.open_run_folder(str(tmp_path), "mlp", resume) == (tmp_path, False)
    run_folder.describe(tmp_path, {"resolved.yaml": "name: mlp\n"})
    assert os.listdir(tmp_path) == ["resolved.yaml"]


def test_a_run_is_resumed_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "resolved.yaml").write_text("name: mlp\n")
    with pytest.raises(UsageError, match=r"is not empty: add --resume auto"):
        run_folder.open_run_folder(str(tmp_path), "mlp", resume=False)
    assert run_folder.open_run_folder(str(tmp_path), "mlp", resume=True) == (tmp_path, True)


def test_a_folder_of_something_else_is_never_used(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    for resume in (False, True):
        with pytest.raises(UsageError, match="is not empty"):
            run_folder.open_run_folder(str(tmp_path), "mlp", resume)
    with pytest.raises(UsageError, match="is a file"):
        run_folder.open_run_folder(str(tmp_path / "thesis.tex"), "mlp", resume=True)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_run_is_described_by_whole_files_alone(tmp_path: Path) -> None:
    (tmp_path / ".tmp-resolved.yaml-0123abcd").write_text("of a process that was killed")
    run_folder.describe(tmp_path, {"resolved.yaml": "new", "source.yaml": "text"})
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "resolved.yaml": "new",
        "source.yaml": "text",
    }
