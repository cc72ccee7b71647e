"""Products of matrices as calls of `gemm`, one or many at once, which threads share."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from distgrad.compile.llvm import pool
from distgrad.compile.llvm.blocks import (
    LANES,
    Code,
    Int,
    Walk,
    in_groups,
    panels,
    product,
    put,
    rows_at_once,
    scratch,
)
from distgrad.compile.llvm.gemm import COLUMNS, ROWS, depth, gemm, pack_columns, work
from distgrad.compile.llvm.loops import Native
from distgrad.compile.llvm.parts import TERMS, WORTH, Cut, Part, Shared, ranges, run

_FEWEST = 12, 16, 8  # rows, columns and terms of a product of many
_SMALL = 1 << 19  # terms of a product of many that is made from where its factors lie
_NARROW = 4  # columns of one that are too few for that


class Layout(NamedTuple):
    """How an array lies in memory; strides in bytes."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Lines(NamedTuple):
    """Whether a matrix lies transposed, and floats from one of its lines to the next."""

    transposed: bool
    apart: int


def _lines(matrix: Layout) -> _Lines | None:
    """None for a layout that is neither; the stride of an axis of length 1 says nothing."""
    (rows, columns), (row, column) = matrix
    row = max(row, 4 * columns) if rows == 1 else row
    column = 4 if columns == 1 else column
    if column == 4 and row % 4 == 0 and row >= 4 * columns:
        return _Lines(False, row // 4)
    if row == 4 and column % 4 == 0 and column >= 4 * rows:
        return _Lines(True, column // 4)
    return None


class _Kind(NamedTuple):
    """Products of one size, of matrices that lie alike."""

    flags: tuple[bool, bool]  # whether a and b lie transposed
    sizes: tuple[int, int, int]  # m, n, k
    apart: tuple[int, int, int]  # floats from one line to the next in a, b and c

    @property
    def cost(self) -> float:
        """Nanoseconds on one core, about."""
        return math.prod(self.sizes) / TERMS

    def numbers(self, m: int, n: int) -> tuple[int, ...]:
        """What the function is told of ``m`` rows and ``n`` columns of it."""
        k = self.sizes[2]
        return m, n, k, depth(k), *self.apart


def _kind(a: Layout, b: Layout, c: Layout) -> _Kind | None:
    """None where the function takes no matrices that lie so."""
    first, second, made = map(_lines, (a, b, c))
    if first is None or second is None or made is None or made.transposed:
        return None
    flags, (m, k) = (first.transposed, second.transposed), a.shape
    return _Kind(flags, (m, b.shape[1], k), (first.apart, second.apart, made.apart))


def one(a: Layout, b: Layout, c: Layout) -> Native | None:
    """The function of a, b, a place for their product and memory of ``work(n, k)`` bytes."""
    kind = _kind(a, b, c)
    return None if kind is None else _one(kind)


@functools.lru_cache(maxsize=1024)
def _one(kind: _Kind) -> Native:
    native, (m, n, _), (lda, ldb, ldc) = gemm(*kind.flags), kind.sizes, kind.apart
    of_row, of_column = 1 if kind.flags[0] else lda, ldb if kind.flags[1] else 1

    def into(count: int) -> list[Part]:
        down, across = _grid(m, n, count)
        return [
            Part(
                native,
                [(4 * top * of_row, 4 * left * of_column, 4 * (top * ldc + left))],
                kind.numbers(bottom - top, right - left),
                work(right - left, kind.sizes[2]),
            )
            for top, bottom in ranges(m, ROWS, down)
            for left, right in ranges(n, COLUMNS, across)
        ]

    cut = Cut(kind.cost, -(-m // ROWS) * -(-n // COLUMNS), into)
    return Native(native.address, kind.numbers(m, n), cut)


def _grid(m: int, n: int, count: int) -> tuple[int, int]:
    """Parts along rows and along columns: those that copy the least of the matrices."""

    def copied(down: int) -> float:
        across = count // down
        if down * ROWS > m or across * COLUMNS > n:
            return math.inf
        return down / m + across / n

    down = min((d for d in range(1, count + 1) if count % d == 0), key=copied)
    return down, count // down


def many(a: Layout, b: Layout, c: Layout) -> Shared | None:
    """A function as that of ``one`` for products of the last two axes, of ``nbytes`` to work in.

    None where one by one they are better left to BLAS.
    """
    kind = _kind(*(Layout(x.shape[-2:], x.strides[-2:]) for x in (a, b, c)))
    if kind is None:
        return None
    if math.prod(kind.sizes) <= _SMALL:
        if kind.sizes[1] < _NARROW:
            return None
        native, room = _small(kind), _small_room(kind)
        numbers: tuple[int, ...] = ()
    elif any(size < least for size, least in zip(kind.sizes, _FEWEST, strict=True)):
        return None
    else:
        native, room = gemm(*kind.flags), work(*kind.sizes[1:])
        numbers = kind.numbers(*kind.sizes[:2])
    lead = c.shape[:-2]
    if 0 in lead:
        return None
    moves = np.zeros((3, len(lead)), np.int64)
    for line, x in zip(moves, (a, b, c), strict=True):
        own = [0 if n == 1 else s for n, s in zip(x.shape[:-2], x.strides[:-2], strict=True)]
        line[len(lead) - len(own) :] = own
    places = np.indices(lead).reshape(len(lead), -1).T @ moves.T

    def into(count: int) -> list[Part]:
        return [
            Part(native, list(map(tuple, places[start:stop].tolist())), numbers, room)
            for start, stop in ranges(len(places), 1, count)
        ]

    return Shared(Cut(len(places) * kind.cost, len(places), into).parts() or into(1))


def _small_room(kind: _Kind) -> int:
    """Bytes that the panels of a matrix that lies transposed take, with what is behind them."""
    _, n, k = kind.sizes
    return 4 * (-(-n // COLUMNS) * COLUMNS * (k + LANES)) if kind.flags[1] else 0


@functools.lru_cache(maxsize=1024)
def _small(kind: _Kind) -> Native:
    """The function of a, b, a place for their product, and memory to work in.

    A small matrix stays in the cache: only one that lies transposed is copied.
    """
    (m, n, k), (lda, ldb, ldc) = kind.sizes, kind.apart
    (ta, tb), copied = kind.flags, ["work"] if kind.flags[1] else []
    code = Code(["a", "b", "c", *copied], [])
    if tb:
        pack_columns(code, "%b", "%work", n, k, str(ldb), True)
    across = _panels(code, n) if tb else panels(code, n)
    for column, width in across:
        right = code.at("%work", code.mul(column, k)) if tb else code.at("%b", column)
        walk = Walk(k, lda if ta else 1, COLUMNS if tb else ldb)

        def write(row: Int, rows: int, column=column, width=width, right=right, walk=walk) -> None:
            step = 1 if ta else lda
            left = code.at("%a", code.mul(row, step))
            sums = product(code, [r * step for r in range(rows)], width, left, right, [walk])
            put(code, code.at("%c", code.add(code.mul(row, ldc), column)), ldc, width, sums)

        in_groups(code, m, rows_at_once(width), write)
    return code.native()


def _panels(code: Code, n: int) -> Iterator[tuple[Int, int]]:
    """The panels that a matrix is copied to: where each starts, and its columns."""
    whole = n // COLUMNS * COLUMNS
    if whole:
        with code.loop(whole, COLUMNS) as column:
            yield column, COLUMNS
    if n > whole:
        yield whole, n - whole


# On arrays


def multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> bool:
    """Writes the product of two matrices to ``out``; False where they do not lie as it needs."""
    native = one(*(Layout(x.shape, x.strides) for x in (a, b, out)))
    if native is None:
        return False
    run(native, a, b, out, scratch(work(out.shape[1], a.shape[1])))
    return True


def multiply_many(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> bool:
    """The same for all products of the last two axes; also False where BLAS is better."""
    made = _many(pool.threads(), *(Layout(x.shape, x.strides) for x in (a, b, out)))
    if made is None:
        return False
    made(a, b, out, scratch(made.nbytes))
    return True


@functools.lru_cache(maxsize=1024)
def _many(_threads: int, *layouts: Layout) -> Shared | None:
    return many(*layouts)


def shared(m: int, n: int, k: int) -> bool:
    """Whether threads share a product of this size that is made eagerly."""
    return m * n * k / TERMS > WORTH and pool.threads() > 1
