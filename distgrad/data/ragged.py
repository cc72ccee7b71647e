"""Reads ``.npz`` files with rows of different lengths, which NumPy keeps as pickled lists.

Nothing but lists of numbers and NumPy's arrays is ever unpickled: a file cannot run code.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.core.errors import DataError

_HARMLESS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
}


class _Arrays(pickle.Unpickler):
    """An unpickler of arrays alone."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        return super().find_class(module, name)


def read_ragged(path: str | os.PathLike, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays under ``keys``; those of lists have dtype object.

    Raises DataError that names the file where it cannot be read, or has not these keys.
    """
    found = {}
    try:
        with zipfile.ZipFile(Path(path)) as archive:
            for key in keys:
                found[key] = _array(archive.read(f"{key}.npy"))
    except (
        OSError,
        KeyError,
        ValueError,
        EOFError,
        zipfile.BadZipFile,
        pickle.PickleError,
    ) as error:
        raise DataError(
            f"{path} cannot be read as an .npz file with {', '.join(keys)} ({error}); delete it to "
            "download it again"
        ) from error
    return found


def _array(content: bytes) -> np.ndarray:
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version[0] == 1
        else np.lib.format.read_array_header_2_0
    )
    if not read_header(file)[2].hasobject:
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)
    return _Arrays(file).load()
