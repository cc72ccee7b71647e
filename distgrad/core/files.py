"""Files that are whole or not there: written under another name, brought to the disk, renamed."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

TEMPORARY = ".tmp-"  # how the names of unfinished files begin

try:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except ImportError:  # Windows
    _lock = None  # type: ignore[assignment]

# Locks an open file, until it is closed; None where the system has no such locks. Raises
# BlockingIOError where another process has it locked, OSError where its file system has no locks.
lock = _lock


@contextlib.contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Context that gives a name to write a file under; it takes the place of ``path`` at the end.

    A reader, or a crash, sees the old file or the new one. After an error the old one stays, and
    nothing else is left. Without ``sync`` a loss of power may leave an empty file. Raises
    FileNotFoundError without a folder to write into.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(
            errno.ENOENT, f"make this folder first, to write {path.name} into", str(path.parent)
        )
    work = temporary(path)
    try:
        yield work
        if sync:
            with open(work, "r+b") as file:
                os.fsync(file.fileno())
        os.replace(work, path)
        if sync:
            sync_folder(path.parent)
    finally:
        work.unlink(missing_ok=True)


def replace(path: Path, content: bytes | str, *, sync: bool = True) -> None:
    """Writes a file whole (a text in UTF-8), as ``replacing`` does."""
    with replacing(path, sync=sync) as work:
        work.write_bytes(content.encode() if isinstance(content, str) else content)


def write(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Writes a file and waits until it lies on the disk; for one in a folder that is renamed."""
    with open(path, "wb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder lie on the disk."""
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened, and a rename is durable by itself
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary(path: Path) -> Path:
    """A name that nobody else uses, beside ``path``, for what is to take its place."""
    return path.with_name(f"{TEMPORARY}{path.name}-{os.urandom(4).hex()}")


def leftovers(folder: Path, name: str | None = None) -> list[Path]:
    """What is unfinished in a folder, of the file (or folder) ``name`` alone where one is given.

    Its writer is still at work, or was killed.
    """
    which = "*" if name is None else f"{glob.escape(name)}-{'?' * 8}"
    return list(folder.glob(f"{TEMPORARY}{which}"))
