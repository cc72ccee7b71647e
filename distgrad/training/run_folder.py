"""Run folders: made, found by a word, and held by the one process that writes to them.

In one lie ``resolved.yaml``, ``source.yaml``, ``env.json``, ``status.json`` (current while the run
goes on), ``metrics.jsonl``, ``timing.jsonl``, ``checkpoints/``, ``tb/``. Only rank 0 writes these;
in ``logs/`` is what each rank has printed, in ``timeline.json`` where the time of each goes.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

from distgrad.core import files
from distgrad.core.errors import UsageError

_DYING = 2.0  # seconds in which a killed process has let go of its run folder
_locks: dict[Path, int] = {}  # run folders that this process holds


def new_run_folder(name: str, base: Path = Path("runs")) -> Path:
    """A fresh ``runs/YYYYmmdd-HHMMSS-<name>-<4 hex>``. UsageError where it cannot be made."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = base / f"{stamp}-{name}-{secrets.token_hex(2)}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UsageError(
            f"the run folder {folder} cannot be made ({error.strerror}): go where you may write, "
            "or name a folder with --run-dir."
        ) from None
    return folder


def point_latest(folder: Path, base: Path = Path("runs")) -> None:
    """Lets ``runs/latest`` be this run, if it lies in ``runs``: once it is one, and not before."""
    link, fresh = base / "latest", base / f".latest-{os.getpid()}"
    with contextlib.suppress(OSError):  # a disk that is full, a working folder that has gone
        if folder.resolve().parent != base.resolve():
            return
        try:
            fresh.symlink_to(folder.name)
            os.replace(fresh, link)
        except OSError:  # a file system without symbolic links
            fresh.unlink(missing_ok=True)


def drop_start(folder: Path) -> None:
    """Removes a folder that nobody has named and that never became a run: its start has failed."""
    if is_run_folder(folder):
        return
    with contextlib.suppress(OSError):  # whatever else is in it stays, and so does the folder
        for leftover in [*folder.glob("logs/*.log"), *files.leftovers(folder)]:
            leftover.unlink(missing_ok=True)
        for empty in [*folder.glob("logs"), folder]:
            empty.rmdir()


def newest_run_folder(name: str, base: Path = Path("runs")) -> Path | None:
    """The newest run of that name under ``base``, by the time in its own name."""
    found = [
        path
        for path in base.glob(f"*-{name}-????")
        if path.name[15:-5] == f"-{name}" and is_run_folder(path)
    ]
    return max(found, key=lambda path: path.name, default=None)


def is_run_folder(folder: Path) -> bool:
    """Whether it holds a run."""
    return (folder / "resolved.yaml").is_file()


def find_run_folder(word: str, base: Path = Path("runs")) -> Path:
    """The run that a word means: its folder, its name in ``base`` (``latest``), a job's newest.

    Raises UsageError that names the runs there are.
    """
    places = [Path(word), base / word]
    for folder in places:
        if is_run_folder(folder):
            return folder.parent / folder.readlink() if folder.is_symlink() else folder
    found = newest_run_folder(word, base)
    if found is not None:
        return found
    known = [path for path in base.glob("*") if is_run_folder(path) and not path.is_symlink()]
    known.sort(key=lambda path: (path / "resolved.yaml").stat().st_mtime, reverse=True)
    if word == "latest" and known:  # a file system without symbolic links
        return known[0]
    for folder in filter(Path.is_dir, places):
        log = next(folder.glob("logs/*.log"), None)
        why = f"; its start has failed, see {log}" if log else ": there is no resolved.yaml in it"
        raise UsageError(f"{folder} holds no run{why}.")
    names = ", ".join(path.name for path in known[:3])
    there = f"the newest in {base} are {names}" if names else f"there are no runs in {base}"
    raise UsageError(f"there is no run {word}: {there}. Name a run folder, latest, or a job.")


def open_run_folder(run_dir: str | None, name: str, resume: bool) -> tuple[Path, bool]:
    """The folder for a run, and whether it holds a run to go on with.

    Without ``resume`` a given folder must be empty or missing: UsageError otherwise. With it, a
    folder that holds no run is used as a fresh one if it is empty. A folder that cannot be
    written to is a UsageError, too.
    """
    folder, resumed = _open_run_folder(run_dir, name, resume)
    lock_run_folder(folder)
    return folder, resumed


def choose_run_folder(name: str, resume: bool) -> Path:
    """The folder of a run for which none was named: the newest of that name, or a fresh one."""
    known = newest_run_folder(name) if resume else None
    return known if known is not None else new_run_folder(name)


def lock_run_folder(folder: Path) -> None:
    """Makes this process the only one that writes to a run folder, until it ends.

    Raises:
        UsageError: another process on this host (or, where the file system can tell, on any) holds
            it; the message names it.
    """
    key = folder.resolve()
    if key in _locks or files.lock is None:
        return
    file = os.open(folder, os.O_RDONLY)
    end = time.monotonic() + _DYING
    while True:
        try:
            files.lock(file)
            _locks[key] = file
            return
        except BlockingIOError:
            if time.monotonic() < end:
                time.sleep(0.05)
                continue
        except OSError:  # a file system without locks
            os.close(file)
            return
        os.close(file)
        raise UsageError(
            f"{folder} is in use by a run that goes on{_holder(folder)}: wait for it, stop it, or "
            "name another --run-dir. Nothing was changed."
        )


def _holder(folder: Path) -> str:
    try:
        status = json.loads((folder / "status.json").read_text())
        return f" (process {status['pid']} on {status['host']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _open_run_folder(run_dir: str | None, name: str, resume: bool) -> tuple[Path, bool]:
    if run_dir is None:
        folder = choose_run_folder(name, resume)
        return folder, (folder / "resolved.yaml").exists()
    folder = Path(run_dir)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--run-dir {folder} is a file, not a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"--run-dir {folder} cannot be written to: see its owner and permissions.")
    if all(p.name.startswith(files.TEMPORARY) or p.name == "logs" for p in folder.iterdir()):
        return folder, False  # empty, or a run was killed before it had written anything
    if not resume:
        raise UsageError(
            f"--run-dir {folder} is not empty: add --resume auto to go on with the run in it, or "
            "name another folder. Nothing was changed."
        )
    if not (folder / "resolved.yaml").exists():
        raise UsageError(f"--run-dir {folder} is not empty and holds no run to resume.")
    return folder, True


def describe(folder: Path, texts: Mapping[str, str]) -> None:
    """Writes the files that describe a run, and clears away what a killed one left half-written."""
    for leftover in files.leftovers(folder):
        leftover.unlink(missing_ok=True)
    for name, text in texts.items():
        files.replace(folder / name, text)
