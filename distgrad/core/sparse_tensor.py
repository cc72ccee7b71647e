"""SparseTensor: values and the places where they lie.

Places are known to the host, so that gradients flow through the values alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import numpy as np

from distgrad.core.composite import Composite, CompositeSpec
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import DType
from distgrad.core.shapes import TensorShape
from distgrad.core.spec import TensorSpec
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.texts import as_strings, dtype_of, holds_texts

# The elements of a dense tensor at places of a shape that it is broadcast to, and those of a vector
# at some places; ``ops.indexing`` puts its own here.
at_places: Any = None
gathered: Any = None


class SparseTensor(Composite):
    """An array of ``dense_shape`` that has nothing (0, or "") but ``values`` (N,) at ``indices``.

    Indices (N, rank) and the shape (rank,) are int64; values are a tensor, or an array of texts.
    ``cast``, ``edit_distance``, ``tf.sparse``, ``keras.ops`` and layers of Keras take it:
    ``tf.sparse.to_dense`` makes a tensor. It may be an element of a dataset, and a batch of such
    elements is one, too. It is multiplied and divided by numbers, and by dense tensors that are
    broadcast to its shape. Raises ValueError for shapes that do not fit each other.
    """

    kind = "sparse"
    made_dense_by = "tf.sparse.to_dense"
    _by_rows: tuple[np.ndarray, np.ndarray | None] | None = None  # see ``_in_rows``

    def __init__(self, indices: Any, values: Any, dense_shape: Any) -> None:
        text = not isinstance(values, Operand) and holds_texts(np.asarray(values))
        self.values: Any = as_strings(values) if text else as_tensor(values)
        self._places, self._sizes = (_int64(each) for each in (indices, dense_shape))
        places, rank = self._places.shape, self._sizes.shape
        if len(places) != 2 or (places[0], *rank) != (*self.values.shape, places[1]):
            shapes = f"{places}, {tuple(self.values.shape)} and {rank}"
            raise ValueError(
                f"indices, values and dense_shape have shapes {shapes}, not (N, rank), (N,) and "
                "(rank,)"
            )

    @classmethod
    def of_dense(cls, array: np.ndarray) -> SparseTensor:
        """One with a value at every place of an array."""
        places = np.argwhere(np.ones(array.shape, bool))
        return cls(places, array.reshape(-1), array.shape)

    @property
    def indices(self) -> Tensor:
        """Where the values lie, (N, rank), int64."""
        return as_tensor(self._places)

    @property
    def dense_shape(self) -> Tensor:
        """The shape as a vector, int64."""
        return as_tensor(self._sizes)

    @property
    def shape(self) -> TensorShape:
        return TensorShape(self._sizes.tolist())

    @property
    def dtype(self) -> DType:
        return dtype_of(self.values)

    @property
    def spec(self) -> SparseTensorSpec:
        return SparseTensorSpec.from_value(self)

    @property
    def flat_values(self) -> Any:
        return self.values

    def with_values(self, new_values: Any) -> SparseTensor:
        """Other values at the same places."""
        return SparseTensor(self._places, new_values, self._sizes)

    with_flat_values = with_values

    def numpy(self) -> SparseTensor:
        """Itself, as ``as_numpy_iterator`` gives it."""
        return self

    def packed(self) -> tuple[Any, ...]:
        return self.values, self._places.tobytes(), self._sizes.tobytes()

    @classmethod
    def unpacked(cls, values: Any, *parts: Any) -> SparseTensor:
        places, shape = (np.frombuffer(part, np.int64) for part in parts)
        return cls(places.reshape(-1, len(shape)), values, shape)

    # Rows, as batches have them

    def __getitem__(self, rows: slice) -> SparseTensor:
        """The rows of a slice. Raises TypeError for another index, which ``tf.sparse.slice`` is."""
        if not isinstance(rows, slice):
            raise TypeError(f"a SparseTensor takes slices of rows, not {rows!r}: use tf.sparse")
        return self.take(np.arange(self.shape[0])[rows])

    def take(self, rows: np.ndarray) -> SparseTensor:
        """These rows, one after the other."""
        starts, order = self._in_rows()
        first, last = starts[rows], starts[rows + 1]
        lengths = last - first
        ends = np.cumsum(lengths)
        where = np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - ends + lengths, lengths)
        where = where if order is None else order[where]
        places = self._places[where]
        places[:, 0] = np.repeat(np.arange(len(rows)), lengths)
        shape = [len(rows), *self._sizes[1:]]
        return SparseTensor(places, _values_at(self.values, where), shape)

    def _in_rows(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Where each row begins, and the order that puts row after row; None if they lie so."""
        if self._by_rows is None:
            number, order = self._places[:, 0], None
            if (number[1:] < number[:-1]).any():
                order = np.argsort(number, kind="stable")
                number = number[order]
            self._by_rows = np.searchsorted(number, np.arange(self._sizes[0] + 1)), order
        return self._by_rows

    def rows(self) -> Iterator[SparseTensor]:
        """What lies along the first axis, one by one."""
        for row in range(self.shape[0] or 0):
            one = self.take(np.array([row]))
            yield SparseTensor(one._places[:, 1:], one.values, one._sizes[1:])

    @staticmethod
    def stacked(parts: Sequence[SparseTensor]) -> SparseTensor:
        """One with a first axis over these, and sizes in which each has room."""
        number = np.repeat(np.arange(len(parts)), [len(part._places) for part in parts])
        places = np.concatenate([part._places for part in parts])
        values = np.concatenate([np.asarray(part.values) for part in parts])
        sizes = np.max([part._sizes for part in parts], axis=0)
        return SparseTensor(np.column_stack([number, places]), values, [len(parts), *sizes])

    def __mul__(self, y: Any) -> SparseTensor:
        return self.with_values(self.values * self._at_places(y))

    __rmul__ = __mul__

    def __truediv__(self, y: Any) -> SparseTensor:
        return self.with_values(self.values / self._at_places(y))

    def _at_places(self, y: Any) -> Any:
        """A number as it is; of a dense tensor, broadcast to the shape, what lies at the places."""
        if not np.ndim(y):
            return y
        dense = as_tensor(y, like=self.values.dtype.numpy_dtype)
        return at_places(dense, self._places, tuple(self.shape))

    def get_shape(self) -> TensorShape:
        """The dense shape."""
        return self.shape

    def __repr__(self) -> str:
        return (
            f"SparseTensor(indices={self.indices}, values={self.values}, "
            f"dense_shape={self.dense_shape})"
        )

    @property
    def _data(self) -> NoReturn:  # which layers look for in what they are given
        self.__array__()


