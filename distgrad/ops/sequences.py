"""Sequences of different lengths turned round, and positions in shapes."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind
from distgrad.core.shapes import TensorShape
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import cast
from distgrad.ops.indexing import check_indices, gather
from distgrad.ops.layout import beside
from distgrad.ops.logic import less, select
from distgrad.ops.rounding import floordiv, floormod
from distgrad.ops.shape import expand_dims, one_axis, permute, stack, static


def reverse_sequence(
    input: Any,
    seq_lengths: Any,
    seq_axis: int | None = None,
    batch_axis: int | None = None,
    name: str | None = None,
) -> Tensor:
    """The first ``seq_lengths[i]`` elements along ``seq_axis`` of each sequence in reverse order.

    Sequences lie along ``batch_axis``, 0 by default. Raises InvalidArgumentError for axes that are
    the same, another number of lengths, or one that is longer than the axis.
    """
    x, lengths = as_tensor(input), as_tensor(seq_lengths)
    along = one_axis("reverse_sequence", seq_axis or 0, x._data.ndim)
    apart = one_axis("reverse_sequence", batch_axis or 0, x._data.ndim)
    count, size = x._data.shape[apart], x._data.shape[along]
    if along == apart or lengths._data.shape != (count,):
        raise InvalidArgumentError(
            f"reverse_sequence: lengths of shape {lengths.shape} for axes {along} and {apart} of "
            f"{x.shape}"
        )
    check_indices("reverse_sequence", lengths, size + 1)
    order = (apart, along, *(i for i in range(x._data.ndim) if i not in (apart, along)))
    ends = expand_dims(cast(lengths, np.int64), 1)
    place = beside(x, np.arange(size))
    where = select(less(place, ends), ends - 1 - place, place)
    turned = gather(bind(permute, x, perm=order), where, axis=1, batch_dims=1)
    back = tuple(order.index(i) for i in range(x._data.ndim))
    return bind(permute, turned, perm=back)


def unravel_index(indices: Any, dims: Any, name: str | None = None) -> Tensor:
    """Element numbers as positions in the shape ``dims``: one row for each axis.

    Raises InvalidArgumentError for a number outside the shape.
    """
    flat, shape = as_tensor(indices), static(dims)
    check_indices("unravel_index", flat, int(np.prod(shape, dtype=np.int64)))
    rows = []
    for size in reversed(shape):
        rows.append(floormod(flat, size))
        flat = floordiv(flat, size)
    return stack(rows[::-1], 0)


def broadcast_static_shape(shape_x: Any, shape_y: Any) -> TensorShape:
    """The shape that two shapes broadcast to; ValueError where they do not.

    A size of None beside one above 1 is that one.
    """
    x, y = TensorShape(shape_x), TensorShape(shape_y)
    if None in (x.rank, y.rank):
        return TensorShape(None)
    pairs = list(zip_longest(reversed(x), reversed(y), fillvalue=1))
    if any(a != b and None not in (a, b) and 1 not in (a, b) for a, b in pairs):
        raise ValueError(f"shapes {x} and {y} do not broadcast")
    return TensorShape([b if a == 1 or (a is None and b != 1) else a for a, b in pairs][::-1])


def broadcast_dynamic_shape(shape_x: Any, shape_y: Any) -> Tensor:
    """``broadcast_static_shape`` as a tensor of int32; InvalidArgumentError where there is none."""
    x, y = static(shape_x), static(shape_y)
    try:
        return as_tensor(np.array(np.broadcast_shapes(x, y), np.int32))
    except ValueError:
        raise InvalidArgumentError(f"shapes {x} and {y} do not broadcast") from None
