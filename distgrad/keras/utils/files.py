"""``get_file``: a file from the web, downloaded once, checked and unpacked."""

from __future__ import annotations

import os
import shutil
import tarfile
import time
import urllib.parse
import zipfile
from pathlib import Path
from typing import Any

from distgrad.core import files
from distgrad.core.errors import DataError
from distgrad.data.download import digest_of, fetch, sweep
from distgrad.launcher.environ import detect, keras_home
from distgrad.training.world import communicator

_PATIENCE = 600.0  # seconds that the other ranks wait for rank 0 to unpack


def get_file(
    fname: Any = None,
    origin: str | None = None,
    untar: bool = False,
    md5_hash: str | None = None,
    file_hash: str | None = None,
    cache_subdir: str = "datasets",
    hash_algorithm: str = "auto",
    extract: bool = False,
    archive_format: Any = "auto",
    cache_dir: Any = None,
    force_download: bool = False,
) -> str:
    """The path of a file of ``origin``, downloaded into ``~/.keras/datasets`` if it is not there.

    KERAS_HOME names another folder than ``~/.keras``. ``file_hash`` is its SHA-256 or MD5: a file
    with another one is downloaded again. With ``extract`` it is a tar or zip archive, and the path
    that of the folder with its content. Rank 0 downloads and unpacks, the others wait; with
    ``force_download`` all ranks must call it. Raises ValueError without an ``origin``, DataError
    where the file cannot be had, or not be unpacked.
    """
    if origin is None:
        raise ValueError('Please specify the "origin" argument (URL of the file to download).')
    digest = file_hash or md5_hash
    given = os.fspath(fname) if fname else ""
    name = given or os.path.basename(urllib.parse.urlsplit(origin).path)
    if not name:
        raise ValueError(
            f"Can't parse the file name from the origin provided: '{origin}'. Please specify the "
            "`fname` argument."
        )
    if os.sep in name:
        raise ValueError(
            "Paths are no longer accepted as the `fname` argument. To specify the file's parent "
            f"directory, use the `cache_dir` argument. Received: fname={fname}"
        )
    folder = Path(cache_dir or keras_home()).expanduser() / cache_subdir
    unpacks, target, within = extract or untar, name, name
    if unpacks and given and "." in name:
        within = f"{name[: name.find('.')]}_extracted"
    elif unpacks:
        target = f"{name}_archive"
    world = detect()
    first, meet = world.rank == 0, force_download and world.is_rank
    if meet and not first:  # nothing on the disk tells whether it is the new file
        communicator().barrier(timeout=_PATIENCE)
    there = (folder / target).exists()
    again = there and digest is not None and digest_of(folder / target, digest) != digest
    if first and force_download:
        again = True
    if first and again and unpacks:  # before the others can see another archive
        shutil.rmtree(folder / within, ignore_errors=True)
    path = fetch(target, origin, digest, folder, allow_download=first, again=again)
    if unpacks and first:
        _unpack(path, folder / within, "tar" if untar else archive_format)
    elif unpacks:
        _wait_for(folder / within)
    if meet and first:
        communicator().barrier(timeout=_PATIENCE)
    return str(folder / within)


def _unpack(archive: Path, folder: Path, kind: Any) -> None:
    """Unpacks an archive into a folder, which appears whole or not at all."""
    if folder.exists():
        return
    sweep(folder)
    kinds = ("tar", "zip") if kind == "auto" else (kind,) if isinstance(kind, str) else kind or ()
    partial = files.temporary(folder)
    partial.mkdir()
    try:
        if "tar" in kinds and tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                _extract(tar, partial)
        elif "zip" in kinds and zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(partial)
        else:
            raise DataError(f"{archive} is not an archive of the kind {' or '.join(kinds) or kind}")
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another job was faster
                raise
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise DataError(f"{archive} cannot be unpacked into {folder}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _extract(tar: tarfile.TarFile, folder: Path) -> None:
    """Unpacks what stays within the folder; Python before 3.11.4 has no filter that sees to it."""
    if hasattr(tarfile, "data_filter"):
        tar.extractall(folder, filter="data")
        return
    for member in tar:
        inside = (folder / member.name).resolve().is_relative_to(folder.resolve())
        if not inside or not (member.isfile() or member.isdir()):
            raise tarfile.TarError(
                f"{member.name!r} is a link or lies outside; Python 3.11.4 or newer may unpack it"
            )
        tar.extract(member, folder)


def _wait_for(folder: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not folder.exists():
        if time.monotonic() > deadline:
            raise DataError(f"{folder} did not appear: rank 0, which unpacks it, has not done so")
        time.sleep(0.05)
