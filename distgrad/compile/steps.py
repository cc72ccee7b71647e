"""Steps: calls that read and write arrays, which lie in buffers whose memory is not there yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Buffer:
    """Memory that a program uses; who owns it is up to the executor."""

    __slots__ = ("kind", "nbytes", "owner")

    def __init__(self, nbytes: int, kind: str = "temporary", owner: Any = None) -> None:
        self.nbytes = nbytes
        self.kind = kind
        self.owner = owner


class View(NamedTuple):
    """An array within a buffer."""

    buffer: Buffer
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    @property
    def contiguous(self) -> bool:
        """Whether it has the layout of an array of its own, row after row."""
        size = self.dtype.itemsize
        for n, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if n > 1 and stride != size:
                return False
            size *= n
        return True

    def of(self, memory: Any) -> np.ndarray:
        """The array, in memory that starts where the buffer does."""
        return np.ndarray(self.shape, self.dtype, memory, self.offset, self.strides)


class Step(NamedTuple):
    """``fn(*args, **kwargs)``, which writes ``out``; views stand for arrays in all of them.

    ``passes_out`` says that ``fn`` takes it as ``out``; else it is the first argument, or there is
    none.
    ``elementwise`` says that ``out`` may be one of the arguments.
    """

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: View | None
    passes_out: bool
    elementwise: bool

    @property
    def mentions(self) -> list[View]:
        """The views among the arguments, and ``out``."""
        found: list[View] = []
        _collect((self.args, tuple(self.kwargs.values()), (self.out,)), found)
        return found

    def run(self, array: Callable[[View], np.ndarray]) -> None:
        """Does it, on the arrays that ``array`` gives for views."""
        args = [_filled(a, array) for a in self.args]
        kwargs = {k: _filled(v, array) for k, v in self.kwargs.items()}
        if self.out is not None and self.passes_out:
            kwargs["out"] = array(self.out)
        self.fn(*args, **kwargs)


def _collect(item: Any, found: list[View]) -> None:
    if isinstance(item, View):
        found.append(item)
    elif isinstance(item, (list, tuple)):
        for part in item:
            _collect(part, found)


def _filled(item: Any, array: Callable[[View], np.ndarray]) -> Any:
    if isinstance(item, View):
        return array(item)
    if type(item) in (list, tuple):
        return type(item)(_filled(part, array) for part in item)
    return item


def repeated(array: np.ndarray) -> np.ndarray:
    """The part of an array that its strides repeat: an axis of stride 0 is taken once."""
    return array[tuple(slice(1 if step == 0 else None) for step in array.strides)]


def mapped(step: Step, change: Callable[[View], View]) -> Step:
    """The step with ``change`` made to each of its views."""

    def filled(item: Any) -> Any:
        if isinstance(item, View):
            return change(item)
        if type(item) in (list, tuple):
            return type(item)(map(filled, item))
        return item

    kwargs = {k: filled(v) for k, v in step.kwargs.items()}
    return step._replace(args=filled(step.args), kwargs=kwargs, out=filled(step.out))


def bound(step: Step, places: dict[Buffer, View]) -> Step:
    """The step with arguments at their places."""

    def change(view: View) -> View:
        place = places.get(view.buffer)
        if place is None:
            return view
        return view._replace(buffer=place.buffer, offset=place.offset + view.offset)

    return mapped(step, change)
