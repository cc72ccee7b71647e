"""Random numbers that functions of datasets draw: the same, whoever makes an element, and when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_APART = 1 << 32  # of the streams of shards, which are numbered from 0


class Drawing(Iterator[Any]):
    """The elements of an iterator, made with draws that follow from a seed and a pass alone.

    So a run that is resumed gets those of an undisturbed one, and a thread that works ahead leaves
    the draws of others as they are. Without a seed one is drawn, here and now.
    """

    def __init__(self, elements: Iterator[Any], seed: int | None = None, epoch: int = 0) -> None:
        from distgrad.ops import random, streams  # which reading arrays does not need

        self._elements = elements
        own = random.drawn_seed() if seed is None else seed
        self._stream = streams.stream(own, epoch, _APART)

    def __next__(self) -> Any:
        with self._stream:
            return next(self._elements)

    def close(self) -> None:
        """Ends the iterator, if it can be ended."""
        getattr(self._elements, "close", lambda: None)()
