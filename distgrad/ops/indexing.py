"""Indexing: strided slices, masks, gather, one_hot."""

from __future__ import annotations

import builtins
import math
import operator
from typing import Any

import numpy as np

from distgrad.core import recording, sparse_tensor
from distgrad.core.composite import takes_composites
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.indexed_slices import IndexedSlices
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.core.texts import moves_texts
from distgrad.core.variable import Variable
from distgrad.ops.casting import cast
from distgrad.ops.logic import equal, not_equal, select
from distgrad.ops.shape import one_axis, permute, reshape_to

# Strided indexing


@primitive(view=True)
def getitem(xp, x, *, key):
    """Basic indexing: ints, slices, ``None`` and one ellipsis."""
    return x[(*key, ...) if ... not in key else key]


@getitem.vjp("x")
def _(g, x_shape, key):
    return bind(getitem_grad, g, shape=x_shape, key=key)


@getitem.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), key=(1, slice(0, 3, 2)))
    yield sample(rng.normal(size=(3, 4)), key=(slice(None, None, -1), None))
    yield sample(rng.normal(size=(3, 4, 2)), key=(..., 0))
    yield sample(rng.normal(size=(3, 4)), key=(2, 1))
    yield sample(rng.normal(size=()), key=(None,))
    yield sample(rng.normal(size=(3, 4)), key=(slice(2, 2),))


@primitive()
def getitem_grad(xp, g, *, shape, key):
    """Zeros of ``shape`` with ``g`` at ``key``."""
    x = xp.zeros(shape, dtype=g.dtype)
    x[key] = g
    return x


@getitem_grad.vjp("g")
def _(g, key):
    return bind(getitem, g, key=key)


@getitem_grad.samples
def _(rng):
    yield sample(rng.normal(size=2), shape=(3, 4), key=(1, slice(0, 3, 2)))
    yield sample(rng.normal(size=(3, 1, 4)), shape=(3, 4), key=(slice(None, None, -1), None))


@primitive(match=("x",), constant=("mask",), varies=True)
def mask_select(xp, x, mask):
    """The slices of ``x`` where the bool ``mask`` over its leading axes holds."""
    return x[mask]


@mask_select.vjp("x")
def _(g, x_shape, mask):
    return bind(mask_select_grad, g, mask, shape=x_shape)


@mask_select.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), rng.uniform(size=(3, 4)) > 0.5)
    yield sample(rng.normal(size=(3, 4)), np.array([True, False, True]))
    yield sample(rng.normal(size=(3, 4)), np.zeros(3, dtype=bool))


@primitive(match=("g",), constant=("mask",))
def mask_select_grad(xp, g, mask, *, shape):
    """Zeros of ``shape`` with ``g`` where ``mask`` holds."""
    x = xp.zeros(shape, dtype=g.dtype)
    x[mask] = g
    return x


@mask_select_grad.vjp("g")
def _(g, mask):
    return bind(mask_select, g, mask)


@mask_select_grad.samples
def _(rng):
    yield sample(rng.normal(size=(2, 4)), np.array([True, False, True]), shape=(3, 4))


def index(x: Any, key: Any) -> Tensor:
    """``x[key]``: ints, slices, ``...``, ``None``, scalar int tensors, or one bool mask.

    Slices past the end are cut. Raises InvalidArgumentError for an int out of range or too many
    indices, TypeError for a float, a text or a list.
    """
    tensor = x if type(x) is Tensor else as_tensor(x)
    if isinstance(key, (Tensor, np.ndarray, Variable)) and key.ndim and key.dtype == "bool":
        return _chosen(tensor, as_tensor(key))
    items = key if isinstance(key, tuple) else (key,)
    plain = tuple([_plain(item) for item in items])
    used = builtins.sum(1 for item in plain if item is not None and item is not ...)
    if used > tensor._data.ndim:
        raise InvalidArgumentError(f"{used} indices for a tensor of shape {tensor.shape}")
    return bind(getitem, tensor, key=plain)


