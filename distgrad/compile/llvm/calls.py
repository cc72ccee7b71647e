"""Matrix products as machine code, and short steps in sequence without Python between them.

A step costs about a microsecond of Python, and np.matmul two: as much as a small layer computes.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.compile.llvm import engine, gemm, pool, products
from distgrad.compile.llvm.listed import driver
from distgrad.compile.llvm.loops import Native, address_of, found_at
from distgrad.compile.llvm.parts import room, shared
from distgrad.compile.steps import Step, View

_LARGEST = 1 << 19  # bytes of what one step works on: above that a microsecond does not matter
_THREADED = 1 << 15  # bytes of a matrix from which on BLAS may use threads
_MOST = 16  # steps in a sequence: buckets of gradients that are ready must not wait for long


def in_sequence(steps: Sequence[Step]) -> list[Step]:
    """The steps, with matrix products as machine code, and runs of short steps as one."""
    made: list[Step] = []
    run: list[Step] = []

    def close() -> None:
        made.extend(run if len(run) < 2 else [_joined(run)])
        run.clear()

    for each in steps:
        step = shared(_product(each))
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
        return driver().keeping(entries, (tables, arrays))[0]


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


def _product(step: Step) -> Step:
    """Products of float32 matrices as a generated step; any other step as it is.

    Those that are left to BLAS have one thread of it.
    """
    if step.fn is not np.matmul or step.kwargs or step.out is None or not step.passes_out:
        return step
    views = (*step.args, step.out)
    if any(v.dtype != np.float32 for v in views):
        return step
    by_blas = step
    if max(v.buffer.nbytes if isinstance(v, View) else v.nbytes for v in views) >= _THREADED:
        by_blas = step._replace(fn=_matmul)
    if not all(isinstance(v, View) for v in views):  # a constant stays where it is
        return by_blas
    if any(len(v.shape) < 2 or min(v.shape[-2:]) < 2 for v in views):
        return by_blas
    layouts = [products.Layout(v.shape, v.strides) for v in views]
    if len(step.out.shape) > 2:
        many = products.many(*layouts)
        if many is None:
            return by_blas
        return Step(many, (*views, room(many.nbytes)), {}, step.out, False, False)
    native = products.one(*layouts)
    if native is None:
        return by_blas
    nbytes = gemm.work(views[1].shape[1], views[0].shape[1])
    return Step(native, (*views, room(nbytes)), {}, step.out, False, False)


def _matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    pool.by_blas(np.matmul, a, b, out=out)
