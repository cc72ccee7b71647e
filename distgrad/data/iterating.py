"""One iteration over a dataset, which checkpoints can keep."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from distgrad.core import recording
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.op_errors import OutOfRangeError
from distgrad.core.place import Place
from distgrad.data.calling import as_tensors

_BAKED = "an element of a dataset would be a constant of the program"


class Elements:
    """An iterator over a dataset, of which a captured function may take no element."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        recording.refuse(_BAKED)
        return self._following()

    def _following(self) -> Any:
        """The next element. Raises StopIteration after the last."""
        raise NotImplementedError

    def get_next(self) -> Any:
        """The next element. Raises OutOfRangeError after the last."""
        try:
            return next(self)
        except StopIteration:
            raise OutOfRangeError("the dataset has no further element") from None

    def get_next_as_optional(self) -> Optional:
        """The next element, or that there is none."""
        for element in self:
            return Optional(element)
        return Optional()


class Optional:
    """An element that may not be there (``tf.experimental.Optional``)."""

    def __init__(self, *elements: Any) -> None:
        self._elements = elements

    def has_value(self, name: str | None = None) -> Any:
        """Whether it is there, a bool tensor."""
        return as_tensors(np.asarray(bool(self._elements)))

    def get_value(self, name: str | None = None) -> Any:
        """The element. Raises InvalidArgumentError where it is not there."""
        if not self._elements:
            raise InvalidArgumentError("the dataset has no further element: ask has_value first")
        return self._elements[0]


class DatasetIterator(Elements):
    """The elements of one pass over a dataset, as tensors; checkpoints keep where it stands.

    One that is restored makes the elements before its place again, and throws them away.
    """

    def __init__(self, dataset: Any, epoch: int) -> None:
        self._dataset = dataset
        self._place = Place(lambda: (self._epoch, self._taken), self._jump)
        self._jump([epoch, 0])

    def _jump(self, place: list[int]) -> None:
        recording.refuse(_BAKED)
        self._epoch, self._taken = place
        elements = self._dataset.iterate(self._epoch)
        self._rest: Iterator[Any] = itertools.islice(elements, self._taken, None)
        self._dataset.begun(self._epoch)

    def checkpointed(self) -> Iterator[tuple[str, Place]]:
        """What is saved, by name."""
        yield "place", self._place

    def _following(self) -> Any:
        element = as_tensors(next(self._rest))
        self._taken += 1
        return element

    def close(self) -> None:
        """Ends it: threads that make elements in advance stop."""
        self._rest = iter(())

    @property
    def element_spec(self) -> Any:
        """That of the dataset."""
        return self._dataset.element_spec
