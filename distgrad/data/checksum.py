"""CRC-32C, the checksum of records: by the package crc32c, or without it by NumPy."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

_BLOCK = 1024  # bytes that are looked up at once
_STARTS = 256 * np.arange(_BLOCK)  # of the rows of tables


@cache
def _crc32c() -> Callable[[bytes], int]:
    try:
        from crc32c import crc32c
    except ImportError:
        return by_tables
    return crc32c


def masked(data: bytes) -> int:
    """The checksum of bytes, turned and moved as in files of records."""
    found = _crc32c()(data)
    return ((found >> 15 | found << 17) + 0xA282EAD8) & 0xFFFFFFFF


def by_tables(data: bytes) -> int:
    """CRC-32C of bytes.

    Each byte changes it by a number that depends on the byte and on its distance from the end
    alone, so that those of a block are looked up at once.
    """
    tables = _tables()
    found = 0xFFFFFFFF
    for start in range(0, len(data), _BLOCK):
        block = np.frombuffer(data[start : start + _BLOCK], np.uint8).copy()
        head = np.frombuffer(found.to_bytes(4, "little"), np.uint8)
        size = min(len(block), 4)
        block[:size] ^= head[:size]
        rows = tables[_BLOCK - len(block) :].ravel()
        changed = rows[_STARTS[: len(block)] + block]
        found = int(np.bitwise_xor.reduce(changed)) ^ (found >> 8 * size)
    return found ^ 0xFFFFFFFF


@cache
def _tables() -> np.ndarray:
    """What a byte makes of a checksum of 0 in each place of a block with zeros: (place, byte)."""
    row: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        row = row >> 1 ^ np.where(row & 1, np.uint32(0x82F63B78), np.uint32(0))
    rows = [row]
    for _ in range(_BLOCK - 1):
        rows.append(rows[-1] >> 8 ^ row[rows[-1] & 255])
    return np.stack(rows[::-1])
