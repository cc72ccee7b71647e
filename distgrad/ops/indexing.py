"""Indexing: strided slices and masks, gather, one_hot."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.elementwise import cast
from distgrad.ops.shape import reshape_to


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


@primitive(match=("g",), constant=("indices",))
def take_grad(xp, g, indices, *, shape, axis):
    """Zeros of ``shape`` with the slices ``g`` added at ``indices`` along ``axis``."""
    x = xp.zeros(shape, dtype=g.dtype)
    xp.add.at(x, (slice(None),) * axis + (indices,), g)
    return x


@take_grad.vjp("g")
def _(g, indices, axis):
    return bind(take, g, indices, axis=axis)


@take_grad.samples
def _(rng):
    yield sample(rng.normal(size=(2, 4, 3)), rng.integers(0, 5, (2, 4)), shape=(5, 3), axis=0)


def gather(params: Any, indices: Any, axis: int = 0, name: str | None = None) -> Tensor:
    """Slices of ``params`` along ``axis`` at integer ``indices``.

    Raises InvalidArgumentError for an index outside the axis.
    """
    tensor, where = as_tensor(params), as_tensor(indices)
    if where._data.dtype.kind not in "iu":
        raise InvalidArgumentError(f"gather: indices must be integers, not {where.dtype.name}")
    size = tensor._data.shape[axis]
    flat = where._data
    if flat.size and (flat.min() < 0 or flat.max() >= size):
        raise InvalidArgumentError(f"gather: an index lies outside [0, {size}): {where}")
    return bind(take, tensor, where, axis=axis % tensor._data.ndim)


@primitive(match=("x",), constant=("mask",))
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
    if isinstance(key, (Tensor, np.ndarray)) and np.ndim(key) and key.dtype == "bool":
        return mask_select(tensor, key)
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
    return item.__index__()


def _bound(value: Any) -> Any:
    return None if value is None else value.__index__()


def one_hot(
    indices: Any,
    depth: int,
    on_value: float = 1.0,
    off_value: float = 0.0,
    axis: int = -1,
    dtype: Any = None,
    name: str | None = None,
) -> Tensor:
    """1 at each index along a new last axis of size ``depth``, 0 elsewhere; float32 by default."""
    where = as_tensor(indices)
    wanted = as_dtype(np.float32 if dtype is None else dtype)
    shape = (*where._data.shape, 1)
    columns = Tensor(np.arange(int(depth), dtype=where._data.dtype))
    hot = cast(bind(reshape_to, where, shape=shape) == columns, wanted)
    result = hot * on_value + (1 - hot) * off_value
    return result if axis in (-1, len(shape) - 1) else _move_last(result, axis)


def _move_last(x: Tensor, axis: int) -> Tensor:
    from distgrad.ops.shape import transpose

    order = list(range(x._data.ndim - 1))
    order.insert(axis, x._data.ndim - 1)
    return transpose(x, order)
