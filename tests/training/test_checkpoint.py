"""Commits exist whole or not at all, wherever the process dies and whatever the disk does."""

from __future__ import annotations

import builtins
import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from distgrad.core.errors import DataError
from distgrad.training import checkpoint

KEEP = 3
MODEL, OPTIMIZER, MANIFEST = "model.safetensors", "optimizer.safetensors", "manifest.json"


def arrays(step: int) -> dict[str, dict[str, np.ndarray]]:
    """What a run might save, a scalar and an empty array included; every step has its own."""
    rng = np.random.default_rng(step)
    return {
        "model": {
            "dense/kernel": rng.normal(size=(5, 3)).astype(np.float32),
            "dense/bias": rng.normal(size=3),
            "dense/half": rng.normal(size=(2, 3)).astype(ml_dtypes.bfloat16),
            "empty": np.zeros((0, 4), np.float32),
        },
        "optimizer": {"iterations": np.array(step), "flags": rng.integers(0, 2, 7).astype(bool)},
    }


def save(folder: Path, step: int, keep_last: int = KEEP) -> Path:
    return checkpoint.save(folder, step, arrays(step), {"cursor": {"step": step}}, keep_last)


def assert_whole(commit: checkpoint.Commit | None) -> int:
    """The commit holds exactly what its step has saved; returns the step."""
    assert commit is not None
    step = commit.state["cursor"]["step"]
    assert commit.path.name == f"step_{step:08d}"
    expected = arrays(step)
    assert commit.arrays.keys() == expected.keys()
    for name, group in expected.items():
        assert commit.arrays[name].keys() == group.keys()
        for path, array in group.items():
            found = commit.arrays[name][path]
            assert (found.shape, found.dtype) == (array.shape, array.dtype), path
            assert found.tobytes() == array.tobytes(), path
    return step


def no_warning(text: str) -> None:
    raise AssertionError(text)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"  # made when needed
    path = save(folder, 50)
    assert path == folder / "step_00000050"
    assert assert_whole(checkpoint.load_newest(folder, no_warning)) == 50
    assert names(folder) == ["step_00000050"]


def test_the_manifest_names_every_file_with_size_and_checksum(tmp_path: Path) -> None:
    path = save(tmp_path, 7)
    manifest = json.loads((path / MANIFEST).read_text())
    assert manifest["step"] == 7
    assert names(path) == sorted(["manifest.json", *manifest["files"]])
    for name, facts in manifest["files"].items():
        content = (path / name).read_bytes()
        assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_arrays_in_any_layout(tmp_path: Path) -> None:
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    group = {
        "transposed": base.T,
        "strided": base[::2, 1::2],
        "reversed": base[::-1, ::-1],
        "fortran": np.asfortranarray(base),
        "broadcast": np.broadcast_to(base[:, :1], (4, 5)),
        "swapped": np.swapaxes(base.reshape(2, 2, 6), 0, 2),
    }
    path = checkpoint.save(tmp_path, 1, {"model": group}, {}, KEEP)
    loaded = checkpoint.load(path).arrays["model"]
    for name, array in group.items():
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)


def test_the_hash_is_over_c_order_little_endian_bytes_by_path() -> None:
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    bias = np.array([0.5, -1], np.float32)
    expected = hashlib.sha256(bias.tobytes() + kernel.tobytes()).hexdigest()
    assert checkpoint.weights_sha256({"d/kernel": kernel, "d/bias": bias}) == expected
    other = {"d/bias": bias.astype(">f4"), "d/kernel": np.asfortranarray(kernel)}
    assert checkpoint.weights_sha256(other) == expected
    assert checkpoint.weights_sha256({"d/kernel": kernel.T, "d/bias": bias}) != expected
    half = {"d/bias": bias.astype(ml_dtypes.bfloat16)}
    assert checkpoint.weights_sha256(half) == hashlib.sha256(b"\x00\x3f\x80\xbf").hexdigest()


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10, 100_000_000, 100_000_001):  # by number, not by name
        save(tmp_path, step, keep_last=2)
    assert names(tmp_path) == ["step_100000000", "step_100000001"]
    assert assert_whole(checkpoint.load_newest(tmp_path, no_warning)) == 100_000_001


def test_nothing_saved_yet(tmp_path: Path) -> None:
    assert checkpoint.load_newest(tmp_path / "missing", no_warning) is None
    assert checkpoint.load_newest(tmp_path, no_warning) is None


