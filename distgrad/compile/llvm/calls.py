"""Matrix products as machine code, and short steps in sequence without Python between them.

A step costs about a microsecond of Python, and np.matmul two: as much as a small layer computes.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.compile import products
from distgrad.compile.llvm import engine, gemm
from distgrad.compile.llvm.loops import Native, address_of, found_at
from distgrad.compile.steps import Buffer, Step, View

_LARGEST = 1 << 19  # bytes of what one step works on: above that a microsecond does not matter
_MOST = 16  # steps in a sequence: buckets of gradients that are ready must not wait for long


def in_sequence(steps: Sequence[Step]) -> list[Step]:
    """The steps, with matrix products as machine code, and runs of short steps as one."""
    made: list[Step] = []
    run: list[Step] = []
    most = math.inf if products.one_thread() else products.ALONE

    def close() -> None:
        made.extend(run if len(run) < 2 else [_joined(run)])
        run.clear()

    for each in steps:
        step = _product(each, most)
        if not (isinstance(step.fn, Native) and _small(step)):
            close()
            made.append(step)
            continue
        run.append(step)
        if len(run) == _MOST:
            close()
    close()
    return made


def _small(step: Step) -> bool:
    views = step.args[:3] if len(step.args) == 4 else step.mentions  # not what a product works in
    return sum(view.buffer.nbytes for view in views) <= _LARGEST and not any(
        view.buffer.kind == "input" and view.buffer.nbytes > 1 << 16 for view in views
    )


def _joined(run: Sequence[Step]) -> Step:
    fns: list[Native] = [step.fn for step in run]  # type: ignore[misc]
    args = tuple(view for step in run for view in step.args)
    sizes = [len(step.args) for step in run]
    return Step(Sequential(fns, sizes), args, {}, None, False, False)


class Sequential:
    """Generated functions, one after the other, on as many arrays each as ``sizes`` says."""

    __name__ = "native_sequence"

    def __init__(self, functions: Sequence[Native], sizes: Sequence[int]) -> None:
        self.functions = tuple(functions)
        self._sizes = tuple(sizes)

    def __call__(self, *arrays: np.ndarray) -> None:
        for function, own in self._parts(arrays):
            function(*own)

    def _parts(self, arrays: Sequence[np.ndarray]) -> list[tuple[Native, Sequence[np.ndarray]]]:
        parts, start = [], 0
        for function, size in zip(self.functions, self._sizes, strict=True):
            parts.append((function, arrays[start : start + size]))
            start += size
        return parts

    def bound(self, arrays: Sequence[np.ndarray]) -> Callable[[], Any]:
        """The same for these arrays, whose memory must not move."""
        tables = [function.table(own) for function, own in self._parts(arrays)]
        entries = [len(tables)]
        for function, table in zip(self.functions, tables, strict=True):
            entries += [function.address, ctypes.addressof(table)]
        return _driver().keeping(entries, (tables, arrays))[0]


Entry = tuple[int, int]  # an address or a number, and how much is added to it for each step


def in_turn(steps: Sequence[int], *calls: tuple[Native, Sequence[Entry]]) -> None:
    """Calls all the functions, on the entries of the first of ``steps``, then of the next, ..."""
    taken = np.array(steps, np.int64)[:, None]
    listed = np.empty((len(steps), len(calls), 2), np.int64)
    tables = []
    for i, (function, entries) in enumerate(calls):
        first, apart = np.array(entries, np.int64).T
        table = first + taken * apart
        tables.append(table)
        listed[:, i, 0] = function.address
        listed[:, i, 1] = address_of(table) + table.strides[0] * np.arange(len(steps))
    whole = np.concatenate([[len(steps) * len(calls)], listed.reshape(-1)])
    _driver().on(address_of(whole))


Place = tuple[int, int]  # an array that a plan is given, and what is added to its address


class Planned:
    """Functions, one after the other, on entries that are made of a few arrays.

    ``number(value)`` is an entry that is the same at each call. What is planned never changes, so
    that threads can share it.
    """

    def __init__(self, *calls: tuple[Native, Sequence[Place]]) -> None:
        table = [len(calls)]
        for function, entries in calls:
            table += (function.address, len(entries), *itertools.chain(*entries))
        self._table = np.array(table, np.int64)
        most = max(len(entries) for _, entries in calls)
        count = max(place for _, entries in calls for place, _ in entries)
        self._function = _planner(most, count).on
        self._address = address_of(self._table)
        self._pack = struct.Struct(f"{1 + count}Q").pack

    def __call__(self, *arrays: np.ndarray) -> None:
        """Runs them on the memory of these arrays."""
        self._function(self._pack(self._address, *map(found_at, arrays)))


def argument(number: int, added: int = 0) -> Place:
    """The entry that is the address of an array of the call, with something added to it."""
    return number + 1, added


def number(value: int) -> Place:
    """The entry that is this number."""
    return 0, value


def repeated(function: Native, table: np.ndarray) -> Callable[[], Any]:
    """Calls the function on each row of a table of entries, which is kept, and may change."""
    rows = address_of(table) + table.strides[0] * np.arange(len(table))
    pairs = [(function.address, row) for row in rows.tolist()]
    return _driver().keeping([len(pairs), *itertools.chain(*pairs)], table)[0]


@functools.cache
def _driver() -> Native:
    """Calls each of the functions that a table lists, behind their number."""
    text = """
