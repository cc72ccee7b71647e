"""Lifetimes: many buffers in one block of memory, no two of them in one place at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ALIGN = 64  # bytes: a cache line, and the widest vector


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
    placed: list[tuple[int, int, Lifetime]] = []  # start, end, of bytes
    for index in sorted(range(len(lifetimes)), key=lambda i: (-lifetimes[i].nbytes, i)):
        life = lifetimes[index]
        size = -(-max(life.nbytes, 1) // ALIGN) * ALIGN
        start = 0
        for low, high, other in sorted(placed, key=lambda p: p[0]):
            if other.start <= life.stop and life.start <= other.stop:
                if low - start >= size:
                    break
                start = max(start, high)
        offsets[index] = start
        placed.append((start, start + size, life))
    return Layout(offsets, max((high for _, high, _ in placed), default=0))


def block(nbytes: int, align: int = ALIGN) -> np.ndarray:
    """Zero bytes that start at a multiple of ``align``."""
    raw = np.zeros(nbytes + align, np.uint8)
    start = -raw.ctypes.data % align
    return raw[start : start + nbytes]
