"""Downloads a data file once, with its hash verified, so that a file that is there is complete.

One process downloads and the others wait for the file: it appears by a rename, whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from distgrad.core import files
from distgrad.core.errors import DataError
from distgrad.core.user_line import warn

_SOCKET_TIMEOUT = 30.0  # seconds without a byte before the connection counts as dead
_POLL = 0.05
_ABANDONED = 86400.0  # seconds after which nobody writes a partial file any more


def fetch(
    filename: str,
    url: str,
    digest: str | None,
    folder: str | os.PathLike,
    announce: Callable[[str], None] = print,
    allow_download: bool = True,
    patience: float = 60.0,
    again: bool = False,
) -> Path:
    """The path of ``filename`` in ``folder``, downloaded from ``url`` if it is not there yet.

    ``digest`` is its SHA-256 (or MD5) in hexadecimal; None where that is not known. A file that is
    already there is used, unless it is to come ``again``; another hash is warned of. With several
    ranks, rank 0 calls this with ``allow_download=True`` and the others with ``False``: they wait
    for the file, or ``again`` for one with this hash, until the download has stood still for
    ``patience`` seconds. Raises DataError that names the file, the address and the folder if there
    is no file in the end.
    """
    destination = Path(folder) / filename
    if not allow_download:
        _wait_for(destination, url, patience, digest if again else None)
    elif destination.exists() and not again:
        _warn_of_other_hash(destination, digest)
    else:
        announce(f"Downloading {url} to {destination}")
        _download(destination, url, digest)
    return destination


def _download(destination: Path, url: str, digest: str | None) -> None:
    import http.client  # here, since they would double the time of `import distgrad`
    import urllib.request

    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        sweep(destination)
        with files.replacing(destination) as partial:
            with (
                partial.open("wb") as file,
                urllib.request.urlopen(url, timeout=_SOCKET_TIMEOUT) as response,
            ):
                shutil.copyfileobj(response, file)
            received = digest and digest_of(partial, digest)
            if received != digest:
                raise DataError(
                    f"{destination.name} from {url} arrived with {_kind(digest)} {received} "
                    f"({partial.stat().st_size} bytes), not {digest}; nothing was kept. "
                    f"{_by_hand(destination)}"
                )
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"{destination.name} is not in {destination.parent} and could not be downloaded from "
            f"{url} ({reason}). {_by_hand(destination)}"
        ) from error


def _wait_for(destination: Path, url: str, patience: float, digest: str | None) -> None:
    """Return once the file, with this hash, is there; every change of the partial files starts the
    patience anew.
    """
    seen: object = None
    deadline = time.monotonic() + patience
    while not destination.exists() or (digest and digest_of(destination, digest) != digest):
        progress = _partial_sizes(destination)
        if progress != seen:
            seen = progress
            deadline = time.monotonic() + patience
        elif time.monotonic() > deadline:
            raise DataError(
                f"{destination} did not appear: rank 0, which downloads it from {url}, has made no "
                f"progress for {patience:g} s. See rank 0's error, or where the ranks share no "
                f"home folder: {_by_hand(destination)}"
            )
        time.sleep(_POLL)


def sweep(destination: Path) -> None:
    """Removes what processes that were killed have left of a file or folder that was to come."""
    for partial in files.leftovers(destination.parent, destination.name):
        with contextlib.suppress(OSError):  # another process was faster
            if partial.stat().st_mtime > time.time() - _ABANDONED:
                continue
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink()


def _partial_sizes(destination: Path) -> dict[str, int]:
    sizes = {}
    for partial in files.leftovers(destination.parent, destination.name):
        try:
            sizes[partial.name] = partial.stat().st_size
        except FileNotFoundError:
            pass  # renamed or removed between the listing and the look
    return sizes


def _warn_of_other_hash(path: Path, digest: str | None) -> None:
    found = digest and digest_of(path, digest)
    if found != digest:
        warn(
            f"{path} has {_kind(digest)} {found}, not {digest}: it is used as it is. "
            "Delete it to download the published file."
        )


def _by_hand(destination: Path) -> str:
    return f"Download it by hand and put it, named {destination.name}, into {destination.parent}"


def _kind(digest: str | None) -> str:
    return "MD5" if digest is not None and len(digest) == 32 else "SHA-256"


def digest_of(path: Path, like: str) -> str:
    """The hash of a file, in hexadecimal, of the kind that ``like`` is."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, _kind(like).replace("-", "").lower()).hexdigest()
