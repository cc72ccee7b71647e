"""RaggedTensor: rows of unequal lengths, as one tensor of all values and where each row begins.

Where rows begin is known to the host, so that gradients flow through the values alone. Values may
be ragged themselves, for tensors of more ragged axes, or texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import numpy as np

from distgrad.core.composite import Composite
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import DType, as_dtype
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.shapes import TensorShape
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.texts import all_texts, as_strings, dtype_of
from distgrad.ragged import partition
from distgrad.ragged.partition import integers


class RaggedTensor(Composite):
    """Rows of unequal lengths (``tf.RaggedTensor``), made by ``tf.ragged.constant`` and ``from_*``.

    ``values`` are a tensor, texts or a RaggedTensor, whose first axis is cut into rows at
    ``row_splits``. Operations and Python's operators take it as they take tensors; gradients flow
    through ``flat_values``. Each ``from_*`` raises InvalidArgumentError for rows that do not fit
    the values, unless ``validate`` is False.
    """

    def __init__(self, values: Any, splits: np.ndarray, uniform: int | None = None) -> None:
        """For ``from_*`` and operations; ``uniform`` is the length of rows of one length."""
        self.values: Any = values
        self._splits = splits
        self._uniform = uniform

    # Made of values and something that tells their rows

    @classmethod
    def from_row_splits(
        cls, values: Any, row_splits: Any, name: str | None = None, validate: bool = True
    ) -> RaggedTensor:
        """Rows from each split to the next; there is one split more than rows."""
        values, splits = as_values(values), integers(row_splits)
        if validate:
            partition.check(splits, count_of(values))
        return cls(values, splits)

    @classmethod
    def from_row_lengths(
        cls, values: Any, row_lengths: Any, name: str | None = None, validate: bool = True
    ) -> RaggedTensor:
        """Rows of these lengths."""
        splits = partition.of_lengths(integers(row_lengths))
        return cls.from_row_splits(values, splits, name, validate)

    @classmethod
    def from_value_rowids(
        cls,
        values: Any,
        value_rowids: Any,
        nrows: Any = None,
        name: str | None = None,
        validate: bool = True,
    ) -> RaggedTensor:
        """Each value in the row of this number; the numbers ascend. Further rows are empty."""
        count = None if nrows is None else int(nrows)
        splits = partition.of_row_ids(integers(value_rowids), count)
        return cls.from_row_splits(values, splits, name, validate)

    @classmethod
    def from_row_starts(
        cls, values: Any, row_starts: Any, name: str | None = None, validate: bool = True
    ) -> RaggedTensor:
        """Rows from each start to the next, the last one to the end."""
        values, starts = as_values(values), integers(row_starts)
        splits = np.append(starts, np.array(count_of(values), starts.dtype))
        return cls.from_row_splits(values, splits, name, validate)

    @classmethod
    def from_row_limits(
        cls, values: Any, row_limits: Any, name: str | None = None, validate: bool = True
    ) -> RaggedTensor:
        """Rows that end before each limit, where the next one begins."""
        splits = np.insert(integers(row_limits), 0, 0)
        return cls.from_row_splits(values, splits, name, validate)

    @classmethod
    def from_uniform_row_length(
        cls,
        values: Any,
        uniform_row_length: Any,
        nrows: Any = None,
        validate: bool = True,
        name: str | None = None,
    ) -> RaggedTensor:
        """Rows of one length, which its shape tells; ``nrows`` where that is 0."""
        values, length = as_values(values), int(uniform_row_length)
        count = count_of(values) // max(length, 1) if length else 0
        rows = count if nrows is None else int(nrows)
        if length < 0 or rows * length != count_of(values):
            raise InvalidArgumentError(
                f"{count_of(values)} values are not {rows} rows of the length {length}"
            )
        return cls(values, length * np.arange(rows + 1, dtype=np.int64), length)

    @classmethod
    def from_nested_row_splits(
        cls,
        flat_values: Any,
        nested_row_splits: Sequence[Any],
        name: str | None = None,
        validate: bool = True,
    ) -> RaggedTensor:
        """Rows of rows: one vector of splits for each ragged axis, the outermost first."""
        for splits in reversed(list(nested_row_splits)):
            flat_values = cls.from_row_splits(flat_values, splits, name, validate)
        return flat_values

    @classmethod
    def from_nested_row_lengths(
        cls,
        flat_values: Any,
        nested_row_lengths: Sequence[Any],
        name: str | None = None,
        validate: bool = True,
    ) -> RaggedTensor:
        """Rows of rows: one vector of lengths for each ragged axis, the outermost first."""
        for lengths in reversed(list(nested_row_lengths)):
            flat_values = cls.from_row_lengths(flat_values, lengths, name, validate)
        return flat_values

    @classmethod
    def from_nested_value_rowids(
        cls,
        flat_values: Any,
        nested_value_rowids: Sequence[Any],
        nested_nrows: Sequence[Any] | None = None,
        name: str | None = None,
        validate: bool = True,
    ) -> RaggedTensor:
        """Rows of rows: numbers of rows for each ragged axis, the outermost first."""
        counts = [None] * len(nested_value_rowids) if nested_nrows is None else nested_nrows
        for ids, count in zip(reversed(nested_value_rowids), reversed(counts), strict=True):
            flat_values = cls.from_value_rowids(flat_values, ids, count, name, validate)
        return flat_values

    # What it is

    @property
    def flat_values(self) -> Any:
        """The innermost values: a tensor, or texts."""
        return self.values.flat_values if isinstance(self.values, RaggedTensor) else self.values

    @property
    def row_splits(self) -> Tensor:
        return as_tensor(self._splits)

    @property
    def uniform_row_length(self) -> Tensor | None:
        """The length of every row, where it is known to be one; int64."""
        return None if self._uniform is None else as_tensor(np.asarray(self._uniform, np.int64))

    @property
    def partitions(self) -> tuple[np.ndarray, ...]:
        """The splits of each ragged axis, the outermost first, as arrays of the host."""
        inner = self.values.partitions if isinstance(self.values, RaggedTensor) else ()
        return (self._splits, *inner)

    @property
    def nested_row_splits(self) -> tuple[Tensor, ...]:
        return tuple(map(as_tensor, self.partitions))

    @property
    def ragged_rank(self) -> int:
        return len(self.partitions)

    @property
    def shape(self) -> TensorShape:
        """None for the axes along which rows differ."""
        return TensorShape([len(self._splits) - 1, self._uniform, *self.values.shape[1:]])

    def get_shape(self) -> TensorShape:
        """The shape."""
        return self.shape

    @property
    def dtype(self) -> DType:
        return dtype_of(self.flat_values)

    def nrows(self, out_type: Any = None, name: str | None = None) -> Tensor:
        """The number of rows."""
        return self._out(np.array(len(self._splits) - 1), out_type)

    def row_starts(self, name: str | None = None) -> Tensor:
        return as_tensor(self._splits[:-1])

    def row_limits(self, name: str | None = None) -> Tensor:
        return as_tensor(self._splits[1:])

    def value_rowids(self, name: str | None = None) -> Tensor:
        """The number of the row that each of ``values`` lies in."""
        return as_tensor(partition.row_ids(self._splits))

    def nested_value_rowids(self, name: str | None = None) -> tuple[Tensor, ...]:
        return tuple(as_tensor(partition.row_ids(splits)) for splits in self.partitions)

    def nested_row_lengths(self, name: str | None = None) -> tuple[Tensor, ...]:
        return tuple(as_tensor(partition.lengths_of(splits)) for splits in self.partitions)

    def row_lengths(self, axis: int = 1, name: str | None = None) -> Any:
        """The lengths of the rows along ``axis``, which lie as the axes before it do."""
        rank = len(self.shape)
        axis = axis + rank if axis < 0 else axis
        if not 0 <= axis < rank:
            raise ValueError(
                f"axis={axis} is out of bounds: a RaggedTensor of rank {rank} has none"
            )
        if axis == 0:
            return self.nrows()
        if axis == 1:
            return as_tensor(partition.lengths_of(self._splits))
        if isinstance(self.values, RaggedTensor):
            return self.with_values(self.values.row_lengths(axis - 1))
        sizes = np.full(self.values.shape[: axis - 1], self.values.shape[axis - 1])
        return self.with_values(as_tensor(sizes.astype(self._splits.dtype)))

    def bounding_shape(
        self, axis: Any = None, name: str | None = None, out_type: Any = None
    ) -> Tensor:
        """The sizes of the smallest dense tensor that all rows fit in, or that of one axis."""
        longest = [int(partition.lengths_of(s).max(initial=0)) for s in self.partitions]
        sizes = [len(self._splits) - 1, *longest, *self.flat_values.shape[1:]]
        return self._out(np.array(sizes if axis is None else np.array(sizes)[axis]), out_type)

    def _out(self, sizes: np.ndarray, out_type: Any) -> Tensor:
        dtype = self._splits.dtype if out_type is None else as_dtype(out_type).numpy_dtype
        return as_tensor(sizes.astype(dtype))

    # The same rows

    def with_values(self, new_values: Any) -> RaggedTensor:
        """The same rows of other values, of which there are as many."""
        new_values = as_values(new_values)
        if count_of(new_values) != count_of(self.values):
            raise InvalidArgumentError(
                f"{count_of(new_values)} values in rows of {count_of(self.values)}"
            )
        return RaggedTensor(new_values, self._splits, self._uniform)

    def with_flat_values(self, new_values: Any) -> RaggedTensor:
        """The same rows, of every ragged axis, of other innermost values."""
        inner = isinstance(self.values, RaggedTensor)
        return self.with_values(self.values.with_flat_values(new_values) if inner else new_values)

    def with_row_splits_dtype(self, dtype: Any) -> RaggedTensor:
        """The same with splits of int32 or int64."""
        splits = integers(self._splits, dtype)
        ragged = isinstance(self.values, RaggedTensor)
        values = self.values.with_row_splits_dtype(dtype) if ragged else self.values
        return RaggedTensor(values, splits, self._uniform)

    @property
    def spec(self) -> Any:
        """Its RaggedTensorSpec."""
        from distgrad.ragged.spec import RaggedTensorSpec

        return RaggedTensorSpec.from_value(self)

    def packed(self) -> tuple[Any, ...]:
        """The innermost values, and texts that say how they lie."""
        inner = self.values.packed() if isinstance(self.values, RaggedTensor) else (self.values,)
        return (*inner, f"{self._uniform}:{self._splits.dtype.name}", self._splits.tobytes())

    @classmethod
    def unpacked(cls, values: Any, *parts: Any) -> RaggedTensor:
        """What ``packed`` was made of."""
        for how, splits in zip(parts[::2], parts[1::2], strict=True):
            uniform, dtype = how.split(":")
            values = cls(
                values, np.frombuffer(splits, dtype), None if uniform == "None" else int(uniform)
            )
        return values

    # On the host

    def numpy(self) -> np.ndarray:
        """An array of rows: one of objects where their lengths differ, else of one more axis."""
        values = self.values.numpy()
        rows = np.split(values, self._splits[1:-1]) if len(self._splits) > 1 else []
        if not rows:
            return np.zeros((0, 0, *values.shape[1:]), values.dtype)
        if len({len(row) for row in rows}) == 1:
            return np.array(rows)
        made = np.empty(len(rows), object)
        made[:] = rows
        return made

    def to_list(self) -> list[Any]:
        """Lists of lists of Python's values; texts are bytes."""
        inner = self.values
        values = inner.to_list() if isinstance(inner, RaggedTensor) else inner.numpy().tolist()
        splits = self._splits.tolist()
        return [values[splits[i] : splits[i + 1]] for i in range(len(splits) - 1)]

    def __repr__(self) -> str:
        from distgrad.ragged.printing import text

        return text(self)

    def consumers(self) -> list[Any]:
        """Nobody: there are no graphs."""
        return []

    def __iter__(self) -> Iterator[Any]:
        return (self[row] for row in range(len(self._splits) - 1))

    def __bool__(self) -> NoReturn:
        raise TypeError("RaggedTensor may not be used as a boolean.")

    def __hash__(self) -> int:
        raise TypeError("RaggedTensor is unhashable.")

    def __reduce__(self) -> tuple[Any, ...]:
        return RaggedTensor, (self.values, self._splits, self._uniform)

    # To and from other tensors, in `distgrad.ragged.converting`

    @classmethod
    def from_tensor(
        cls,
        tensor: Any,
        lengths: Any = None,
        padding: Any = None,
        ragged_rank: int = 1,
        name: str | None = None,
        row_splits_dtype: Any = "int64",
    ) -> RaggedTensor:
        """The rows of a dense tensor, of ``lengths``, or without ``padding`` at their ends.

        Lengths of several ragged axes are a tuple of vectors. Raises ValueError where both are
        given, or ``ragged_rank`` is less than 1 or not less than the rank.
        """
        from distgrad.ragged.converting import from_tensor

        made = from_tensor(as_values(tensor), lengths, padding, ragged_rank)
        return made.with_row_splits_dtype(row_splits_dtype)

    @classmethod
    def from_sparse(
        cls, st_input: SparseTensor, name: str | None = None, row_splits_dtype: Any = "int64"
    ) -> RaggedTensor:
        """The rows of a sparse matrix whose values lie at the beginnings of its rows.

        Raises InvalidArgumentError where they do not.
        """
        from distgrad.ragged.converting import from_sparse

        return from_sparse(st_input).with_row_splits_dtype(row_splits_dtype)

    def to_tensor(
        self, default_value: Any = None, name: str | None = None, shape: Any = None
    ) -> Any:
        """A dense tensor, or array of texts, with ``default_value`` (0 or "") after shorter rows.

        ``shape`` states sizes, at which rows are cut off, None for that of the longest row.
        """
        from distgrad.ragged.converting import to_tensor

        return to_tensor(self, default_value, shape)

    def to_sparse(self, name: str | None = None) -> SparseTensor:
        """The values at their places in the bounding shape."""
        from distgrad.ragged.converting import to_sparse

        return to_sparse(self)

    def merge_dims(self, outer_axis: int, inner_axis: int) -> Any:
        """The axes from one to another as one: rows one after the other.

        Raises ValueError where the outer axis is not before the inner one.
        """
        from distgrad.ragged.converting import merge_dims

        return merge_dims(self, outer_axis, inner_axis)


def as_tensor_or_ragged(value: Any) -> Any:
    """A tensor, texts or a RaggedTensor."""
    if isinstance(value, RaggedTensor):
        return value
    text = not isinstance(value, Operand) and all_texts(value)
    return as_strings(value) if text else as_tensor(value)


def as_values(value: Any) -> Any:
    """A tensor, texts or a RaggedTensor. Raises ValueError for a scalar."""
    made = as_tensor_or_ragged(value)
    if not len(made.shape):
        raise ValueError(f"values need an axis that is cut into rows: {value!r} has none")
    return made


def count_of(values: Any) -> int:
    """The size of the first axis of a tensor, texts or a RaggedTensor."""
    return len(values._splits) - 1 if isinstance(values, RaggedTensor) else int(values.shape[0])
