"""Rows of variables: written, added to and read, by IndexedSlices or by positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core import recording
from distgrad.core.dispatch import as_tensor, backend_of
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.indexed_slices import IndexedSlices
from distgrad.core.primitive import Primitive, bind
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.ops.indexing import check_indices, gather, take_grad
from distgrad.ops.scatter import (
    gather_nd,
    put_max,
    put_min,
    put_rows,
    tensor_scatter_nd_max,
    tensor_scatter_nd_min,
)


def _slices(variable: Variable, delta: Any, name: str) -> tuple[Tensor, Tensor]:
    """Values and rows of IndexedSlices, in the variable's dtype and within its rows."""
    if not isinstance(delta, IndexedSlices):
        raise TypeError(f"{name} of {variable.name} takes IndexedSlices, not {delta!r}")
    rows = as_tensor(delta.indices)
    check_indices(name, rows, variable.shape[0])
    values = as_tensor(delta.values, dtype=variable.dtype)
    wanted = (*rows.shape, *variable.shape[1:])
    if tuple(values.shape) != wanted:
        raise InvalidArgumentError(
            f"{name} of {variable.name}: values of shape {values.shape} for rows of {wanted}"
        )
    return values, rows


def _put(variable: Variable, primitive: Primitive, delta: Any, name: str) -> Variable:
    values, rows = _slices(variable, delta, name)
    with recording.paused():  # no tape follows an assignment; a capture does
        made = bind(primitive, variable._read(), values, rows)
    return variable.assign(made)


def _added(variable: Variable, delta: Any, name: str) -> Tensor:
    values, rows = _slices(variable, delta, name)
    with recording.paused():
        return bind(take_grad, values, rows, shape=tuple(variable.shape), axis=0)


def scatter_add(
    self: Variable, sparse_delta: Any, use_locking: bool = False, name: str | None = None
) -> Variable:
    """Adds IndexedSlices to their rows; repeated ones add up."""
    return self.assign_add(_added(self, sparse_delta, "scatter_add"))


def scatter_sub(
    self: Variable, sparse_delta: Any, use_locking: bool = False, name: str | None = None
) -> Variable:
    """Subtracts IndexedSlices from their rows; repeated ones add up."""
    return self.assign_sub(_added(self, sparse_delta, "scatter_sub"))


def scatter_update(
    self: Variable, sparse_delta: Any, use_locking: bool = False, name: str | None = None
) -> Variable:
    """Writes IndexedSlices over their rows."""
    return _put(self, put_rows, sparse_delta, "scatter_update")


def scatter_max(
    self: Variable, sparse_delta: Any, use_locking: bool = False, name: str | None = None
) -> Variable:
    """The larger of each row and its IndexedSlices."""
    return _put(self, put_max, sparse_delta, "scatter_max")


def scatter_min(
    self: Variable, sparse_delta: Any, use_locking: bool = False, name: str | None = None
) -> Variable:
    """The smaller of each row and its IndexedSlices."""
    return _put(self, put_min, sparse_delta, "scatter_min")


def _at(variable: Variable, delta: Any, name: str, ufunc: Any) -> Variable:
    """A function that not every device has for repeated rows: on the host."""
    values, rows = _slices(variable, delta, name)
    array = np.array(variable.numpy())
    ufunc.at(array, rows._host(), values._host())
    return variable.assign(backend_of(variable._buffer).asarray(array))


def scatter_mul(
    self: Variable, sparse_delta: Any, use_locking: bool = False, name: str | None = None
) -> Variable:
    """Multiplies rows by IndexedSlices; repeated ones multiply as well."""
    return _at(self, sparse_delta, "scatter_mul", np.multiply)


def scatter_div(
    self: Variable, sparse_delta: Any, use_locking: bool = False, name: str | None = None
) -> Variable:
    """Divides rows by IndexedSlices; repeated ones divide as well."""
    return _at(self, sparse_delta, "scatter_div", np.divide)


def batch_scatter_update(
    self: Variable, sparse_delta: Any, use_locking: bool = False, name: str | None = None
) -> Variable:
    """Writes IndexedSlices over rows of each of a batch: the axes of the indices before the last.

    Raises InvalidArgumentError for an index outside the variable.
    """
    if not isinstance(sparse_delta, IndexedSlices):
        raise TypeError(f"batch_scatter_update takes IndexedSlices, not {sparse_delta!r}")
    rows = as_tensor(sparse_delta.indices)._host()
    grid = np.meshgrid(*(np.arange(n) for n in rows.shape), indexing="ij")[:-1]
    positions = np.stack([*grid, rows], -1)
    return self.scatter_nd_update(positions, sparse_delta.values)


def sparse_read(self: Variable, indices: Any, name: str | None = None) -> Tensor:
    """The rows at ``indices``."""
    return gather(self, indices)


def read_nd(self: Variable, indices: Any, name: str | None = None) -> Tensor:
    """The slices at the positions in the last axis of ``indices``."""
    return gather_nd(self, indices)


def scatter_nd_max(self: Variable, indices: Any, updates: Any, name: str | None = None) -> Variable:
    """The larger of ``updates`` and what lies at the positions in the last axis of ``indices``.

    Raises InvalidArgumentError for a position outside the variable.
    """
    with recording.paused():
        made = tensor_scatter_nd_max(self, indices, updates)
    return self.assign(made)


def scatter_nd_min(self: Variable, indices: Any, updates: Any, name: str | None = None) -> Variable:
    """The smaller of ``updates`` and what lies at the positions in the last axis of ``indices``.

    Raises InvalidArgumentError for a position outside the variable.
    """
    with recording.paused():
        made = tensor_scatter_nd_min(self, indices, updates)
    return self.assign(made)


for _method in (
    *(scatter_add, scatter_sub, scatter_mul, scatter_div, scatter_min, scatter_max),
    *(scatter_update, batch_scatter_update, sparse_read, scatter_nd_max, scatter_nd_min),
):
    setattr(Variable, _method.__name__, _method)
setattr(Variable, "gather_nd", read_nd)  # noqa: B010 (as the others are)
