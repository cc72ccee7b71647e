"""Functions in LLVM's assembly language with loops, branches and vectors of 16 floats.

For kernels that are more than one loop over elements. What a function computes does not depend on
how wide the CPU's vectors are: lanes never meet, and additions stand in the order of the text.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from distgrad.compile import memory
from distgrad.compile.llvm import engine
from distgrad.compile.llvm.ir import module
from distgrad.compile.llvm.loops import Native

LANES = 16
VECTOR = f"<{LANES} x float>"
_BITS = f"<{LANES} x i1>"
_BYTES = f"<{LANES} x i8>"
Int = int | str  # a number, or the register that holds one
Offsets = Sequence[int]


class Code:
    """The text of one function; registers and labels are numbered.

    Pointers point to floats, and offsets count them.
    """

    def __init__(self, pointers: Sequence[str], numbers: Sequence[str]) -> None:
        self._pointers = pointers
        self._numbers = numbers
        self._lines: list[str] = []
        self._slots: list[str] = []
        self._count = 0
        self._label = "start"

    def op(self, text: str) -> str:
        """The register that holds the result of an operation."""
        self._count += 1
        name = f"%r{self._count}"
        self._lines.append(f"  {name} = {text}")
        return name

    def do(self, text: str) -> None:
        """An operation without a result."""
        self._lines.append(f"  {text}")

    def _open(self, name: str) -> str:
        """A label for a block that starts later."""
        self._count += 1
        return f"{name}{self._count}"

    def _start(self, label: str) -> None:
        self._lines.append(f"{label}:")
        self._label = label

    def _go(self, label: str) -> None:
        self._lines.append(f"  br label %{label}")

    # Control

    @contextmanager
    def loop(self, stop: Int, step: Int = 1) -> Iterator[str]:
        """Code for every ``step``-th number from 0 to ``stop``."""
        head, body, latch, done = (self._open(n) for n in ("head", "body", "latch", "done"))
        before, next_ = self._label, f"%{latch}.next"
        self._go(head)
        self._start(head)
        i = self.op(f"phi i64 [ 0, %{before} ], [ {next_}, %{latch} ]")
        more = self.op(f"icmp slt i64 {i}, {stop}")
        self._lines.append(f"  br i1 {more}, label %{body}, label %{done}")
        self._start(body)
        yield i
        self._go(latch)
        self._start(latch)
        self._lines.append(f"  {next_} = add nsw i64 {i}, {step}")
        self._go(head)
        self._start(done)

    def choose(self, condition: str, then: Callable[[], None], other: Callable[[], None]) -> None:
        """One of two pieces of code."""
        yes, no, done = (self._open(n) for n in ("yes", "no", "done"))
        self._lines.append(f"  br i1 {condition}, label %{yes}, label %{no}")
        for label, write in ((yes, then), (no, other)):
            self._start(label)
            write()
            self._go(done)
        self._start(done)

    # Whole numbers

    def add(self, a: Int, b: Int) -> Int:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        return a if b == 0 else b if a == 0 else self.op(f"add nsw i64 {a}, {b}")

    def mul(self, a: Int, b: int) -> Int:
        return a * b if isinstance(a, int) else a if b == 1 else self.op(f"mul nsw i64 {a}, {b}")

    def times(self, a: Int, b: Int) -> Int:
        """A product of two numbers of which neither may be known."""
        if isinstance(b, int):
            return self.mul(a, b)
        if isinstance(a, int):
            return self.mul(b, a)
        return self.op(f"mul nsw i64 {a}, {b}")

    def divmod(self, a: Int, b: int) -> tuple[Int, Int]:
        """Quotient and remainder of a number that is not negative."""
        if isinstance(a, int):
            return divmod(a, b)
        return (a, 0) if b == 1 else (self.op(f"udiv i64 {a}, {b}"), self.op(f"urem i64 {a}, {b}"))

    def smaller(self, a: Int, b: Int) -> Int:
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self.op(f"select i1 {self.below(a, b)}, i64 {a}, i64 {b}")

    def below(self, a: Int, b: Int) -> str:
        return self.op(f"icmp slt i64 {a}, {b}")

    def within(self, a: Int, size: int) -> str:
        """Whether a number lies in [0, size)."""
        return self.op(f"icmp ult i64 {a}, {size}")

    def both(self, a: str, b: str) -> str:
        return self.op(f"and i1 {a}, {b}")

    # Memory

    def at(self, pointer: str, offset: Int) -> str:
        return (
            pointer if offset == 0 else self.op(f"getelementptr float, ptr {pointer}, i64 {offset}")
        )

    def pick(self, condition: str, pointer: str, other: str) -> str:
        return self.op(f"select i1 {condition}, ptr {pointer}, ptr {other}")

    def load(self, pointer: str, lanes: int = LANES) -> str:
        """The first ``lanes`` floats from a pointer on, and zeros behind them."""
        if lanes == LANES:
            return self.op(f"load {VECTOR}, ptr {pointer}, align 4")
        return self.op(
            f"call {VECTOR} @llvm.masked.load.v{LANES}f32.p0(ptr {pointer}, i32 4, "
            f"<{LANES} x i1> {mask(lanes)}, {VECTOR} zeroinitializer)"
        )

    def store(self, value: str, pointer: str, lanes: int = LANES) -> None:
        if lanes == LANES:
            self._lines.append(f"  store {VECTOR} {value}, ptr {pointer}, align 4")
            return
        self._lines.append(
            f"  call void @llvm.masked.store.v{LANES}f32.p0({VECTOR} {value}, ptr {pointer}, "
            f"i32 4, <{LANES} x i1> {mask(lanes)})"
        )

    def byte_at(self, pointer: str, offset: Int) -> str:
        return self.op(f"getelementptr i8, ptr {pointer}, i64 {offset}")

    def load_bytes(self, pointer: str, lanes: int = LANES) -> str:
        """As ``load``, small whole numbers."""
        if lanes == LANES:
            return self.op(f"load {_BYTES}, ptr {pointer}, align 1")
        return self.op(
            f"call {_BYTES} @llvm.masked.load.v{LANES}i8.p0(ptr {pointer}, i32 1, "
            f"<{LANES} x i1> {mask(lanes)}, {_BYTES} zeroinitializer)"
        )

    def store_bytes(self, value: str, pointer: str, lanes: int = LANES) -> None:
        if lanes == LANES:
            self._lines.append(f"  store {_BYTES} {value}, ptr {pointer}, align 1")
            return
        self._lines.append(
            f"  call void @llvm.masked.store.v{LANES}i8.p0({_BYTES} {value}, ptr {pointer}, "
            f"i32 1, <{LANES} x i1> {mask(lanes)})"
        )

    def byte_where(self, bits: str, a: str, b: str) -> str:
        return self.op(f"select {_BITS} {bits}, {_BYTES} {a}, {_BYTES} {b}")

    def is_byte(self, a: str, number: int) -> str:
        return self.op(f"icmp eq {_BYTES} {a}, splat (i8 {number})")

    def spread(self, pointer: str) -> str:
        """One float in all lanes."""
        return self.all_lanes(self.op(f"load float, ptr {pointer}, align 4"))

    def all_lanes(self, one: str) -> str:
        """A float in all lanes."""
        first = self.op(f"insertelement {VECTOR} poison, float {one}, i64 0")
        return self.op(
            f"shufflevector {VECTOR} {first}, {VECTOR} poison, <{LANES} x i32> zeroinitializer"
        )

    def move(self, source: str, target: str) -> None:
        """One float from one place to another."""
        one = self.op(f"load float, ptr {source}, align 4")
        self._lines.append(f"  store float {one}, ptr {target}, align 4")

    def slot(self) -> str:
        """A place for a vector that changes in a loop; LLVM keeps it in a register."""
        self._count += 1
        name = f"%slot{self._count}"
        self._slots.append(f"  {name} = alloca {VECTOR}")
        return name

    def number_slot(self) -> str:
        """A place for a whole number that changes in a loop."""
        self._count += 1
        name = f"%slot{self._count}"
        self._slots.append(f"  {name} = alloca i64")
        return name

    def number(self, pointer: str) -> str:
        return self.op(f"load i64, ptr {pointer}")

    def number_at(self, pointer: str, index: Int) -> str:
        """One of the whole numbers in an array."""
        return self.number(self.op(f"getelementptr i64, ptr {pointer}, i64 {index}"))

    def set_number(self, value: Int, pointer: str) -> None:
        self._lines.append(f"  store i64 {value}, ptr {pointer}")

    # Vectors

    def fadd(self, a: str, b: str) -> str:
        return self.op(f"fadd {VECTOR} {a}, {b}")

    def fsub(self, a: str, b: str) -> str:
        return self.op(f"fsub {VECTOR} {a}, {b}")

    def half(self, a: str) -> str:
        return self.op(f"fmul {VECTOR} {a}, splat (float 0.5)")

    def fdiv(self, a: str, b: str) -> str:
        return self.op(f"fdiv {VECTOR} {a}, {b}")

    def fmax(self, a: str, b: str) -> str:
        """The larger of two, and a NaN where there is one; ``a`` where they are equal."""
        first = self.op(f"fcmp oge {VECTOR} {a}, {b}")
        return self.where(self.op(f"or {_BITS} {first}, {self.is_nan(a)}"), a, b)

    def is_nan(self, a: str) -> str:
        return self.op(f"fcmp uno {VECTOR} {a}, {a}")

    def equal(self, a: str, b: str) -> str:
        """One bit for each lane, where two are equal."""
        return self.op(f"fcmp oeq {VECTOR} {a}, {b}")

    def positive(self, a: str) -> str:
        return self.op(f"fcmp ogt {VECTOR} {a}, zeroinitializer")

    def less(self, a: str, b: str) -> str:
        """The bits of ``a`` that are not in ``b``."""
        return self.op(f"and {_BITS} {a}, {self.op(f'xor {_BITS} {b}, splat (i1 true)')}")

    def either(self, a: str, b: str) -> str:
        return self.op(f"or {_BITS} {a}, {b}")

    def where(self, bits: str, a: str, b: str) -> str:
        return self.op(f"select {_BITS} {bits}, {VECTOR} {a}, {VECTOR} {b}")

    def fma(self, a: str, b: str, c: str) -> str:
        """``a * b + c``, rounded once."""
        return self.op(
            f"call {VECTOR} @llvm.fma.v{LANES}f32({VECTOR} {a}, {VECTOR} {b}, {VECTOR} {c})"
        )

    def native(self, *numbers: int) -> Native:
        """The function, compiled; it takes its pointers and then its numbers in one table.

        ``numbers`` are those that it is always called with.
        """
        body = [*self._slots, *self._lines]
        text = module(_DECLARED, self._pointers, self._numbers, body)
        return Native(engine.address(text, "entry", vectorize=False), numbers)


_DECLARED = [
    f"declare {VECTOR} @llvm.fma.v{LANES}f32({VECTOR}, {VECTOR}, {VECTOR})",
    f"declare {VECTOR} @llvm.masked.load.v{LANES}f32.p0(ptr, i32, <{LANES} x i1>, {VECTOR})",
    f"declare void @llvm.masked.store.v{LANES}f32.p0({VECTOR}, ptr, i32, <{LANES} x i1>)",
    "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
    f"declare {_BYTES} @llvm.masked.load.v{LANES}i8.p0(ptr, i32, {_BITS}, {_BYTES})",
    f"declare void @llvm.masked.store.v{LANES}i8.p0({_BYTES}, ptr, i32, {_BITS})",
]


def mask(lanes: int) -> str:
    """The first ``lanes`` of a vector's lanes."""
    return "<" + ", ".join(f"i1 {'true' if i < lanes else 'false'}" for i in range(LANES)) + ">"


