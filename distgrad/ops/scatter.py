"""Scatter and gather by positions in several axes at once.

Positions are first turned into row numbers of the tensor seen as a matrix, so that one-axis
primitives do the rest.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.composite import takes_composites
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.core.texts import moves_texts
from distgrad.ops.arithmetic import negative
from distgrad.ops.casting import cast
from distgrad.ops.indexing import check_indices, mask_select, row_positions, take, take_grad
from distgrad.ops.logic import equal
from distgrad.ops.shape import as_peers, fill, reshape_to, static


@primitive(vjp=None)
def ravel_index(xp, indices, *, shape):
    """Positions in ``shape`` along the last axis, as row-major element numbers, int64."""
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    flat = xp.zeros(indices.shape[:-1], dtype=np.int64)
    for i, stride in enumerate(strides):
        flat = flat + indices[..., i].astype(np.int64) * stride
    return flat


@ravel_index.samples
def _(rng):
    yield sample(rng.integers(0, 3, (2, 4, 2)), shape=(3, 4))
    yield sample(np.zeros((3, 0), int), shape=())


@primitive(match=("x", "updates"), constant=("rows",))
def put_rows(xp, x, updates, rows):
    """A copy of ``x`` whose slices ``rows`` along its first axis are replaced by ``updates``."""
    x = x.copy()
    x[rows] = updates
    return x


@put_rows.vjp("x")
def _(g, rows):
    return bind(put_rows, g, 0, rows)


@put_rows.vjp("updates")
def _(g, rows):
    return bind(take, g, rows, axis=0)


@put_rows.samples
def _(rng):
    yield sample(rng.normal(size=(4, 2)), rng.normal(size=(2, 2)), np.array([3, 1]))
    yield sample(rng.normal(size=3), rng.normal(size=()), np.array(1))
    yield sample(rng.normal(size=(4, 2)), rng.normal(size=(0, 2)), np.zeros(0, int))


def _put_extreme(name: str, which: str) -> Any:
    def kernel(xp, x, updates, rows):
        # Element by element at flat positions, as in ``take_grad``.
        x, each = x.copy(), math.prod(x.shape[1:])
        flat = rows.astype(np.int64).reshape(-1, 1) * each + xp.arange(each)
        getattr(xp, which).at(x.reshape(-1), flat.reshape(-1), updates.reshape(-1))
        return x

    kernel.__name__ = name
    kernel.__doc__ = (
        f"A copy of ``x`` with the {which} of its slices ``rows`` and ``updates``; whatever ties "
        "shares the gradient equally."
    )
    made = primitive(match=("x", "updates"), constant=("rows",), kinds="iuf")(kernel)

    @made.vjp("x", "updates")
    def _(g, out, x, updates, rows):
        dtype = g._data.dtype
        winners = cast(equal(x, out), dtype)
        updated = cast(equal(updates, bind(take, out, rows, axis=0)), dtype)
        shape = tuple(out._data.shape)
        share = g / (winners + bind(take_grad, updated, rows, shape=shape, axis=0))
        return share * winners, bind(take, share, rows, axis=0) * updated

    @made.samples
    def _(rng):
        values = rng.permutation(12) / 4.0
        x, updates = values[:6].reshape(3, 2), values[6:].reshape(3, 2)
        yield sample(x, updates, np.array([2, 0, 2]))

    return made


put_max = _put_extreme("put_max", "maximum")
put_min = _put_extreme("put_min", "minimum")


def _rows(name: str, indices: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, int, tuple]:
    """Row numbers for ``indices`` (..., depth), the number of rows, and the shape of one.

    Raises InvalidArgumentError for positions outside ``shape`` or deeper than its rank.
    """
    size = indices._data.shape
    if not size or size[-1] > len(shape):
        raise InvalidArgumentError(
            f"{name}: indices of shape {indices.shape} for a tensor of shape {shape}"
        )
    depth = size[-1]
    check_indices(name, indices, shape[:depth])
    count = math.prod(shape[:depth])
    return bind(ravel_index, indices, shape=shape[:depth]), count, shape[depth:]


@moves_texts
@takes_composites
def gather_nd(params: Any, indices: Any, batch_dims: int = 0, name: str | None = None) -> Tensor:
    """The slices of ``params`` at the positions that the last axis of ``indices`` holds.

    The first ``batch_dims`` axes of both are walked together. Raises InvalidArgumentError for
    positions outside the tensor or deeper than its rank.
    """
    x, where = as_tensor(params), as_tensor(indices)
    shape, size = tuple(x._data.shape), where._data.shape
    outer = shape[:batch_dims]
    if outer != size[:batch_dims] or len(size) <= batch_dims:
        raise InvalidArgumentError(
            f"gather_nd: {batch_dims} batch axes of params {x.shape} and indices {where.shape}"
        )
    rows, count, rest = _rows("gather_nd", where, shape[batch_dims:])
    batches = math.prod(outer)
    if batch_dims:
        inner = math.prod(size[batch_dims:-1])
        rows = bind(reshape_to, rows, shape=(batches, inner))
        rows = bind(reshape_to, bind(row_positions, rows, length=count), shape=size[:-1])
    return bind(take, bind(reshape_to, x, shape=(batches * count, *rest)), rows, axis=0)


def _updates(name: str, rows: Tensor, rest: tuple, updates: Tensor) -> Tensor:
    if updates._data.shape != rows._data.shape + rest:
        raise InvalidArgumentError(
            f"{name}: updates of shape {updates.shape} where indices ask for "
            f"{rows._data.shape + rest}"
        )
    return updates


def scatter_nd(indices: Any, updates: Any, shape: Any, name: str | None = None) -> Tensor:
    """Zeros of ``shape`` with ``updates`` added at the positions in ``indices``.

    Raises InvalidArgumentError for positions outside ``shape`` or updates of another shape.
    """
    whole = static(shape)
    rows, count, rest = _rows("scatter_nd", as_tensor(indices), whole)
    values = _updates("scatter_nd", rows, rest, as_tensor(updates))
    return bind(
        reshape_to, bind(take_grad, values, rows, shape=(count, *rest), axis=0), shape=whole
    )


def scattered(name: str, made: Any, tensor: Any, indices: Any, updates: Any) -> Tensor:
    """``tensor`` with ``updates`` at ``indices`` as ``made`` puts them there, which takes rows.

    Raises InvalidArgumentError, in which ``name`` stands, for indices or updates that do not fit.
    """
    x, values = as_peers(name, [as_tensor(tensor), updates])
    shape = tuple(x._data.shape)
    rows, count, rest = _rows(name, as_tensor(indices), shape)
    values = _updates(name, rows, rest, values)
    matrix = bind(reshape_to, x, shape=(count, *rest))
    return bind(reshape_to, made(matrix, values, rows), shape=shape)


def _add_rows(x: Tensor, updates: Tensor, rows: Tensor) -> Tensor:
    return x + bind(take_grad, updates, rows, shape=tuple(x._data.shape), axis=0)


def tensor_scatter_nd_update(
    tensor: Any, indices: Any, updates: Any, name: str | None = None
) -> Tensor:
    """``tensor`` with ``updates`` written at the positions in ``indices``.

    Which of several updates of one position stays is not defined. Raises InvalidArgumentError as
    ``scatter_nd`` does.
    """
    return scattered("tensor_scatter_nd_update", put_rows, tensor, indices, updates)


def tensor_scatter_nd_add(
    tensor: Any, indices: Any, updates: Any, name: str | None = None
) -> Tensor:
    """``tensor`` with ``updates`` added at the positions in ``indices``; repeated ones add up."""
    return scattered("tensor_scatter_nd_add", _add_rows, tensor, indices, updates)


def tensor_scatter_nd_sub(
    tensor: Any, indices: Any, updates: Any, name: str | None = None
) -> Tensor:
    """``tensor`` with ``updates`` subtracted at the positions in ``indices``."""
    return scattered(
        "tensor_scatter_nd_sub",
        lambda x, values, rows: _add_rows(x, negative(values), rows),
        tensor,
        indices,
        updates,
    )


def tensor_scatter_nd_max(
    tensor: Any, indices: Any, updates: Any, name: str | None = None
) -> Tensor:
    """``tensor`` with the maximum of it and ``updates`` at the positions in ``indices``."""
    return scattered("tensor_scatter_nd_max", put_max, tensor, indices, updates)


def tensor_scatter_nd_min(
    tensor: Any, indices: Any, updates: Any, name: str | None = None
) -> Tensor:
    """``tensor`` with the minimum of it and ``updates`` at the positions in ``indices``."""
    return scattered("tensor_scatter_nd_min", put_min, tensor, indices, updates)


# Partition and stitch


def dynamic_partition(
    data: Any, partitions: Any, num_partitions: int, name: str | None = None
) -> list[Tensor]:
    """``data`` sorted into ``num_partitions`` tensors by the number in ``partitions``.

    ``partitions`` has the shape of the leading axes of ``data``. Raises InvalidArgumentError for
    another shape or numbers outside [0, num_partitions).
    """
    x, where = as_tensor(data), as_tensor(partitions)
    if x._data.shape[: where._data.ndim] != where._data.shape:
        raise InvalidArgumentError(
            f"dynamic_partition: partitions of shape {where.shape} for data of shape {x.shape}"
        )
    check_indices("dynamic_partition", where, num_partitions)
    if not where._data.ndim:
        x = bind(reshape_to, x, shape=(1, *x._data.shape))
        where = bind(reshape_to, where, shape=(1,))
    return [bind(mask_select, x, equal(where, i)) for i in range(num_partitions)]


def dynamic_stitch(indices: Sequence[Any], data: Sequence[Any], name: str | None = None) -> Tensor:
    """The slices of all ``data`` put in the places given by ``indices``; later ones stay.

    Raises InvalidArgumentError where the shapes of a pair do not match.
    """
    places = [as_tensor(i) for i in indices]
    values = as_peers("dynamic_stitch", data)
    if len(places) != len(values) or not places:
        raise InvalidArgumentError(
            f"dynamic_stitch: {len(places)} lists of indices for {len(values)} tensors"
        )
    size = 1 + builtins.max((int(p._data.max()) for p in places if p._data.size), default=-1)
    rest = values[0]._data.shape[places[0]._data.ndim :]
    result = bind(fill, 0, shape=(size, *rest), dtype=values[0]._data.dtype)
    for place, value in zip(places, values, strict=True):
        check_indices("dynamic_stitch", place, size)
        result = put_rows(result, _updates("dynamic_stitch", place, rest, value), place)
    return result
