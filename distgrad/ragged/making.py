"""What ``tf.ragged`` makes ragged tensors of: lists, ranges, masks and numbers of rows."""

from __future__ import annotations

import builtins
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.texts import as_bytes, as_strings
from distgrad.ops.constants import constant as dense_constant
from distgrad.ops.shape import reshape
from distgrad.ragged import partition
from distgrad.ragged.converting import flat_axes
from distgrad.ragged.indexing import take_rows
from distgrad.ragged.joining import as_ragged
from distgrad.ragged.partition import integers
from distgrad.ragged.tensor import RaggedTensor, as_tensor_or_ragged, as_values, count_of


def constant(
    pylist: Any,
    dtype: Any = None,
    ragged_rank: int | None = None,
    inner_shape: Any = None,
    name: str | None = None,
    row_splits_dtype: Any = "int64",
) -> Any:
    """Nested lists of numbers or texts as a RaggedTensor; with no axis that can be ragged a tensor.

    ``ragged_rank`` is the number of ragged axes, by default all but the first, ``inner_shape`` the
    sizes of the others. Raises ValueError for numbers at several depths, or where these do not fit.
    """
    if isinstance(pylist, RaggedTensor):
        raise TypeError("pylist may not be a RaggedTensor or RaggedTensorValue.")
    inner = None if inner_shape is None else tuple(np.atleast_1d(inner_shape).tolist())
    scalars, depth = _depths(pylist)
    if ragged_rank is not None and ragged_rank < 0:
        raise ValueError(f"Invalid ragged_rank={ragged_rank}: must be nonnegative")
    if scalars is not None and depth > scalars:
        raise ValueError(f"{pylist!r}: an empty list lies deeper than the values")
    if ragged_rank is not None:
        least = ragged_rank + (len(inner) + 1 if inner is not None else 0)
        if least > depth and not (scalars is None and inner is None):
            raise ValueError(f"{pylist!r} has {depth} axes: too few for ragged_rank={ragged_rank}")
        if inner is not None and scalars not in (None, least):
            raise ValueError(
                f"{pylist!r} has not {len(inner)} axes after {ragged_rank} ragged ones"
            )
    elif depth - len(inner or ()) < 2:
        ragged_rank = 0
    else:
        ragged_rank = max(1, depth - 1 - len(inner or ()))
    splits = []
    values: Any = pylist
    for _ in builtins.range(ragged_rank):
        splits.append(partition.of_lengths(np.array([len(row) for row in values], np.int64)))
        values = list(itertools.chain.from_iterable(values))
    flat: Any = dense_constant(values, dtype)
    if inner is not None:
        flat = reshape(flat, (len(values), *inner))
    elif not ragged_rank:
        return flat
    made = RaggedTensor.from_nested_row_splits(flat, splits, validate=False)
    return made.with_row_splits_dtype(row_splits_dtype) if splits else made


def _depths(value: Any) -> tuple[int | None, int]:
    """How many lists a value lies in (None: there is none), and the most that there are."""
    if not isinstance(value, (list, tuple)):
        return (rank := np.ndim(value)), rank
    found = [_depths(part) for part in value]
    depths = {scalars for scalars, _ in found if scalars is not None}
    if len(depths) > 1:
        raise ValueError("all scalar values must have the same nesting depth")
    return (depths.pop() + 1 if depths else None), 1 + max((d for _, d in found), default=0)


def range(
    starts: Any,
    limits: Any = None,
    deltas: Any = 1,
    dtype: Any = None,
    name: str | None = None,
    row_splits_dtype: Any = "int64",
) -> RaggedTensor:
    """Rows of the numbers from each start (0) to before its limit; vectors, or one for all rows.

    Raises InvalidArgumentError for a delta of 0.
    """
    if limits is None:
        starts, limits = 0, starts
    given = [as_tensor(value, dtype) for value in (starts, limits, deltas)]
    kind = np.result_type(*[value.dtype.numpy_dtype for value in given])
    first, last, step = np.broadcast_arrays(*[np.atleast_1d(value.numpy()) for value in given])
    if not step.all():
        raise InvalidArgumentError("Requires delta != 0")
    rows = [np.arange(*each).astype(kind) for each in zip(first, last, step, strict=True)]
    splits = partition.of_lengths(np.array([len(row) for row in rows], np.int64))
    values = np.concatenate([*rows, np.zeros(0, kind)])
    return RaggedTensor(as_tensor(values), splits).with_row_splits_dtype(row_splits_dtype)


