"""What the features of an example are read as: their dtypes, shapes and defaults."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from distgrad.core.dtypes import DType, of_input, string
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.texts import as_bytes

_FIELDS = {"int64": "int64_list", "float32": "float_list", "string": "bytes_list"}


class Kind:
    """What the kinds of features have in common."""

    shape: Any
    dtype: Any
    default_value: Any

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The shape. Raises ValueError where a size is not known."""
        if self.shape is None:
            raise ValueError(f"Missing shape for a feature: {self}")
        sizes = (self.shape,) if isinstance(self.shape, (int, np.integer)) else tuple(self.shape)
        if None in sizes:
            raise ValueError(
                f"a size of the shape is unknown: use FixedLenSequenceFeature in place of {self}"
            )
        return sizes

    @cached_property
    def kind(self) -> DType:
        """The dtype. Raises InvalidArgumentError for one that no feature can have."""
        kind = of_input(self.dtype)
        if kind.name not in _FIELDS:
            raise InvalidArgumentError(
                f"features are of int64, float32 or string, not {kind.name}: cast them afterwards"
            )
        return kind

    @cached_property
    def field(self) -> str:
        """Which list of a ``tf.train.Feature`` has the values."""
        return _FIELDS[self.kind.name]

    @cached_property
    def total(self) -> int:
        """The number of values in the shape."""
        return math.prod(self.sizes)

    @cached_property
    def nothing(self) -> Any:
        """What fills up."""
        return b"" if self.kind is string else 0

    def zeros(self, parts: int) -> list[Any]:
        """As many of it as so many times the shape has values."""
        return [self.nothing] * (self.total * parts)

    def values_of(self, value: Any) -> list[Any]:
        """A default as a flat list. Raises TypeError where it is of another dtype."""
        if self.kind is string:
            return np.asarray(as_bytes(value)).ravel().tolist()
        array = np.asarray(value)
        if array.size and not np.can_cast(array.dtype, self.kind.numpy_dtype, "same_kind"):
            raise TypeError(f"the default {value!r} is not of dtype {self.kind.name}")
        return array.astype(self.kind.numpy_dtype).ravel().tolist()

    @cached_property
    def of_array(self) -> np.dtype:
        """The dtype of arrays: that of objects for texts."""
        return np.dtype(object) if self.kind is string else self.kind.numpy_dtype

    def put(self, values: Any, room: np.ndarray) -> None:
        """Puts the values of one example into an array for them."""
        # (NumPy takes a message's list of numbers as a whole, but none of bytes.)
        room[:] = list(values) if self.kind is string else values


class _FixedLen(NamedTuple):
    shape: Any
    dtype: Any
    default_value: Any = None


class FixedLenFeature(_FixedLen, Kind):
    """A feature with the same number of values in every example: an array of that shape.

    ``dtype`` is int64, float32 or string; ``default_value`` is for examples that lack the feature.
    """

    @cached_property
    def missing(self) -> list[Any] | None:
        """The values of an example that has none; None where it must have them.

        Raises InvalidArgumentError for a default of another number of values.
        """
        if self.default_value is None:
            return None
        found = self.values_of(self.default_value)
        if len(found) != self.total:
            raise InvalidArgumentError(
                f"the default has {len(found)} values, but its shape is {list(self.sizes)}"
            )
        return found

    def fault(self, values: Sequence[Any]) -> str:
        """What is wrong with the number of values; nothing if nothing is."""
        if len(values) == self.total:
            return ""
        return (
            f"Number of {self.kind.name} values != expected.  Values size: {len(values)} but "
            f"output shape: {list(self.sizes)}"
        )

    def together(self, rows: Sequence[Sequence[Any]]) -> np.ndarray:
        """An array with a first axis over the rows."""
        if self.total == 1:
            made = np.fromiter(itertools.chain.from_iterable(rows), self.of_array, len(rows))
        else:
            made = np.empty((len(rows), self.total), self.of_array)
            for row, room in zip(rows, made, strict=True):
                self.put(row, room)
        return made.reshape(len(rows), *self.sizes)


class _FixedLenSequence(NamedTuple):
    shape: Any
    dtype: Any
    allow_missing: bool = False
    default_value: Any = None


class FixedLenSequenceFeature(_FixedLenSequence, Kind):
    """A feature with as many parts of one shape as an example has: an array with one axis more.

    The shorter ones of a batch are filled up by ``default_value`` (0 or "" for None). An example
    may lack it where ``allow_missing``, which all but sequences must say.
    """

    missing = ()

    def fault(self, values: Sequence[Any]) -> str:
        """What is wrong with the number of values; nothing if nothing is."""
        if len(values) % max(self.total, 1) == 0:
            return ""
        return (
            f"Number of {self.kind.name} values is not a multiple of stride length. Saw "
            f"{len(values)} values but output shape: {list(self.sizes)}"
        )

    @cached_property
    def _fill(self) -> Any:
        if self.default_value is None:
            return self.nothing
        (fill,) = self.values_of(self.default_value)
        return fill

    def together(self, rows: Sequence[Sequence[Any]]) -> np.ndarray:
        """An array with a first axis over the rows, and the second as long as the longest."""
        made = np.full((len(rows), max(map(len, rows), default=0)), self._fill, self.of_array)
        for row, room in zip(rows, made, strict=True):
            self.put(row, room[: len(row)])
        return made.reshape(len(rows), made.shape[1] // max(self.total, 1), *self.sizes)


class _VarLen(NamedTuple):
    dtype: Any


class VarLenFeature(_VarLen, Kind):
    """A feature with any number of values: a `SparseTensor`, for ``tf.sparse.to_dense``."""

    shape = ()
    default_value = None
    missing = ()
    allow_missing = True

    def fault(self, values: Sequence[Any]) -> str:
        """What is wrong with the number of values: nothing."""
        return ""

    def together(self, rows: Sequence[Sequence[Any]]) -> SparseTensor:
        """The values of all rows, with a first axis over them."""
        lengths = [len(row) for row in rows]
        places = [(number, place) for number, n in enumerate(lengths) for place in range(n)]
        values = np.empty(len(places), self.of_array)
        self.put(list(itertools.chain.from_iterable(rows)), values)
        found = as_bytes(values) if self.kind is string else values
        indices = np.array(places, np.int64).reshape(-1, 2)
        return SparseTensor(indices, found, [len(rows), max(lengths, default=0)])
