"""Assignments that are taken back: those of a run that is but a trial, or made once more."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from distgrad.core import recording
from distgrad.core.primitive import bind, registry
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable, writers


class _Here(threading.local):
    keeps = False  # what is assigned


_here = _Here()


class assigned:
    """Context that knows which variables this thread has assigned in it, and what they had before.

    ``before`` has both by the id of the variable, in the order of the first time.
    """

    def __init__(self) -> None:
        self.before: dict[int, tuple[Variable, Any]] = {}

    @property
    def written(self) -> list[Variable]:
        return [variable for variable, _ in self.before.values()]

    def __enter__(self) -> assigned:
        self._thread = threading.get_ident()
        self._kept, _here.keeps = _here.keeps, False
        writers.append(self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        writers.remove(self._note)
        _here.keeps = self._kept

    def _note(self, variable: Variable) -> None:
        if self._thread != threading.get_ident():
            return
        if _here.keeps:
            self.before.pop(id(variable), None)
        elif id(variable) not in self.before:
            self.before[id(variable)] = variable, self._value_of(variable)

    def _value_of(self, variable: Variable) -> Any:
        return _value(variable)

    def undo(self) -> None:
        """Gives the variables what they had before."""
        _give(self.before.values())


class overwritten(assigned):
    """``assigned`` with arrays for the values, which no capture sees."""

    def _value_of(self, variable: Variable) -> Any:
        return variable._buffer.copy()

    def undo(self) -> None:
        for variable, array in self.before.values():
            variable._store(array)


class undone(assigned):
    """Context after which variables have the values from before again."""

    def __exit__(self, *exc: object) -> None:
        super().__exit__()
        self.undo()


class kept:
    """Context within ``undone`` whose assignments stay: values that variables are made with."""

    def __enter__(self) -> None:
        self._outer, _here.keeps = _here.keeps, True

    def __exit__(self, *exc: object) -> None:
        _here.keeps = self._outer


class as_before:
    """Context in which what was ``assigned`` is not yet; after it variables have their values."""

    def __init__(self, earlier: assigned) -> None:
        self._earlier = earlier.before

    def __enter__(self) -> None:
        self._now = [(variable, _value(variable)) for variable, _ in self._earlier.values()]
        _give(self._earlier.values())

    def __exit__(self, *exc: object) -> None:
        _give(self._now)


def _value(variable: Variable) -> Tensor:
    with recording.paused():  # no tape follows it; a capture does
        return Variable._read(variable)


def _give(values: Iterable[tuple[Variable, Tensor]]) -> None:
    with recording.paused():
        for variable, value in values:
            variable.assign(bind(registry["identity"], value))