def test_killed_while_all_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left that looks like a commit, and whoever comes next tidies up."""

    def killed(path: Path, **options: object) -> None:
        next(path.glob("*.safetensors")).unlink()
        raise KeyboardInterrupt

    save(tmp_path, 10)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", killed)
        checkpoint.remove(tmp_path)
    assert checkpoint.load_newest(tmp_path, no_warning) is None
    save(tmp_path, 20)
    assert names(tmp_path) == ["step_00000020"]
    checkpoint.remove(tmp_path)
    assert not tmp_path.exists()


def test_what_is_no_commit_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "step_notes").mkdir()
    (tmp_path / "step_00000009").write_text("a file")
    save(tmp_path, 3, keep_last=2)
    save(tmp_path, 4, keep_last=2)
    assert assert_whole(checkpoint.load_newest(tmp_path, no_warning)) == 4
    assert {"step_notes", "step_00000009"} < set(names(tmp_path))


# Damage.


def rewrite(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        manifest = json.loads((path / MANIFEST).read_text())
        change(manifest)
        (path / MANIFEST).write_text(json.dumps(manifest))

    return damage


def overwrite(name: str, content: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        (path / name).write_bytes(content)

    return damage


def flip(name: str, position: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray((path / name).read_bytes())
        content[position] ^= 1
        (path / name).write_bytes(content)

    return damage


def append(path: Path) -> None:
    with (path / MODEL).open("ab") as file:
        file.write(b"x")


def remove(name: str) -> Callable[[Path], None]:
    return lambda path: (path / name).unlink()


def put_a_folder(path: Path) -> None:
    (path / MODEL).unlink()
    (path / MODEL).mkdir()


DAMAGE = {
    "first byte": (MODEL, flip(MODEL, 0)),
    "last byte": (OPTIMIZER, flip(OPTIMIZER, -1)),
    "empty": (MODEL, overwrite(MODEL, b"")),
    "too long": (MODEL, append),
    "missing": (MODEL, remove(MODEL)),
    "a folder": (MODEL, put_a_folder),
    "no manifest": (MANIFEST, remove(MANIFEST)),
    "empty manifest": (MANIFEST, overwrite(MANIFEST, b"")),
    "binary manifest": (MANIFEST, overwrite(MANIFEST, b"\xff\x00\xfe")),
    "manifest is a list": (MANIFEST, overwrite(MANIFEST, b"[]")),
    "manifest is a number": (MANIFEST, overwrite(MANIFEST, b"7")),
    "another cursor": (MANIFEST, rewrite(lambda m: m["state"]["cursor"].update(step=21))),
    "a file forgotten": (MANIFEST, rewrite(lambda m: m["files"].pop(OPTIMIZER))),
    "no checksum": (MANIFEST, rewrite(lambda m: m.pop("sha256"))),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_commit_is_named_and_the_one_before_it_is_used(tmp_path: Path, case: str) -> None:
    file, damage = DAMAGE[case]
    save(tmp_path, 10)
    damage(save(tmp_path, 20))
    before = contents(tmp_path)
    warnings: list[str] = []
    assert assert_whole(checkpoint.load_newest(tmp_path, warnings.append)) == 10
    (warning,) = warnings
    assert str(tmp_path / "step_00000020" / file) in warning
    assert "Going back to the commit before it" in warning
    assert contents(tmp_path) == before
    # The run goes on, and reaches the same step again.
    save(tmp_path, 20)
    assert assert_whole(checkpoint.load_newest(tmp_path, no_warning)) == 20


def test_none_can_be_read(tmp_path: Path) -> None:
    for step in (10, 20):
        overwrite(MODEL, b"junk")(save(tmp_path, step))
    before = contents(tmp_path)
    warnings: list[str] = []
    with pytest.raises(DataError, match="step_00000010.*No checkpoint in .* can be read") as caught:
        checkpoint.load_newest(tmp_path, warnings.append)
    assert caught.value.exit_code == 4
    assert len(warnings) == 1 and "step_00000020" in warnings[0]
    assert contents(tmp_path) == before


def test_commits_that_the_run_went_back_behind_make_room(tmp_path: Path) -> None:
    """They cannot be read; they must not count as one of those that are kept."""
    for step in (10, 20, 30):
        save(tmp_path, step, keep_last=3)
    for step in (20, 30):
        overwrite(MODEL, b"junk")(tmp_path / f"step_{step:08d}")
    save(tmp_path, 15, keep_last=2)
    assert names(tmp_path) == ["step_00000010", "step_00000015"]
    assert assert_whole(checkpoint.load_newest(tmp_path, no_warning)) == 15


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


# Crashes.


class Killed(BaseException):
    """The process is no more: no handler of its own runs to any effect."""


class Power:
    """Cuts the power before the ``fatal``-th call that touches the disk; nothing works afterwards.

    What has been written to a file and not been synced by then is lost by half.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fatal: int) -> None:
        self.calls = 0
        self.fatal = fatal
        self.unsynced: dict[int, int] = {}  # inode to a descriptor of ours
        self.fsync = os.fsync
        for module, name, function in [
            (os, "fsync", self._fsync),
            (builtins, "open", self._open(open)),
            *((m, n, getattr(m, n)) for m, n in [(os, "open"), (os, "mkdir"), (os, "rename")]),
            (shutil, "rmtree", shutil.rmtree),
        ]:
            monkeypatch.setattr(module, name, self._guarded(name, function))

    def _guarded(self, name: str, function: Callable) -> Callable:
        def guarded(*args, **kwargs):
            self.calls += 1
            if self.calls == self.fatal:
                for descriptor in self.unsynced.values():
                    os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            if self.calls >= self.fatal:
                raise Killed(name)
            return function(*args, **kwargs)

        return guarded

    def _fsync(self, descriptor: int) -> None:
        self.fsync(descriptor)
        if mine := self.unsynced.pop(os.fstat(descriptor).st_ino, None):
            os.close(mine)

    def _open(self, real: Callable) -> Callable:
        def opened(path, mode="r", *args, **kwargs):
            file = real(path, mode, *args, **kwargs)
            if "r" not in mode:
                inode = os.fstat(file.fileno()).st_ino
                self.unsynced[inode] = os.dup(file.fileno())
            return file

        return opened

    def close(self) -> None:
        for descriptor in self.unsynced.values():
            os.close(descriptor)