def vectors(size: int) -> Iterator[tuple[int, int]]:
    """Where each vector of ``size`` floats starts, and how many of its lanes there are."""
    for start in range(0, size, LANES):
        yield start, min(LANES, size - start)


def each_vector(code: Code, size: Int, write: Callable[[Int, int], None]) -> None:
    """``write(start, lanes)`` for each vector of ``size`` floats, as a loop and a rest.

    The rest of a size that only the call knows is written one by one.
    """
    if isinstance(size, str):
        full = code.op(f"and i64 {size}, {-LANES}")
        with code.loop(full, LANES) as start:
            write(start, LANES)
        with code.loop(code.op(f"sub i64 {size}, {full}")) as rest:
            write(code.add(full, rest), 1)
        return
    whole = size // LANES * LANES
    if whole:
        with code.loop(whole, LANES) as start:
            write(start, LANES)
    if size > whole:
        write(whole, size - whole)


def panel(size: int, most: int = 4) -> int:
    """The floats of the panels in which ``size`` floats are made: up to ``most`` vectors.

    There are fewer where the CPU has fewer registers: that decides what is made at a time, and not
    in which order anything is added.
    """
    return min(size, (most if engine.has("avx512f") else 1) * LANES)


def panels(code: Code, size: int, most: int = 4) -> Iterator[tuple[Int, int]]:
    """Where each panel starts, and its floats: many of them in a loop, few one after the other."""
    width = panel(size, most)
    whole = size // width * width
    if whole > width:  # LLVM takes a second for what a thousand channels would be without
        with code.loop(whole, width) as start:
            yield start, width
    else:
        for first in range(0, whole, width):
            yield first, width
    if size > whole:
        yield whole, size - whole


