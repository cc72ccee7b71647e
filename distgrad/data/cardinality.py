"""How many elements the steps of a dataset leave: numbers, or one of two words for no number."""

from __future__ import annotations

INFINITE_CARDINALITY = -1
UNKNOWN_CARDINALITY = -2


def batched(size: int, batch_size: int, drop_remainder: bool) -> int:
    """Of batches of so many elements, the last one short or left out."""
    if size < 0:
        return size
    return size // batch_size if drop_remainder else -(-size // batch_size)


def cut(size: int, where: slice) -> int:
    """Of what a slice from the start on keeps."""
    if size >= 0:
        return len(range(size)[where])
    return where.stop if size == INFINITE_CARDINALITY and where.stop is not None else size


def repeated(size: int, times: int | None) -> int:
    """Of so many passes; None: without end."""
    if size == 0 or times == 0:
        return 0
    if times is None or size == INFINITE_CARDINALITY:
        return INFINITE_CARDINALITY
    return size * times if size > 0 else UNKNOWN_CARDINALITY


def joined(sizes: list[int]) -> int:
    """Of datasets after each other."""
    if min(sizes) >= 0:
        return sum(sizes)
    return INFINITE_CARDINALITY if INFINITE_CARDINALITY in sizes else UNKNOWN_CARDINALITY


def shortest(sizes: list[int]) -> int:
    """Of datasets side by side."""
    if UNKNOWN_CARDINALITY in sizes:
        return UNKNOWN_CARDINALITY
    finite = [size for size in sizes if size != INFINITE_CARDINALITY]
    return min(finite) if finite else INFINITE_CARDINALITY
