"""Files that are whole or not there, whenever their writer dies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distgrad.core import files


def test_a_file_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "resolved.yaml"
    files.replace(path, "old")

    def killed(source: object, target: object) -> None:
        assert Path(str(source)).read_text() == "new"
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            files.replace(path, "new")
    assert path.read_text() == "old"
    files.replace(path, b"new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(path.name, "new")]


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "classes.csv"
    files.replace(path, "old")
    with pytest.raises(ZeroDivisionError), files.replacing(path) as work:
        work.write_text("half")
        raise ZeroDivisionError
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(path.name, "old")]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    with pytest.raises(FileNotFoundError, match=f"to write a.keras into: '{folder}'"):
        files.replace(folder / "a.keras", b"")


@pytest.mark.parametrize("sync", [True, False])
def test_content_and_then_the_name_reach_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: bool
) -> None:
    path, seen = tmp_path / "weights", []

    def fsync(descriptor: int) -> None:
        what = os.readlink(f"/proc/self/fd/{descriptor}")
        seen.append(("folder" if what == str(tmp_path) else "file", path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    files.replace(path, b"1", sync=sync)
    assert seen == ([("file", False), ("folder", True)] if sync else [])
    assert path.read_bytes() == b"1"


def test_a_file_may_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        files.replace(tmp_path / "data.bin", b"1")
    finally:
        os.umask(before)
    assert (tmp_path / "data.bin").stat().st_mode & 0o777 == 0o644


def test_leftovers_of_one_file_are_not_those_of_another(tmp_path: Path) -> None:
    one = files.temporary(tmp_path / "a[1].bin")
    other = files.temporary(tmp_path / "a[1].bin-more")
    assert files.temporary(tmp_path / "a[1].bin") != one
    for path in (one, other, tmp_path / "a[1].bin"):
        path.write_bytes(b"")
    assert files.leftovers(tmp_path, "a[1].bin") == [one]
    assert sorted(files.leftovers(tmp_path)) == sorted([one, other])
