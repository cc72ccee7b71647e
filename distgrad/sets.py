"""``tf.sets``: what lies along the last axis as sets, one for each place before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import string
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor
from distgrad.core.texts import all_texts, as_bytes, as_strings, dtype_of

__all__ = ["difference", "intersection", "size", "union"]

_DTYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "string")
_Sets = dict[tuple[int, ...], set]


def intersection(a: Any, b: Any, validate_indices: bool = True) -> SparseTensor:
    """The values that are in both sets, sorted: a SparseTensor of as many as the largest has.

    ``a`` and ``b`` are tensors, SparseTensors or texts of one dtype, of whole numbers or texts, and
    of equal shapes but for the last axis. Raises TypeError for other dtypes, and
    InvalidArgumentError for other shapes.
    """
    return _combined(a, b, set.intersection)


def difference(a: Any, b: Any, aminusb: bool = True, validate_indices: bool = True) -> SparseTensor:
    """As ``intersection``, of the values of ``a`` that ``b`` has not; without ``aminusb``, those of
    ``b`` that ``a`` has not."""
    return _combined(a, b, set.difference) if aminusb else _combined(b, a, set.difference)


def union(a: Any, b: Any, validate_indices: bool = True) -> SparseTensor:
    """As ``intersection``, of the values that either has."""
    return _combined(a, b, set.union)


def size(a: SparseTensor, validate_indices: bool = True) -> Tensor:
    """How many values each set has: int32, of the shape without the last axis.

    Raises TypeError for what is no SparseTensor, InvalidArgumentError for a vector.
    """
    if not isinstance(a, SparseTensor):
        raise TypeError(f"Expected `SparseTensor`, got {a!r}.")
    found, shape = _sets(a)
    counts = np.zeros(shape, np.int32)
    for place, values in found.items():
        counts[place] = len(values)
    return as_tensor(counts)


def _combined(a: Any, b: Any, combine: Callable[[set, set], set]) -> SparseTensor:
    a, b = map(_operand, (a, b))
    if a.dtype != b.dtype or a.dtype.name not in _DTYPES:
        raise TypeError(
            f"sets are of one dtype among {', '.join(_DTYPES)}, not of {a.dtype.name} and "
            f"{b.dtype.name}"
        )
    (ours, shape), (theirs, other) = _sets(a), _sets(b)
    if shape != other:
        raise InvalidArgumentError(f"Mismatched shapes {list(shape)} vs {list(other)}")
    rows = [
        (place, sorted(combine(ours.get(place, set()), theirs.get(place, set()))))
        for place in np.ndindex(shape)
    ]
    places = [(*place, i) for place, row in rows for i in range(len(row))]
    values = [value for _, row in rows for value in row]
    longest = max((len(row) for _, row in rows), default=0)
    text = a.dtype is string
    return SparseTensor(
        np.array(places, np.int64).reshape(-1, len(shape) + 1),
        as_strings(np.array(values, object)) if text else np.array(values, a.dtype.numpy_dtype),
        (*shape, longest),
    )


def _operand(value: Any) -> Any:
    """Its dtype is ``string`` where it holds texts."""
    if isinstance(value, SparseTensor):
        return value
    if all_texts(value):
        places = np.argwhere(np.ones(np.shape(as_bytes(value)), bool))
        return SparseTensor(places, as_bytes(value).ravel(), np.shape(as_bytes(value)))
    return as_tensor(value)


def _sets(value: Any) -> tuple[_Sets, tuple[int, ...]]:
    """The sets by their places, those of no value left out, and the shape without the last axis."""
    shape = tuple(value.shape)
    if len(shape) < 2:
        raise InvalidArgumentError(f"sets lie along an axis after others, not in shape {shape}")
    found: _Sets = {}
    if isinstance(value, SparseTensor):
        text = dtype_of(value.values) is string
        values = np.asarray(as_bytes(value.values)) if text else value.values.numpy()
        for place, each in zip(value.indices.numpy().tolist(), values.tolist(), strict=True):
            found.setdefault(tuple(place[:-1]), set()).add(each)
    else:
        array = value.numpy()
        found = {place: set(array[place].tolist()) for place in np.ndindex(shape[:-1])}
    return found, shape[:-1]
