"""Each element of a row with each of the same row of other matrices, as texts or hashes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.core.composite import Composite
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.texts import all_texts, as_bytes, as_strings
from distgrad.sparse.places import places_of

_KEY = 0xDECAFCAFFE  # TensorFlow's own


def cross(
    inputs: Sequence[Any], name: str | None = None, separator: str | None = None
) -> SparseTensor:
    """For each row, the texts of its elements in all inputs, each with each, joined by "_X_".

    Inputs are matrices, sparse or dense; in a text the sparse ones come first. Raises
    InvalidArgumentError for inputs of other ranks, or other numbers of rows.
    """
    between = ("_X_" if separator is None else separator).encode()
    rows, made = _crossed(inputs, _text)
    texts = [between.join(each) for each in made]
    return _beside(rows, as_strings(np.array(texts, object)) if texts else np.array([], str))


def cross_hashed(
    inputs: Sequence[Any], num_buckets: int = 0, hash_key: int | None = None, name: Any = None
) -> SparseTensor:
    """As ``cross``, but each a hash of these elements, below ``num_buckets`` unless that is 0."""
    key = _KEY if hash_key is None else hash_key
    rows, made = _crossed(inputs, lambda value: value)
    found = [hash_of(each, num_buckets, key) for each in made]
    return _beside(rows, np.array(found, np.int64))


def hash_of(parts: Sequence[Any], num_buckets: int, key: int = _KEY) -> int:
    """One hash of texts (bytes) and whole numbers, below ``num_buckets`` unless that is 0."""
    from distgrad.keras.layers.fingerprint import farmhash, joined

    for part in parts:
        key = joined(key, farmhash(part) if isinstance(part, bytes) else int(part) % (1 << 64))
    return key % (num_buckets or (1 << 63) - 1)


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
