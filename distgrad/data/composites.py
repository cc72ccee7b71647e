"""Elements that are ragged or sparse: rows of them one by one, and put together in batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from distgrad.core.composite import Composite, CompositeSpec
from distgrad.core.sparse_tensor import SparseTensor, SparseTensorSpec
from distgrad.data import cardinality, nest, specs


class Composites:
    """What `Dataset` inherits this step from."""

    _made: Callable[..., Any]
    _size: int
    element_spec: Any

    def ragged_batch(
        self,
        batch_size: int,
        drop_remainder: bool = False,
        row_splits_dtype: Any = "int64",
        name: str | None = None,
    ) -> Any:
        """Batches of elements of different sizes: ragged tensors of them.

        Arrays whose sizes are known to be the same in all elements stay dense.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
        length = batch_size if drop_remainder else None

        def batches(elements: Iterator[Any]) -> Iterator[Any]:
            own = self.element_spec
            while group := list(itertools.islice(elements, batch_size)):
                if len(group) == batch_size or not drop_remainder:
                    yield nest.map_leaves(joined, own, *group)

        def joined(spec: Any, *leaves: Any) -> Any:
            if (rank := _ragged_rank(spec)) is None:
                return nest.stack(leaves)
            from distgrad.ragged.row import together

            return together(leaves, rank).with_row_splits_dtype(row_splits_dtype)

        def spec_of(spec: Any) -> Any:
            if isinstance(spec, CompositeSpec) or (rank := _ragged_rank(spec)) is None:
                return specs.stacked(spec, length)
            from distgrad.ragged.spec import RaggedTensorSpec

            shape = [length, *spec.shape]
            return RaggedTensorSpec(shape, spec.dtype, rank, row_splits_dtype)

        size = cardinality.batched(self._size, batch_size, drop_remainder)
        return self._made(batches, size, lambda: nest.map_leaves(spec_of, self.element_spec))


def _ragged_rank(spec: Any) -> int | None:
    """How many axes of a batch are ragged; None where it is a dense one, or sparse."""
    if isinstance(spec, SparseTensorSpec):
        return None
    if isinstance(spec, CompositeSpec):
        return spec.ragged_rank + 1  # type: ignore[attr-defined]
    unknown = [axis for axis, size in enumerate(spec.shape) if size is None]
    return unknown[-1] + 1 if unknown else None


def has(element: Any) -> bool:
    """Whether a nest has ragged or sparse tensors in it."""
    return any(isinstance(leaf, Composite) for leaf in nest.leaves(element))


def take(leaf: Any, rows: Any) -> Any:
    """These rows of an array, a copy in C order, or of a ragged or sparse tensor."""
    if not isinstance(leaf, Composite):
        return np.take(leaf, rows, axis=0)
    if isinstance(leaf, SparseTensor):
        return leaf.take(rows)
    from distgrad.ragged.gathering import gather

    return gather(leaf, rows)


def each_row(element: Any) -> Iterator[Any]:
    """The rows of a nest with ragged or sparse tensors in it, one by one.

    Raises ValueError where its parts have not as many rows each.
    """
    columns = [_rows(leaf) for leaf in nest.leaves(element)]
    if len({len(column) for column in columns}) > 1:
        raise ValueError(f"parts have {[len(column) for column in columns]} rows, not as many each")
    for row in zip(*columns, strict=True):
        parts = iter(row)
        yield nest.map_leaves(lambda _: next(parts), element)  # noqa: B023


def _rows(leaf: Any) -> Sequence[Any]:
    if not isinstance(leaf, Composite):
        return [leaf[row, ...] for row in range(len(leaf))]
    if isinstance(leaf, SparseTensor):
        return list(leaf.rows())
    from distgrad.ragged.row import rows_of

    return list(rows_of(leaf))  # type: ignore[arg-type]
