"""What sparse tensors are counted into, or crossed, and sums of rows by number."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.core.composite import Composite
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import is_floating
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor
from distgrad.core.texts import all_texts, as_bytes, as_strings
from distgrad.ops.casting import cast
from distgrad.ops.constants import ones
from distgrad.ops.indexing import gather
from distgrad.ops.segment import (
    unsorted_segment_mean,
    unsorted_segment_sqrt_n,
    unsorted_segment_sum,
)
from distgrad.ops.shape import one_axis, reshape
from distgrad.sparse.moving import reorder
from distgrad.sparse.places import placed, places_of

_KEY = 0xDECAFCAFFE  # TensorFlow's own


def bincount(
    values: Any,
    weights: Any = None,
    axis: int | None = 0,
    minlength: int | None = None,
    maxlength: int | None = None,
    binary_output: bool = False,
    name: str | None = None,
) -> SparseTensor:
    """How often each integer appears, in all ``values`` or (``axis`` -1) in each row of a matrix.

    With ``weights`` their sums, with ``binary_output`` ones. Values may be dense, sparse or ragged;
    there are ``minlength`` to ``maxlength`` columns, and larger integers are not counted. Raises
    ValueError for another axis, and for both options; InvalidArgumentError for values that are
    negative or no integers, and for weights of another shape.
    """
    if axis not in (None, 0, -1):
        raise ValueError(f"axis {axis}: only 0 and -1 are supported")
    if weights is not None and binary_output:
        raise ValueError("binary_output and weights are mutually exclusive: give one of them")
    numbers, rows, count = _numbers(values)
    kind = numbers.dtype
    if kind.kind not in "iu" or numbers.min(initial=0) < 0:
        raise InvalidArgumentError(f"bincount takes integers from 0 on, not {values}")
    most = int(numbers.max(initial=-1)) + 1
    length = max(most, minlength or 0) if maxlength is None else int(maxlength)
    amounts = ones([len(numbers)], kind) if weights is None else _amounts(weights, len(numbers))
    apart = axis == -1 and count is not None
    shape = [count, length] if apart else [length]
    kept = np.flatnonzero(numbers < length)
    places = numbers[kept] + (rows[kept] * length if apart else 0)
    flat, at = np.unique(places, return_inverse=True)
    if binary_output:
        return SparseTensor(placed(flat, shape), ones([len(flat)], kind), shape)
    sums = unsorted_segment_sum(gather(amounts, kept), at, len(flat))
    return SparseTensor(placed(flat, shape), sums, shape)


def _numbers(values: Any) -> tuple[np.ndarray, np.ndarray, int | None]:
    """All of them, the row of each, and how many rows there are: None for a vector."""
    if isinstance(values, SparseTensor):
        places, shape = places_of(values)
        return values.values.numpy(), places[:, 0], shape[0] if len(shape) > 1 else None
    if isinstance(values, Composite):
        return _numbers(values.to_sparse())  # type: ignore[attr-defined]
    array = as_tensor(values).numpy()
    if array.ndim > 2:
        raise InvalidArgumentError(f"bincount takes vectors and matrices, not {array.shape}")
    rows = np.repeat(np.arange(len(array)), array.shape[1]) if array.ndim == 2 else array
    return array.ravel(), rows, len(array) if array.ndim == 2 else None


def _amounts(weights: Any, count: int) -> Tensor:
    flat = weights.flat_values if isinstance(weights, Composite) else reshape(weights, [-1])
    if len(flat) != count:
        raise InvalidArgumentError(f"bincount: {len(flat)} weights for {count} values")
    return flat


def one_hot(
    numbers: Any, depth: int, axis: int = -1, dtype: Any = "float32", weights: Any = None
) -> SparseTensor:
    """Ones, or ``weights``, at each number along a new axis of size ``depth``.

    A sparse tensor has them where it has values. Numbers outside [0, depth) give nothing.
    """
    if isinstance(numbers, SparseTensor):
        places, shape = places_of(numbers)
        found = numbers.values.numpy()
    else:
        array = as_tensor(numbers).numpy()
        places, shape, found = np.argwhere(np.ones(array.shape, bool)), array.shape, array.ravel()
    at = one_axis("one_hot", axis, len(shape) + 1)
    kept = np.flatnonzero((found >= 0) & (found < depth))
    lie = np.insert(places, at, found, axis=1)[kept]
    amounts = ones([len(kept)], dtype)
    if weights is not None:
        amounts = gather(cast(_amounts(weights, len(found)), dtype), kept)
    return reorder(SparseTensor(lie, amounts, (*shape[:at], depth, *shape[at:])))


def cross(
    inputs: Sequence[Any], name: str | None = None, separator: str | None = None
) -> SparseTensor:
    """For each row, the texts of its elements in all inputs, each with each, joined by "_X_".

    Inputs are matrices, sparse or dense; in a text the sparse ones come first. Raises
    InvalidArgumentError for inputs of other ranks, or other numbers of rows.
    """
    between = ("_X_" if separator is None else separator).encode()
    rows, made = _crossed(inputs, lambda value: _text(value))
    texts = [between.join(each) for each in made]
    return _beside(rows, as_strings(np.array(texts, object)) if texts else np.array([], str))


def cross_hashed(
    inputs: Sequence[Any], num_buckets: int = 0, hash_key: int | None = None, name: Any = None
) -> SparseTensor:
    """As ``cross``, but each a hash of these elements, below ``num_buckets`` unless that is 0."""
    from distgrad.keras.layers.fingerprint import farmhash, joined

    def number(value: Any) -> int:
        return int(value) % (1 << 64) if isinstance(value, int) else farmhash(value)

    rows, made = _crossed(inputs, number)
    found = []
    for each in made:
        total = _KEY if hash_key is None else hash_key
        for part in each:
            total = joined(total, part)
        found.append(total % (num_buckets or (1 << 63) - 1))
    return _beside(rows, np.array(found, np.int64))


def _text(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _crossed(
    inputs: Sequence[Any], each: Callable[[Any], Any]
) -> tuple[list[int], list[tuple[Any, ...]]]:
    """For each row all choices of one element of each input; how many they are, and they all."""
    ordered = sorted(inputs, key=lambda given: not isinstance(given, Composite))
    columns = [[[each(v) for v in row] for row in _rows(given)] for given in ordered]
    if len({len(column) for column in columns}) > 1:
        raise InvalidArgumentError(f"cross: inputs of {[len(c) for c in columns]} rows")
    made = [list(itertools.product(*row)) for row in zip(*columns, strict=True)]
    return list(map(len, made)), [choice for row in made for choice in row]


def _rows(given: Any) -> list[list[Any]]:
    """The elements of each row, texts as bytes and numbers as ints."""
    if isinstance(given, SparseTensor):
        places, shape = places_of(given)
        flat = given.values
        values = as_bytes(flat) if isinstance(flat, np.ndarray) else flat.numpy()
        found: list[list[Any]] = [[] for _ in range(shape[0])]
        for row, value in zip(places[:, 0].tolist(), np.asarray(values).tolist(), strict=True):
            found[row].append(value)
        return found
    array: Any = as_bytes(given) if all_texts(given) else np.asarray(as_tensor(given))
    if array.ndim != 2:
        raise InvalidArgumentError(f"cross takes matrices, not an input of shape {array.shape}")
    return np.asarray(array).tolist()


def _beside(lengths: list[int], values: Any) -> SparseTensor:
    """Values in rows of these lengths, from the left."""
    if not lengths:
        return SparseTensor(np.zeros((0, 2), np.int64), values, (0, 0))
    rows = np.repeat(np.arange(len(lengths)), lengths)
    within = np.concatenate([np.arange(n) for n in lengths])
    return SparseTensor(np.stack([rows, within], 1), values, (len(lengths), max(lengths)))


def segment_sum(
    data: Any,
    indices: Any,
    segment_ids: Any,
    num_segments: int | None = None,
    name: str | None = None,
    sparse_gradient: bool = False,
) -> Tensor:
    """Sums of the rows of ``data`` at ``indices`` that have one of the sorted ``segment_ids``.

    A number that is left out gives 0; ``sparse_gradient`` changes nothing. Raises
    InvalidArgumentError for numbers that are not sorted, not as many as indices, or too large.
    """
    return _segments(unsorted_segment_sum, data, indices, segment_ids, num_segments)


def segment_mean(
    data: Any,
    indices: Any,
    segment_ids: Any,
    num_segments: int | None = None,
    name: str | None = None,
    sparse_gradient: bool = False,
) -> Tensor:
    """Means of such rows, of floats; otherwise like ``segment_sum``."""
    return _segments(unsorted_segment_mean, _floats(data), indices, segment_ids, num_segments)


def segment_sqrt_n(
    data: Any,
    indices: Any,
    segment_ids: Any,
    num_segments: int | None = None,
    name: str | None = None,
    sparse_gradient: bool = False,
) -> Tensor:
    """Their sums over the root of how many they are; otherwise like ``segment_mean``."""
    return _segments(unsorted_segment_sqrt_n, _floats(data), indices, segment_ids, num_segments)


def _floats(data: Any) -> Tensor:
    tensor = as_tensor(data)
    if not is_floating(tensor.dtype.numpy_dtype):
        raise InvalidArgumentError(f"data must be floats, not {tensor.dtype.name}: use cast")
    return tensor


def _segments(
    reduction: Callable[..., Tensor], data: Any, indices: Any, segment_ids: Any, count: int | None
) -> Tensor:
    rows, ids = np.asarray(indices), np.asarray(segment_ids)
    if ids.ndim != 1 or rows.shape != ids.shape:
        raise InvalidArgumentError(f"segment_ids of shape {ids.shape} for indices {rows.shape}")
    if ids.size and (ids[0] < 0 or (ids[1:] < ids[:-1]).any()):
        raise InvalidArgumentError(f"segment ids must be sorted and from 0 on: {ids.tolist()}")
    most = int(ids[-1]) + 1 if ids.size else 0
    size = most if count is None else int(count)
    if most > size:
        raise InvalidArgumentError(f"segment id {most - 1} is not below num_segments, {size}")
    return reduction(gather(data, rows), ids, size)
