"""Tables of arrays in the memory of a GPU, with which one launch works on all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# Elements that a block works on: so few that all blocks end together, and as many as make it worth
# a look at the table, but few arrays are divided among as many blocks as a large GPU has room for.
# With more of them Adam on 100 arrays of a million took longer on an H200: 0.672 ms with 1 << 10,
# 0.673, 0.681, 0.689 and 0.702 with 1 << 14; a copy of as many bytes takes 0.661.
LEAST, MOST = 1 << 10, 1 << 11
BLOCKS = 2048
_KEPT = 16  # tables that are kept, before all are forgotten


class Tables:
    """The tables of lists of arrays, for one namespace of CuPy.

    A table is int64: for each row of arrays their addresses and their size, then for each chunk of
    them the number of its row and its first element. It keeps no array.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._known: dict[tuple, tuple[Any, int, int]] = {}

    def of(self, arrays: Sequence[Any], width: int) -> tuple[Any, int, int] | None:
        """The table of rows of ``width`` arrays, one after the other; its chunks and their size.

        The last array of a row is only read. None where they are not flat arrays of one type of
        float, of one size in each row, or where one is written that lies where another one does:
        the order would matter.
        """
        # By lists, which take less time than a loop over arrays; strides take less than flags.
        dtype, sizes = arrays[0].dtype, [a.size for a in arrays]
        step, strides = (dtype.itemsize,), [a.strides for a in arrays]
        if dtype.char not in "fd" or [a.dtype for a in arrays].count(dtype) < len(arrays):
            return None
        if any(sizes[::width] != sizes[i::width] for i in range(1, width)):
            return None
        if strides.count(step) < len(arrays):  # which is well for empty ones
            steps = {s for s, size in zip(strides, sizes, strict=True) if size}
            if not steps <= {step}:
                return None
        places = [a.data.ptr for a in arrays]

        def made() -> tuple[np.ndarray, int, int] | None:
            rows = np.array(places, np.int64).reshape(-1, width)
            return _made(np.column_stack([rows, sizes[::width]]), dtype.itemsize)

        return self.kept((dtype, *sizes[::width], *places), made)

    def kept(
        self, key: tuple, make: Callable[[], tuple[np.ndarray, int, int] | None]
    ) -> tuple[Any, int, int] | None:
        """What ``make`` gives for a key, with its table on the device; None is not kept."""
        # A table belongs to the stream that it is copied on and read on: there nothing overtakes
        # the copy, and its memory is used again only after the kernels that read it.
        cuda = self._cupy.cuda
        key = cuda.runtime.getDevice(), cuda.get_current_stream().ptr, *key
        found = self._known.get(key)
        if found is None:
            made = make()
            if made is None:
                return None
            if len(self._known) >= _KEPT:
                self._known.clear()
            table, count, chunk = made
            found = self._known[key] = self._cupy.array(table), count, chunk
        return found


def _made(rows: np.ndarray, itemsize: int) -> tuple[np.ndarray, int, int] | None:
    if _meet(rows[rows[:, -1] > 0], itemsize):
        return None
    wanted = int(rows[:, -1].sum()) // (BLOCKS * LEAST) * LEAST
    chunk = min(max(wanted, LEAST), MOST)
    return chunked(rows, chunk)


def chunked(rows: np.ndarray, chunk: int) -> tuple[np.ndarray, int, int]:
    """Rows that end with a size, then the row and the first element of each chunk.

    Returns the table, how many chunks there are, and their size.
    """
    chunks = -(-rows[:, -1] // chunk)
    number = np.repeat(np.arange(len(rows)), chunks)
    start = (np.arange(len(number)) - (np.cumsum(chunks) - chunks)[number]) * chunk
    table = np.concatenate([rows.ravel(), np.column_stack([number, start]).ravel()])
    return table, len(number), chunk


def _meet(rows: np.ndarray, itemsize: int) -> bool:
    """Whether an array that is written lies where another one does."""
    ends = rows[:, :-1] + rows[:, -1:] * itemsize
    starts, stops = np.sort(rows[:, :-2], axis=None), np.sort(ends[:, :-1], axis=None)
    # Of those that are written, as many start before the end of one that is read as end there.
    begun, over = np.searchsorted(starts, ends[:, -1]), np.searchsorted(stops, rows[:, -2], "right")
    return bool((starts[1:] < stops[:-1]).any() or (begun != over).any())
