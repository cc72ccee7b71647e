"""Simple rules as functions of arrays: what ``g * y`` does, without tensors and recorders.

Where nobody records, the backward walk may call the kernels of a rule itself. Which they are, and
in which order, is learned from the rule: it runs once on stand-ins that note down what is done with
them. A rule that looks at shapes or values, or calls anything but kernels, stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin


class Unsuitable(Exception):
    """A rule that does more than call kernels."""


class Noted(NDArrayOperatorsMixin):
    """Stands for an array; calls of functions with it are noted, anything else is refused."""

    __slots__ = ("_notes", "text")
    dtype = np.dtype(np.float32)

    def __init__(self, notes: _Notes, text: str) -> None:
        self._notes = notes
        self.text = text

    def call(self, function: Callable[..., Any], inputs: Sequence[Any]) -> Noted:
        """The result of a function of one result."""
        return self._notes.call(function, inputs)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Noted:
        if method != "__call__" or kwargs or ufunc.nout != 1:
            raise Unsuitable(ufunc)
        return self.call(ufunc, inputs)

    def __array_function__(self, *args: Any) -> Any:
        raise Unsuitable("not a ufunc")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise Unsuitable("it is wanted as an array")

    def __getattr__(self, name: str) -> Any:
        raise Unsuitable(name)

    def __bool__(self) -> bool:
        raise Unsuitable("a look at a value")


_NUMBER = 0.6180339887  # stands for a Python number among the arguments


class _Notes:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {}
        self.numbers: list[str] = []  # arguments that are Python numbers

    def call(self, function: Callable[..., Any], inputs: Sequence[Any]) -> Noted:
        name = f"f{len(self.lines)}"
        self.names[name] = function
        given = ", ".join(map(self._operand, inputs))
        self.lines.append(f"    t{len(self.lines)} = {name}({given})")
        return Noted(self, f"t{len(self.lines) - 1}")

    def _operand(self, item: Any) -> str:
        if type(item) is Noted:
            return item.text
        if type(item) not in (int, float):
            raise Unsuitable(item)
        if item == _NUMBER:
            (name,) = self.numbers
            return name
        return repr(item)


def straightened(
    rule: Callable[..., Any], wanted: Sequence[str], tensor: Any
) -> Callable[..., Any] | None:
    """``rule(g, *wanted)`` on the array g and what a tape keeps; None where it is unsuitable.

    What is kept is a ``tensor`` or a Python number; for both the rule must do the same.
    """
    written = []
    for number in (None, *(w for w in wanted if w != "out")):
        notes = _Notes()
        notes.numbers = [number] if number else []
        given = [_NUMBER if w == number else tensor(Noted(notes, w)) for w in wanted]
        try:
            made = rule(tensor(Noted(notes, "g")), *given)
        except Exception:  # whatever a rule does with a stand-in that it cannot handle
            return None
        if type(made) is not tensor or type(made._data) is not Noted:
            return None
        if made._data.text in wanted:  # what is kept may look into a variable that changes
            return None
        written.append((notes.lines, made._data.text, list(notes.names.values()), notes.names))
    first = written[0]
    if any(other[:3] != first[:3] for other in written):
        return None
    lines = [f"def straight({', '.join(['g', *wanted])}):"]
    lines += [f"    if type({w}) is Tensor: {w} = {w}._data" for w in wanted]
    lines += [*first[0], f"    return {first[1]}"]
    scope: dict[str, Any] = {**first[3], "Tensor": tensor, "__name__": __name__}
    exec("\n".join(lines), scope)
    return scope["straight"]