class Walk:
    """One of the nested loops over the terms of a product: how often, and the steps in each."""

    def __init__(self, count: Int, a: int, b: int) -> None:
        self.count, self.a, self.b = count, a, b


def product(
    code: Code,
    rows: Offsets,
    width: int,
    a: str,
    b: str,
    walks: Sequence[Walk],
    paired: bool = False,
) -> list[list[str]]:
    """Sums over the walks of ``a[row + ...] * b[column + ...]``, all in registers.

    Gives vectors ``[row][vector of columns]``. Each sum adds its terms one after the other. With
    ``paired`` the terms are ``a[row + column + ...] * b[column + ...]``.
    """
    columns = list(vectors(width))
    slots = [[code.slot() for _ in columns] for _ in rows]
    for line in slots:
        for slot in line:
            code.store("zeroinitializer", slot)

    def write(walks: Sequence[Walk], a: str, b: str) -> None:
        if walks:
            walk = walks[0]
            with code.loop(walk.count) as i:
                write(walks[1:], code.at(a, code.mul(i, walk.a)), code.at(b, code.mul(i, walk.b)))
            return
        right = [code.load(code.at(b, start), lanes) for start, lanes in columns]
        for row, line in zip(rows, slots, strict=True):
            value = "" if paired else code.spread(code.at(a, row))
            for slot, other, (start, lanes) in zip(line, right, columns, strict=True):
                left = code.load(code.at(a, row + start), lanes) if paired else value
                code.store(code.fma(left, other, code.load(slot)), slot)

    write([w for w in walks if w.count != 1], a, b)
    return [[code.load(slot) for slot in line] for line in slots]