def _plain(item: Any) -> Any:
    if item is None or item is ... or type(item) is int:
        return item
    if isinstance(item, slice):
        return slice(_bound(item.start), _bound(item.stop), _bound(item.step))
    if isinstance(item, (bool, float, str, list)):
        raise TypeError(
            f"{item!r} cannot index a tensor: use ints, slices, ..., None, a scalar int tensor or "
            "a bool mask; gather takes a list"
        )
    return operator.index(item)


def _bound(value: Any) -> Any:
    return None if value is None else operator.index(value)


@moves_texts
def boolean_mask(tensor: Any, mask: Any, axis: int | None = None, name: Any = None) -> Tensor:
    """The slices of ``tensor`` where ``mask`` over its axes from ``axis`` (0) on holds.

    Numbers in a mask hold where they are not 0. Raises InvalidArgumentError for a scalar mask, or
    one of another shape than those axes.
    """
    x, where = as_tensor(tensor), as_tensor(mask)
    if where._data.dtype.kind != "b":
        where = not_equal(where, 0)
    start = 0 if axis is None else one_axis("boolean_mask", axis, x._data.ndim)
    shape, size = x._data.shape, where._data.shape
    if not size or shape[start : start + len(size)] != size:
        raise InvalidArgumentError(
            f"boolean_mask: a mask of shape {where.shape} for axes {start} on of shape {x.shape}"
        )
    if not start:
        return _chosen(x, where)
    # The masked axes first, and what remains of them back behind the others.
    masked = tuple(range(start, start + len(size)))
    rest = tuple(i for i in range(len(shape)) if i not in masked)
    chosen = _chosen(bind(permute, x, perm=masked + rest), where)
    order = (*range(1, start + 1), 0, *range(start + 1, len(rest) + 1))
    return bind(permute, chosen, perm=order)


def _chosen(x: Tensor, mask: Tensor) -> Tensor:
    """``mask_select``; in a capture, of a mask that is the same at each replay, by its places."""
    masked, shape = mask._data.shape, x._data.shape
    fits = shape[: len(masked)] == masked
    if recording.per_thread.capture is None or recording.hides(mask) or not fits:
        return bind(mask_select, x, mask)
    rows = bind(reshape_to, x, shape=(math.prod(masked), *shape[len(masked) :]))
    return bind(take, rows, as_tensor(np.flatnonzero(mask.numpy())), axis=0)


# Gather


@primitive(match=("x",), constant=("indices",))
def take(xp, x, indices, *, axis):
    """Slices of ``x`` along ``axis`` at integer ``indices`` of any shape."""
    return xp.take(x, indices, axis=axis)


@take.vjp("x")
def _(g, x_shape, indices, axis):
    return bind(take_grad, g, indices, shape=x_shape, axis=axis)


@take.samples
def _(rng):
    yield sample(rng.normal(size=(5, 3)), rng.integers(0, 5, (2, 4)), axis=0)
    yield sample(rng.normal(size=(5, 3)), rng.integers(0, 3, (2,)), axis=1)
    yield sample(rng.normal(size=(2, 4, 3)), np.array(2), axis=1)
    yield sample(rng.normal(size=(5, 3)), np.zeros((0,), int), axis=0)


@primitive(match=("g",), constant=("indices",))
def take_grad(xp, g, indices, *, shape, axis, out=None):
    """Zeros of ``shape`` with the slices ``g`` added at ``indices`` along ``axis``."""
    before = math.prod(shape[:axis])
    after = math.prod(shape[axis + 1 :])
    # Added element by element at flat positions: several times as fast as row by row.
    rows = xp.arange(before)[:, None] * shape[axis] + indices.astype(np.int64).reshape(1, -1)
    flat = rows[..., None] * after + xp.arange(after)
    x = xp.zeros(shape, dtype=g.dtype) if out is None else out
    x[...] = 0
    xp.add.at(x.reshape(-1), flat.reshape(-1), g.reshape(-1))
    return x


@take_grad.vjp("g")
def _(g, indices, axis):
    return bind(take, g, indices, axis=axis)


@take_grad.samples
def _(rng):
    yield sample(rng.normal(size=(2, 4, 3)), rng.integers(0, 5, (2, 4)), shape=(5, 3), axis=0)
    yield sample(rng.normal(size=(2, 4, 3)), rng.integers(0, 5, 4), shape=(2, 5, 3), axis=1)
    yield sample(rng.normal(size=(2, 0)), np.zeros((2,), int), shape=(5, 0), axis=0)


