"""Shape primitives: reshape, transpose, broadcast, join."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor, match_dtypes
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, registry, sample
from distgrad.core.tensor import Tensor


def static(value: Any) -> tuple[int, ...]:
    """A shape or list of ints, tensors among them, as plain ints."""
    if isinstance(value, (int, np.integer)):
        return (int(value),)
    array = np.asarray(as_tensor(value)._host()) if len_or_tensor(value) else np.zeros(0, int)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"a shape is made of ints, not {value!r}")
    return tuple(array.ravel().tolist())


def len_or_tensor(value: Any) -> bool:
    """False for an empty list or tuple, which would have no dtype."""
    return not (isinstance(value, (list, tuple)) and len(value) == 0)


@primitive(view=True)
def reshape_to(xp, x, *, shape):
    """``x`` with the same elements in ``shape``."""
    return x.reshape(shape)


@reshape_to.vjp("x")
def _(g, x_shape):
    return bind(reshape_to, g, shape=x_shape)


@reshape_to.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), shape=(2, 6))
    yield sample(rng.normal(size=(1, 1)), shape=())


def reshape(tensor: Any, shape: Any, name: str | None = None) -> Tensor:
    """The same elements in another shape, in which one dimension may be -1.

    Raises InvalidArgumentError where the number of elements differs or two dimensions are -1.
    """
    return bind(reshape_to, as_tensor(tensor), shape=static(shape))


@primitive(view=True)
def permute(xp, x, *, perm):
    """``x`` with its axes in the order ``perm``."""
    return xp.transpose(x, perm)


@permute.vjp("x")
def _(g, perm):
    return bind(permute, g, perm=tuple(int(i) for i in np.argsort(perm)))


@permute.samples
def _(rng):
    yield sample(rng.normal(size=(2, 3, 4)), perm=(2, 0, 1))
    yield sample(rng.normal(size=(2, 3)), perm=(1, 0))


def transpose(a: Any, perm: Any = None, conjugate: bool = False, name: Any = None) -> Tensor:
    """``a`` with its axes in the order ``perm``, reversed by default."""
    tensor = as_tensor(a)
    order = tuple(reversed(range(tensor._data.ndim))) if perm is None else static(perm)
    return bind(permute, tensor, perm=order)


@primitive(view=True)
def broadcast_to(xp, x, *, shape):
    """``x`` repeated along new and size-1 axes to ``shape``."""
    return xp.broadcast_to(x, shape)


@broadcast_to.vjp("x")
def _(g, x_shape):
    return bind(registry["sum_to"], g, shape=x_shape)


@broadcast_to.samples
def _(rng):
    yield sample(rng.normal(size=(3, 1)), shape=(2, 3, 4))
    yield sample(rng.normal(size=()), shape=(3,))


def expand_dims(input: Any, axis: int, name: str | None = None) -> Tensor:
    """``input`` with an axis of size 1 before position ``axis``."""
    tensor = as_tensor(input)
    ndim = tensor._data.ndim + 1
    if not -ndim <= axis < ndim:
        raise InvalidArgumentError(f"axis {axis} is out of range for expand_dims to rank {ndim}")
    shape = list(tensor._data.shape)
    shape.insert(axis % ndim, 1)
    return bind(reshape_to, tensor, shape=tuple(shape))


def squeeze(input: Any, axis: Any = None, name: str | None = None) -> Tensor:
    """``input`` without its axes of size 1, or without those in ``axis``."""
    tensor = as_tensor(input)
    shape = tensor._data.shape
    if axis is None:
        gone = {i for i, n in enumerate(shape) if n == 1}
    else:
        from distgrad.ops.reduce import axes

        gone = set(axes(axis, len(shape)))
        for i in gone:
            if shape[i] != 1:
                raise InvalidArgumentError(f"cannot squeeze axis {i} of a tensor of shape {shape}")
    return bind(reshape_to, tensor, shape=tuple(n for i, n in enumerate(shape) if i not in gone))


@primitive()
def join(xp, *xs, axis):
    """The arrays one after the other along ``axis``."""
    return xp.concatenate(xs, axis=axis)


@join.vjp("*")
def _(g, shapes, axis, needs):
    getitem = registry["getitem"]
    start, result = 0, []
    for shape, needed in zip(shapes, needs, strict=True):
        stop = start + shape[axis]
        key = (slice(None),) * axis + (slice(start, stop),)
        result.append(bind(getitem, g, key=key) if needed else None)
        start = stop
    return result


@join.samples
def _(rng):
    yield sample(rng.normal(size=(3, 2)), rng.normal(size=(3, 4)), axis=1)
    yield sample(rng.normal(size=2), rng.normal(size=1), rng.normal(size=3), axis=0)


def concat(values: Sequence[Any], axis: int, name: str | None = None) -> Tensor:
    """The tensors joined along an existing axis.

    Raises InvalidArgumentError for no tensors, other ranks, or shapes that differ elsewhere.
    """
    if not isinstance(values, (list, tuple)):
        values = [values]
    if not values:
        raise InvalidArgumentError("concat needs at least one tensor")
    tensors = [v if isinstance(v, Tensor) else as_tensor(v) for v in _as_peers("concat", values)]
    ndim = tensors[0]._data.ndim
    if ndim == 0 or not -ndim <= axis < ndim:
        raise InvalidArgumentError(f"concat: axis {axis} is out of range for rank {ndim}")
    return bind(join, *tensors, axis=axis % ndim)


def stack(values: Sequence[Any], axis: int = 0, name: str | None = None) -> Tensor:
    """Tensors of one shape joined along a new axis."""
    if isinstance(values, Tensor):
        values = list(values)
    if not len(values):
        raise InvalidArgumentError("stack needs at least one tensor")
    return concat([expand_dims(v, axis) for v in _as_peers("stack", values)], axis)


def _as_peers(name: str, values: Sequence[Any]) -> list[Tensor]:
    """Tensors of one dtype; Python numbers among them take it."""
    peers = match_dtypes(name, values)
    dtype = next(p for p in peers if isinstance(p, Tensor))._data.dtype
    return [p if isinstance(p, Tensor) else as_tensor(p, like=dtype) for p in peers]


@primitive(vjp=None)
def fill(xp, value, *, shape, dtype):
    """An array of ``shape`` and ``dtype`` with ``value`` everywhere."""
    return xp.full(shape, value, dtype=dtype)


@fill.samples
def _(rng):
    yield sample(1.5, shape=(2, 3), dtype=np.dtype(np.float64))
