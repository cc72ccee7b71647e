"""The values of sparse tensors at other places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.errors import InvalidArgumentError
from distgrad.core.indexed_slices import IndexedSlices
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.ops import shape as shapes
from distgrad.ops.indexing import gather
from distgrad.sparse.places import picked, places_of


def concat(
    axis: int,
    sp_inputs: Sequence[SparseTensor],
    expand_nonconcat_dims: bool = False,
    name: Any = None,
) -> SparseTensor:
    """One after the other along an axis; others become as large as the largest, if that is wanted.

    Raises InvalidArgumentError where they differ.
    """
    parts = [places_of(each) for each in sp_inputs]
    if expand_nonconcat_dims:
        largest = np.max([each for _, each in parts], axis=0)
        at = shapes.one_axis("concat", axis, len(largest))
        parts = [(p, (*largest[:at], each[at], *largest[at + 1 :])) for p, each in parts]
    shape, before, moved = list(parts[0][1]), 0, []
    axis = shapes.one_axis("concat", axis, len(shape))
    for places, each in parts:
        if [*each[:axis], *each[axis + 1 :]] != [*shape[:axis], *shape[axis + 1 :]]:
            raise InvalidArgumentError(f"concat along {axis}: {each} does not fit {shape}")
        moved.append(places + before * (np.arange(len(shape)) == axis))
        before += each[axis]
    shape[axis] = before
    values = shapes.concat([each.values for each in sp_inputs], 0)
    return reorder(SparseTensor(np.concatenate(moved), values, shape))


def slice(sp_input: SparseTensor, start: Any, size: Any, name: Any = None) -> SparseTensor:
    """The part from ``start`` on, of ``size`` or what there is of it."""
    places, shape = places_of(sp_input)
    first = np.asarray(start)
    last = np.minimum(first + np.asarray(size), shape)
    inside = ((places >= first) & (places < last)).all(axis=1)
    return picked(sp_input, np.flatnonzero(inside), places - first, np.maximum(last - first, 0))


def retain(sp_input: SparseTensor, to_retain: Any) -> SparseTensor:
    """The values where ``to_retain``, one bool for each, is true."""
    return picked(sp_input, np.flatnonzero(np.asarray(to_retain)), *places_of(sp_input))


def reorder(sp_input: SparseTensor, name: Any = None) -> SparseTensor:
    """The values in the order of their places, the last axis fastest."""
    places, shape = places_of(sp_input)
    return picked(sp_input, np.lexsort(places.T[::-1]), places, shape)


def transpose(sp_input: SparseTensor, perm: Any = None, name: Any = None) -> SparseTensor:
    """Axes in the order ``perm``, by default the other way round."""
    places, shape = places_of(sp_input)
    order = list(range(len(shape))[::-1] if perm is None else shapes.static(perm))
    return reorder(SparseTensor(places[:, order], sp_input.values, np.array(shape)[order]))


def reshape(sp_input: SparseTensor, shape: Any, name: Any = None) -> SparseTensor:
    """Another shape of as many elements, of which one size may be -1.

    Raises InvalidArgumentError where the numbers of elements differ.
    """
    places, old = places_of(sp_input)
    try:
        whole = np.broadcast_to(np.int8(0), old).reshape(shapes.static(shape)).shape
    except ValueError as error:
        raise InvalidArgumentError(f"sparse.reshape: {error}") from None
    flat = np.ravel_multi_index(tuple(places.T), old) if len(places) else places[:, 0]
    return SparseTensor(np.stack(np.unravel_index(flat, whole), 1), sp_input.values, whole)


def expand_dims(sp_input: SparseTensor, axis: int | None = None, name: Any = None) -> SparseTensor:
    """A new axis of size 1, by default the last."""
    places, shape = places_of(sp_input)
    axis = shapes.one_axis("expand_dims", -1 if axis is None else axis, len(shape) + 1)
    return SparseTensor(
        np.insert(places, axis, 0, axis=1), sp_input.values, np.insert(shape, axis, 1)
    )


def split(
    sp_input: SparseTensor, num_split: int, axis: int, name: str | None = None
) -> list[SparseTensor]:
    """As many parts along an axis, the first of them one larger where it cannot be cut evenly.

    Raises InvalidArgumentError for more parts than the axis has room for.
    """
    _, shape = places_of(sp_input)
    at = shapes.one_axis("split", axis, len(shape))
    if not 0 < num_split <= shape[at]:
        raise InvalidArgumentError(
            f"num_split must be between 1 and the size of axis {at}, {shape[at]}, not {num_split}"
        )
    small, more = divmod(shape[at], num_split)
    found, first = [], np.zeros(len(shape), np.int64)
    for number in range(num_split):
        size = np.array(shape)
        size[at] = small + (number < more)
        found.append(slice(sp_input, first, size))
        first[at] += size[at]
    return found


def mask(a: IndexedSlices, mask_indices: Any, name: str | None = None) -> IndexedSlices:
    """The slices of IndexedSlices that are at none of ``mask_indices``.

    Raises TypeError for anything else.
    """
    if not isinstance(a, IndexedSlices):
        raise TypeError(f"mask takes IndexedSlices, not {a!r}: use retain")
    indices = a.indices.numpy()
    kept = np.flatnonzero(~np.isin(indices, np.asarray(mask_indices)))
    return IndexedSlices(gather(a.values, kept), indices[kept], a.dense_shape)


def reset_shape(sp_input: SparseTensor, new_shape: Any = None) -> SparseTensor:
    """The same values in a larger shape, by default the smallest in which they have room.

    Raises ValueError for another rank, or a smaller size.
    """
    places, shape = places_of(sp_input)
    if new_shape is None:
        return SparseTensor(places, sp_input.values, places.max(axis=0, initial=-1) + 1)
    wanted = shapes.static(new_shape)
    if len(wanted) != len(shape) or any(n < m for n, m in zip(wanted, shape, strict=True)):
        raise ValueError(
            f"Requested new_shape should have dimension sizes >= sp_input.shape: {list(wanted)} "
            f"for {list(shape)}"
        )
    return SparseTensor(places, sp_input.values, wanted)