@primitive(match=("x",), constant=("indices",))
def gather_rows(xp, x, indices):
    """Slices of ``x`` along its first axis; the gradient is IndexedSlices of them."""
    return xp.take(x, indices, axis=0)


@gather_rows.vjp("x")
def _(g, x_shape, indices):
    count = indices._data.size
    values = bind(reshape_to, g, shape=(count, *x_shape[1:]))
    return IndexedSlices(values, bind(reshape_to, indices, shape=(count,)), x_shape)


@gather_rows.samples
def _(rng):
    yield sample(rng.normal(size=(5, 3)), rng.integers(0, 5, (2, 4)))
    yield sample(rng.normal(size=4), np.array(2))


@primitive(vjp=None)
def row_positions(xp, indices, *, length):
    """Indices within each of the rows (axis 0), as int64 positions where rows lie end to end."""
    offsets = xp.arange(indices.shape[0]) * length
    return indices.astype(np.int64) + offsets.reshape(-1, *(1,) * (indices.ndim - 1))


@row_positions.samples
def _(rng):
    yield sample(rng.integers(0, 4, (3, 2)), length=4)
    yield sample(rng.integers(0, 4, 3), length=4)


def check_indices(name: str, indices: Tensor, size: int | tuple[int, ...]) -> None:
    """Raises InvalidArgumentError unless ``indices`` are integers in [0, size).

    Of a shape there is a size for each number in the last axis.
    """
    data = indices._data
    if data.dtype.kind not in "iu":
        raise InvalidArgumentError(f"{name}: indices must be integers, not {indices.dtype.name}")
    if data.size:
        recording.check(_check_range, name, indices, size)


def _check_range(name: str, indices: Tensor, size: int | tuple[int, ...]) -> None:
    data = indices._data
    if type(size) is tuple:
        for i, number in enumerate(size):
            _check_range(name, Tensor(data[..., i]), number)
        return
    least, largest = data.min(), data.max()
    if least < 0 or largest >= size:
        error = InvalidArgumentError(f"{name}: an index lies outside [0, {size}): {indices}")
        if least >= 0:
            error.largest = int(largest)  # type: ignore[attr-defined]  # for KerasTensors
        raise error


_check_range.any_shape = True  # type: ignore[attr-defined]


@moves_texts
def gather(
    params: Any,
    indices: Any,
    validate_indices: Any = None,
    axis: int | None = None,
    batch_dims: int = 0,
    name: str | None = None,
) -> Tensor:
    """Slices of ``params`` along ``axis`` (``batch_dims`` by default) at integer ``indices``.

    The first ``batch_dims`` axes of both are walked together. The gradient along axis 0 is
    IndexedSlices. Raises InvalidArgumentError for an index outside the axis, an axis outside the
    rank, or batch axes that differ.
    """
    x, where = as_tensor(params), as_tensor(indices)
    batch = operator.index(batch_dims)
    if batch:
        batch = batch if batch == where._data.ndim else one_axis("gather", batch, where._data.ndim)
    axis = one_axis("gather", batch_dims if axis is None else axis, x._data.ndim)
    if batch > axis or x._data.shape[:batch] != where._data.shape[:batch]:
        raise InvalidArgumentError(
            f"gather: {batch} batch axes of params {x.shape}, axis {axis}, indices {where.shape}"
        )
    check_indices("gather", where, x._data.shape[axis])
    if batch:
        return _gather_batches(x, where, axis, batch)
    return bind(gather_rows, x, where) if axis == 0 else bind(take, x, where, axis=axis)


