"""Commits that are written while a run trains on, to disks that are slow or full."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from distgrad.core.errors import DataError
from distgrad.training import checkpoint
from distgrad.training.commits import Commits

pytestmark = pytest.mark.timeout_s(60)
PATIENCE = 30  # seconds, for what comes at once


def arrays(step: int) -> dict[str, dict[str, np.ndarray]]:
    return {"model": {"kernel": np.full(3, step, np.float32)}}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def disk(monkeypatch):
    """A disk that is full while ``disk.full`` is true, and waits for ``disk.ready``."""
    real = os.fsync

    def fsync(file: int) -> None:
        disk.asked.set()
        assert disk.ready.wait(PATIENCE)
        if disk.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    disk = SimpleNamespace(full=False, ready=threading.Event(), asked=threading.Event())
    disk.ready.set()
    yield disk
    disk.ready.set()


@pytest.fixture
def warned() -> list[str]:
    return []


@pytest.fixture
def commits(tmp_path: Path, warned: list[str]) -> Commits:
    return Commits(tmp_path, 3, warned.append)


def saved(commits: Commits, step: int) -> bool:
    commits.save(step, arrays(step), {"step": step})
    commits.settle()
    return commits.saved_step == step


def test_it_is_written_while_the_caller_goes_on(commits: Commits, disk, tmp_path: Path) -> None:
    disk.ready.clear()
    commits.save(5, arrays(5), {"step": 5})
    assert disk.asked.wait(PATIENCE)
    commits.look()  # not there yet: no reason to wait
    assert commits.saved_step == -1 and checkpoint.commits(tmp_path) == []
    disk.ready.set()
    commits.settle()
    assert commits.saved_step == 5
    found = checkpoint.load_newest(tmp_path, pytest.fail)
    assert found is not None and found.state == {"step": 5}
    assert found.arrays["model"]["kernel"].tolist() == [5, 5, 5]


def test_the_next_one_waits_for_the_one_before(commits: Commits, disk, tmp_path: Path) -> None:
    disk.ready.clear()
    commits.save(5, arrays(5), {})
    timer = threading.Timer(0.05, disk.ready.set)
    timer.start()
    commits.save(10, arrays(10), {})
    timer.join()
    assert commits.saved_step == 5 and (tmp_path / "step_00000005").is_dir()
    commits.settle()
    assert names(tmp_path) == ["step_00000005", "step_00000010"]


def test_a_look_tells_what_has_gone_wrong_by_now(commits: Commits, disk, warned) -> None:
    disk.full = True
    commits.save(5, arrays(5), {})
    _, written = commits._written
    assert isinstance(written.exception(PATIENCE), OSError) and not warned
    commits.look()
    assert len(warned) == 1 and "step 5 cannot be written" in warned[0]
    commits.look()
    assert len(warned) == 1


def test_two_misses_are_warnings_and_the_third_in_a_row_an_error(
    commits: Commits, disk, warned, tmp_path: Path
) -> None:
    disk.full = True
    assert not saved(commits, 5)
    assert "step 5 cannot be written" in warned[0] and "there is none yet" in warned[0]
    disk.full = False
    assert saved(commits, 10)
    disk.full = True
    assert not saved(commits, 20)
    assert not saved(commits, 30)
    assert len(warned) == 3 and commits.saved_step == 10
    assert "step 30 cannot be written ([Errno 28] No space left on device)" in warned[2]
    assert f"the newest one is {tmp_path / 'step_00000010'}" in warned[2]
    commits.save(40, arrays(40), {})
    with pytest.raises(DataError, match=r"step 40 cannot be written .* 3 in a row are too many"):
        commits.settle()
    assert names(tmp_path) == ["step_00000010"]
    assert checkpoint.load(tmp_path / "step_00000010").state == {"step": 10}


def test_the_last_commit_is_tried_again_at_once(
    commits: Commits, disk, warned, tmp_path: Path
) -> None:
    commits.pause = 0.01
    disk.full = True

    def warn(text: str) -> None:
        warned.append(text)
        disk.full = len(warned) < 2

    commits.warn = warn
    commits.save_last(10, arrays(10), {})
    assert len(warned) == 2 and names(tmp_path) == ["step_00000010"] and commits.saved_step == 10
    commits.warn, disk.full = warned.append, True
    with pytest.raises(DataError):
        commits.save_last(20, arrays(20), {})
    assert names(tmp_path) == ["step_00000010"]


def test_an_error_of_another_kind_is_passed_on_once(commits: Commits) -> None:
    commits.save(5, arrays(5), {"step": object()})
    with pytest.raises(TypeError, match="not JSON serializable"):
        commits.settle()
    commits.settle()
    assert commits.saved_step == -1
