"""Values and the places where they lie, as examples of several lengths give them."""

from __future__ import annotations

import itertools
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

# The elements of a dense tensor at places of a shape that it is broadcast to; ``ops.indexing`` puts
# its own here.
at_places: Any = None


class SparseTensor:
    """An array of ``dense_shape`` that has nothing (0, or "") but ``values`` (N,) at ``indices``.

    Indices (N, rank) and the shape (rank,) are int64; values are a tensor, or an array of texts.
    ``cast``, ``edit_distance`` and ``tf.sparse`` take it: ``tf.sparse.to_dense`` makes a tensor.
    It may be an element of a dataset, and a batch of such elements is one, too.
    It is multiplied and divided by numbers, and by dense tensors that are broadcast to its shape.
    Raises ValueError for shapes that do not fit each other.
    """

    def __init__(self, indices: Any, values: Any, dense_shape: Any) -> None:
        text = not isinstance(values, Operand) and holds_texts(np.asarray(values))
        self.values: Any = as_strings(values) if text else as_tensor(values)
        self.indices, self.dense_shape = (_int64(each) for each in (indices, dense_shape))
        places, rank = self.indices.numpy().shape, self.dense_shape.numpy().shape
        if len(places) != 2 or (places[0], *rank) != (*self.values.shape, places[1]):
            shapes = f"{places}, {tuple(self.values.shape)} and {rank}"
            raise ValueError(
                f"indices, values and dense_shape have shapes {shapes}, not (N, rank), (N,) and "
                "(rank,)"
            )

    @property
    def shape(self) -> TensorShape:
        return TensorShape(self.dense_shape.numpy().tolist())

    @property
    def dtype(self) -> DType:
        return dtype_of(self.values)

    def with_values(self, new_values: Any) -> SparseTensor:
        """Other values at the same places."""
        return SparseTensor(self.indices, new_values, self.dense_shape)

    def __mul__(self, y: Any) -> SparseTensor:
        return self.with_values(self.values * self._at_places(y))

    __rmul__ = __mul__
    __array_ufunc__ = None  # an array leaves the product to these

    def __truediv__(self, y: Any) -> SparseTensor:
        return self.with_values(self.values / self._at_places(y))

    def _at_places(self, y: Any) -> Any:
        """A number as it is; of a dense tensor, broadcast to the shape, what lies at the places."""
        if not np.ndim(y):
            return y
        dense = as_tensor(y, like=self.values.dtype.numpy_dtype)
        return at_places(dense, self.indices.numpy(), tuple(self.shape))

    def get_shape(self) -> TensorShape:
        """The dense shape."""
        return self.shape

    def __repr__(self) -> str:
        return (
            f"SparseTensor(indices={self.indices}, values={self.values}, "
            f"dense_shape={self.dense_shape})"
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        raise TypeError("a SparseTensor is no array: make one by tf.sparse.to_dense")

    @property
    def _data(self) -> NoReturn:  # which layers look for in what they are given
        self.__array__()


def _int64(value: Any) -> Tensor:
    return as_tensor(np.asarray(value).astype(np.int64))


class SparseTensorSpec(CompositeSpec, TensorSpec):
    """Dense shape and dtype of a SparseTensor (``tf.SparseTensorSpec``)."""

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
        if not isinstance(value, (SparseTensor, SparseElement, SparseTensorSpec)):
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


class SparseElement(Composite):
    """A SparseTensor as an element of a dataset, whose likes may be of other sizes."""

    def __init__(self, sparse: SparseTensor) -> None:
        self.sparse = sparse

    @classmethod
    def of_dense(cls, array: np.ndarray) -> SparseElement:
        """One with a value at every place of an array."""
        places = np.argwhere(np.ones(array.shape, bool))
        return cls(SparseTensor(places, array.reshape(-1), array.shape))

    @property
    def shape(self) -> TensorShape:
        return TensorShape([None] * len(self.sparse.shape))

    @property
    def dtype(self) -> DType:
        return self.sparse.dtype

    @property
    def spec(self) -> SparseTensorSpec:
        return SparseTensorSpec(self.shape, self.dtype)

    @property
    def flat_values(self) -> Any:
        return self.sparse.values

    def element(self) -> SparseTensor:
        """The SparseTensor."""
        return self.sparse

    numpy = element

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        self.sparse.__array__()

    def packed(self) -> tuple[Any, ...]:
        places, shape = self.sparse.indices.numpy(), self.sparse.dense_shape.numpy()
        return self.flat_values, places.tolist(), shape.tolist()

    @staticmethod
    def stacked(elements: Sequence[SparseElement]) -> SparseElement:
        """One with a first axis over the elements, and sizes in which each has room."""
        parts = [each.sparse for each in elements]
        number = np.repeat(np.arange(len(parts)), [len(part.indices) for part in parts])
        places = np.concatenate([part.indices.numpy() for part in parts])
        values = np.concatenate([np.asarray(part.values) for part in parts])
        sizes = np.max([part.dense_shape.numpy() for part in parts], axis=0)
        lie = np.column_stack([number, places])
        return SparseElement(SparseTensor(lie, values, [len(parts), *sizes]))

    def rows(self) -> Iterator[SparseElement]:
        """What lies along the first axis, one by one."""
        places, (count, *shape) = self.sparse.indices.numpy(), self.sparse.dense_shape.numpy()
        values, number = np.asarray(self.sparse.values), places[:, 0]
        order = np.argsort(number, kind="stable")
        ends = np.searchsorted(number[order], np.arange(count + 1))
        for first, last in itertools.pairwise(ends):
            here = order[first:last]
            yield SparseElement(SparseTensor(places[here, 1:], values[here], shape))