def rows_at_once(width: int) -> int:
    """How many rows of a product with ``width`` columns fit into the registers."""
    if not engine.has("avx512f"):
        return 6  # of two registers each
    return {1: 12, 2: 12, 3: 8, 4: 6}[-(-width // LANES)]


def in_groups(code: Code, size: int, most: int, write: Callable[[Int, int], None]) -> None:
    """``write(first, rows)`` for all of ``size`` rows, in groups that differ by one at most."""
    groups = -(-size // most)
    rows = -(-size // max(groups, 1))
    large = size - groups * (rows - 1)  # groups of ``rows``; the others have one less
    start = 0
    for count, each in ((large, rows), (groups - large, rows - 1)):
        if count == 1:
            write(start, each)
        elif count:
            with code.loop(count * each, each) as row:
                write(code.add(start, row), each)
        start += count * each


def put(code: Code, target: str, row: int, width: int, sums: list[list[str]]) -> None:
    """Stores the rows of a product, ``row`` floats apart."""
    for r, line in enumerate(sums):
        for value, (at, lanes) in zip(line, vectors(width), strict=True):
            code.store(value, code.at(target, r * row + at), lanes)


def add_to(code: Code, target: str, row: int, width: int, sums: list[list[str]]) -> None:
    """Adds the rows of a product to a matrix in memory."""
    for r, line in enumerate(sums):
        for value, (at, lanes) in zip(line, vectors(width), strict=True):
            place = code.at(target, r * row + at)
            code.store(code.fadd(code.load(place, lanes), value), place, lanes)


class _Scratch(threading.local):
    block = memory.block(0)


_scratch = _Scratch()


def scratch(nbytes: int) -> np.ndarray:
    """Memory of this thread to work in: good until the next call."""
    if _scratch.block.size < nbytes:
        _scratch.block = memory.block(nbytes)
    return _scratch.block
