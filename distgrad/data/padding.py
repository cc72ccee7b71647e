"""Elements of different sizes made one: filled up at the end of each axis."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from distgrad.core.composite import Composite
from distgrad.core.errors import InvalidArgumentError
from distgrad.data import nest, specs


def padded(group: list[Any], shapes: Any, values: Any) -> Any:
    """One nest of the elements, filled up: see ``Dataset.padded_batch``. Raises ValueError."""
    first = group[0]
    wanted = _shapes(first, shapes)
    single = not isinstance(values, (tuple, dict))
    fills = [values] * len(wanted) if single else _beside(first, values, "padding_values")
    settings = zip(wanted, fills, strict=True)

    def joined(*arrays: Any) -> np.ndarray:
        shape, fill = next(settings)
        if isinstance(arrays[0], Composite):
            raise TypeError("Padded batching of ragged or sparse tensors: make them dense by map()")
        largest = np.max([array.shape for array in arrays], axis=0).astype(int).tolist()
        if shape is not None:
            if len(shape) != len(largest):
                raise ValueError(f"an array of shape {arrays[0].shape}, and padded_shapes {shape}")
            full = [n if s is None else s for s, n in zip(shape, largest, strict=True)]
            if any(n > s for s, n in zip(full, largest, strict=True)):
                raise InvalidArgumentError(
                    f"an element of shape {largest} does not fit padded_shapes {shape}"
                )
            largest = full
        dtype = arrays[0].dtype
        if dtype.kind in "OSU":  # as long as the longest text
            fill = (b"" if dtype.kind == "S" else "") if fill is None else fill
            dtype = np.result_type(np.asarray(fill), *arrays)
        made = np.full((len(arrays), *largest), 0 if fill is None else fill, dtype)
        for row, array in enumerate(arrays):
            where: Any = (row, *map(slice, array.shape), ...)
            np.copyto(made[where], array)
        return made

    return nest.map_leaves(joined, *group)


def padded_spec(spec: Any, shapes: Any, size: int | None) -> Any:
    """The spec of what ``padded`` makes of ``size`` elements, None where that is not known."""
    return specs.stacked(specs.reshaped(spec, _shapes(spec, shapes)), size)


def _shapes(element: Any, shapes: Any) -> list[Any]:
    """A shape for each array of an element, in order; None as a size, or for all of them, where
    the largest counts. Raises TypeError for a size that is no whole number."""

    def sizes(shape: Any) -> tuple[int | None, ...] | None:
        if shape is None or getattr(shape, "rank", 0) is None:
            return None
        if isinstance(shape, int):
            shape = (shape,)
        known = [None if size is None else operator.index(size) for size in shape]
        return tuple(None if size == -1 else size for size in known)

    return [sizes(shape) for shape in _beside(element, shapes, "padded_shapes")]


def _beside(element: Any, given: Any, name: str) -> list[Any]:
    """What ``given``, a nest like an element, has for each of its arrays; None stands for all."""
    if given is None:
        return [None for _ in nest.leaves(element)]
    if isinstance(element, (dict, tuple)):
        named = isinstance(element, dict)
        if named != isinstance(given, dict) or len(given) != len(element):
            raise ValueError(f"{name} are {given!r}, which is no nest like the elements")
        keys = element if named else range(len(element))
        return [each for key in keys for each in _beside(element[key], given[key], name)]
    return [] if element is None else [given]
