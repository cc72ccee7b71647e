"""Conversions, control flow, slices and scatters of ``keras.ops``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.core import tree
from distgrad.core.composite import Composite
from distgrad.core.custom import custom_gradient as custom_gradient
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype
from distgrad.core.errors import NoValueError
from distgrad.core.primitive import bind
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor
from distgrad.keras.backend import floatx
from distgrad.ops import casting, clipping, constants, control, layout
from distgrad.ops import scatter as scatters
from distgrad.ops.constants import is_tensor as is_tensor
from distgrad.ops.indexing import index
from distgrad.ops.segment import scatter_mul
from distgrad.ops.shape import stack
from distgrad.ops.shape import unstack as unstack_axis
from distgrad.sparse.making import to_dense

# Conversions


def cast(x: Any, dtype: Any) -> Tensor:
    """``x`` as ``dtype``; None is the usual one of floats."""
    return casting.cast(x, floatx() if dtype is None else dtype)


def saturate_cast(x: Any, dtype: Any) -> Tensor:
    """``x`` as ``dtype``, None the usual one of floats; what lies outside its range becomes its
    nearest number."""
    return clipping.saturate_cast(x, floatx() if dtype is None else dtype)


def convert_to_tensor(x: Any, dtype: Any = None, sparse: Any = None, ragged: Any = None) -> Any:
    """``x`` as a tensor, cast to ``dtype``; texts become an array of them.

    One that is sparse or ragged stays so, unless ``sparse`` or ``ragged`` is False.
    """
    if isinstance(x, Composite):
        kept = (sparse if x.kind == "sparse" else ragged) is not False
        found = x if kept else made_dense(x)
        return found if dtype is None else casting.cast(found, dtype)
    if dtype in (None, "string"):
        return x if type(x) is Tensor else constants.convert_to_tensor(x)
    wanted = as_dtype(dtype)
    exact = wanted.is_floating and not is_tensor(x)  # float64 is not to come by way of float32
    return casting.cast(as_tensor(x, like=wanted.numpy_dtype) if exact else x, wanted)


def convert_to_numpy(x: Any) -> np.ndarray:
    """The value of ``x`` as an array; a sparse or ragged one is filled up with zeros."""
    return as_tensor(made_dense(x) if isinstance(x, Composite) else x).numpy()


def made_dense(x: Composite) -> Tensor:
    """The tensor that a sparse or ragged one stands for."""
    return to_dense(x) if isinstance(x, SparseTensor) else x.to_tensor()  # type: ignore[attr-defined, return-value]


def shape(x: Any) -> tuple[int, ...]:
    """The shape as a tuple of ints, or None: for an unknown size of a KerasTensor, or rows."""
    return tuple(described(x).shape)


def dtype(x: Any) -> str:
    """The name of the dtype."""
    return described(x).dtype.name


def described(x: Any) -> Any:
    """``x`` as a tensor; a composite one, and a KerasTensor, as it is."""
    try:
        return x if type(x) is Tensor or isinstance(x, Composite) else as_tensor(x)
    except NoValueError:  # of a KerasTensor
        return x


def stop_gradient(variable: Any) -> Tensor:
    """The same value, through which no gradient passes."""
    return bind(casting.stop_gradient, as_tensor(variable))


# Control flow


def cond(pred: Any, true_fn: Callable[[], Any], false_fn: Callable[[], Any]) -> Any:
    """``true_fn()`` if the scalar ``pred`` holds, else ``false_fn()``."""
    return control.cond(pred, true_fn, false_fn)


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """``branches[index](*operands)``; an index outside the list is the nearest in it."""
    number = min(max(as_tensor(index).__index__(), 0), len(branches) - 1)
    return branches[number](*operands)


def while_loop(
    cond: Callable[..., Any],
    body: Callable[..., Any],
    loop_vars: Any,
    maximum_iterations: int | None = None,
) -> Any:
    """Runs ``loop_vars = body(*loop_vars)`` while ``cond(*loop_vars)`` holds; gives the last."""
    several = isinstance(loop_vars, (tuple, list))
    given = tuple(loop_vars) if several else (loop_vars,)

    def step(*values: Any) -> Any:
        new = body(*values)
        return new if several else (new,)

    last = control.while_loop(cond, step, given, maximum_iterations=maximum_iterations)
    return last if several else last[0]


def fori_loop(lower: Any, upper: Any, body_fun: Callable[[Any, Any], Any], init_val: Any) -> Any:
    """``val = body_fun(i, val)`` for i from ``lower`` up to, but not with, ``upper``."""
    value = init_val
    for i in range(as_tensor(lower).__index__(), as_tensor(upper).__index__()):
        value = body_fun(as_tensor(i), value)
    return value


def map(f: Callable[[Any], Any], xs: Any) -> Any:
    """``f`` of each slice of ``xs`` along the first axis, the results stacked."""
    return control.map_fn(f, xs)


def vectorized_map(function: Callable[[Any], Any], elements: Any) -> Any:
    """``function`` of each slice of ``elements`` along the first axis, the results stacked."""
    return control.vectorized_map(function, elements)


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: Any = 1,
) -> tuple[Any, Any]:
    """The last carry of ``carry, y = f(carry, x)`` over the first axis of ``xs``, and all y.

    Without ``xs``, x is None, ``length`` times. ``unroll``, a bool or a positive int, changes
    nothing. Raises ValueError for neither ``xs`` nor ``length``, a ``length`` that is not that of
    ``xs`` and another ``unroll``; TypeError for an ``f`` that cannot be called.
    """
    if not callable(f):
        raise TypeError(f"scan: f must be callable, not {f!r}")
    if not isinstance(unroll, bool) and not (isinstance(unroll, int) and unroll > 0):
        raise ValueError(f"scan: unroll must be a bool or a positive int, not {unroll!r}")
    leaves = [unstack_axis(leaf) for leaf in tree.flatten(xs)] if xs is not None else []
    if not leaves and length is None:
        raise ValueError("scan needs xs or a length")
    count = len(leaves[0]) if leaves else int(length or 0)
    if length is not None and int(length) != count:
        raise ValueError(f"scan: a length of {length} for xs of {count}")
    carry, ys = init, []
    for i in reversed(range(count)) if reverse else range(count):
        x = tree.pack_sequence_as(xs, [leaf[i] for leaf in leaves]) if leaves else None
        carry, y = f(carry, x)
        ys.append(y)
    if not ys or ys[0] is None:
        return carry, None
    columns = zip(*(tree.flatten(y) for y in (ys[::-1] if reverse else ys)), strict=True)
    return carry, tree.pack_sequence_as(ys[0], [stack(list(column)) for column in columns])


# Slices and scatters


def get_item(x: Any, key: Any) -> Tensor:
    """``x[key]``: ints, slices, ``...``, ``None``, or a tuple of them."""
    return index(x, key)


def unstack(x: Any, num: int | None = None, axis: int = 0) -> list[Tensor]:
    """The slices of ``x`` along ``axis``, without that axis."""
    return unstack_axis(x, num, axis)


def slice(inputs: Any, start_indices: Any, shape: Any) -> Tensor:
    """The block of ``inputs`` that starts at ``start_indices`` and has ``shape``."""
    return layout.slice_from(inputs, start_indices, shape)


def slice_update(inputs: Any, start_indices: Any, updates: Any) -> Tensor:
    """``inputs`` with the block that starts at ``start_indices`` replaced by ``updates``."""
    x = as_tensor(inputs)
    new = casting.cast(updates, x.dtype)
    grid = np.moveaxis(np.indices(tuple(new.shape), dtype=np.int32), 0, -1)
    starts = start_indices
    if isinstance(starts, (tuple, list)):
        starts = stack([casting.cast(start, "int32") for start in starts])
    where = layout.beside(x, grid) + casting.cast(starts, "int32")
    return scatters.tensor_scatter_nd_update(x, where, new)


def scatter(indices: Any, values: Any, shape: Any) -> Tensor:
    """Zeros of ``shape`` with ``values`` added at ``indices`` (their last axis is a position)."""
    return scatters.scatter_nd(indices, values, shape)


_REDUCTIONS = {
    None: scatters.tensor_scatter_nd_update,
    "add": scatters.tensor_scatter_nd_add,
    "max": scatters.tensor_scatter_nd_max,
    "min": scatters.tensor_scatter_nd_min,
    "mul": scatter_mul,
}


def scatter_update(inputs: Any, indices: Any, updates: Any, reduction: str | None = None) -> Tensor:
    """``inputs`` with ``updates`` put at ``indices``, or added, or the larger or smaller one, or
    their product.

    Raises ValueError for a reduction other than None, "add", "max", "min" and "mul".
    """
    if reduction not in _REDUCTIONS:
        raise ValueError(f"scatter_update: no reduction {reduction!r}; use add, max, min or mul")
    x = as_tensor(inputs)
    return _REDUCTIONS[reduction](x, indices, casting.cast(updates, x.dtype))
