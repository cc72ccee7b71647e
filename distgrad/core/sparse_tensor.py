"""Values and the places where they lie, as examples of several lengths give them."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import DType
from distgrad.core.shapes import TensorShape
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.texts import as_strings, dtype_of, holds_texts

# The elements of a dense tensor at places of a shape that it is broadcast to; ``ops.indexing`` puts
# its own here.
at_places: Any = None


class SparseTensor:
    """An array of ``dense_shape`` that has nothing (0, or "") but ``values`` (N,) at ``indices``.

    Indices (N, rank) and the shape (rank,) are int64; values are a tensor, or an array of texts.
    ``cast``, ``edit_distance`` and ``tf.sparse`` take it: ``tf.sparse.to_dense`` makes a tensor.
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
