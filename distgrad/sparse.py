"""``tf.sparse``: what examples of several lengths give, made dense and back, and work on it.

Places and shapes are plain numbers of the host; gradients flow through the values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.later import absent as _absent
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.texts import Bytes, Texts, as_bytes, as_strings, holds_texts
from distgrad.ops import shape as shapes
from distgrad.ops.casting import identity, stop_gradient, zeros_like
from distgrad.ops.complex import conj
from distgrad.ops.constants import fill, ones
from distgrad.ops.exponential import exp
from distgrad.ops.indexing import gather
from distgrad.ops.logic import where
from distgrad.ops.reduce import reduce_sum as dense_sum
from distgrad.ops.scatter import tensor_scatter_nd_add, tensor_scatter_nd_update
from distgrad.ops.segment import unsorted_segment_max, unsorted_segment_sum

__all__ = [
    "SparseTensor",
    "add",
    "concat",
    "expand_dims",
    "eye",
    "from_dense",
    "map_values",
    "reduce_max",
    "reduce_sum",
    "reorder",
    "reshape",
    "retain",
    "slice",
    "softmax",
    "sparse_dense_matmul",
    "to_dense",
    "transpose",
]


def to_dense(
    sp_input: SparseTensor,
    default_value: Any = None,
    validate_indices: bool = True,
    name: str | None = None,
) -> Tensor | Bytes | Texts:
    """The tensor, or array of texts, that has the values, and ``default_value`` at other places.

    That is 0 or "" for None. Raises TypeError for anything but a SparseTensor, InvalidArgumentError
    for an index outside the shape, and where ``validate_indices`` for one that comes twice or
    before a smaller one.
    """
    places, shape = _places(sp_input)
    _check(places, shape, validate_indices)
    values = sp_input.values
    if isinstance(values, np.ndarray):  # of texts
        made = np.full(shape, "" if default_value is None else default_value, object)
        made[tuple(places.T)] = np.asarray(as_bytes(values))
        return as_strings(np.asarray(as_bytes(made)))
    default = as_tensor(
        0 if default_value is None else default_value, like=values.dtype.numpy_dtype
    )
    return tensor_scatter_nd_update(fill(shape, default), sp_input.indices, values)


def from_dense(tensor: Any, name: str | None = None) -> SparseTensor:
    """The values of a tensor that are not 0, or of an array of texts that are not empty."""
    text = not isinstance(tensor, Operand) and holds_texts(np.asarray(tensor))
    array: Any = np.asarray(as_bytes(tensor)) if text else as_tensor(tensor).numpy()
    places = np.argwhere(array != (b"" if text else 0))
    return SparseTensor(places, array[tuple(places.T)], array.shape)


def eye(
    num_rows: int, num_columns: int | None = None, dtype: Any = "float32", name: Any = None
) -> SparseTensor:
    """Ones on the diagonal of a matrix, by default a square one."""
    shape = (num_rows, num_rows if num_columns is None else num_columns)
    places = np.arange(min(shape))
    return SparseTensor(np.stack([places, places], 1), ones(places.shape, dtype), shape)


def add(a: Any, b: Any, threshold: Any = 0) -> SparseTensor | Tensor:
    """The sum: of two sparse tensors one with the places of both, of a sparse and a dense dense.

    Sums smaller than ``threshold`` in size are left out. Raises InvalidArgumentError for two
    shapes, and TypeError where neither is sparse.
    """
    if not isinstance(a, SparseTensor):
        a, b = b, a
    shape = _places(a)[1]
    if not isinstance(b, SparseTensor):
        return tensor_scatter_nd_add(b, a.indices, a.values)
    if shape != tuple(b.shape):
        raise InvalidArgumentError(f"sparse.add: shapes {a.shape} and {b.shape} differ")
    places = np.concatenate([a.indices.numpy(), b.indices.numpy()])
    places, rows = np.unique(places, axis=0, return_inverse=True)
    values = unsorted_segment_sum(shapes.concat([a.values, b.values], 0), rows.ravel(), len(places))
    made = SparseTensor(places, values, shape)
    return retain(made, np.abs(values.numpy()) >= threshold) if threshold else made


def sparse_dense_matmul(
    sp_a: SparseTensor, b: Any, adjoint_a: bool = False, adjoint_b: bool = False, name: Any = None
) -> Tensor:
    """The dense product of a sparse matrix and a dense one, or of their adjoints.

    Raises InvalidArgumentError for what is no matrix, and for inner sizes that differ.
    """
    places, shape = _places(sp_a)
    dense = identity(as_tensor(b, like=sp_a.values.dtype.numpy_dtype))  # its gradient is dense
    if adjoint_b:
        dense = shapes.transpose(dense, conjugate=True)
    if adjoint_a:
        places, shape = places[:, ::-1], shape[::-1]
    if len(shape) != 2 or dense.shape.rank != 2 or dense.shape[0] != shape[1]:
        raise InvalidArgumentError(f"no product of a matrix {shape} and one {tuple(dense.shape)}")
    values = conj(sp_a.values) if adjoint_a else sp_a.values
    products = shapes.expand_dims(values, 1) * gather(dense, places[:, 1])
    return unsorted_segment_sum(products, places[:, 0], shape[0])


def map_values(op: Callable[..., Any], *args: Any, **kwargs: Any) -> SparseTensor:
    """``op`` of the values of sparse arguments, which have the same places, and of the others.

    Raises ValueError where there is no sparse argument, InvalidArgumentError where places differ.
    """
    sparse = [x for x in (*args, *kwargs.values()) if isinstance(x, SparseTensor)]
    if not sparse:
        raise ValueError("No SparseTensor in argument list of map_values")
    (places, shape), *others = map(_places, sparse)
    if any(not np.array_equal(places, each) or shape != other for each, other in others):
        raise InvalidArgumentError("map_values: the sparse tensors have values at other places")

    def dense(value: Any) -> Any:
        return value.values if isinstance(value, SparseTensor) else value

    values = op(*map(dense, args), **{name: dense(value) for name, value in kwargs.items()})
    return sparse[0].with_values(values)


def concat(axis: int, sp_inputs: Sequence[SparseTensor], name: Any = None) -> SparseTensor:
    """One after the other along an axis. Raises InvalidArgumentError where other axes differ."""
    parts = [_places(each) for each in sp_inputs]
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
    places, shape = _places(sp_input)
    first = np.asarray(start)
    last = np.minimum(first + np.asarray(size), shape)
    inside = ((places >= first) & (places < last)).all(axis=1)
    return _picked(sp_input, np.flatnonzero(inside), places - first, np.maximum(last - first, 0))


def retain(sp_input: SparseTensor, to_retain: Any) -> SparseTensor:
    """The values where ``to_retain``, one bool for each, is true."""
    return _picked(sp_input, np.flatnonzero(np.asarray(to_retain)), *_places(sp_input))


def reorder(sp_input: SparseTensor, name: Any = None) -> SparseTensor:
    """The values in the order of their places, the last axis fastest."""
    places, shape = _places(sp_input)
    return _picked(sp_input, np.lexsort(places.T[::-1]), places, shape)


def transpose(sp_input: SparseTensor, perm: Any = None, name: Any = None) -> SparseTensor:
    """Axes in the order ``perm``, by default the other way round."""
    places, shape = _places(sp_input)
    order = list(range(len(shape))[::-1] if perm is None else shapes.static(perm))
    return reorder(SparseTensor(places[:, order], sp_input.values, np.array(shape)[order]))


def reshape(sp_input: SparseTensor, shape: Any, name: Any = None) -> SparseTensor:
    """Another shape of as many elements, of which one size may be -1.

    Raises InvalidArgumentError where the numbers of elements differ.
    """
    places, old = _places(sp_input)
    try:
        whole = np.broadcast_to(np.int8(0), old).reshape(shapes.static(shape)).shape
    except ValueError as error:
        raise InvalidArgumentError(f"sparse.reshape: {error}") from None
    flat = np.ravel_multi_index(tuple(places.T), old) if len(places) else places[:, 0]
    return SparseTensor(np.stack(np.unravel_index(flat, whole), 1), sp_input.values, whole)


def expand_dims(sp_input: SparseTensor, axis: int | None = None, name: Any = None) -> SparseTensor:
    """A new axis of size 1, by default the last."""
    places, shape = _places(sp_input)
    axis = shapes.one_axis("expand_dims", -1 if axis is None else axis, len(shape) + 1)
    return SparseTensor(
        np.insert(places, axis, 0, axis=1), sp_input.values, np.insert(shape, axis, 1)
    )


def reduce_sum(
    sp_input: SparseTensor, axis: Any = None, keepdims: bool | None = None, name: Any = None
) -> Tensor:
    """The dense sum over ``axis``, by default over all."""
    return dense_sum(to_dense(sp_input), axis, bool(keepdims))


def reduce_max(
    sp_input: SparseTensor, axis: Any = None, keepdims: bool | None = None, name: Any = None
) -> Tensor:
    """The dense maximum over ``axis`` of the values that are there, 0 where there are none."""
    places, shape = _places(sp_input)
    rank = len(shape)
    over = range(rank) if axis is None else np.ravel(shapes.static(axis))
    axes = [shapes.one_axis("reduce_max", int(each), rank) for each in over]
    rest = [i for i in range(rank) if i not in axes]
    kept = [shape[i] for i in rest]
    rows, count = _rows(places[:, rest], kept), math.prod(kept)
    found = unsorted_segment_max(sp_input.values, rows, count)
    there = np.bincount(rows, minlength=count) > 0
    whole = [1 if i in axes else size for i, size in enumerate(shape)]
    return shapes.reshape(where(there, found, zeros_like(found)), whole if keepdims else kept)


def softmax(sp_input: SparseTensor, name: Any = None) -> SparseTensor:
    """The softmax of the values that are there, over the last axis.

    Raises InvalidArgumentError for fewer than two axes.
    """
    places, shape = _places(sp_input)
    if len(shape) < 2:
        raise InvalidArgumentError(f"sparse.softmax takes two axes or more, not {list(shape)}")
    rows, count = _rows(places[:, :-1], shape[:-1]), math.prod(shape[:-1])
    values = sp_input.values
    largest = unsorted_segment_max(stop_gradient(values), rows, count)
    powers = exp(values - gather(largest, rows))
    return sp_input.with_values(powers / gather(unsorted_segment_sum(powers, rows, count), rows))


def _rows(places: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The numbers of places (N, rank) in an array of ``shape``."""
    if not len(shape):
        return np.zeros(len(places), np.int64)
    return np.ravel_multi_index(tuple(places.T), tuple(shape))


def _places(sparse: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    """Where values lie, (N, rank), and the shape. Raises TypeError for what is not sparse."""
    if not isinstance(sparse, SparseTensor):
        raise TypeError(f"Input must be a SparseTensor, not {sparse!r}.")
    return sparse.indices.numpy(), tuple(sparse.shape)


def _picked(sparse: SparseTensor, rows: np.ndarray, places: Any, shape: Any) -> SparseTensor:
    values = sparse.values
    picked = values[rows] if isinstance(values, np.ndarray) else gather(values, rows)
    return SparseTensor(places[rows], picked, shape)


def _check(places: np.ndarray, shape: tuple[int, ...], ordered: bool) -> None:
    outside = ((places < 0) | (places >= shape)).any(axis=1)
    if outside.any():
        which = int(outside.argmax())
        raise InvalidArgumentError(
            f"indices[{which}] = {places[which].tolist()} is out of bounds: need 0 <= index < "
            f"{list(shape)}"
        )
    for which, (one, other) in enumerate(itertools.pairwise(places.tolist() if ordered else ())):
        if one >= other:
            what = "repeated" if one == other else "out of order"
            raise InvalidArgumentError(f"indices[{which + 1}] = {other} is {what}")


__getattr__ = _absent(__name__)
