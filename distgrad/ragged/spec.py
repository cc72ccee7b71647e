"""What is known of a ragged tensor before there is one, and the shape of one that there is."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.composite import CompositeSpec, of_composites
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import DType, as_dtype
from distgrad.core.spec import TensorSpec
from distgrad.core.tensor import Tensor
from distgrad.ops import constants
from distgrad.ragged import partition
from distgrad.ragged.tensor import RaggedTensor


class RaggedTensorSpec(CompositeSpec, TensorSpec):
    """Shape, dtype and number of ragged axes of a RaggedTensor (``tf.RaggedTensorSpec``)."""

    def __init__(
        self,
        shape: Any = None,
        dtype: Any = "float32",
        ragged_rank: int | None = None,
        row_splits_dtype: Any = "int64",
        flat_values_spec: TensorSpec | None = None,
    ) -> None:
        super().__init__(shape, dtype if flat_values_spec is None else flat_values_spec.dtype)
        rank = self.shape.rank
        if ragged_rank is None:
            if rank is None:
                raise ValueError("Must specify ragged_rank or a shape with a known rank.")
            ragged_rank = rank - 1
        if rank is not None and ragged_rank >= max(rank, 1):
            raise ValueError(f"ragged_rank={ragged_rank} must be less than the rank {rank}")
        self.ragged_rank = ragged_rank
        self.row_splits_dtype: DType = as_dtype(row_splits_dtype)

    @classmethod
    def from_value(cls, value: RaggedTensor) -> RaggedTensorSpec:
        """The spec of a ragged tensor."""
        return cls(value.shape, value.dtype, value.ragged_rank, value._splits.dtype)

    value_type = RaggedTensor

    def of_shape(self, shape: Any) -> RaggedTensorSpec:
        """The same with another shape: an axis before the others is ragged or not, as they are."""
        more = len(shape) - len(self.shape)
        rank = max(self.ragged_rank + more, 0)
        return RaggedTensorSpec(shape, self.dtype, rank, self.row_splits_dtype)

    def is_compatible_with(self, spec_or_tensor: Any) -> bool:
        """Whether a ragged tensor (or another spec) has this dtype and shape, and ragged rank."""
        value = spec_or_tensor
        if not isinstance(value, (RaggedTensor, RaggedTensorSpec)):
            return self.ragged_rank == 0 and super().is_compatible_with(value)
        same = value.dtype == self.dtype and value.ragged_rank == self.ragged_rank
        return same and self.shape.is_compatible_with(value.shape)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RaggedTensorSpec):
            return False
        mine, others = (
            (s.shape, s.dtype, s.ragged_rank, s.row_splits_dtype) for s in (self, other)
        )
        return mine == others

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype, self.ragged_rank))

    def __repr__(self) -> str:
        how = f"tf.{self.dtype.name}, {self.ragged_rank}, tf.{self.row_splits_dtype.name}"
        return f"RaggedTensorSpec({self.shape!r}, {how})"


class DynamicRaggedShape:
    """The sizes of the axes of a ragged tensor: a number, or the lengths of rows (``tf.shape``).

    No operation takes it for a shape: ``tf.zeros_like`` and ``tf.ones_like`` make ragged tensors.
    """

    def __init__(self, rt: RaggedTensor) -> None:
        self._rows = rt.with_flat_values(np.zeros(tuple(rt.flat_values.shape), np.int8))

    @property
    def rank(self) -> int:
        return len(self._rows.shape)

    @property
    def num_row_partitions(self) -> int:
        return self._rows.ragged_rank

    @property
    def inner_shape(self) -> Tensor:
        """The sizes of the innermost values."""
        return as_tensor(np.array(self._rows.flat_values.shape, np.int64))

    def is_uniform(self, axis: int) -> bool:
        """Whether the rows along an axis are known to be of one length."""
        return self._rows.shape[axis] is not None

    def static_lengths(self) -> list[Any]:
        """The sizes: a number for an axis of one length, else a tuple of them."""
        found: list[Any] = []
        for axis, size in enumerate(self._rows.shape):
            if size is None:
                size = tuple(partition.lengths_of(self._rows.partitions[axis - 1]).tolist())
            found.append(size)
        return found

    def __getitem__(self, axis: int) -> Tensor:
        if self._rows.shape[axis] is None:
            raise ValueError(f"Index {axis} is not uniform")
        return as_tensor(np.array(self._rows.shape[axis], np.int64))

    def __repr__(self) -> str:
        sizes = ", ".join(map(str, self.static_lengths()))
        return (
            f"<DynamicRaggedShape lengths=[{sizes}] num_row_partitions={self.num_row_partitions}>"
        )


@of_composites(constants.shape)
def shape(input: RaggedTensor, out_type: Any = None, name: str | None = None) -> DynamicRaggedShape:
    return DynamicRaggedShape(input)


@of_composites(constants.size)
def size(input: RaggedTensor, out_type: Any = None, name: str | None = None) -> Tensor:
    return constants.size(input.flat_values, out_type)


@of_composites(constants.rank)
def rank(input: RaggedTensor, name: str | None = None) -> Tensor:
    return as_tensor(np.array(len(input.shape), np.int32))
