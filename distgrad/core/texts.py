"""Texts: arrays of the host, which datasets give, and layers that make numbers take as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.core import tree
from distgrad.core.composite import composites, otherwise
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import DType, as_dtype, string


class Text(np.str_):  # type: ignore[misc]  # final for type checkers alone
    """One of `Texts`, which is equal to its bytes, too."""

    def __eq__(self, other: Any) -> Any:
        other = _decoded(other)
        return np.asarray(self) == other if isinstance(other, np.ndarray) else super().__eq__(other)

    def __ne__(self, other: Any) -> Any:
        other = _decoded(other)
        return np.asarray(self) != other if isinstance(other, np.ndarray) else super().__ne__(other)

    __hash__ = np.str_.__hash__

    def numpy(self) -> bytes:
        """The text in UTF-8."""
        return self.encode()


class Texts(np.ndarray):
    """An array of str that also has TensorFlow's ``numpy()``, which gives bytes, and is compared
    with bytes, too."""

    def __eq__(self, other: Any) -> Any:
        return np.asarray(self) == _decoded(other)

    def __ne__(self, other: Any) -> Any:
        return np.asarray(self) != _decoded(other)

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return Text(found) if isinstance(found, np.str_) else found

    def __iter__(self) -> Iterator[Any]:
        return (self[row] for row in range(len(self)))

    def numpy(self) -> Any:
        """The texts in UTF-8: bytes, or an array of objects."""
        array = np.asarray(self)
        encoded = array if array.dtype.kind == "S" else np.char.encode(array, "utf-8")
        return encoded.astype(object)[()]


class Bytes(np.ndarray):
    """An array of objects, each bytes as they are, of which NumPy's own cut off zeros at the end.

    It also has TensorFlow's ``numpy()``.
    """

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return as_bytes(found) if isinstance(found, bytes) else found

    def __iter__(self) -> Iterator[Any]:
        return (self[row] for row in range(len(self)))

    def __eq__(self, other: Any) -> Any:
        try:
            return np.asarray(self) == np.asarray(as_bytes(other))
        except ValueError:  # no text can be equal to it
            return np.asarray(self) == other

    def __ne__(self, other: Any) -> Any:
        return np.logical_not(self == other)

    def __repr__(self) -> str:
        return repr(np.asarray(self))

    def __str__(self) -> str:
        return str(np.asarray(self))

    def numpy(self) -> Any:
        """The bytes, or an array of objects."""
        return np.asarray(self)[()]


def as_bytes(value: Any) -> Bytes:
    """An array of bytes, from bytes, lists and arrays of them, and of texts, which become UTF-8.

    Raises ValueError for anything else.
    """
    if type(value) is bytes:  # nearly always
        return np.array(value, object).view(Bytes)
    if isinstance(value, Bytes):
        return value
    array = np.asarray(value, object)
    flat = [v.encode() if isinstance(v, str) else v for v in array.flat]
    if not all(isinstance(v, bytes) for v in flat):
        raise ValueError(f"bytes or texts are needed, not {value!r}")
    made = np.empty(array.shape, object).view(Bytes)
    made.flat[:] = flat
    return made


def as_strings(value: Any) -> Bytes | Texts:
    """What TensorFlow calls strings, as an array: of texts, but of bytes where they are none.

    Those are bytes that are no UTF-8, or hold a zero, which NumPy's texts would lose at their end.
    """
    array = value if isinstance(value, np.ndarray) else np.asarray(value, object)
    if array.dtype.kind in "OS" and not all(map(_is_utf8, array.flat)):
        return as_bytes(value)
    return as_texts(array).view(Texts)


def _decoded(value: Any) -> Any:
    """Bytes as texts, lists of either as an array; anything else as it is."""
    if isinstance(value, bytes):
        return value.decode() if _is_utf8(value) else value
    if isinstance(value, (list, tuple)) and holds_texts(array := np.asarray(value, object)):
        value = array
    return np.asarray(as_strings(value)) if are_texts(value) else value


def _is_utf8(value: Any) -> bool:
    if not isinstance(value, bytes):
        return True
    try:
        return "\0" not in value.decode()
    except UnicodeDecodeError:
        return False


def is_text(value: Any) -> bool:
    """Whether it is a text, or an array of them, by its type."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "SU" or isinstance(value, Bytes)
    return isinstance(value, (str, bytes))


def holds_texts(array: np.ndarray) -> bool:
    """Whether it is an array of str, of bytes, or of objects that are nothing else."""
    if array.dtype.kind == "O":
        return all(isinstance(value, (str, bytes)) for value in array.flat)
    return array.dtype.kind in "SU"


def are_texts(value: Any) -> bool:
    """Whether it is such an array, and no tensor or number."""
    return isinstance(value, np.ndarray) and value.dtype.kind in "OSU" and holds_texts(value)


def all_texts(value: Any) -> bool:
    """Whether it is a text, an array of them or a nest of lists that begins with one."""
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return is_text(value) or are_texts(value)


def dtype_of(value: Any) -> DType:
    """That of an array, a tensor or a model's input; ``string`` for texts."""
    return string if value.dtype is string or are_texts(value) else as_dtype(value.dtype)


def as_texts(value: Any) -> np.ndarray:
    """An array of str, from lists, arrays of str, of bytes (UTF-8) or of objects."""
    array = np.asarray(value)
    if array.dtype.kind == "U":
        return array
    if array.dtype.kind == "O":
        flat = [v.decode() if isinstance(v, bytes) else v for v in array.ravel()]
        if all(isinstance(v, str) for v in flat):
            return np.array(flat, dtype=str).reshape(array.shape)
        missing = sum(v is None or v != v for v in flat)
        if missing and all(isinstance(v, str) or v is None or v != v for v in flat):
            raise ValueError(f"{missing} of {len(flat)} texts are missing: fill them, with '' say")
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8")
    raise ValueError(f"an array of texts is needed, not one of {array.dtype}: {value!r}")


def by_number(function: Callable[..., Any], nest: Any, back: bool) -> Any:
    """``function(nest)`` with a number for each text, in the order of texts.

    ``back``: it gives such numbers, to be made texts again: where it puts them in other places.
    """
    texts: list[Any] = [as_strings(leaf) for leaf in tree.flatten(nest) if are_texts(leaf)]
    if any(isinstance(each, Bytes) for each in texts):
        texts = [as_bytes(each) for each in texts]
    flat = np.concatenate([np.asarray(each).ravel() for each in texts])
    table, numbers = np.unique(flat, return_inverse=True)
    table = table.view(type(texts[0]))
    parts = iter(np.split(numbers, np.cumsum([t.size for t in texts])[:-1]))

    def number(leaf: Any) -> Any:
        return as_tensor(next(parts).reshape(leaf.shape)) if are_texts(leaf) else leaf

    found = function(tree.map_structure(number, nest))
    return tree.map_structure(lambda each: table[np.asarray(each)], found) if back else found


def moves_texts(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, which moves the elements of its first argument, with texts as well.

    And with composite tensors, where something is registered for them.
    """
    first = function.__code__.co_varnames[0]

    @functools.wraps(function)
    def moving(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (TypeError, ValueError):  # asked here, numbers do not wait for the answer
            if composites(args, kwargs):
                return otherwise(function, args, kwargs)
            given = args[0] if args else kwargs.pop(first, None)
            leaves = tree.flatten(given)
            if not leaves or not all(is_text(each) or are_texts(each) for each in leaves):
                raise
        texts = tree.map_structure(as_strings, given)
        return by_number(lambda moved: function(moved, *args[1:], **kwargs), texts, back=True)

    return moving