def _gather_batches(x: Tensor, where: Tensor, axis: int, batch: int) -> Tensor:
    """Batches laid end to end make one long axis to take from."""
    shape, size = x._data.shape, where._data.shape
    outer, between, after = shape[:batch], shape[batch:axis], shape[axis + 1 :]
    count, length = math.prod(outer), shape[axis]
    order = (*range(batch), axis, *range(batch, axis), *range(axis + 1, len(shape)))
    rows = bind(reshape_to, bind(permute, x, perm=order), shape=(count * length, *between, *after))
    inner = math.prod(size[batch:])
    flat = bind(row_positions, bind(reshape_to, where, shape=(count, inner)), length=length)
    taken = bind(take, rows, bind(reshape_to, flat, shape=size), axis=0)
    # Axes now: batch, the rest of the indices', between, after; between belongs before them.
    first, last = len(size), len(size) + len(between)
    order = (*range(batch), *range(first, last), *range(batch, first))
    return bind(permute, taken, perm=(*order, *range(last, taken._data.ndim)))


def take_along_last(x: Tensor, indices: Tensor) -> Tensor:
    """``x[..., indices[...]]`` for each of the leading positions that both share."""
    shape, size = x._data.shape, indices._data.shape
    count = math.prod(shape[:-1])
    flat = bind(reshape_to, indices, shape=(count, size[-1]))
    flat = bind(row_positions, flat, length=shape[-1])
    values = bind(reshape_to, x, shape=(x._data.size,))
    return bind(take, values, bind(reshape_to, flat, shape=size), axis=0)


@takes_composites
def one_hot(
    indices: Any,
    depth: int,
    on_value: Any = None,
    off_value: Any = None,
    axis: int | None = None,
    dtype: Any = None,
    name: str | None = None,
) -> Tensor:
    """``on_value`` (1) at each index along a new axis of size ``depth``, ``off_value`` (0) else.

    The axis is the last by default, the dtype that of the values, or float32. Indices outside
    [0, depth) give ``off_value`` everywhere. Raises InvalidArgumentError for indices that are not
    integers, a depth under 0 or an axis outside the rank.
    """
    where = as_tensor(indices)
    if isinstance(indices, np.ndarray) or not where._data.size:  # as labels are often kept
        where = cast(where, np.int64) if where._data.dtype.kind == "f" else where
    if where._data.dtype.kind not in "iu":
        raise InvalidArgumentError(f"one_hot: indices must be integers, not {where.dtype.name}")
    given = [v for v in (on_value, off_value) if v is not None]
    if dtype is None:
        dtype = as_tensor(given[0]).dtype if given else np.float32
    wanted = as_dtype(dtype).numpy_dtype
    on = as_tensor(wanted.type(1) if on_value is None else on_value, like=wanted)
    off = as_tensor(wanted.type(0) if off_value is None else off_value, like=wanted)
    if not on._data.dtype == off._data.dtype == wanted:
        raise TypeError(f"one_hot: values of {on.dtype.name} and {off.dtype.name} for {wanted}")
    size = where._data.shape
    at = len(size) if axis in (None, -1) else one_axis("one_hot", axis, len(size) + 1)
    if where._data.dtype.itemsize < 4:  # too small, perhaps, for the last column's number
        where = cast(where, np.int32)
    if (count := operator.index(depth)) < 0:
        raise InvalidArgumentError(f"one_hot: the depth must be at least 0, not {count}")
    columns = np.arange(count, dtype=where._data.dtype)
    line = Tensor(columns.reshape(-1, *(1,) * (len(size) - at)))
    hot = equal(bind(reshape_to, where, shape=(*size[:at], 1, *size[at:])), line)
    return select(hot, on, off)


def _at_places(dense: Tensor, places: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    """The elements of ``dense``, broadcast to ``shape``, at ``places`` (N, rank).

    Raises InvalidArgumentError where it is not broadcast to that shape.
    """
    own = dense._data.shape
    first = len(shape) - len(own)
    beside = shape[max(first, 0) :]
    if first < 0 or any(s not in (1, whole) for s, whole in zip(own, beside, strict=True)):
        raise InvalidArgumentError(f"a tensor of shape {own} is not broadcast to {shape}")
    within = places[:, first:] * (np.array(own) != 1)  # an axis of size 1 has one element
    flat = np.ravel_multi_index(tuple(within.T), own)
    return gather(bind(reshape_to, dense, shape=(math.prod(own),)), flat)


sparse_tensor.at_places = _at_places
sparse_tensor.gathered = gather
