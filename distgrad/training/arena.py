"""Arenas: variables of one dtype laid end to end in one flat array.

A bucket is then a slice, an optimizer update is one kernel, and nothing is packed before it is
sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import backend_of
from distgrad.core.variable import Variable

ALIGN = 16  # elements: a 64-byte boundary in float32


class Arena:
    """One flat array in which every variable of a list has its slice.

    The variables' values move in, and the variables look into the arena from then on. Gaps
    between slices stay zero.
    """

    def __init__(self, variables: Sequence[Variable]) -> None:
        self.variables = list(variables)
        self.slices: list[slice] = []
        stop = 0
        for variable in self.variables:
            start = stop
            size = int(np.prod(variable.shape, dtype=np.int64))
            self.slices.append(slice(start, start + size))
            stop = -(-(start + size) // ALIGN) * ALIGN
        self.size = stop
        self.dtype = self.variables[0]._buffer.dtype
        self.values = self.empty()
        for variable, view in zip(self.variables, self.views(self.values), strict=True):
            variable._relocate(view)

    def empty(self) -> Any:
        """A flat array of zeros as large as the arena, on the device of its variables."""
        return backend_of(self.variables[0]._buffer).xp.zeros(self.size, dtype=self.dtype)

    def views(self, flat: Any) -> list[Any]:
        """The slice of each variable in ``flat``, in the variable's shape."""
        return [
            flat[where].reshape(tuple(variable.shape))
            for variable, where in zip(self.variables, self.slices, strict=True)
        ]

    def recall_loans(self) -> None:
        """Gives whoever still looks at a variable a copy, before the arena is written to."""
        for variable in self.variables:
            variable._recall_loans()


def by_dtype(variables: Sequence[Variable]) -> list[list[int]]:
    """Positions of the variables, grouped by dtype in order of first appearance."""
    groups: dict[Any, list[int]] = {}
    for position, variable in enumerate(variables):
        groups.setdefault(variable._buffer.dtype, []).append(position)
    return list(groups.values())