def is_scipy(value: Any) -> bool:
    """Whether it is one of SciPy's sparse arrays or matrices."""
    return type(value).__module__.startswith("scipy.sparse") and hasattr(value, "tocsr")


def of_scipy(value: Any) -> Any:
    """The SparseTensor of one of SciPy's sparse arrays, row by row; anything else as it is."""
    if not is_scipy(value):
        return value
    matrix = value.tocsr(copy=True)
    matrix.sum_duplicates()  # and puts the others in order
    matrix = matrix.tocoo()
    return SparseTensor(np.column_stack([matrix.row, matrix.col]), matrix.data, matrix.shape)


def _values_at(values: Any, where: np.ndarray) -> Any:
    return values[where] if isinstance(values, np.ndarray) else gathered(values, where)


def _int64(value: Any) -> np.ndarray:
    return np.asarray(value).astype(np.int64)


class SparseTensorSpec(CompositeSpec, TensorSpec):
    """Dense shape and dtype of a SparseTensor (``tf.SparseTensorSpec``)."""

    kind = "sparse"
    made_dense_by = "tf.sparse.to_dense"
    value_type = SparseTensor

    def __init__(self, shape: Any = None, dtype: Any = "float32") -> None:
        super().__init__(shape, dtype)

    @classmethod
    def from_value(cls, value: SparseTensor) -> SparseTensorSpec:
        """The spec of a sparse tensor."""
        return cls(value.shape, value.dtype)

    def of_shape(self, shape: Any) -> SparseTensorSpec:
        """The same with another shape."""
        return SparseTensorSpec(shape, self.dtype)

    def is_compatible_with(self, spec_or_tensor: Any) -> bool:
        """Whether a sparse tensor (or another spec) has this dtype and fits this shape."""
        value = spec_or_tensor
        if not isinstance(value, (SparseTensor, SparseTensorSpec)):
            return False
        return value.dtype == self.dtype and self.shape.is_compatible_with(value.shape)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SparseTensorSpec):
            return False
        return (self.shape, self.dtype) == (other.shape, other.dtype)

    def __hash__(self) -> int:
        return hash((SparseTensorSpec, self.shape, self.dtype))

    def __repr__(self) -> str:
        return f"SparseTensorSpec({self.shape!r}, tf.{self.dtype.name})"
