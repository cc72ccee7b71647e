"""Assignments that are taken back: those of a run that is but a trial."""

from __future__ import annotations

import threading
from typing import Any

from distgrad.core.variable import Variable, writers


class _Here(threading.local):
    keeps = False  # what is assigned


_here = _Here()


class undone:
    """Context after which variables have the values from before again.

    ``written`` are those that this thread has assigned meanwhile, in the order of the first time.
    """

    def __init__(self) -> None:
        self._before: dict[int, tuple[Variable, Any]] = {}

    @property
    def written(self) -> list[Variable]:
        return [variable for variable, _ in self._before.values()]

    def __enter__(self) -> undone:
        self._thread = threading.get_ident()
        self._kept, _here.keeps = _here.keeps, False
        writers.append(self._note)
        return self

    def _note(self, variable: Variable) -> None:
        if self._thread != threading.get_ident():
            return
        if _here.keeps:
            self._before.pop(id(variable), None)
        elif id(variable) not in self._before:
            self._before[id(variable)] = variable, variable._buffer.copy()

    def __exit__(self, *exc: object) -> None:
        writers.remove(self._note)
        _here.keeps = self._kept
        for variable, before in self._before.values():
            variable._store(before)


class kept:
    """Context within ``undone`` whose assignments stay: values that variables are made with."""

    def __enter__(self) -> None:
        self._outer, _here.keeps = _here.keeps, True

    def __exit__(self, *exc: object) -> None:
        _here.keeps = self._outer
