"""Arrays that are joined: their parts are made where they belong, and need not be copied there.

Gradients of queries, keys and values come from one operation as three arrays, and go on as one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distgrad.compile.numpy_exec import c_strides
from distgrad.compile.program import Apply, Program, Value
from distgrad.compile.steps import Buffer, View


class Joins:
    """Where the joined arrays of a program lie, and where what they are made of is to lie."""

    def __init__(self, program: Program) -> None:
        self.parts: dict[Value, View] = {}  # of what nobody else looks at
        self._wholes: dict[Apply, View] = {}
        uses = program.uses()
        applied = [i for i in program.instructions if isinstance(i, Apply)]
        made = {v: i for i in applied for v in i.outputs}
        turned = {i.inputs[0]: i.params["perm"] for i in applied if i.name == "permute"}
        for join in applied:
            (out, *_) = join.outputs
            if join.name != "join" or not out.nbytes:
                continue
            order = turned.get(out) if uses.get(out) == 1 else None
            self._wholes[join] = _laid_out(out, order)
            for value, place in zip(join.inputs, self.pieces(join), strict=True):
                origin = value
                while type(origin) is Value and uses[origin] == 1 and origin in made:
                    if made[origin].name != "reshape_to":
                        break
                    (origin,) = made[origin].inputs
                if type(origin) is Value and uses[origin] == 1 and origin.nbytes:
                    found = _reshaped(place, origin.shape)
                    if found is not None:
                        self.parts[origin] = found

    def whole(self, join: Apply) -> View:
        return self._wholes[join]

    def pieces(self, join: Apply) -> list[View]:
        """The places of the arrays that are joined."""
        whole, axis, start = self._wholes[join], join.params["axis"], 0
        found = []
        for value in join.inputs:
            shape = value.shape if type(value) is Value else ()
            found.append(whole._replace(shape=shape, offset=start * whole.strides[axis]))
            start += shape[axis] if shape else 0
        return found


def _laid_out(value: Value, order: Sequence[int] | None) -> View:
    """A place row after row; with an ``order`` of axes, so that it is when they are in order."""
    view = View(Buffer(value.nbytes), 0, value.shape, (), value.dtype)
    if order is None:
        return view._replace(strides=c_strides(view))
    steps = c_strides(view._replace(shape=tuple(value.shape[axis] for axis in order)))
    return view._replace(strides=tuple(steps[order.index(a)] for a in range(len(order))))


def _reshaped(place: View, shape: tuple[int, ...]) -> View | None:
    """The same memory in another shape, None where it has none."""
    blank = np.lib.stride_tricks.as_strided(np.zeros(1, place.dtype), place.shape, place.strides)
    try:
        return place._replace(shape=shape, strides=np.reshape(blank, shape, copy=False).strides)
    except ValueError:
        return None
