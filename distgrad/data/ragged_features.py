"""Features of any number of values that are read as rows of unequal lengths."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from distgrad.core.dtypes import int32, string
from distgrad.core.texts import as_strings
from distgrad.data.features import Kind, VarLenFeature

# Reads the int64 values of another feature of the same example.
Read = Callable[[str], Any]


# How those are read.
INDICES = VarLenFeature("int64")


class _Keyed(NamedTuple):
    key: str

    def rows(self, values: Any, read: Read) -> Any:
        """The values in the rows that the feature ``key`` tells."""
        from distgrad.ragged import RaggedTensor

        return getattr(RaggedTensor, _MAKERS[type(self).__name__])(values, read(self.key))


class RowSplits(_Keyed):
    """Rows begin, and the last one ends, at the values of a feature."""


class RowLengths(_Keyed):
    """Rows are as long as the values of a feature say."""


class RowStarts(_Keyed):
    """Rows begin at the values of a feature."""


class RowLimits(_Keyed):
    """Rows end at the values of a feature."""


class ValueRowIds(_Keyed):
    """Values lie in the rows whose numbers a feature has."""


class UniformRowLength(NamedTuple):
    """All rows have one length."""

    length: int

    def rows(self, values: Any, read: Read) -> Any:
        """The values in such rows: dense, where they were."""
        from distgrad.ragged import RaggedTensor

        made = RaggedTensor.from_uniform_row_length(values, self.length)
        return made if isinstance(values, RaggedTensor) else made.to_tensor()


_MAKERS = {
    "RowSplits": "from_row_splits",
    "RowLengths": "from_row_lengths",
    "RowStarts": "from_row_starts",
    "RowLimits": "from_row_limits",
    "ValueRowIds": "from_value_rowids",
}


class _Ragged(NamedTuple):
    dtype: Any
    value_key: str | None = None
    partitions: Sequence[Any] = ()
    row_splits_dtype: Any = int32
    validate: bool = False


class RaggedFeature(_Ragged, Kind):
    """A feature with any number of values: a RaggedTensor of all examples (a tensor of one).

    ``value_key`` is its name where that is another one. ``partitions``, the outermost first, cut
    the values of each example into rows, of rows: by the int64 feature that each of them names.
    """

    RowSplits, RowLengths, RowStarts = RowSplits, RowLengths, RowStarts
    RowLimits, ValueRowIds, UniformRowLength = RowLimits, ValueRowIds, UniformRowLength

    def __new__(cls, *args: Any, **kwargs: Any) -> RaggedFeature:
        made = super().__new__(cls, *args, **kwargs)
        return made._replace(partitions=tuple(made.partitions))

    shape = ()
    default_value = None
    missing = ()
    allow_missing = True

    def fault(self, values: Sequence[Any]) -> str:
        """What is wrong with the number of values: nothing."""
        return ""

    def together(self, rows: Sequence[Any], reads: Sequence[Read] | None = None) -> Any:
        """The values of all rows, with a first axis over them, cut into rows themselves."""
        from distgrad.ragged import RaggedTensor

        if not self.partitions:
            flat = self._flat(list(itertools.chain.from_iterable(rows)))
            made = RaggedTensor.from_row_lengths(flat, [len(row) for row in rows])
            return made.with_row_splits_dtype(self.row_splits_dtype)
        from distgrad.ragged.row import together

        each = []
        for values, read in zip(rows, reads or (), strict=True):
            found = self._flat(values)
            for partition in reversed(self.partitions):
                found = partition.rows(found, read)
            each.append(found)
        return together(each).with_row_splits_dtype(self.row_splits_dtype)

    def _flat(self, values: Any) -> Any:
        made = np.empty(len(values), self.of_array)
        self.put(values, made)
        return as_strings(made) if self.kind is string else made