def killed_while_saving(folder: Path, step: int, fatal: int, **options: int) -> bool:
    """Whether the save came to its ``fatal``-th call, and died there."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        power = Power(monkeypatch, fatal)
        try:
            save(folder, step, **options)
        except Killed:
            return True
        finally:
            power.close()
    return False


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """The commit before is there, or the new one is; the next save clears the rest away."""
    found, fatal, killed = set(), 0, True
    while killed:
        fatal += 1
        folder = tmp_path / str(fatal)
        save(folder, 10)
        save(folder, 20)
        killed = killed_while_saving(folder, 30, fatal, keep_last=2)
        found.add(assert_whole(checkpoint.load_newest(folder, no_warning)))
        save(folder, 40, keep_last=2)
        assert assert_whole(checkpoint.load_newest(folder, no_warning)) == 40
        assert len(names(folder)) == 2, "leftovers"
        assert all(name.startswith("step_") for name in names(folder))
    assert found == {20, 30}
    # mkdir of two folders; two files and the manifest, each opened and synced; two folders
    # opened and synced; the rename; an old commit removed: nothing escaped the count.
    assert fatal > 13


def test_killed_while_a_damaged_commit_is_replaced(tmp_path: Path) -> None:
    killed, fatal = True, 0
    while killed:
        fatal += 1
        folder = tmp_path / str(fatal)
        save(folder, 10)
        overwrite(MODEL, b"junk")(save(folder, 20))
        killed = killed_while_saving(folder, 20, fatal)
        assert assert_whole(checkpoint.load_newest(folder, lambda text: None)) in (10, 20)
        save(folder, 20)
        assert names(folder) == ["step_00000010", "step_00000020"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs renameat2(2)")
def test_killed_while_a_whole_commit_is_replaced(tmp_path: Path) -> None:
    """As scripts do that write to one name again and again: one of the two is always there."""
    found, killed, fatal = set(), True, 0
    while killed:
        fatal += 1
        path = tmp_path / str(fatal) / "weights"
        path.parent.mkdir()
        checkpoint.commit(path, 1, arrays(1), {"step": 1})
        with pytest.MonkeyPatch.context() as monkeypatch:
            power = Power(monkeypatch, fatal)
            try:
                checkpoint.commit(path, 2, arrays(2), {"step": 2})
                killed = False
            except Killed:
                pass
            finally:
                power.close()
        found.add(checkpoint.load(path).state["step"])
        checkpoint.commit(path, 3, arrays(3), {"step": 3})  # by a process of the same number
        assert names(path.parent) == ["weights"], "leftovers"
    assert found == {1, 2}


@pytest.mark.parametrize("name", ["fsync", "rename", "open"])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    """The error is passed on, the half-written commit removed, and the next save may succeed."""
    real = getattr(os, name)
    failures = 0
    for fatal in range(1, 20):
        folder = tmp_path / str(fatal)
        save(folder, 10)
        calls = 0

        def full(*args, fatal=fatal, **kwargs):
            nonlocal calls
            calls += 1
            if calls == fatal:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **kwargs)

        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(os, name, full)
            try:
                save(folder, 20)
            except OSError:
                failures += 1
        assert assert_whole(checkpoint.load_newest(folder, no_warning)) in (10, 20)
        assert not [entry for entry in names(folder) if not entry.startswith("step_")]
        save(folder, 20)
        assert assert_whole(checkpoint.load_newest(folder, no_warning)) == 20
    assert failures >= 1
