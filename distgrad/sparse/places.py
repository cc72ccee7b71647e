"""Where the values of sparse tensors lie: numbers of the host."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.errors import InvalidArgumentError
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.ops.indexing import gather


def places_of(sparse: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    """Where values lie, (N, rank), and the shape. Raises TypeError for what is not sparse."""
    if not isinstance(sparse, SparseTensor):
        raise TypeError(f"Input must be a SparseTensor, not {sparse!r}.")
    return sparse._places, tuple(sparse.shape)


def rows_of(places: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The numbers of places (N, rank) in an array of ``shape``."""
    if not len(shape):
        return np.zeros(len(places), np.int64)
    return np.ravel_multi_index(tuple(places.T), tuple(shape))


def placed(numbers: np.ndarray, shape: Sequence[int | None]) -> np.ndarray:
    """The places (N, rank) that `rows_of` has given these numbers."""
    if not len(shape):
        return np.zeros((len(numbers), 0), np.int64)
    return np.stack(np.unravel_index(numbers, tuple(shape)), 1)  # type: ignore[arg-type]


def picked(sparse: SparseTensor, rows: np.ndarray, places: Any, shape: Any) -> SparseTensor:
    """Those of its values, and of the places that they have now."""
    values = sparse.values
    picked = values[rows] if isinstance(values, np.ndarray) else gather(values, rows)
    return SparseTensor(places[rows], picked, shape)


def check(places: np.ndarray, shape: tuple[int, ...], ordered: bool) -> None:
    """Raises InvalidArgumentError for a place outside the shape, or out of order."""
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
