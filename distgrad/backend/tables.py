"""Tables of arrays in the memory of a GPU, with which one launch works on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

CHUNK = 1 << 14  # elements that a block works on: the blocks of 100 M parameters end together
_MOST = 16  # tables that are kept


class Tables:
    """The tables of lists of arrays, for one namespace of CuPy.

    A table is int64: for each row of arrays their addresses and their size, then for each chunk of
    them the number of its row and its first element. It keeps no array.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._known: dict[tuple, tuple[Any, int] | None] = {}

    def of(self, rows: Sequence[tuple]) -> tuple[Any, int] | None:
        """The table of rows of arrays, the last of which is only read, and its number of chunks.

        None where they are not flat arrays of one type of float, of one size in each row, or where
        one is written that lies where another one does: the order would matter.
        """
        dtype = rows[0][0].dtype
        steps = (dtype.itemsize,)  # to compare with them takes less time than to ask for flags
        places: list[int] = []
        for row in rows:
            size = row[0].size
            for array in row:
                if array.dtype != dtype or array.size != size:
                    return None
                if array.strides != steps and size:
                    return None
                places.append(array.data.ptr)
            places.append(size)
        # A table belongs to the stream that it is copied on and read on: there nothing overtakes
        # the copy, and its memory is used again only after the kernels that read it.
        cuda = self._cupy.cuda
        key = cuda.runtime.getDevice(), cuda.get_current_stream().ptr, dtype, *places
        if key not in self._known:
            while len(self._known) >= _MOST:
                del self._known[next(iter(self._known))]
            self._known[key] = self._made(places, len(rows), dtype)
        return self._known[key]

    def _made(self, places: list[int], count: int, dtype: np.dtype) -> tuple[Any, int] | None:
        rows = np.array(places, np.int64).reshape(count, -1)
        if dtype.char not in "fd" or _meet(rows[rows[:, -1] > 0], dtype.itemsize):
            return None
        chunks = -(-rows[:, -1] // CHUNK)
        number = np.repeat(np.arange(count), chunks)
        start = (np.arange(len(number)) - (np.cumsum(chunks) - chunks)[number]) * CHUNK
        table = np.concatenate([rows.ravel(), np.stack([number, start], 1).ravel()])
        return self._cupy.asarray(table), len(number)


def _meet(rows: np.ndarray, itemsize: int) -> bool:
    """Whether an array that is written lies where another one does."""
    ends = rows[:, :-1] + rows[:, -1:] * itemsize
    starts, stops = np.sort(rows[:, :-2], axis=None), np.sort(ends[:, :-1], axis=None)
    # Of those that are written, as many start before the end of one that is read as end there.
    begun, over = np.searchsorted(starts, ends[:, -1]), np.searchsorted(stops, rows[:, -2], "right")
    return bool((starts[1:] < stops[:-1]).any() or (begun != over).any())
