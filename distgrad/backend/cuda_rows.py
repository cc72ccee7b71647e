"""Rows put together by their index on CUDA: batches, gradients of gathers, largest of segments.

CuPy's ``add.at`` adds up in an order that changes from run to run, its ``maximum.at`` rounds
doubles to floats, and neither takes every dtype: these kernels stand in their places.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.backend.cuda_launch import FLAT, TYPES, Launcher, numbers
from distgrad.backend.sent import Picked
from distgrad.backend.tables import Tables, chunked

SOURCE = "rows.cu"
# Indices that are read, all of them for each row. Where they would be more, rows have lists, which
# takes four launches more. A guess: a GPU reads so many in about the time of these.
LISTED = 1 << 22
_WORDS = (16, 4, 1)  # bytes that a thread copies at a time, the most that fit
_CHUNK = 512  # words that a block copies: two for each thread


def listed(rows: int, count: int) -> int:
    """How many numbers the lists of ``count`` indices of ``rows`` rows take; 0 without lists."""
    return 2 * rows + 1 + count if rows * count > LISTED and max(rows, count) < 1 << 30 else 0


_ANY = np.dtype(np.int64)  # of kernels that look at bytes alone


def _table(parts: Sequence[tuple[int, Picked]], start: int) -> tuple[np.ndarray, int, int]:
    """What ``pick_rows`` reads, for parts whose first rows are counted from ``start``."""
    found = []
    for place, rows in parts:
        source, count, nbytes = rows.source, len(rows), rows.source.strides[0]
        word = next(w for w in _WORDS if not (place | source.data.ptr | nbytes) % w)
        first, words = rows.start - start, nbytes // word
        found.append((place, source.data.ptr, word, first, words, count * words))
    return chunked(np.array(found, np.int64), _CHUNK)


class Rows:
    """The kernels of ``rows.cu``, for one namespace of CuPy."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._launch, self._tables = Launcher(cupy, SOURCE), Tables(cupy)
        self.by_primitive: dict[str, Callable[..., Any]] = {
            "take_grad": self._take_grad,
            "put_max": functools.partial(self._extreme, "largest_rows"),
            "put_min": functools.partial(self._extreme, "smallest_rows"),
        }

    def pick(self, parts: Sequence[tuple[int, Picked]]) -> None:
        """Puts rows together by one launch, each part at an address; all of one order."""
        order, start = parts[0][1].order, parts[0][1].start
        key = tuple(
            (at, rows.source.data.ptr, rows.source.strides[0], rows.start - start, len(rows))
            for at, rows in parts
        )
        found = self._tables.kept(key, lambda: _table(parts, start))
        assert found is not None
        table, blocks, chunk = found
        numbers = 0 if order is None else order  # 0: a null pointer
        self._launch("pick_rows", _ANY, blocks, FLAT, table, len(parts), chunk, numbers, start)

    def add(self, out: Any, g: Any, indices: Any, lists: Any = None) -> None:
        """Rows of ``g`` added up by their ``indices``, int64; all of them contiguous.

        ``lists`` is memory of ``listed`` numbers, int32; without it some is asked for.
        """
        self._whole_rows("add_rows", out, g, indices, lists=lists)

    def add_at(self, array: Any, positions: tuple[Any, ...], values: Any) -> None:
        """As ``numpy.add.at(array, positions, values)`` for positions that lie in the array."""
        depth, cupy = len(positions), self._cupy
        shape, rest = array.shape[:depth], array.shape[depth:]
        places = cupy.zeros((), np.int64)
        for size, position in zip(shape, positions, strict=True):
            places = places * size + position
        given = cupy.broadcast_to(values, (*places.shape, *rest)).astype(array.dtype, copy=False)
        added = self._take_grad(None, given, places, shape=(math.prod(shape), *rest), axis=0)
        array += added.reshape(array.shape)

    def _take_grad(
        self, plain: Any, g: Any, indices: Any, *, shape: tuple[int, ...], axis: int
    ) -> Any:
        rows, before, after = shape[axis], math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        each = g.reshape(before, indices.size, after).swapaxes(0, 1)
        values = self._numbers(each, g.dtype)
        out = self._cupy.empty((rows, *values.shape[1:]), values.dtype)
        if out.size:
            self.add(out, values, numbers(self._cupy, indices))
        made = out.view(g.dtype) if g.dtype.kind == "c" else out.astype(g.dtype, copy=False)
        return self._cupy.ascontiguousarray(made.swapaxes(0, 1)).reshape(shape)

    def _extreme(self, name: str, plain: Any, x: Any, updates: Any, rows: Any) -> Any:
        if x.dtype.name == "uint64":
            return plain(x, updates, rows)
        start = self._numbers(x, x.dtype)
        values = self._numbers(updates, x.dtype)
        out = self._cupy.empty(start.shape, start.dtype)
        if out.size:
            self._whole_rows(name, out, start, values, numbers(self._cupy, rows))
        return out.astype(x.dtype, copy=False)

    def _whole_rows(self, name: str, out: Any, *given: Any, lists: Any = None) -> None:
        """``given``: arrays, the last of which has the indices."""
        rows, indices = out.shape[0], given[-1]
        width, count = out.size // rows, indices.size
        room = listed(rows, count)
        if not room:
            lists = 0  # a null pointer
        else:
            lists = self._cupy.empty(room, np.int32) if lists is None else lists
            by_row, by_index = (-(-n // FLAT) for n in (rows + 1, count))
            self._launch("clear_lists", out.dtype, by_row, FLAT, lists, rows)
            self._launch("measure_lists", out.dtype, by_index, FLAT, lists, indices, count, rows)
            self._launch("begin_lists", out.dtype, by_row, FLAT, lists, rows)
            self._launch("fill_lists", out.dtype, by_index, FLAT, lists, indices, count, rows)
        blocks = rows * -(-width // FLAT)
        self._launch(name, out.dtype, blocks, FLAT, out, *given, lists, count, width, rows)

    def _numbers(self, array: Any, dtype: np.dtype) -> Any:
        """The array, contiguous, in a type of the kernels that holds the numbers of ``dtype``."""
        whole = self._cupy.ascontiguousarray(array)
        if dtype.kind == "c":
            return whole.view(np.float32 if dtype.name == "complex64" else np.float64)
        if dtype.name not in TYPES:
            whole = whole.astype(np.int64 if dtype.kind in "iub" else np.float32)
        return whole