def boolean_mask(data: Any, mask: Any, name: str | None = None) -> Any:
    """The elements of ``data`` where ``mask`` holds, in rows like those of the mask.

    A mask of one axis chooses rows. Raises ValueError for a mask of no axis, InvalidArgumentError
    where it does not fit.
    """
    data, mask = as_tensor_or_ragged(data), as_tensor_or_ragged(mask)
    rank = len(mask.shape)
    if not rank:
        raise ValueError("mask cannot be scalar.")
    if mask.dtype != "bool":
        raise TypeError(f"the mask must be of bools, not of {mask.dtype.name}")
    if rank > 1:
        mask, data = as_ragged(mask, rank - 1), as_ragged(data, rank - 1)
        pairs = zip(mask.partitions, data.partitions, strict=False)
        if not all(np.array_equal(*pair) for pair in pairs):
            raise InvalidArgumentError("boolean_mask: data and mask have other rows")
    elif count_of(data) != count_of(mask):
        raise InvalidArgumentError(
            f"boolean_mask: {count_of(mask)} bools for {count_of(data)} rows"
        )
    return _masked(data, mask)


def _masked(data: Any, mask: Any) -> Any:
    if not isinstance(mask, RaggedTensor):
        return take_rows(data, np.flatnonzero(mask.numpy()))
    kept = _masked(data.values, mask.values)
    if isinstance(mask.values, RaggedTensor):
        return data.with_values(kept)
    before = partition.of_lengths(mask.values.numpy().astype(data._splits.dtype))
    return RaggedTensor(kept, before[data._splits])


def stack_dynamic_partitions(
    data: Any, partitions: Any, num_partitions: Any, name: str | None = None
) -> RaggedTensor:
    """Rows of the elements of ``data`` whose number in ``partitions`` is that of the row.

    Raises InvalidArgumentError for numbers outside [0, num_partitions), or other shapes.
    """
    data, numbers = as_tensor_or_ragged(data), as_tensor_or_ragged(partitions)
    if isinstance(numbers, RaggedTensor):
        return stack_dynamic_partitions(data.values, numbers.values, num_partitions)
    ids, count = numbers.numpy(), int(num_partitions)
    if tuple(data.shape[: ids.ndim]) != ids.shape:
        raise InvalidArgumentError(f"partitions of the shape {ids.shape} for data of {data.shape}")
    if ids.size and not 0 <= ids.min() <= ids.max() < count:
        raise InvalidArgumentError(f"partitions {ids.tolist()} must be in [0, {count})")
    rows = data if ids.ndim == 1 else flat_axes(data, ids.ndim)
    sizes = np.bincount(ids.ravel(), minlength=count).astype(np.int64)
    order = np.argsort(ids.ravel(), kind="stable")
    return RaggedTensor(take_rows(rows, order), partition.of_lengths(sizes))


def row_splits_to_segment_ids(splits: Any, name: str | None = None, out_type: Any = None) -> Tensor:
    """The number of the row of each value: [0, 2, 3] gives [0, 0, 1]."""
    found = integers(splits)
    partition.check(found, int(found[-1]) if found.size else 0)
    return as_tensor(integers(partition.row_ids(found), out_type or found.dtype))


def segment_ids_to_row_splits(
    segment_ids: Any, num_segments: Any = None, out_type: Any = None, name: str | None = None
) -> Tensor:
    """Where rows begin whose values have these numbers: [0, 0, 1] gives [0, 2, 3]."""
    ids = integers(segment_ids)
    found = partition.of_row_ids(ids, None if num_segments is None else int(num_segments))
    return as_tensor(integers(found, out_type or ids.dtype))


def cross(inputs: Sequence[Any], name: str | None = None) -> RaggedTensor:
    """For each row, the texts of its elements in all inputs, each with each, joined by "_X_".

    Inputs are of two axes, and of as many rows. Raises ValueError for others.
    """
    rows = [as_ragged(as_values(each), 1) for each in inputs]
    if any(len(each.shape) != 2 for each in rows):
        raise ValueError("tf.ragged.cross only supports inputs with rank=2.")
    if len({len(each._splits) for each in rows}) != 1:
        raise InvalidArgumentError("tf.ragged.cross: inputs of other numbers of rows")
    made = [list(itertools.product(*each)) for each in zip(*map(_texts, rows), strict=True)]
    texts = [b"_X_".join(each) for row in made for each in row]
    lengths = np.array([len(row) for row in made], np.int64)
    flat = as_strings(np.array(texts, object)) if texts else as_strings(np.array([], str))
    return RaggedTensor(flat, partition.of_lengths(lengths))


def _texts(rt: RaggedTensor) -> list[list[bytes]]:
    flat = rt.values
    if isinstance(flat, Operand):
        return [[str(value).encode() for value in row] for row in rt.to_list()]
    return rt.with_values(as_bytes(flat)).to_list()
