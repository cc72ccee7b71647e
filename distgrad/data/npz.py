"""Reads ``.npz`` files: plain arrays only, and every way to fail says what to do."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distgrad.core.errors import DataError


def read_npz(path: str | os.PathLike, *layouts: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of the first of ``layouts`` (each a sequence of keys) that the file holds in full.

    Pickled objects are never loaded. Raises DataError that names the file, and the keys it holds
    where none of the layouts is complete.
    """
    path = Path(path).expanduser()
    try:
        with path.open("rb") as file:
            if file.read(2) not in (b"PK", b"\x93N"):  # NumPy takes it for a pickle
                raise zipfile.BadZipFile("it is something else")
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise DataError(f"{path} holds one bare array; save the arrays with numpy.savez")
        with archive:
            for layout in layouts:
                if all(key in archive for key in layout):
                    return {key: archive[key] for key in layout}
            wanted = ", or ".join(", ".join(layout) for layout in layouts)
            raise DataError(
                f"{path} holds the keys {', '.join(archive) or '(none)'}, but needs {wanted}"
            )
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read as an .npz file of plain arrays ({error}); "
            "write it again with numpy.savez"
        ) from error


def check_pairs(path: str | os.PathLike, arrays: dict[str, np.ndarray]) -> None:
    """Raise DataError unless each array ``x...`` has as many rows as its ``y...``, and some."""
    for x_key in (key for key in arrays if key.startswith("x")):
        y_key = "y" + x_key[1:]
        x, y = arrays[x_key], arrays[y_key]
        if x.ndim == 0 or y.ndim == 0 or len(x) != len(y) or len(x) == 0:
            raise DataError(
                f"{path}: {x_key} has shape {x.shape} and {y_key} {y.shape}; they need an equal "
                "first dimension of at least one sample"
            )
