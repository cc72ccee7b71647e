"""Arenas: variables of one dtype laid end to end in one flat array.

A bucket is then a slice, an optimizer update is one kernel, and nothing is packed before it is
sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from distgrad.compile import memory
from distgrad.core.dispatch import backend_of
from distgrad.core.variable import Variable

ALIGN = 16  # elements: a 64-byte boundary in float32
# Bytes from one arena to another are a multiple of it on a CPU: a core takes a read for one of what
# it has just written where the last 12 bits of their addresses are close, and an update, which goes
# through values, gradients and state side by side, took a third longer where they happened to be.
_PAGE = 4096


class Layout:
    """Where each variable of a list lies in a flat array of their dtype.

    ``positions`` are those of the variables in a longer list, of several dtypes.
    """

    def __init__(self, variables: Sequence[Variable], positions: Sequence[int] = ()) -> None:
        self.variables = list(variables)
        self.positions = list(positions) or list(range(len(self.variables)))
        self.slices: list[slice] = []
        stop = 0
        for variable in self.variables:
            start = stop
            size = int(np.prod(variable.shape, dtype=np.int64))
            self.slices.append(slice(start, start + size))
            stop = -(-(start + size) // ALIGN) * ALIGN
        self.size = stop
        self.dtype = self.variables[0]._buffer.dtype

    def empty(self) -> Any:
        """A flat array of zeros, on the device of the variables."""
        xp = backend_of(self.variables[0]._buffer).xp
        if xp is np:
            return memory.block(self.size * self.dtype.itemsize, _PAGE).view(self.dtype)
        return xp.zeros(self.size, dtype=self.dtype)

    def views(self, flat: Any) -> list[Any]:
        """The slice of each variable in ``flat``, in the variable's shape."""
        return [
            flat[where].reshape(tuple(variable.shape))
            for variable, where in zip(self.variables, self.slices, strict=True)
        ]

    def segments(self, present: Sequence[bool]) -> Iterable[slice]:
        """The longest runs of the flat array in which every variable has a gradient."""
        start = None
        for position, where in zip(self.positions, self.slices, strict=True):
            if present[position]:
                start = where.start if start is None else start
                stop = where.stop
            elif start is not None:
                yield slice(start, stop)
                start = None
        if start is not None:
            yield slice(start, stop)


class Arena(Layout):
    """One flat array in which every variable of a list has its slice.

    The variables' values move in, and the variables look into the arena from then on. Gaps
    between slices stay zero.
    """

    def __init__(self, variables: Sequence[Variable], positions: Sequence[int] = ()) -> None:
        super().__init__(variables, positions)
        self.values = self.empty()
        self._places = list(zip(self.variables, self.views(self.values), strict=True))
        self.adopt()

    def adopt(self) -> None:
        """Moves variables in, and those back that somebody has moved elsewhere."""
        for variable, place in self._places:
            if variable._buffer is not place:
                variable._relocate(place)

    def recall_loans(self) -> bool:
        """Gives whoever still looks at a variable a copy, before the arena is written to.

        Adopts as well; says whether there was anything to move back.
        """
        moved = False
        for variable, place in self._places:
            variable._recall_loans()
            if variable._buffer is not place:  # another step has been here, or an optimizer alone
                moved = True
                variable._relocate(place)
        return moved


def by_dtype(variables: Sequence[Variable]) -> list[list[int]]:
    """Positions of the variables, grouped by dtype in order of first appearance."""
    groups: dict[Any, list[int]] = {}
    for position, variable in enumerate(variables):
        groups.setdefault(variable._buffer.dtype, []).append(position)
    return list(groups.values())


def layouts(variables: Sequence[Variable]) -> list[Layout]:
    """One layout for each dtype."""
    return [Layout([variables[i] for i in where], where) for where in by_dtype(variables)]
