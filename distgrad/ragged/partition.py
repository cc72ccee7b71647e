"""How values lie in rows: ``row_splits``, an array of the host that says where each row begins.

Row ``i`` is the values from ``splits[i]`` to ``splits[i + 1]``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dtypes import as_dtype
from distgrad.core.errors import InvalidArgumentError


def integers(value: Any, dtype: Any = None) -> np.ndarray:
    """A vector of int64 or, where it is one already, of int32. Raises ValueError for others."""
    own = getattr(value, "dtype", None)
    array = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    if array.dtype.kind not in "iu" and array.size:
        raise ValueError(f"rows are given by integers, not by {value!r}")
    if dtype is None:
        dtype = np.int32 if own is not None and own == np.int32 else np.int64
    return array.astype(as_dtype(dtype).numpy_dtype)


def of_lengths(lengths: np.ndarray) -> np.ndarray:
    """The splits of rows of these lengths."""
    splits = np.zeros(len(lengths) + 1, lengths.dtype)
    np.cumsum(lengths, out=splits[1:])
    return splits


def lengths_of(splits: np.ndarray) -> np.ndarray:
    return splits[1:] - splits[:-1]


def row_ids(splits: np.ndarray) -> np.ndarray:
    """The number of the row that each value lies in."""
    return np.repeat(np.arange(len(splits) - 1, dtype=splits.dtype), lengths_of(splits))


def of_row_ids(ids: np.ndarray, count: int | None = None) -> np.ndarray:
    """The splits for values whose rows have these numbers, which ascend."""
    if ids.ndim != 1 or (ids.size and (ids[0] < 0 or (np.diff(ids) < 0).any())):
        raise InvalidArgumentError(f"the numbers of rows must ascend from 0 on: {ids.tolist()}")
    rows = int(ids[-1]) + 1 if ids.size else 0
    if count is not None and count < rows:
        raise InvalidArgumentError(f"{count} rows are too few for one of the number {rows - 1}")
    sizes = np.bincount(ids, minlength=rows if count is None else count)
    return of_lengths(sizes.astype(ids.dtype))


def ranges(starts: Any, limits: Any, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """All numbers from each start to before its limit in one vector, and its splits."""
    starts, limits = np.broadcast_arrays(starts, limits)
    lengths = np.maximum(-((starts - limits) // step), 0)  # rounded up
    splits = of_lengths(lengths)
    within = np.arange(splits[-1]) - np.repeat(splits[:-1], lengths)
    return np.repeat(starts, lengths) + step * within, splits


def check(splits: np.ndarray, count: int) -> None:
    """Raises InvalidArgumentError unless the splits are those of rows of ``count`` values."""
    if splits.ndim != 1 or not splits.size:
        raise InvalidArgumentError(f"row_splits must be a vector that is not empty: {splits}")
    if splits[0] or (np.diff(splits) < 0).any() or splits[-1] != count:
        raise InvalidArgumentError(
            f"row_splits of {count} values must ascend from 0 to {count}: {splits.tolist()} do not"
        )
