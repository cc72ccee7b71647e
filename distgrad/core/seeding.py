"""Seeding: who hears of it when a program sets the seed of all random numbers."""

from __future__ import annotations

from collections.abc import Callable

_told: list[Callable[[], None]] = []


def when_seeded(fn: Callable[[], None]) -> None:
    """Has ``fn`` called at each ``seeded``."""
    _told.append(fn)


def seeded() -> None:
    """Says that the program has set its seed, after which it goes as it did after the last time."""
    for fn in _told:
        fn()
