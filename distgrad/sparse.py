"""``tf.sparse``: what examples of several lengths give, made dense and back."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.texts import Bytes, Texts, as_bytes, as_strings, holds_texts
from distgrad.ops.constants import fill
from distgrad.ops.scatter import tensor_scatter_nd_update

__all__ = ["SparseTensor", "from_dense", "to_dense"]


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
    if not isinstance(sp_input, SparseTensor):
        raise TypeError(f"Input must be a SparseTensor, not {sp_input!r}.")
    shape, places = tuple(sp_input.shape), sp_input.indices.numpy()
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


def __getattr__(name: str) -> object:
    raise AttributeError(
        f"module 'distgrad.sparse' has no attribute {name!r}: tensors here are dense arrays of "
        "numbers, which to_dense makes"
    )
