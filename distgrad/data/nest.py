"""Nested tuples, dicts and arrays: what one element of a dataset may be.

None in a tuple or a dict stays there, as a nest without leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from distgrad.core.composite import Composite
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.sparse_tensor import SparseTensor, of_scipy
from distgrad.core.texts import as_bytes, as_strings, is_text


def to_arrays(value: Any) -> Any:
    """The same nest with every leaf an array, Python's numbers as TensorFlow takes them.

    A tuple or a dict is a nest, a list is an array: Python's integers, and all in lists, become
    int32 (int64 where they do not fit), its floats float32; arrays, and whatever else knows its
    dtype, keep it.
    Raises ValueError for a leaf that no array can hold, and for None alone.
    """
    if value is None:
        raise ValueError("an element is None; a function given to map must return what it made")
    return _to_arrays(value)


def _to_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_arrays(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return _rebuilt(value, [_to_arrays(part) for part in value])
    if value is None or isinstance(value, (np.ndarray, Composite)):
        return value
    value = of_scipy(value)
    if isinstance(value, Composite):
        return value
    if hasattr(value, "as_numpy_iterator"):  # a window
        return value
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"an element is a list of unequal parts: {error}") from error
    if array.dtype.kind == "S" and not hasattr(value, "dtype"):
        whole = as_bytes(value)
        return array if np.array_equal(array, whole) else whole  # with zeros at the end
    if array.dtype == object and array.size and all(isinstance(x, str) for x in array.flat):
        return array.astype(str)  # a column of pandas
    if array.dtype == object:
        raise ValueError(f"an element of type {type(value).__name__} is not an array: {value!r}")
    if _of_python(value):
        if array.dtype == np.float64:
            return array.astype(np.float32)
        if array.dtype.kind in "iu" and np.array_equal(array, array.astype(np.int32)):
            return array.astype(np.int32)
    return array


def _of_python(value: Any) -> bool:
    """Whether the dtype is Python's, not that of an array or a NumPy number.

    Integers in a list are taken as Python's, whose ever they are.
    """
    listed = isinstance(value, (list, range))
    while isinstance(value, (list, tuple, range)):  # tuples within lists are no nests
        if not value:
            return True
        value = value[0]
    if isinstance(value, np.generic):
        return listed and isinstance(value, np.integer)
    return isinstance(value, (int, float))


def leaves(nest: Any) -> Iterator[Any]:
    """The arrays of a nest, in order."""
    if isinstance(nest, (tuple, dict)):
        for part in nest.values() if isinstance(nest, dict) else nest:
            yield from leaves(part)
    elif nest is not None:
        yield nest


def map_leaves(function: Callable[..., Any], first: Any, *others: Any) -> Any:
    """``function`` of the leaves in the same place of every nest, as one nest.

    Raises ValueError where the nests have not the same form.
    """
    if type(first) is np.ndarray and not others:  # nearly always
        return function(first)
    if not all([_alike(first, other) for other in others]):
        forms = ", ".join(str(_form(nest)) for nest in (first, *others))
        raise ValueError(f"elements differ in form: {forms}")
    if isinstance(first, dict):
        return {
            key: map_leaves(function, part, *(other[key] for other in others))
            for key, part in first.items()
        }
    if isinstance(first, tuple):
        return _rebuilt(first, [map_leaves(function, *parts) for parts in zip(first, *others)])  # noqa: B905
    return None if first is None else function(first, *others)


def stack(elements: Sequence[Any]) -> Any:
    """One nest with a first dimension over the elements.

    Raises InvalidArgumentError (a ValueError) for unequal shapes.
    """

    def joined(*arrays: Any) -> Any:
        if isinstance(arrays[0], SparseTensor):
            return SparseTensor.stacked(arrays)
        if isinstance(arrays[0], Composite):
            from distgrad.ragged.row import together

            return together(arrays)
        try:
            if _kind(arrays[0]) in ("O", "S", "U") and "O" in map(_kind, arrays):
                return np.stack(arrays)  # np.array would keep an array of bytes as an object
            return np.array(arrays)  # which is faster than np.stack, many times for small ones
        except ValueError:
            shapes = {np.shape(array) for array in arrays}
            raise InvalidArgumentError(
                f"elements of the shapes {', '.join(map(str, sorted(shapes)))} do not make a "
                "batch; map them to one shape first"
            ) from None

    return map_leaves(joined, *elements)


def length(nest: Any) -> int:
    """The common first dimension of all leaves. Raises ValueError where there is none."""
    lengths = set(map(rows, leaves(nest)))
    if not lengths or -1 in lengths:
        raise ValueError(
            "every array needs a first dimension, that of the samples: a dataset of single samples "
            "lacks .batch(n)"
        )
    if len(lengths) > 1:
        raise ValueError(
            f"arrays differ in their number of samples: {sorted(lengths)}; a dataset of single "
            "samples lacks .batch(n)"
        )
    return lengths.pop()


def rows(leaf: Any) -> int:
    """The first dimension of an array or a composite tensor; -1 where it has none.

    Raises ValueError for a row of a ragged tensor.
    """
    if not isinstance(leaf, Composite):
        return len(leaf) if np.ndim(leaf) else -1
    size: int | None = leaf.shape[0]
    if size is None:
        raise ValueError(
            "a batch is no row of a ragged tensor: let single samples have their .batch(n)"
        )
    return size


def is_uneven(nest: Any) -> bool:
    """Whether the arrays of a nest differ in their first dimension."""
    if not isinstance(nest, (tuple, dict)):  # nearly always
        return False
    return len(set(map(rows, leaves(nest)))) > 1


def _alike(one: Any, other: Any) -> bool:
    """Whether two nests are of one form, as far as their first level tells."""
    if type(one) is not type(other) or isinstance(one, dict):
        return bool(_form(one) == _form(other))
    return not isinstance(one, tuple) or len(one) == len(other)


def _form(nest: Any) -> Any:
    if isinstance(nest, dict):
        return sorted(map(str, nest))
    if nest is None:
        return "None"
    return f"a tuple of {len(nest)}" if isinstance(nest, tuple) else "an array"


def _kind(leaf: Any) -> str | None:
    dtype = getattr(leaf, "dtype", None)
    return None if dtype is None else dtype.kind


def _rebuilt(nest: tuple, parts: list) -> tuple:
    """A tuple, or a named tuple, of new parts."""
    return type(nest)(*parts) if hasattr(nest, "_fields") else tuple(parts)


def plain(leaf: Any) -> Any:
    """An array as NumPy has it: a number where it has no dimension, texts as bytes in UTF-8."""
    if isinstance(leaf, Composite):
        return leaf.numpy()
    return as_strings(leaf).numpy() if is_text(leaf) else np.asarray(leaf)[()]