define void @entry(ptr %table) {
start:
  %count = load i64, ptr %table
  br label %loop
loop:
  %i = phi i64 [ 0, %start ], [ %next, %loop ]
  %at = mul i64 %i, 2
  %first = add i64 %at, 1
  %second = add i64 %at, 2
  %where = getelementptr i64, ptr %table, i64 %first
  %function = load ptr, ptr %where
  %given = getelementptr i64, ptr %table, i64 %second
  %arguments = load ptr, ptr %given
  call void %function(ptr %arguments)
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %count
  br i1 %more, label %loop, label %done
done:
  ret void
}
"""
    return Native(engine.address(text, "entry"))


@functools.cache
def _planner(most: int, arrays: int) -> Native:
    """Calls each function of a plan, on up to ``most`` entries: sums of an address and a number.

    The table is the plan, and where each array is found.
    """
    address = "%address = add i64 %found, 0"
    if found_at is id:  # an object, and where its memory is stands behind its head
        address = f"""%object = inttoptr i64 %found to ptr
  %field = getelementptr i8, ptr %object, i64 {object.__basicsize__}
  %address = load i64, ptr %field"""
    text = f"""
define void @entry(ptr %table) {{
start:
  %entries = alloca [{most} x i64]
  %known = alloca [{arrays + 1} x i64]
  store i64 0, ptr %known
  %plan = load ptr, ptr %table
  %count = load i64, ptr %plan
  %first = getelementptr i64, ptr %plan, i64 1
  br label %array
array:
  %j = phi i64 [ 1, %start ], [ %j.next, %array ]
  %given = getelementptr i64, ptr %table, i64 %j
  %found = load i64, ptr %given
  {address}
  %known.at = getelementptr i64, ptr %known, i64 %j
  store i64 %address, ptr %known.at
  %j.next = add i64 %j, 1
  %others = icmp ule i64 %j.next, {arrays}
  br i1 %others, label %array, label %function
function:
  %i = phi i64 [ 0, %array ], [ %i.next, %call ]
  %at = phi ptr [ %first, %array ], [ %after, %call ]
  %function.at = load ptr, ptr %at
  %size.at = getelementptr i64, ptr %at, i64 1
  %size = load i64, ptr %size.at
  %pairs = getelementptr i64, ptr %at, i64 2
  br label %entry
entry:
  %k = phi i64 [ 0, %function ], [ %k.next, %entry ]
  %twice = shl i64 %k, 1
  %place.at = getelementptr i64, ptr %pairs, i64 %twice
  %place = load i64, ptr %place.at
  %added.at = getelementptr i64, ptr %place.at, i64 1
  %added = load i64, ptr %added.at
  %value.at = getelementptr i64, ptr %known, i64 %place
  %value = load i64, ptr %value.at
  %sum = add i64 %value, %added
  %target = getelementptr i64, ptr %entries, i64 %k
  store i64 %sum, ptr %target
  %k.next = add i64 %k, 1
  %more = icmp ult i64 %k.next, %size
  br i1 %more, label %entry, label %call
call:
  call void %function.at(ptr %entries)
  %i.next = add i64 %i, 1
  %all = shl i64 %size, 1
  %after = getelementptr i64, ptr %pairs, i64 %all
  %left = icmp ult i64 %i.next, %count
  br i1 %left, label %function, label %done
done:
  ret void
}}
"""
    return Native(engine.address(text, "entry"))


# Matrix products


def _product(step: Step, most: float) -> Step:
    """A product of two float32 matrices as a generated step; any other step as it is.

    ``most``: the terms that a generated one may have.
    """
    if step.fn is not np.matmul or step.kwargs or step.out is None or not step.passes_out:
        return step
    views = (*step.args, step.out)
    if any(v.dtype != np.float32 or len(v.shape) != 2 or not min(v.shape) > 1 for v in views):
        return step
    flags = [_flag(v) for v in views]
    if None in flags or flags[2][0]:  # type: ignore[index]
        return step
    (ta, lda), (tb, ldb), (_, ldc) = flags  # type: ignore[misc]
    (m, k), n = views[0].shape, views[1].shape[1]
    if m * n * k > most:
        return step
    function = gemm.gemm(ta, tb)
    native = Native(function.address, (m, n, k, gemm.depth(k), lda, ldb, ldc))
    nbytes = gemm.work(n, k)
    work = View(Buffer(nbytes), 0, (nbytes,), (1,), np.dtype(np.uint8))
    return Step(native, (*views, work), {}, step.out, False, False)


def _flag(view: View) -> tuple[bool, int] | None:
    """Whether a matrix is a transposed one, and its stride in elements; None for other layouts."""
    (rows, columns), (row, column) = view.shape, view.strides
    if column == 4 and row % 4 == 0 and row >= 4 * columns:
        return False, row // 4
    if row == 4 and column % 4 == 0 and column >= 4 * rows:
        return True, column // 4
    return None
