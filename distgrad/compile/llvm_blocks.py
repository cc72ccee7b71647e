"""Functions in LLVM's assembly language with loops, branches and vectors of 16 floats.

For kernels that are more than one loop over elements. What a function computes does not depend on
how wide the CPU's vectors are: lanes never meet, and additions stand in the order of the text.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from distgrad.compile import llvm_engine, memory
from distgrad.compile.llvm_loops import Native

LANES = 16
VECTOR = f"<{LANES} x float>"
Int = int | str  # a number, or the register that holds one
Offsets = Sequence[int]


class Code:
    """The text of one function; registers and labels are numbered.

    Pointers point to floats, and offsets count them.
    """

    def __init__(self, pointers: Sequence[str], numbers: Sequence[str]) -> None:
        self._names = (*pointers, *numbers)
        self._pointers = len(pointers)
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
            f"<{LANES} x i1> {_mask(lanes)}, {VECTOR} zeroinitializer)"
        )

    def store(self, value: str, pointer: str, lanes: int = LANES) -> None:
        if lanes == LANES:
            self._lines.append(f"  store {VECTOR} {value}, ptr {pointer}, align 4")
            return
        self._lines.append(
            f"  call void @llvm.masked.store.v{LANES}f32.p0({VECTOR} {value}, ptr {pointer}, "
            f"i32 4, <{LANES} x i1> {_mask(lanes)})"
        )

    def spread(self, pointer: str) -> str:
        """One float in all lanes."""
        one = self.op(f"load float, ptr {pointer}, align 4")
        first = self.op(f"insertelement {VECTOR} poison, float {one}, i64 0")
        return self.op(
            f"shufflevector {VECTOR} {first}, {VECTOR} poison, <{LANES} x i32> zeroinitializer"
        )

    def slot(self) -> str:
        """A place for a vector that changes in a loop; LLVM keeps it in a register."""
        self._count += 1
        name = f"%slot{self._count}"
        self._slots.append(f"  {name} = alloca {VECTOR}")
        return name

    # Vectors

    def fadd(self, a: str, b: str) -> str:
        return self.op(f"fadd {VECTOR} {a}, {b}")

    def fsub(self, a: str, b: str) -> str:
        return self.op(f"fsub {VECTOR} {a}, {b}")

    def half(self, a: str) -> str:
        return self.op(f"fmul {VECTOR} {a}, splat (float 0.5)")

    def fma(self, a: str, b: str, c: str) -> str:
        """``a * b + c``, rounded once."""
        return self.op(
            f"call {VECTOR} @llvm.fma.v{LANES}f32({VECTOR} {a}, {VECTOR} {b}, {VECTOR} {c})"
        )

    def native(self) -> Native:
        """The function, compiled; it takes its pointers and then its numbers in one table."""
        kinds = ["ptr noalias"] * self._pointers
        kinds += ["i64"] * (len(self._names) - self._pointers)
        parameters = ", ".join(f"{k} %{n}" for k, n in zip(kinds, self._names, strict=True))
        loads = []
        for i, (kind, name) in enumerate(zip(kinds, self._names, strict=True)):
            loads.append(f"  %{name}.at = getelementptr i64, ptr %table, i64 {i}")
            loads.append(f"  %{name} = load {kind.split()[0]}, ptr %{name}.at")
        given = ", ".join(f"{k.split()[0]} %{n}" for k, n in zip(kinds, self._names, strict=True))
        text = "\n".join(
            [
                *_DECLARED,
                f"define internal void @kernel({parameters}) alwaysinline #0 {{",
                "start:",
                *self._slots,
                *self._lines,
                "  ret void",
                "}",
                "define void @entry(ptr %table) #0 {",
                *loads,
                f"  call void @kernel({given})",
                "  ret void",
                "}",
                'attributes #0 = { "prefer-vector-width"="512" }',
            ]
        )
        return Native(llvm_engine.address(text + "\n", "entry", vectorize=False))


_DECLARED = [
    f"declare {VECTOR} @llvm.fma.v{LANES}f32({VECTOR}, {VECTOR}, {VECTOR})",
    f"declare {VECTOR} @llvm.masked.load.v{LANES}f32.p0(ptr, i32, <{LANES} x i1>, {VECTOR})",
    f"declare void @llvm.masked.store.v{LANES}f32.p0({VECTOR}, ptr, i32, <{LANES} x i1>)",
]


def _mask(lanes: int) -> str:
    return "<" + ", ".join(f"i1 {'true' if i < lanes else 'false'}" for i in range(LANES)) + ">"


def vectors(size: int) -> Iterator[tuple[int, int]]:
    """Where each vector of ``size`` floats starts, and how many of its lanes there are."""
    for start in range(0, size, LANES):
        yield start, min(LANES, size - start)


def each_vector(code: Code, size: int, write: Callable[[Int, int], None]) -> None:
    """``write(start, lanes)`` for each vector of ``size`` floats, as a loop and a rest."""
    whole = size // LANES * LANES
    if whole:
        with code.loop(whole, LANES) as start:
            write(start, LANES)
    if size > whole:
        write(whole, size - whole)


def panels(size: int, most: int) -> Iterator[tuple[int, int]]:
    """Where each panel of up to ``most`` vectors starts, and its floats."""
    for start in range(0, size, most * LANES):
        yield start, min(most * LANES, size - start)


class Walk:
    """One of the nested loops over the terms of a product: how often, and the steps in each."""

    def __init__(self, count: Int, a: int, b: int) -> None:
        self.count, self.a, self.b = count, a, b


def product(
    code: Code, rows: Offsets, width: int, a: str, b: str, walks: Sequence[Walk]
) -> list[list[str]]:
    """Sums over the walks of ``a[row + ...] * b[column + ...]``, all in registers.

    Gives vectors ``[row][vector of columns]``. Each sum adds its terms one after the other.
    """
    columns = list(vectors(width))
    slots = [[code.slot() for _ in columns] for _ in rows]
    for line in slots:
        for slot in line:
            code.store("zeroinitializer", slot)

    def write(left: Sequence[Walk], a: str, b: str) -> None:
        if left:
            walk = left[0]
            with code.loop(walk.count) as i:
                write(left[1:], code.at(a, code.mul(i, walk.a)), code.at(b, code.mul(i, walk.b)))
            return
        right = [code.load(code.at(b, start), lanes) for start, lanes in columns]
        for row, line in zip(rows, slots, strict=True):
            value = code.spread(code.at(a, row))
            for slot, other in zip(line, right, strict=True):
                code.store(code.fma(value, other, code.load(slot)), slot)

    write([w for w in walks if w.count != 1], a, b)
    return [[code.load(slot) for slot in line] for line in slots]


def rows_at_once(width: int) -> int:
    """How many rows of a product with ``width`` columns fit into the registers."""
    return {1: 12, 2: 12, 3: 8, 4: 6}[-(-width // LANES)]


class _Scratch(threading.local):
    block = memory.block(0)


_scratch = _Scratch()


def scratch(nbytes: int) -> np.ndarray:
    """Memory of this thread to work in: good until the next call."""
    if _scratch.block.size < nbytes:
        _scratch.block = memory.block(nbytes)
    return _scratch.block
