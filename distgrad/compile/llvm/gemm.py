"""Matrix products in machine code (Goto and van de Geijn, "Anatomy of high-performance matrix
multiplication", 2008): panels of B in the second-level cache, of A in the first, sums in registers.

An element of the result adds its terms one after the other, by blocks of ``k`` that depend on the
number of terms alone: a row has the same bits whatever other rows there are, and how many.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from distgrad.compile.llvm.blocks import LANES, VECTOR, Code, Int, Walk, product
from distgrad.compile.llvm.loops import Native

ROWS = 12  # of a tile
_TAILS = (8, 4, 2, 1)  # for the rows that are left over
COLUMNS = 2 * LANES  # of a tile
_DEPTH = 256  # terms in a block, at most
_WIDE = 512  # columns of B that are packed at a time
_APART = _DEPTH + LANES  # floats from one packed row of A to the next

_PACKED = _DEPTH * _WIDE  # floats of B that are packed at a time, at most
_PANEL = max(ROWS * _APART, _DEPTH * LANES)  # floats of a panel of A

_INDICES = "<" + ", ".join(f"i32 {i}" for i in range(LANES)) + ">"
_MASK = f"<{LANES} x i1>"


def depth(k: int) -> int:
    """How many of ``k`` terms a block has."""
    blocks = -(-k // _DEPTH)
    return -(-k // blocks)


def work(n: int, k: int) -> int:
    """Bytes that a product with ``n`` columns and ``k`` terms works in."""
    columns = min(-(-n // COLUMNS) * COLUMNS, _WIDE)
    return 4 * (_PANEL + min(k * columns, _PACKED) + LANES * COLUMNS)


@functools.cache
def gemm(transpose_a: bool, transpose_b: bool) -> Native:
    """``c = a @ b`` for float32 matrices.

    Of pointers a, b, c and work, and of numbers m, n, k, ``depth(k)`` and the distances from one
    row to the next in a, b and c, as they lie in memory: a transposed ``a`` lies as ``[k, m]``.
    """
    code = Code(["a", "b", "c", "work"], ["m", "n", "k", "depth", "lda", "ldb", "ldc"])
    columns = code.at("%work", _PANEL)
    with code.loop("%n", _WIDE) as left:
        width = code.smaller(_minus(code, "%n", left), _WIDE)
        padded = code.op(f"and i64 {code.add(width, COLUMNS - 1)}, {-COLUMNS}")
        together = _blocks_together(code, padded, transpose_a)
        with code.loop("%k", together) as start:
            group = code.smaller(_minus(code, "%k", start), together)

            def block(inner: str, start: Int = start, group: Int = group) -> _Block:
                terms = code.smaller(_minus(code, group, inner), "%depth")
                panels = code.at(columns, _times(code, padded, inner))
                first = str(code.add(start, inner))
                return _Block(code, transpose_a, panels, left, width, first, terms)

            with code.loop(group, "%depth") as inner:
                block(inner).pack_columns(transpose_b)
            whole = _minus(code, "%m", code.op(f"urem i64 %m, {ROWS}"))
            with code.loop(whole, ROWS) as top, code.loop(group, "%depth") as inner:
                rows = block(inner)
                rows.pack(top, ROWS)
                rows.tiles(top, 0, ROWS)
            over = _minus(code, "%m", whole)
            with code.loop(group, "%depth") as inner:
                block(inner).rest(whole, over)
    return code.native()


def _blocks_together(code: Code, columns: str, transposed: bool) -> str:
    """Terms of the blocks that rows of A, once they are read, are multiplied with.

    All blocks whose panels of B fit in the cache: A is read from memory line by line then. One that
    lies transposed is read across its lines, by a block of them at a time.
    """
    if transposed:
        return "%depth"
    fit = code.op(f"udiv i64 {_PACKED}, {_times(code, columns, '%depth')}")
    return str(_times(code, fit, "%depth"))


def _minus(code: Code, a: Int, b: Int) -> str:
    return code.op(f"sub nsw i64 {a}, {b}")


def _times(code: Code, a: Int, b: Int) -> Int:
    return 0 if 0 in (a, b) else code.op(f"mul nsw i64 {a}, {b}")


def _place(code: Code, row: Int, column: Int, stride: str, transposed: bool) -> Int:
    """Where an element of a matrix lies."""
    if transposed:
        row, column = column, row
    return code.add(_times(code, row, stride), column)


def _first_lanes(code: Code, count: Int) -> str:
    """The mask of the first ``count`` lanes."""
    clipped = code.smaller(count, LANES)
    if isinstance(clipped, int):
        narrow = str(clipped)
    else:
        narrow = code.op(f"trunc i64 {clipped} to i32")
    one = code.op(f"insertelement <{LANES} x i32> poison, i32 {narrow}, i64 0")
    spread = code.op(
        f"shufflevector <{LANES} x i32> {one}, <{LANES} x i32> poison, "
        f"<{LANES} x i32> zeroinitializer"
    )
    return code.op(f"icmp slt <{LANES} x i32> {_INDICES}, {spread}")


def _load(code: Code, pointer: str, mask: str) -> str:
    return code.op(
        f"call {VECTOR} @llvm.masked.load.v{LANES}f32.p0(ptr {pointer}, i32 4, {_MASK} {mask}, "
        f"{VECTOR} zeroinitializer)"
    )


def _store(code: Code, value: str, pointer: str, mask: str) -> None:
    code.do(
        f"call void @llvm.masked.store.v{LANES}f32.p0({VECTOR} {value}, ptr {pointer}, i32 4, "
        f"{_MASK} {mask})"
    )


def pack_columns(
    code: Code, b: str, columns: str, width: Int, terms: Int, apart: str, transposed: bool
) -> None:
    """Panels of 32 columns: for each term its columns side by side, zeros beyond the last one.

    ``apart``: floats from one line of ``b`` to the next.
    """
    with code.loop(width, COLUMNS) as left:
        panel = code.at(columns, _times(code, left, terms))
        for half in (0, LANES):
            at = code.add(left, half)
            target = code.at(panel, half)
            lanes = _minus(code, width, at)
            if not transposed:
                mask = _first_lanes(code, lanes)
                source = code.at(b, at)
                with code.loop(terms) as k:
                    value = _load(code, code.at(source, _times(code, k, apart)), mask)
                    code.store(value, code.at(target, code.mul(k, COLUMNS)))
                continue
            with code.loop(terms, LANES) as k:
                mask = _first_lanes(code, _minus(code, terms, k))
                lines = []
                for i in range(LANES):
                    column = code.add(at, i)
                    there = code.below(column, width)
                    # A column that is not there is read from the first, and then left out.
                    column = code.op(f"select i1 {there}, i64 {column}, i64 0")
                    source = code.at(b, code.add(_times(code, column, apart), k))
                    value = _load(code, source, mask)
                    lines.append(
                        code.op(f"select i1 {there}, {VECTOR} {value}, {VECTOR} zeroinitializer")
                    )
                for i, line in enumerate(_transposed(code, lines)):
                    # Terms beyond the last are written over by the next panel, or lie behind it.
                    code.store(line, code.at(target, code.mul(code.add(k, i), COLUMNS)))


def _transposed(code: Code, lines: list[str]) -> list[str]:
    """A square of 16 x 16: at each stage halves of two lines change places."""
    lines = list(lines)
    for s in (8, 4, 2, 1):
        for i in range(LANES):
            if i & s:
                continue
            a, b = lines[i], lines[i + s]
            low = [lane if not lane & s else LANES + lane - s for lane in range(LANES)]
            high = [lane + s if not lane & s else LANES + lane for lane in range(LANES)]
            lines[i], lines[i + s] = (_shuffle(code, a, b, order) for order in (low, high))
    return lines


def _shuffle(code: Code, a: str, b: str, order: list[int]) -> str:
    lanes = ", ".join(f"i32 {lane}" for lane in order)
    return code.op(f"shufflevector {VECTOR} {a}, {VECTOR} {b}, <{LANES} x i32> <{lanes}>")


class _Block:
    """One block of terms and columns: the code for its tiles."""

    def __init__(
        self,
        code: Code,
        transposed: bool,
        columns: str,
        left: str,
        width: Int,
        first: str,
        terms: Int,
    ) -> None:
        self._code, self._transposed = code, transposed
        self._rows, self._columns = "%work", columns
        self._left, self._width, self._first, self._terms = left, width, first, terms

    def pack_columns(self, transposed: bool) -> None:
        """Copies the block of B."""
        b = self._code.at("%b", _place(self._code, self._first, self._left, "%ldb", transposed))
        pack_columns(self._code, b, self._columns, self._width, self._terms, "%ldb", transposed)

    def pack(self, top: Int, count: Int) -> None:
        """Copies rows of A to where they do not get into each other's way in the cache."""
        code = self._code
        source = code.at("%a", _place(code, top, self._first, "%lda", self._transposed))
        if self._transposed:
            mask = _first_lanes(code, count)
            with code.loop(self._terms) as k:
                value = _load(code, code.at(source, _times(code, k, "%lda")), mask)
                # A walk across lines is foreseen by nobody: those of two tiles later are asked for.
                later = code.at(source, code.add(_times(code, k, "%lda"), 2 * ROWS))
                code.do(f"call void @llvm.prefetch.p0(ptr {later}, i32 0, i32 2, i32 1)")
                code.store(value, code.at(self._rows, code.mul(k, LANES)))
            return
        with code.loop(count) as row:
            line = code.at(source, _times(code, row, "%lda"))
            target = code.at(self._rows, code.mul(row, _APART))
            with code.loop(self._terms, LANES) as k:
                mask = _first_lanes(code, _minus(code, self._terms, k))
                code.store(_load(code, code.at(line, k), mask), code.at(target, k))

    def rest(self, top: str, over: str) -> None:
        """The rows that do not fill a tile: a larger tile of them first, then smaller ones."""
        code = self._code

        def pack() -> None:
            self.pack(top, over)
            done: Int = 0
            for count in _TAILS:
                fits = code.op(f"icmp ne i64 {code.op(f'and i64 {over}, {count}')}, 0")
                self._if(fits, functools.partial(self.tiles, top, done, count))
                done = code.add(done, code.op(f"and i64 {over}, {count}"))

        self._if(code.op(f"icmp ne i64 {over}, 0"), pack)

    def _if(self, condition: str, then: Callable[[], None]) -> None:
        self._code.choose(condition, then, lambda: None)

    def tiles(self, top: Int, done: Int, count: int) -> None:
        """``count`` rows, ``done`` of those packed later on, with all columns of the block."""
        code = self._code
        row = code.add(top, done)
        step = 1 if self._transposed else _APART
        a = code.at(self._rows, code.mul(done, step))
        offsets = [r * step for r in range(count)]
        walk = LANES if self._transposed else 1
        c = code.at("%c", code.add(_times(code, row, "%ldc"), self._left))
        with code.loop(self._width, COLUMNS) as left:
            panel = code.at(self._columns, _times(code, left, self._terms))
            there = _minus(code, self._width, left)
            narrow = code.op(f"icmp sle i64 {there}, {LANES}")
            target = code.at(c, left)

            def tile(columns: int, panel: str = panel, there: str = there, target: str = target):
                sums = product(code, offsets, columns, a, panel, [Walk(self._terms, walk, COLUMNS)])
                self._add(sums, target, there)

            code.choose(narrow, lambda: tile(LANES), lambda: tile(COLUMNS))

    def _add(self, sums: list[list[str]], target: str, there: str) -> None:
        code = self._code
        starts = range(0, len(sums[0]) * LANES, LANES)
        masks = [_first_lanes(code, _minus(code, there, start)) for start in starts]

        def write(add: bool) -> None:
            for r, line in enumerate(sums):
                out = code.at(target, _times(code, r, "%ldc") if r else 0)
                for value, start, mask in zip(line, starts, masks, strict=True):
                    place = code.at(out, start)
                    if add:
                        value = code.fadd(_load(code, place, mask), value)
                    _store(code, value, place, mask)

        is_first = code.op(f"icmp eq i64 {self._first}, 0")
        code.choose(is_first, lambda: write(False), lambda: write(True))
