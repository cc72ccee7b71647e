"""Ragged tensors from dense and sparse ones, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.texts import as_bytes, as_strings, is_text
from distgrad.ops.indexing import gather
from distgrad.ops.layout import broadcast_to
from distgrad.ops.shape import concat, expand_dims, one_axis, reshape
from distgrad.ragged import partition
from distgrad.ragged.indexing import take_rows
from distgrad.ragged.partition import integers
from distgrad.ragged.tensor import RaggedTensor


def in_rows(values: Any, sizes: Any, ragged: bool = False) -> Any:
    """Values in rows of one length for each of these axes, of which the first is the outermost.

    ``ragged``: where their shape does not say so.
    """
    for axis in reversed(range(1, len(sizes))):
        splits = sizes[axis] * np.arange(math.prod(sizes[:axis]) + 1)
        values = RaggedTensor(values, splits, None if ragged else sizes[axis])
    return values


def flat_axes(tensor: Any, count: int) -> Any:
    """The tensor with its first ``count`` axes as one."""
    sizes = tuple(tensor.shape)
    return reshape(tensor, (math.prod(sizes[:count]), *sizes[count:]))


def from_tensor(tensor: Any, lengths: Any, padding: Any, ragged_rank: int) -> RaggedTensor:
    if lengths is not None and padding is not None:
        raise ValueError("Specify lengths or padding, but not both.")
    nested = isinstance(lengths, (list, tuple)) and len(lengths) > 0 and bool(np.ndim(lengths[0]))
    if nested and len(lengths) > 1:
        outer = from_tensor(tensor, lengths[0], None, 1)
        return outer.with_values(from_tensor(outer.values, lengths[1:], None, 1))
    sizes = tuple(tensor.shape)
    if not 0 < ragged_rank < len(sizes):
        raise ValueError(
            f"ragged_rank={ragged_rank} must be 1 or more, and less than the rank {len(sizes)}"
        )
    values = flat_axes(tensor, ragged_rank + 1)
    if lengths is None and padding is None:
        return in_rows(values, sizes[: ragged_rank + 1])
    if ragged_rank > 1:
        rows = from_tensor(flat_axes(tensor, ragged_rank), lengths, padding, 1)
        return in_rows(rows, sizes[:ragged_rank])
    limit = sizes[1]
    if padding is not None:
        lengths = _without(padding, tensor, limit)
    kept = np.clip(integers(lengths[0] if nested else lengths), 0, limit)
    if kept.shape != sizes[:1]:
        raise InvalidArgumentError(f"lengths of the shape {kept.shape} for {sizes[0]} rows")
    starts = limit * np.arange(sizes[0])
    places, splits = partition.ranges(starts, starts + kept)
    return RaggedTensor(take_rows(values, places), splits)


def _without(padding: Any, tensor: Any, limit: int) -> np.ndarray:
    """The lengths of rows up to their last element that is not the padding."""
    if is_text(tensor):
        array, pad = np.asarray(as_bytes(tensor)), np.asarray(as_bytes(padding))
    else:
        array = tensor.numpy()
        pad = as_tensor(padding, like=array.dtype).numpy()
    other = (array != pad).reshape(*array.shape[:2], -1).any(axis=2)
    return np.where(other, np.arange(1, limit + 1), 0).max(axis=1, initial=0)


def from_sparse(st_input: SparseTensor) -> RaggedTensor:
    if not isinstance(st_input, SparseTensor):
        raise TypeError(f"from_sparse takes a SparseTensor, not {st_input!r}")
    places, sizes = st_input.indices.numpy(), tuple(st_input.shape)
    if len(sizes) != 2:
        raise ValueError(f"rank(st_input) must be 2, not {len(sizes)}")
    splits = partition.of_row_ids(places[:, 0], sizes[0])
    if not np.array_equal(places[:, 1], partition.ranges(0, partition.lengths_of(splits))[0]):
        raise InvalidArgumentError("SparseTensor is not right-ragged: a row has values after a gap")
    return RaggedTensor(st_input.values, splits)


def to_tensor(rt: RaggedTensor, default_value: Any, shape: Any) -> Any:
    flat, rank = rt.flat_values, len(rt.shape)
    given = [None] * rank if shape is None else list(shape)
    if len(given) != rank:
        raise ValueError(f"shape {shape} has not the rank {rank} of {rt.shape}")
    found = [int(size) for size in rt.bounding_shape().numpy()]
    sizes = [n if size in (None, -1) else int(size) for size, n in zip(given, found, strict=True)]
    inner = tuple(flat.shape[1:])
    if tuple(sizes[rt.ragged_rank + 1 :]) != inner:
        raise InvalidArgumentError(f"shape {shape} for values of the shape {inner}")
    # For each place of the dense tensor the value that lies there, -1 for none.
    count = found[0]
    rows = np.full(sizes[0], -1)
    rows[:count] = np.arange(count)[: sizes[0]]
    for splits, size in zip(rt.partitions, sizes[1:], strict=False):
        lengths = np.append(partition.lengths_of(splits), 0)  # row -1, which is none, has none
        column = np.arange(size)
        rows = np.where(column < lengths[rows][..., None], splits[rows][..., None] + column, -1)
    if is_text(flat):
        blank: Any = as_strings("" if default_value is None else default_value)
    else:
        dtype = flat.dtype.numpy_dtype
        blank = as_tensor(dtype.type(0) if default_value is None else default_value, like=dtype)
    whole = concat([flat, expand_dims(broadcast_to(blank, inner), 0)], 0)
    return gather(whole, np.where(rows < 0, len(flat), rows))


def to_sparse(rt: RaggedTensor) -> SparseTensor:
    flat = rt.flat_values
    places = np.arange(flat.shape[0])
    columns: list[np.ndarray] = []
    for splits in reversed(rt.partitions):
        rows = np.searchsorted(splits, places, side="right") - 1
        columns.insert(0, places - splits[rows])
        places = rows
    inner = tuple(flat.shape[1:])
    outer = np.stack([places, *columns], axis=1)
    each = np.stack(np.unravel_index(np.arange(math.prod(inner)), inner or (1,)), 1)
    count = len(each) if inner else 1
    indices = np.repeat(outer, count, axis=0)
    if inner:
        indices = np.concatenate([indices, np.tile(each, (len(outer), 1))], axis=1)
    return SparseTensor(indices, reshape(flat, (-1,)), rt.bounding_shape())


def merge_dims(rt: RaggedTensor, outer_axis: int, inner_axis: int) -> Any:
    rank = len(rt.shape)
    outer, inner = (one_axis("merge_dims", axis, rank) for axis in (outer_axis, inner_axis))
    if outer >= inner:
        raise ValueError(f"outer_axis={outer_axis} must be before inner_axis={inner_axis}")
    return _merged(rt, outer, inner)


def _merged(x: Any, outer: int, inner: int) -> Any:
    if inner == outer:
        return x
    if not isinstance(x, RaggedTensor):
        sizes, after = tuple(x.shape), inner + 1
        return reshape(x, (*sizes[:outer], math.prod(sizes[outer:after]), *sizes[after:]))
    if outer > 1:
        return x.with_values(_merged(x.values, outer - 1, inner - 1))
    if outer == 0:
        return _merged(x.values, 0, inner - 1)
    values = x.values
    if isinstance(values, RaggedTensor):
        both = None if None in (x._uniform, values._uniform) else x._uniform * values._uniform  # type: ignore[operator]
        merged = RaggedTensor(values.values, values._splits[x._splits], both)
        return _merged(merged, 1, inner - 1)
    size = int(values.shape[1])
    uniform = None if x._uniform is None else x._uniform * size
    return _merged(RaggedTensor(flat_axes(values, 2), x._splits * size, uniform), 1, inner - 1)
