"""Commits: checkpoints that exist whole or not at all.

A commit is a folder ``step_00000050`` with the arrays in safetensors files, under variable names,
and a manifest that names every file with its size and checksum, and carries a checksum of its own.
Files are written under the folder's temporary name and synced; the manifest comes last; the rename
makes the commit.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distgrad.core import files
from distgrad.core.errors import DataError
from distgrad.training import tensors

MANIFEST = "manifest.json"

Arrays = Mapping[str, Mapping[str, np.ndarray]]
Bytes = bytes | memoryview


class Commit(NamedTuple):
    """A checkpoint read back and found whole."""

    path: Path
    state: dict[str, Any]
    arrays: dict[str, dict[str, np.ndarray]]


def save(folder: Path, step: int, arrays: Arrays, state: Mapping[str, Any], keep_last: int) -> Path:
    """Commits ``arrays`` (a file name to named arrays) and ``state`` (JSON); returns the folder.

    Afterwards older commits beyond ``keep_last`` are removed, and those of later steps: a run that
    is at ``step`` has gone back behind them because they cannot be read. Raises OSError where the
    disk does not take it; the commits before it are untouched then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in files.leftovers(folder):  # of a save that was cut off
        shutil.rmtree(leftover, ignore_errors=True)
    final = folder / f"step_{step:08d}"
    commit(final, step, arrays, state)
    kept = commits(folder)
    newest = kept.index(final)
    for path in kept[: max(0, newest + 1 - keep_last)] + kept[newest + 1 :]:
        shutil.rmtree(path, ignore_errors=True)
    return final


def remove(folder: Path) -> None:
    """Removes all commits in a folder, and the folder if nothing else lies in it."""
    for path in commits(folder):
        with contextlib.suppress(OSError):
            os.rename(path, files.temporary(path))  # first: half of one is damage to who comes next
    for leftover in files.leftovers(folder):
        shutil.rmtree(leftover, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def commit(final: Path, step: int, arrays: Arrays, state: Mapping[str, Any]) -> None:
    """Writes the commit ``final``, in place of one of that name. Raises OSError as `save` does."""
    folder = final.parent
    for leftover in files.leftovers(folder, final.name):  # of one that was cut off
        shutil.rmtree(leftover, ignore_errors=True)
    work = files.temporary(final)
    work.mkdir()
    try:
        written = {}
        for name, group in arrays.items():
            path = work / f"{name}.safetensors"
            digest = hashlib.sha256()
            files.write(path, _hashed(tensors.pieces(group), digest))
            written[path.name] = {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}
        manifest = {"step": step, "files": written, "state": dict(state)}
        sealed = {**manifest, "sha256": _seal(manifest)}
        files.write(work / MANIFEST, [json.dumps(sealed, indent=1).encode()])
        files.sync_folder(work)
        if not final.exists():
            os.rename(work, final)
        elif not _exchange(work, final):
            old = work.with_name(f"{work.name}-old")
            os.rename(final, old)
            os.rename(work, final)
            shutil.rmtree(old, ignore_errors=True)
        files.sync_folder(folder)
    finally:  # the old one of that name, or what could not be finished
        shutil.rmtree(work, ignore_errors=True)


def commits(folder: Path) -> list[Path]:
    """The commits in ``folder``, oldest first; whether they are whole, ``load`` finds out."""
    found = [p for p in folder.glob("step_*") if p.is_dir() and p.name[5:].isdecimal()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def load_newest(folder: Path, warn: Callable[[str], None]) -> Commit | None:
    """The newest whole commit; each newer one that is not is named through ``warn``.

    Returns None where there is none at all. Raises DataError where commits exist and none is whole.
    Changes nothing on disk.
    """
    found = commits(folder)
    for path in reversed(found):
        try:
            return load(path)
        except DataError as error:
            if path != found[0]:
                warn(f"{error} Going back to the commit before it.")
                continue
            raise DataError(
                f"{error} No checkpoint in {folder} can be read: start anew in another folder. "
                "Nothing was changed."
            ) from None
    return None


def load(path: Path) -> Commit:
    """Reads a commit and checks it. Raises DataError naming the file that is not as committed."""
    manifest_path = path / MANIFEST
    try:
        manifest = json.loads(manifest_path.read_bytes())
        seal, listed, state = manifest.pop("sha256"), manifest["files"], manifest["state"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{manifest_path}: not a readable manifest ({error}).") from None
    if seal != _seal(manifest):
        raise DataError(f"{manifest_path}: its checksum is not the one committed.")
    arrays = {}
    for name, expected in listed.items():
        try:
            content = (path / name).read_bytes()
        except OSError as error:
            raise DataError(f"{path / name}: cannot be read ({error}).") from None
        if len(content) != expected["bytes"]:
            raise DataError(
                f"{path / name}: {len(content)} bytes where {expected['bytes']} were committed."
            )
        if hashlib.sha256(content).hexdigest() != expected["sha256"]:
            raise DataError(f"{path / name}: its checksum is not the one committed.")
        arrays[name.removesuffix(".safetensors")] = tensors.from_bytes(content)
    return Commit(path, state, arrays)


def weights_sha256(variables: Mapping[str, Any]) -> str:
    """SHA-256 over the values (ndarrays) sorted by path, as C-order little-endian bytes."""
    digest = hashlib.sha256()
    for path in sorted(variables):
        array = np.asarray(variables[path])
        little = array.dtype.newbyteorder("<")
        digest.update(np.ascontiguousarray(array, dtype=little).tobytes())
    return digest.hexdigest()


def _exchange(one: Path, other: Path) -> bool:
    """Lets two folders change their names at one instant; False where the system cannot."""
    if _renameat2 is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return not _renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange)


def _seal(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _hashed(pieces: Iterable[Bytes], digest: Any) -> Iterator[Bytes]:
    for piece in pieces:
        digest.update(piece)
        yield piece


_renameat2 = None
if sys.platform == "linux":
    _renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
