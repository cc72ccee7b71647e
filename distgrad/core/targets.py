"""What a gradient is asked of and by: targets with their seeds, sources, and results in shape."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.core import tree
from distgrad.core.backward import array_of, zeros, zeros_like
from distgrad.core.composite import Composite, values_of
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.indexed_slices import dense
from distgrad.core.primitive import bind, registry
from distgrad.core.reading import variable_of
from distgrad.core.tensor import Tensor, next_uid

_numbering = threading.Lock()


def differentiable(nest: Any, what: str, allowed: tuple[type, ...]) -> list[Any]:
    """The leaves of a nest, each of an allowed class; TypeError for any other."""
    leaves = [variable_of(leaf) for leaf in tree.flatten(nest)]
    for i, leaf in enumerate(leaves):
        if not isinstance(leaf, allowed):
            leaves[i] = values_of(leaf)
            if not isinstance(leaves[i], allowed):
                raise TypeError(f"a {what} must be a tensor or a variable, not {leaf!r}")
    return leaves


def like_composite(source: Any, gradient: Any) -> Any:
    """The gradient of a composite tensor is one as well."""
    if gradient is None or not isinstance(source, Composite):
        return gradient
    return source.with_flat_values(dense(gradient))


def number_of(tensor: Tensor) -> int:
    """The number of a tensor that other threads may number at the same time."""
    if not tensor._uid:
        with _numbering:
            tensor._uid = tensor._uid or next_uid()
    return tensor._uid


def seeds_of(target: Any, count: int, output_gradients: Any) -> list[Any]:
    """One seed per leaf of ``target``; a leaf's own seed may be a nest of numbers."""
    if output_gradients is None:
        return [None] * count
    seeds = list(map(values_of, tree.flatten(output_gradients)))
    if len(seeds) == count:
        return seeds
    try:
        return tree.flatten_up_to(target, output_gradients)
    except ValueError:
        raise ValueError(f"{len(seeds)} output_gradients for {count} targets") from None


def seed_of(target: Any, seed: Any) -> Tensor:
    array = array_of(target)
    if seed is None:
        return bind(registry["fill_like"], Tensor(array), value=1)
    shape, dtype = array.shape, array.dtype
    tensor = as_tensor(seed)
    if tensor._data.dtype != dtype:
        raise InvalidArgumentError(
            f"output_gradients of {tensor.dtype.name} for a target of {target.dtype.name}"
        )
    if tensor._data.shape == ():
        return tensor if shape == () else registry["broadcast_to"](tensor, shape=shape)
    if tensor._data.shape != shape:
        raise InvalidArgumentError(
            f"output_gradients of shape {tensor.shape} for a target of shape {target.shape}"
        )
    return tensor


def one_hot_rows(target: Any, rows: tuple[int, ...]) -> Iterator[Tensor]:
    """Seeds of the target's shape with a 1 at one place of its last axes ``rows`` at a time."""
    for place in np.ndindex(*rows):
        seed = zeros_like(target)
        seed._data[(..., *place)] = 1
        yield seed


def stacked(grads: list[Tensor], axis: int, shape: tuple[int, ...]) -> Tensor:
    """The gradients side by side along a new axis, in ``shape``."""
    if 0 in shape:
        return zeros(shape, grads[0])
    ready = [_reshape(g, _with_one(g._data.shape, axis)) for g in grads]
    return _reshape(bind(registry["join"], *ready, axis=axis), shape)


def _with_one(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], 1, *shape[axis:])


def _reshape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return bind(registry["reshape_to"], x, shape=shape)
