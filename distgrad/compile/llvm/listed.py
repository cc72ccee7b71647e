"""Lists of calls of generated functions, done one after the other without Python between them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.compile.llvm import engine
from distgrad.compile.llvm.loops import Native, address_of


@functools.cache
def driver() -> Native:
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


def repeated(function: Native, table: np.ndarray) -> Callable[[], Any]:
    """Calls the function on each row of a table of entries, which is kept, and may change."""
    rows = address_of(table) + table.strides[0] * np.arange(len(table))
    pairs = [(function.address, row) for row in rows.tolist()]
    return driver().keeping([len(pairs), *itertools.chain(*pairs)], table)[0]


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
    driver().on(address_of(whole))
