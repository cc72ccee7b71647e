"""A row of a ragged tensor by itself, as an element of a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from distgrad.core.composite import Composite
from distgrad.core.dtypes import DType
from distgrad.core.shapes import TensorShape
from distgrad.core.texts import dtype_of
from distgrad.ragged.joining import as_ragged, stack_rows
from distgrad.ragged.spec import RaggedTensorSpec
from distgrad.ragged.tensor import RaggedTensor


class Row(Composite):
    """A tensor, or texts, whose likes may be of other sizes: batches of them are ragged."""

    def __init__(self, values: Any) -> None:
        self.flat_values = values

    @property
    def shape(self) -> TensorShape:
        return TensorShape([None, *self.flat_values.shape[1:]])

    @property
    def dtype(self) -> DType:
        return dtype_of(self.flat_values)

    @property
    def spec(self) -> RaggedTensorSpec:
        return RaggedTensorSpec(self.shape, dtype_of(self.flat_values), 0)

    def element(self) -> Any:
        """The tensor."""
        return self.flat_values

    def numpy(self) -> Any:
        return self.flat_values.numpy()


def rows_of(rt: RaggedTensor) -> Iterator[Composite]:
    """The rows, each of them such that a batch of them is ragged again."""
    return (row if isinstance(row, RaggedTensor) else Row(row) for row in rt)


def together(values: Sequence[Any], ragged_rank: int | None = None) -> RaggedTensor:
    """Elements of any sizes in one ragged tensor, of so many ragged axes, or as they have."""
    made = stack_rows([v.element() if isinstance(v, Composite) else v for v in values])
    if ragged_rank is not None and ragged_rank > made.ragged_rank:
        made = as_ragged(made, ragged_rank)
    return made
