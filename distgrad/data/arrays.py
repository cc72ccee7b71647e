"""The jobs' sources of arrays that users have saved: ``.npz``, and ``.npy`` left on the disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.core.errors import DataError
from distgrad.data.mnist import KEYS as SPLIT_KEYS
from distgrad.data.npz import check_pairs, read_npz
from distgrad.data.source import ArraySource, Splits
from distgrad.data.splits import (
    TEST_FRACTION,
    as_inputs,
    as_targets,
    check_samples,
    drawn_rows,
    hold_out,
    own_parts,
    splits,
)


def load(spec: Mapping[str, Any], seed: int) -> Splits:
    """The arrays that a job's data section names; see `source.load`."""
    if spec["source"] == "npz":
        return _npz(spec["path"], spec.get("test_fraction"), seed)
    return _npy(spec, seed)


def _npz(path: str, test_fraction: float | None, seed: int) -> Splits:
    arrays = read_npz(path, SPLIT_KEYS, ("x", "y"))
    check_pairs(path, arrays)
    if "x" not in arrays:
        return own_parts(path, arrays)
    if test_fraction is None:
        raise DataError(f"{path} has x and y, no test part of its own: give data.test_fraction")
    x = as_inputs(f"{path}: x", arrays["x"])
    y = as_targets(f"{path}: y", arrays["y"])
    return hold_out(path, x, y, test_fraction, seed, raw_dtype=arrays["x"].dtype.name)


def _npy(spec: Mapping[str, Any], seed: int) -> Splits:
    x, y, scale = map_npy(spec["x"]), map_npy(spec["y"]), spec.get("scale", 1)
    check_pairs(spec["x"], {"x": x, "y": y})
    if spec.get("test_x") is None:
        fraction = spec.get("test_fraction", TEST_FRACTION)
        drawn = drawn_rows(spec["x"], y, fraction, seed)
        train, test = (MappedSource(spec["x"], x, y, rows=rows, scale=scale) for rows in drawn)
    else:
        test_x, test_y = map_npy(spec["test_x"]), map_npy(spec["test_y"])
        check_pairs(spec["test_x"], {"x": test_x, "y": test_y})
        train = MappedSource(spec["x"], x, y, scale=scale)
        test = MappedSource(spec["test_x"], test_x, test_y, scale=scale)
        check_samples(spec["x"], train, test)
    return splits(spec["x"], train, test, scale=float(scale), raw_dtype=x.dtype.name)


def map_npy(path: str | os.PathLike) -> np.ndarray:
    """The array of a ``.npy`` file, left on the disk: pages are read as they are used.

    Raises DataError for a file that is not one, or that holds other things than numbers.
    """
    path = Path(path).expanduser()
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path") from None
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as a .npy file of one plain array ({error}); "
            "write it again with numpy.save"
        ) from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is an .npz file of several arrays; use `source: npz`")
    if array.dtype.kind not in "fiub":
        raise DataError(f"{path} has dtype {array.dtype}; save numbers, not text or objects")
    return np.asarray(array)  # a plain view of the mapped file


class MappedSource(ArraySource):
    """Rows of ``x`` and ``y`` that are cast when they are taken: x to float32, over ``scale``.

    ``rows``, if given, are the samples that it has, in that order. Values are checked when they
    are taken, since a check of all would read the whole file: `take` raises DataError.
    """

    slow = True

    def __init__(
        self,
        name: str,
        x: np.ndarray,
        y: np.ndarray,
        *,
        rows: np.ndarray | None = None,
        scale: float = 1,
    ) -> None:
        super().__init__(x, y)
        self.name = name
        self.rows = rows
        self.scale = np.float32(scale)

    def __len__(self) -> int:
        return len(self.arrays[0]) if self.rows is None else len(self.rows)

    def take(self, rows: np.ndarray | slice) -> tuple[np.ndarray, ...]:
        """The rows as float32 and int32 (or float32) arrays; views of the file where they can be.

        They can where the rows are a slice and the file has that dtype and needs no scaling.
        """
        if self.rows is not None:
            rows = self.rows[rows]
        x, y = super().take(rows)
        x = as_inputs(f"{self.name}: x, in a batch", x)
        if self.scale != 1:
            x = x / self.scale
        return x, as_targets(f"{self.name}: y, in a batch", y)
