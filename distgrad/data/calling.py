"""Elements of a dataset as a user's own code gets them: tensors, as in TensorFlow."""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import CellType, CodeType, FunctionType
from typing import Any

import numpy as np

from distgrad.core.composite import Composite
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.texts import Bytes, Texts, as_bytes, holds_texts
from distgrad.data import nest

_called: ContextVar[bool] = ContextVar("called", default=False)


def inside() -> bool:
    """Whether a function that was given to a dataset is running."""
    return _called.get()


def as_tensors(element: Any) -> Any:
    """An element with tensors for its arrays of numbers, and texts that have ``numpy()``."""
    from distgrad.core.dispatch import as_tensor

    def tensor(leaf: Any) -> Any:
        if isinstance(leaf, Composite):
            return leaf.element()
        if type(leaf) is Bytes or not isinstance(leaf, (np.ndarray, np.generic)):
            return leaf
        if leaf.dtype.kind in "SU":
            return np.asarray(leaf).view(Texts)
        if leaf.dtype.kind == "O":  # of bytes, or of datasets
            if holds_texts(np.asarray(leaf)):
                return as_bytes(leaf)
            return leaf if leaf.ndim else leaf.item()
        return as_tensor(leaf)

    return nest.map_leaves(tensor, element)


def holds(predicate: Callable[..., Any], element: Any) -> bool:
    """What a user's predicate says of an element. Raises ValueError where that is no bool."""
    answer = call(predicate, element)
    if type(answer) is not bool and (
        getattr(answer, "dtype", None) != np.bool_ or getattr(answer, "ndim", 0)
    ):
        raise ValueError(f"a predicate must return one bool, not {answer!r}: compare, or use cast")
    return bool(answer)


def call(function: Callable[..., Any], element: Any) -> Any:
    """A user's function on an element: the parts of a tuple that has no names are its arguments.

    Raises InvalidArgumentError where it raises StopIteration, which would end the dataset.
    """
    given = as_tensors(element)
    before = _called.set(True)
    try:
        return function(*given) if type(given) is tuple else function(given)
    except StopIteration as end:
        raise InvalidArgumentError(
            "a function given to a dataset raised StopIteration, perhaps by next(): what it reads "
            "has no further element"
        ) from end
    finally:
        _called.reset(before)


class _Names(dict):
    """The names around a function as they were; what was not there yet is looked up later."""

    def __init__(self, names: dict[str, Any], used: set[str]) -> None:
        super().__init__({name: names[name] for name in used if name in names})
        self._later = names

    def __missing__(self, name: str) -> Any:
        return self._later[name]


def as_of_now(function: Any) -> Any:
    """The function with the values that the variables around it have now.

    TensorFlow traces a function when a step is made of it: ``for i in range(3): data =
    data.map(lambda x: x + i)`` adds 0, 1 and 2. A function that sets such variables, and whatever
    is no plain function, is left as it is.
    """
    if type(function) is not FunctionType:
        return function
    codes = list(_codes(function.__code__))
    if any(
        step.opname in ("STORE_DEREF", "STORE_GLOBAL") and step.argval not in code.co_cellvars
        for code in codes
        for step in dis.get_instructions(code)
    ):
        return function
    used = {"__builtins__", "__name__"}.union(*(code.co_names for code in codes))
    made = FunctionType(
        function.__code__,
        _Names(function.__globals__, used),
        function.__name__,
        function.__defaults__,
        tuple(map(_copied, function.__closure__ or ())),
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code of a function, and of those that are made in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _copied(cell: CellType) -> CellType:
    try:
        return CellType(cell.cell_contents)
    except ValueError:  # it is empty yet
        return cell
