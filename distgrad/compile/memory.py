"""Lifetimes: many buffers in one block of memory, no two of them in one place at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ALIGN = 64  # bytes: a cache line, and the widest vector


def aligned(nbytes: int) -> int:
    """So many bytes, so that what lies behind them begins with a line of the cache."""
    return -(-nbytes // ALIGN) * ALIGN


class Lifetime(NamedTuple):
    """Bytes that are needed from one step to another, both included."""

    nbytes: int
    start: int
    stop: int


class Layout(NamedTuple):
    """Where each buffer starts, and how many bytes there are in all."""

    offsets: list[int]
    nbytes: int


def plan(lifetimes: Sequence[Lifetime]) -> Layout:
    """Places the largest first, each in the lowest gap among those that live when it does."""
    offsets = [0] * len(lifetimes)
    # Of those that have a place, by its first byte: that, the end, the first step, the last.
    rows = np.zeros((4, len(lifetimes)), np.int64)
    order = sorted(range(len(lifetimes)), key=lambda i: (-lifetimes[i].nbytes, i))
    for count, index in enumerate(order):
        life = lifetimes[index]
        size = aligned(max(life.nbytes, 1))
        low, high, first, last = rows[:, :count]
        beside = (first <= life.stop) & (last >= life.start)
        ends = np.maximum.accumulate(np.append(0, high[beside]))
        wide = np.flatnonzero(low[beside] - ends[:-1] >= size)
        start = int(ends[wide[0] if len(wide) else -1])
        offsets[index] = start
        place = np.searchsorted(low, start, "right")
        rows[:, place + 1 : count + 1] = rows[:, place:count]
        rows[:, place] = start, start + size, life.start, life.stop
    return Layout(offsets, int(rows[1].max(initial=0)))


def block(nbytes: int, align: int = ALIGN) -> np.ndarray:
    """Zero bytes that start at a multiple of ``align``."""
    raw = np.zeros(nbytes + align, np.uint8)
    start = -raw.ctypes.data % align
    return raw[start : start + nbytes]
