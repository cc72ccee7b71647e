"""Squares of registers, and the transforms of Winograd's F(2 x 2, 3 x 3) on both sides of them."""

from __future__ import annotations

from distgrad.compile.llvm.blocks import VECTOR, Code, Int

Grid = list[list[str]]  # registers or pointers, by row and column


def square(code: Code, base: str, size: int, row: int, column: int) -> Grid:
    """Pointers of a square, a fixed way from each other."""
    return [[code.at(base, i * row + j * column) for j in range(size)] for i in range(size)]


def loaded(code: Code, pointers: Grid, start: Int, lanes: int) -> Grid:
    """The vectors that lie at pointers of a square, from element ``start`` of each on."""
    return [[code.load(code.at(p, start), lanes) for p in line] for line in pointers]


def stored(code: Code, values: Grid, pointers: Grid, start: Int, lanes: int) -> None:
    """Writes the vectors of a square where `loaded` would read them."""
    for line, ends in zip(values, pointers, strict=True):
        for value, pointer in zip(line, ends, strict=True):
            code.store(value, code.at(pointer, start), lanes)


def both_sides(grid: Grid, line: str, code: Code) -> Grid:
    """``L grid L^T`` for the matrix L called ``line``."""
    change = _LINES[line]
    columns = [change(code, column) for column in zip(*grid, strict=True)]
    return [change(code, row) for row in zip(*columns, strict=True)]


def _b_transposed(code: Code, d: tuple[str, ...]) -> list[str]:
    return [
        code.fsub(d[0], d[2]),
        code.fadd(d[1], d[2]),
        code.fsub(d[2], d[1]),
        code.fsub(d[1], d[3]),
    ]


def _b(code: Code, d: tuple[str, ...]) -> list[str]:
    return [
        d[0],
        code.fadd(code.fsub(d[1], d[2]), d[3]),
        code.fsub(code.fadd(d[1], d[2]), d[0]),
        code.op(f"fneg {VECTOR} {d[3]}"),
    ]


def _a_transposed(code: Code, m: tuple[str, ...]) -> list[str]:
    return [
        code.fadd(code.fadd(m[0], m[1]), m[2]),
        code.fsub(code.fsub(m[1], m[2]), m[3]),
    ]


def _a(code: Code, y: tuple[str, ...]) -> list[str]:
    return [y[0], code.fadd(y[0], y[1]), code.fsub(y[0], y[1]), code.op(f"fneg {VECTOR} {y[1]}")]


def _g(code: Code, w: tuple[str, ...]) -> list[str]:
    ends, middle = code.half(code.fadd(w[0], w[2])), code.half(w[1])
    return [w[0], code.fadd(ends, middle), code.fsub(ends, middle), w[2]]


def _g_transposed(code: Code, u: tuple[str, ...]) -> list[str]:
    sum_, difference = code.half(code.fadd(u[1], u[2])), code.half(code.fsub(u[1], u[2]))
    return [code.fadd(u[0], sum_), difference, code.fadd(sum_, u[3])]


_LINES = {
    "B^T": _b_transposed,
    "B": _b,
    "A^T": _a_transposed,
    "A": _a,
    "G": _g,
    "G^T": _g_transposed,
}
