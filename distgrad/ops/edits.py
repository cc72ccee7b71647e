"""How far sequences of several lengths lie apart, as readers of text count it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor


def edit_distance(
    hypothesis: SparseTensor,
    truth: SparseTensor,
    normalize: bool = True,
    name: str | None = "edit_distance",
) -> Tensor:
    """How many values are to be put in, taken out or changed to make ``truth`` of ``hypothesis``.

    The last axis of both holds the sequences, the float32 result has the other axes. ``normalize``
    divides by the lengths of the truth; a distance from nothing at all is infinite then. Raises
    TypeError for anything but SparseTensors, ValueError for ranks that differ.
    """
    for given in (hypothesis, truth):
        if not isinstance(given, SparseTensor):
            raise TypeError(
                f"edit_distance takes SparseTensors (tf.sparse.from_dense), not {given!r}"
            )
    shapes = hypothesis.shape, truth.shape
    if len(shapes[0]) != len(shapes[1]) or not len(shapes[0]):
        raise ValueError(f"edit_distance: shapes {shapes[0]} and {shapes[1]} have no common rank")
    sizes = zip(*(shape.as_list()[:-1] for shape in shapes), strict=True)
    distances = np.zeros([max(pair) for pair in sizes], np.float32)
    found, sought = _sequences(hypothesis), _sequences(truth)
    for place in found.keys() | sought.keys():
        distance, length = _edits(found[place], sought[place]), len(sought[place])
        distances[place] = distance if not normalize else distance / length if length else np.inf
    return as_tensor(distances)


def _sequences(given: SparseTensor) -> defaultdict[tuple[int, ...], list[Any]]:
    """The values of each sequence by its place in the other axes."""
    sequences: defaultdict[tuple[int, ...], list[Any]] = defaultdict(list)
    places = given.indices.numpy().tolist()
    for (*place, _), value in zip(places, np.asarray(given.values).tolist(), strict=True):
        sequences[tuple(place)].append(value)
    return sequences


def _edits(one: list[Any], other: list[Any]) -> int:
    """The distance of Levenshtein, row by row."""
    row = list(range(len(other) + 1))
    for count, value in enumerate(one, 1):
        before, row = row, [count]
        for at, sought in enumerate(other):
            row.append(min(before[at + 1] + 1, row[at] + 1, before[at] + (value != sought)))
    return row[-1]
