"""One iteration over a dataset, which checkpoints can keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np

from distgrad.core import recording
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.op_errors import OutOfRangeError
from distgrad.core.place import Place
from distgrad.data import nest
from distgrad.data.calling import as_tensors
from distgrad.data.specs import of_array

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
            return Optional([element], lambda: self.element_spec)
        return Optional([], lambda: self.element_spec)

    @property
    def element_spec(self) -> Any:
        """What is known of the elements."""
        raise NotImplementedError


class Optional:
    """An element that may not be there (``tf.experimental.Optional``), and what is known of it."""

    def __init__(self, elements: Sequence[Any], spec: Callable[[], Any]) -> None:
        self._elements = elements
        self._spec = spec

    @property
    def element_spec(self) -> Any:
        """What is known of the element."""
        return self._spec()

    @staticmethod
    def from_value(value: Any) -> Optional:
        """One that is there: a nest of tensors, or of what can become one."""
        arrays = nest.to_arrays(value)
        return Optional([as_tensors(arrays)], lambda: nest.map_leaves(of_array, arrays))

    @staticmethod
    def empty(element_spec: Any) -> Optional:
        """One that is not there."""
        return Optional([], lambda: element_spec)

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
        self._behind = self._taken  # elements that are to be made again
        self._rest: Iterator[Any] = self._dataset.iterate(self._epoch)
        self._dataset.begun(self._epoch)

    def checkpointed(self) -> Iterator[tuple[str, Place]]:
        """What is saved, by name."""
        yield "place", self._place

    def _following(self) -> Any:
        while self._behind:
            self._behind -= 1
            next(self._rest)
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
