"""Arrays as files that grow batch by batch: .npy, and .npz of several of them."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from distgrad.trained.outputs import Outputs


class GrowingArray:
    """An .npy file to which rows are added.

    Args:
        file: an empty one, open to be written and moved in.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.count = 0
        self._like: np.ndarray | None = None
        self._begin = 0

    def append(self, rows: np.ndarray) -> None:
        """Rows of the shape and dtype of those before."""
        if self._like is None:
            self._like = rows[:0].copy()  # a view would keep all of them
            self._head()
            self._begin = self.file.tell()
        self.file.write(np.ascontiguousarray(rows).data)
        self.count += len(rows)

    def end(self) -> int:
        """Writes into the head how many rows there are; returns that."""
        if self._like is None:
            self._like = np.zeros(0, np.float32)
        self.file.seek(0)
        self._head()  # NumPy leaves room in it for any number of rows
        assert self._begin in (0, self.file.tell())
        self.file.seek(0, 2)
        return self.count

    def _head(self) -> None:
        assert self._like is not None
        facts = {
            "descr": npy.dtype_to_descr(self._like.dtype),
            "fortran_order": False,
            "shape": (self.count, *self._like.shape[1:]),
        }
        npy.write_array_header_1_0(self.file, facts)


def write_npy(file: IO[bytes], outputs: Outputs, batches: Iterator[np.ndarray]) -> int:
    """Probabilities of classes, or other outputs as they are; returns how many samples."""
    out = GrowingArray(file)
    for found in batches:
        out.append(outputs.probabilities(found) if outputs.classes else found)
    return out.end()


def write_npz(
    file: IO[bytes], outputs: Outputs, batches: Iterator[np.ndarray], folder: Path
) -> int:
    """``prediction``, and for classes ``probabilities`` and ``classes``; returns as `write_npy`.

    What grows lies in ``folder`` meanwhile, in files without a name.
    """
    names = ("prediction", "probabilities") if outputs.classes else ("prediction",)
    classes = np.array(outputs.classes)
    with tempfile.TemporaryFile(dir=folder) as first, tempfile.TemporaryFile(dir=folder) as second:
        parts = [GrowingArray(part) for part in (first, second)][: len(names)]
        for found in batches:
            if outputs.classes:
                probabilities = outputs.probabilities(found)
                parts[0].append(classes[probabilities.argmax(axis=-1)])
                parts[1].append(probabilities)
            else:
                parts[0].append(found)
        with zipfile.ZipFile(file, "w") as archive:
            for name, part in zip(names, parts, strict=True):
                part.end()
                part.file.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    shutil.copyfileobj(part.file, entry, 1 << 20)
            if outputs.classes:
                with archive.open("classes.npy", "w") as entry:
                    npy.write_array(entry, classes)
    return parts[0].count
