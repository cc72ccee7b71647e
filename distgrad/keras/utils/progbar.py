"""Progbar: a line that says how far a loop of one's own has come."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

_WAYS = "Only one of `stateful_metrics` or `stateless_metrics` can be provided."


class Progbar:
    """Shows steps done, time left and values, in one line that is written over on a terminal.

    ``target`` is the number of steps, None if unknown. Values are averaged over the steps, but
    those named in ``stateful_metrics`` (or not in ``stateless_metrics``) are shown as they are.
    ``verbose``: 0 shows nothing, 1 a bar, 2 a line at the end. Raises ValueError where both lists
    are given.
    """

    def __init__(
        self,
        target: int | None,
        width: int = 20,
        verbose: int = 1,
        interval: float = 0.05,
        stateful_metrics: Iterable[str] | None = None,
        stateless_metrics: Iterable[str] | None = None,
        unit_name: str = "step",
    ) -> None:
        if stateful_metrics is not None and stateless_metrics is not None:
            raise ValueError(_WAYS)
        self.target, self.width, self.verbose = target, width, verbose
        self.interval, self.unit_name = interval, unit_name
        self.stateful_metrics = (
            None if stateless_metrics is not None else {*(stateful_metrics or ())}
        )
        self.stateless_metrics = None if stateless_metrics is None else set(stateless_metrics)
        self._sums: dict[str, tuple[Any, float]] = {}
        self._seen = 0
        self._began, self._shown, self._length = time.monotonic(), -np.inf, 0

    def update(
        self,
        current: int,
        values: Iterable[tuple[str, Any]] | None = None,
        finalize: bool | None = None,
    ) -> None:
        """Shows step ``current`` with ``(name, value)`` of what was done since the last one."""
        last = self.target is not None and current >= self.target
        last = last if finalize is None else finalize
        steps = max(current - self._seen, 1)
        for name, value in values or ():
            kept = self.stateful_metrics is not None and name in self.stateful_metrics
            kept = kept or (
                self.stateless_metrics is not None and name not in self.stateless_metrics
            )
            if kept or last:
                self._sums[name] = (value, 1)
            else:
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = (total + value * steps, count + steps)
        self._seen = current
        now = time.monotonic()
        due = last or now - self._shown >= self.interval
        if not self.verbose or not due or (self.verbose == 2 and not last):
            return
        self._shown = now
        self._print(self._line(current, now - self._began, last), last)

    def add(self, n: int, values: Iterable[tuple[str, Any]] | None = None) -> None:
        """``update`` to ``n`` steps more."""
        self.update(self._seen + n, values)

    def _line(self, current: int, seconds: float, last: bool) -> str:
        each = seconds / max(current, 1)
        if self.target is None:
            line = f"{current:7d}/Unknown"
        else:
            line = f"{current:{len(str(self.target))}d}/{self.target}"
            if self.verbose == 1:
                done = int(self.width * min(current / max(self.target, 1), 1))
                line += f" {'━' * done}{' ' * (self.width - done)}"
        left = 0.0 if last or self.target is None else each * (self.target - current)
        pace = f"{each:.0f}s" if each >= 1 else f"{each * 1e3:.0f}ms"
        pace = pace if each >= 1e-3 else f"{each * 1e6:.0f}us"
        dash = "- " if self.verbose == 2 else ""
        line += f" {dash}{left or seconds:.0f}s {dash}{pace}/{self.unit_name}"
        for name, (total, count) in self._sums.items():
            value = float(np.mean(total)) / max(count, 1)
            line += f" - {name}: {value:.4f}" if abs(value) > 1e-3 else f" - {name}: {value:.4e}"
        return line

    def _print(self, line: str, last: bool) -> None:
        over = self.verbose == 1 and sys.stdout.isatty()
        gap = " " * max(self._length - len(line), 0)
        self._length = len(line)
        sys.stdout.write(f"\r{line}{gap}" + ("\n" if last else "") if over else f"{line}\n")
        sys.stdout.flush()
