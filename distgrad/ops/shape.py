"""Shape primitives: reshape, transpose, broadcast, join, split."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from distgrad.core import dispatch
from distgrad.core.composite import CompositeError, otherwise
from distgrad.core.dispatch import as_tensor, match_dtypes
from distgrad.core.dtypes import is_floating
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, registry, sample
from distgrad.core.shapes import TensorShape
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.texts import all_texts, as_strings, moves_texts
from distgrad.ops.casting import cast

_INTS = frozenset((int,))


def static(value: Any) -> tuple[int, ...]:
    """A shape or list of ints, tensors among them, as plain ints."""
    if isinstance(value, (tuple, list)) and set(map(type, value)) <= _INTS:
        return tuple(value)
    if isinstance(value, (int, np.integer)):
        return (int(value),)
    if isinstance(value, (tuple, list)):
        return tuple(n for item in value for n in static(_as_size(item)))
    array = as_tensor(value)._host()
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"a shape is made of ints, not {value!r}")
    return tuple(array.ravel().tolist())


def _as_size(item: Any) -> Any:
    """A size in a list; one that was computed in floats, as by ``tf.math.ceil``, as an int."""
    if isinstance(item, Tensor) and not item._data.ndim and is_floating(item._data.dtype):
        size = float(item._host())
        return int(size) if size.is_integer() else item
    return item


def one_axis(name: str, axis: Any, ndim: int) -> int:
    """``axis`` as an int in [0, ndim); raises InvalidArgumentError for one outside the rank."""
    axis = operator.index(axis)
    if not -ndim <= axis < ndim:
        raise InvalidArgumentError(f"{name}: axis {axis} is out of range for rank {ndim}")
    return axis % ndim


def part(axis: int, start: int | None, stop: int | None, step: int | None = None) -> tuple:
    """The key of ``getitem`` for a slice along one axis."""
    return (slice(None),) * axis + (slice(start, stop, step),)


# Reshape


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
    if type(tensor) is not Tensor and all_texts(tensor):
        return as_strings(tensor).reshape(static(shape))  # type: ignore[return-value]
    try:
        x, wanted = as_tensor(tensor), list(static(shape))
    except CompositeError:
        return otherwise(reshape, (tensor, shape), {})
    size = x._data.size
    if wanted.count(-1) == 1:
        rest = math.prod([n for n in wanted if n != -1])
        if rest > 0:
            wanted[wanted.index(-1)] = size // rest
    if min([*wanted, 0]) < 0 or math.prod(wanted) != size:
        error = InvalidArgumentError(
            f"reshape: a tensor of shape {x.shape} ({size} elements) does not fit in shape "
            f"{static(shape)}, where at most one size may be -1"
        )
        error.sizes = size, math.prod(wanted)  # type: ignore[attr-defined]  # for KerasTensors
        raise error
    return bind(reshape_to, x, shape=tuple(wanted))


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
    yield sample(rng.normal(size=()), perm=())


@moves_texts
def transpose(a: Any, perm: Any = None, conjugate: bool = False, name: Any = None) -> Tensor:
    """``a`` with its axes in the order ``perm``, reversed by default.

    ``conjugate`` conjugates complex values as well. Raises InvalidArgumentError unless ``perm`` is
    a permutation of the axes.
    """
    tensor = as_tensor(a)
    ndim = tensor._data.ndim
    order = tuple(reversed(range(ndim))) if perm is None else static(perm)
    if sorted(n % ndim if -ndim <= n < ndim else n for n in order) != list(range(ndim)):
        raise InvalidArgumentError(f"transpose: {order} does not order the axes of {tensor.shape}")
    if conjugate and tensor._data.dtype.kind == "c":
        tensor = registry["conjugate"](tensor)
    return bind(permute, tensor, perm=tuple(n % ndim for n in order))


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
    yield sample(rng.normal(size=(1, 2)), shape=(0, 2))


def expand_dims(input: Any, axis: Any, name: str | None = None) -> Tensor:
    """``input`` with an axis of size 1 before position ``axis``.

    Raises InvalidArgumentError for an axis outside the new rank.
    """
    if type(input) is not Tensor and all_texts(input):
        return np.expand_dims(as_strings(input), axis)  # type: ignore[return-value]
    try:
        tensor = as_tensor(input)
    except CompositeError:
        return otherwise(expand_dims, (input, axis), {})
    shape = list(tensor._data.shape)
    if isinstance(axis, (list, tuple)) and len(axis) == 1:
        axis = axis[0]
    shape.insert(one_axis("expand_dims", axis, len(shape) + 1), 1)
    return bind(reshape_to, tensor, shape=tuple(shape))


def axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """``axis`` (None, an int, or several) as sorted non-negative ints.

    Raises InvalidArgumentError for an axis outside the rank or given twice.
    """
    if axis is None:
        return tuple(range(ndim))
    if type(axis) is int:
        given = (axis,)
    else:
        array = np.atleast_1d(np.asarray(axis))
        if array.size and array.dtype.kind not in "iu":
            raise TypeError(f"axis must be an int or several, not {axis!r}")
        given = tuple(array.ravel().tolist())
    result = []
    for a in given:
        if not -ndim <= a < ndim:
            raise InvalidArgumentError(f"axis {a} is out of range for a tensor of rank {ndim}")
        result.append(a % ndim)
    if len(set(result)) != len(result):
        raise InvalidArgumentError(f"axis {axis!r} names a dimension twice")
    return tuple(sorted(result))


@moves_texts
def squeeze(input: Any, axis: Any = None, name: str | None = None) -> Tensor:
    """``input`` without its axes of size 1, or without those in ``axis`` where it names any.

    Raises InvalidArgumentError for an axis of another size or outside the rank.
    """
    tensor = as_tensor(input)
    shape = tensor._data.shape
    if axis is None or (isinstance(axis, (list, tuple)) and not axis):
        gone = {i for i, n in enumerate(shape) if n == 1}
    else:
        gone = set(axes(axis, len(shape)))
        for i in gone:
            if shape[i] != 1:
                raise InvalidArgumentError(f"cannot squeeze axis {i} of a tensor of shape {shape}")
    return bind(reshape_to, tensor, shape=tuple([n for i, n in enumerate(shape) if i not in gone]))


def ensure_shape(x: Any, shape: Any, name: str | None = None) -> Tensor:
    """The same value.

    Raises InvalidArgumentError unless its shape is ``shape``, in which None is any size.
    """
    tensor = as_tensor(x)
    wanted = TensorShape(shape)
    if not wanted.is_compatible_with(tensor._data.shape):
        raise InvalidArgumentError(f"ensure_shape: {tensor.shape} is not {wanted}")
    return bind(registry["identity"], tensor)


# Joining and splitting


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
        result.append(bind(getitem, g, key=part(axis, start, stop)) if needed else None)
        start = stop
    return result


@join.samples
def _(rng):
    yield sample(rng.normal(size=(3, 2)), rng.normal(size=(3, 4)), axis=1)
    yield sample(rng.normal(size=2), rng.normal(size=1), rng.normal(size=3), axis=0)
    yield sample(rng.normal(size=(0, 2)), rng.normal(size=(3, 2)), axis=0)


@primitive(multiple=True)
def split_at(xp, x, *, axis, sizes):
    """The consecutive parts of ``x`` of the given ``sizes`` along ``axis``."""
    parts, start = [], 0
    for size in sizes:
        parts.append(x[part(axis, start, start + size)].copy())
        start += size
    return tuple(parts)


@split_at.vjp("x")
def _(g, axis):
    return bind(join, *g, axis=axis)


@split_at.samples
def _(rng):
    yield sample(rng.normal(size=(3, 5)), axis=1, sizes=(2, 0, 3))
    yield sample(rng.normal(size=4), axis=0, sizes=(1, 3))


@moves_texts
def concat(values: Sequence[Any], axis: int, name: str | None = None) -> Tensor:
    """The tensors joined along an existing axis.

    Raises InvalidArgumentError for no tensors, other ranks, or shapes that differ elsewhere.
    """
    if not isinstance(values, (list, tuple)):
        values = [values]
    if not values:
        raise InvalidArgumentError("concat needs at least one tensor")
    tensors = as_peers("concat", values)
    return bind(join, *tensors, axis=one_axis("concat", axis, tensors[0]._data.ndim))


@moves_texts
def stack(values: Sequence[Any], axis: int = 0, name: str | None = None) -> Tensor:
    """Tensors of one shape joined along a new axis.

    Of arrays and numbers alone, along axis 0, it is ``constant(values)``, with its dtype. Raises
    InvalidArgumentError for no tensors or other shapes.
    """
    if not isinstance(values, (list, tuple)):
        values = list(as_tensor(values))
    if not values:
        raise InvalidArgumentError("stack needs at least one tensor")
    if axis == 0 and all(isinstance(v, (np.ndarray, np.generic)) for v in values):
        with suppress(ValueError):  # of other shapes
            return as_tensor(list(values))
    tensors = as_peers("stack", values)
    shape = tensors[0]._data.shape
    for tensor in tensors:
        if tensor._data.shape != shape:
            raise InvalidArgumentError(f"stack: shapes differ, {shape} and {tensor._data.shape}")
    axis = one_axis("stack", axis, len(shape) + 1)
    return bind(join, *[expand_dims(tensor, axis) for tensor in tensors], axis=axis)


def as_peers(name: str, values: Sequence[Any]) -> list[Tensor]:
    """Tensors of one dtype; Python numbers among them take it."""
    peers = match_dtypes(name, values)
    dtype = next(p for p in peers if isinstance(p, Tensor))._data.dtype
    return [p if isinstance(p, Tensor) else as_tensor(p, like=dtype) for p in peers]


def _pack(values: Sequence[Any], dtype: Any) -> Tensor:
    """A nest with tensors in it as one tensor, of ``dtype`` or of that which they share."""
    if dtype is None:
        return stack(values)
    parts = [cast(v, dtype) if isinstance(v, Operand) else as_tensor(v, like=dtype) for v in values]
    return stack(parts)


dispatch.pack = _pack


@moves_texts
def split(
    value: Any,
    num_or_size_splits: Any,
    axis: int = 0,
    num: int | None = None,
    name: str | None = None,
) -> list[Tensor]:
    """``value`` cut along ``axis``: into so many equal parts, or into parts of the given sizes.

    One size may be -1, the rest. Raises InvalidArgumentError where the parts do not add up.
    """
    tensor = as_tensor(value)
    axis = one_axis("split", axis, tensor._data.ndim)
    length = tensor._data.shape[axis]
    sizes: tuple[int, ...]
    if np.ndim(num_or_size_splits) == 0:
        count = operator.index(num_or_size_splits)
        if count <= 0 or length % count:
            raise InvalidArgumentError(f"split: axis {axis} of {tensor.shape} is not {count} parts")
        sizes = (length // count,) * count
    else:
        sizes = static(num_or_size_splits)
        if sizes.count(-1) == 1:
            rest = length - 1 - sum(sizes)
            sizes = tuple(rest if n == -1 else n for n in sizes)
        if min((0, *sizes)) < 0 or sum(sizes) != length:
            raise InvalidArgumentError(
                f"split: sizes {static(num_or_size_splits)} do not add up to axis {axis} of "
                f"{tensor.shape}"
            )
    return list(bind(split_at, tensor, axis=axis, sizes=sizes)) if sizes else []


@moves_texts
def unstack(value: Any, num: int | None = None, axis: int = 0, name: Any = None) -> list[Tensor]:
    """The slices of ``value`` along ``axis``, without that axis.

    Raises InvalidArgumentError for a scalar, or where ``num`` is not their number.
    """
    tensor = as_tensor(value)
    axis = one_axis("unstack", axis, tensor._data.ndim)
    length = tensor._data.shape[axis]
    if num is not None and num != length:
        raise InvalidArgumentError(f"unstack: axis {axis} of {tensor.shape} has no {num} slices")
    return [squeeze(piece, axis) for piece in split(tensor, length, axis)] if length else []


@primitive(vjp=None)
def fill(xp, value, *, shape, dtype):
    """An array of ``shape`` and ``dtype`` with ``value`` everywhere."""
    return xp.full(shape, value, dtype=dtype)


@fill.samples
def _(rng):
    yield sample(1.5, shape=(2, 3), dtype=np.dtype(np.float64))
