"""Functions of ``keras.ops`` that make, cut, join and lay out tensors."""

from __future__ import annotations

import builtins
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.keras.backend import floatx
from distgrad.keras.ops import reduction
from distgrad.keras.ops.core import convert_to_tensor, described
from distgrad.keras.ops.promotion import promoted, result_type, tensors
from distgrad.ops import casting, constants, layout, logic, padding, shape
from distgrad.ops.casting import cast
from distgrad.ops.constants import identity
from distgrad.ops.diagonal import diagonal_embed
from distgrad.ops.indexing import gather, take_along_last

# New tensors


def zeros(shape: Any, dtype: Any = None) -> Tensor:
    """Zeros of ``shape``, of dtype ``floatx`` by default."""
    return constants.zeros(shape, dtype or floatx())


def ones(shape: Any, dtype: Any = None) -> Tensor:
    """Ones of ``shape``, of dtype ``floatx`` by default."""
    return constants.ones(shape, dtype or floatx())


def empty(shape: Any, dtype: Any = None) -> Tensor:
    """A tensor of ``shape``: here, too, zeros."""
    return zeros(shape, dtype)


def full(shape: Any, fill_value: Any, dtype: Any = None) -> Tensor:
    """``fill_value`` broadcast to ``shape``, of dtype ``floatx`` by default."""
    return layout.broadcast_to(convert_to_tensor(fill_value, dtype or floatx()), shape)


def zeros_like(x: Any, dtype: Any = None) -> Tensor:
    """Zeros of the shape (and dtype) of ``x``."""
    return casting.zeros_like(x, dtype)


def ones_like(x: Any, dtype: Any = None) -> Tensor:
    """Ones of the shape (and dtype) of ``x``."""
    return casting.ones_like(x, dtype)


def full_like(x: Any, fill_value: Any, dtype: Any = None) -> Tensor:
    """``fill_value`` broadcast to the shape (and cast to the dtype) of ``x``."""
    tensor = as_tensor(x)
    return full(tensor._data.shape, fill_value, dtype or tensor.dtype)


def array(x: Any, dtype: Any = None) -> Tensor:
    """``x`` as a tensor, cast to ``dtype``."""
    return convert_to_tensor(x, dtype)


def copy(x: Any) -> Tensor:
    """The same value as a tensor of its own."""
    return bind(identity, as_tensor(x))


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = None) -> Tensor:
    """Ones on the diagonal number ``k`` of ``[N, M]`` zeros, of dtype ``floatx`` by default."""
    return constants.constant(np.eye(N, M, k), dtype or floatx())


def arange(start: Any, stop: Any = None, step: Any = None, dtype: Any = None) -> Tensor:
    """Numbers from ``start`` (0 if there is no ``stop``) up to, but not with, ``stop``."""
    given = [v for v in (start, stop, step) if v is not None]
    kinds = [type(v) if type(v) in (int, float) else as_tensor(v).dtype for v in given]
    wanted = dtype or result_type(*kinds)
    if stop is None:
        start, stop = 0, start
    numbers: list[Any] = [
        v if isinstance(v, (int, float)) else as_tensor(v).numpy() for v in (start, stop, step or 1)
    ]
    return constants.constant(np.arange(*numbers), wanted)


def linspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    axis: int = 0,
) -> Any:
    """``num`` numbers in equal steps from ``start`` to ``stop``, with it if ``endpoint`` holds.

    With ``retstep`` a pair of them and the step.
    """
    num = operator.index(num)
    first, last = tensors(start, stop, also=float)
    step = (last - first) / builtins.max(num - 1 if endpoint else num, 1)
    end = last if endpoint else last - step
    line = constants.linspace(first, end if num > 1 else first, num, axis=axis)
    line = line if dtype is None else cast(line, dtype)
    return (line, step) if retstep else line


def meshgrid(*x: Any, indexing: str = "xy") -> list[Tensor]:
    """Coordinate grids of vectors; ``indexing="xy"`` swaps the first two axes, "ij" does not."""
    return layout.meshgrid(*x, indexing=indexing)


# Shapes


def size(x: Any) -> Tensor:
    """The number of elements, an int32 scalar."""
    return as_tensor(np.int32(as_tensor(x)._data.size))


def ndim(x: Any) -> int:
    """The number of axes."""
    return len(described(x).shape)


def reshape(x: Any, newshape: Any) -> Tensor:
    """``x`` in another shape; one size may be -1, or None, the rest."""
    try:
        return shape.reshape(x, newshape)
    except ValueError:
        if not isinstance(newshape, (tuple, list)) or None not in newshape:
            raise
    return shape.reshape(x, [-1 if n is None else n for n in newshape])


def ravel(x: Any) -> Tensor:
    """``x`` as a vector."""
    return shape.reshape(x, (-1,))


def squeeze(x: Any, axis: Any = None) -> Tensor:
    """``x`` without the axes (all by default) of size 1."""
    return shape.squeeze(x, axis)


def expand_dims(x: Any, axis: Any) -> Tensor:
    """``x`` with axes of size 1, which stand at ``axis`` (an int or several) of the result."""
    tensor = as_tensor(x)
    if isinstance(axis, (int, np.integer)):
        return shape.expand_dims(tensor, int(axis))
    new = shape.axes(tuple(axis), tensor._data.ndim + len(axis))
    sizes = iter(tensor._data.shape)
    wide = range(tensor._data.ndim + len(new))
    return shape.reshape(tensor, [1 if i in new else next(sizes) for i in wide])


def transpose(x: Any, axes: Any = None) -> Tensor:
    """``x`` with its axes in another order, reversed by default."""
    return shape.transpose(x, axes)


def swapaxes(x: Any, axis1: int, axis2: int) -> Tensor:
    """``x`` with two axes in each other's place. Raises ValueError for axes that are not there."""
    count = as_tensor(x)._data.ndim
    first, second = (shape.one_axis("swapaxes", axis, count) for axis in (axis1, axis2))
    order = list(range(count))
    order[first], order[second] = second, first
    return shape.transpose(x, order)


def moveaxis(x: Any, source: Any, destination: Any) -> Tensor:
    """``x`` with the axes ``source`` moved to ``destination``; the others keep their order.

    Raises ValueError for axes that are not there.
    """
    count = as_tensor(x)._data.ndim
    sources, targets = (
        [shape.one_axis("moveaxis", a, count) for a in np.atleast_1d(v).tolist()]
        for v in (source, destination)
    )
    order = [i for i in range(count) if i not in sources]
    for target, origin in sorted(zip(targets, sources, strict=True)):
        order.insert(target, origin)
    return shape.transpose(x, order)


def broadcast_to(x: Any, shape: Any) -> Tensor:
    """``x`` repeated along new and size-1 axes to ``shape``."""
    return layout.broadcast_to(x, shape)


# Joined and cut


def concatenate(xs: Sequence[Any], axis: int = 0) -> Tensor:
    """The tensors joined along ``axis``, in the dtype in which they meet."""
    return shape.concat(tensors(*xs), axis)


def stack(x: Sequence[Any], axis: int = 0) -> Tensor:
    """The tensors joined along a new axis, in the dtype in which they meet."""
    return shape.stack(tensors(*x), axis)


def hstack(xs: Sequence[Any]) -> Tensor:
    """The tensors joined along the second axis; vectors along their only one."""
    parts = [expand_dims(x, 0) if not x._data.ndim else x for x in tensors(*xs)]
    return shape.concat(parts, 0 if parts[0]._data.ndim == 1 else 1)


def vstack(xs: Sequence[Any]) -> Tensor:
    """The tensors joined along the first axis; vectors as rows."""
    rows = [shape.reshape(x, (1, -1)) if x._data.ndim < 2 else x for x in tensors(*xs)]
    return shape.concat(rows, 0)


def split(x: Any, indices_or_sections: Any, axis: int = 0) -> list[Tensor]:
    """``x`` cut along ``axis`` into so many equal parts, or before each of the given indices."""
    if isinstance(indices_or_sections, (int, np.integer)):
        return shape.split(x, int(indices_or_sections), axis)
    length = as_tensor(x)._data.shape[axis]
    cuts = np.clip([0, *shape.static(indices_or_sections), length], 0, length)
    return shape.split(x, np.diff(cuts).tolist(), axis)


def tile(x: Any, repeats: Any) -> Tensor:
    """``x`` repeated so often along each axis; missing axes, or numbers, stand for 1 in front."""
    tensor, counts = as_tensor(x), list(shape.static(repeats))
    more = len(counts) - tensor._data.ndim
    wide = shape.reshape(tensor, (*(1,) * more, *tensor._data.shape))
    return layout.tile(wide, [1] * -more + counts)


def repeat(x: Any, repeats: Any, axis: int | None = None) -> Tensor:
    """Each element along ``axis``, or of the flat tensor, repeated: all alike, or each its own."""
    return layout.repeat(x, repeats, axis)


def flip(x: Any, axis: Any = None) -> Tensor:
    """``x`` with the order of its elements turned round along ``axis`` (all by default)."""
    tensor = as_tensor(x)
    return layout.reverse(tensor, shape.axes(axis, tensor._data.ndim))


def roll(x: Any, shift: Any, axis: Any = None) -> Tensor:
    """``x`` moved along ``axis``, or flat; what leaves at one end comes in at the other.

    One ``shift`` is that of all axes.
    """
    tensor = as_tensor(x)
    if isinstance(axis, (tuple, list)) and np.ndim(shift) == 0:
        shift = [shift] * len(axis)
    if axis is None:
        return shape.reshape(layout.roll(ravel(tensor), shift, 0), tensor._data.shape)
    return layout.roll(tensor, shift, axis)


def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = None) -> Tensor:
    """``x`` with ``pad_width`` (before, after) elements around each axis, or around all alike.

    Modes: "constant", with ``constant_values`` (0); "reflect", mirrored without the border element;
    "symmetric", mirrored with it. Raises ValueError for ``constant_values`` in another mode than
    "constant".
    """
    if constant_values is not None and mode != "constant":
        raise ValueError(
            f"pad: constant_values, {constant_values!r}, need mode 'constant', not {mode!r}"
        )
    tensor = as_tensor(x)
    widths = np.broadcast_to(np.asarray(pad_width), (tensor._data.ndim, 2)).tolist()
    return padding.pad(tensor, widths, mode, 0 if constant_values is None else constant_values)


# Elements by position


def where(condition: Any, x1: Any = None, x2: Any = None) -> Any:
    """``x1`` where ``condition`` holds (is not 0), else ``x2``; without them, ``nonzero``."""
    if x1 is None and x2 is None:
        return nonzero(condition)
    first, second = tensors(x1, x2)
    return logic.where(cast(condition, np.bool_), first, second)


def nonzero(x: Any) -> tuple[Tensor, ...]:
    """The positions of the elements that are not 0: an int32 vector for each axis."""
    return tuple(shape.unstack(cast(logic.where(x), np.int32), axis=1))


def _counted_from_the_front(indices: Any, length: int) -> Tensor:
    where = as_tensor(indices)
    if where.dtype.name not in ("int32", "int64"):
        where = cast(where, np.int32)
    return logic.select(logic.less(where, 0), where + length, where)


def take(x: Any, indices: Any, axis: int | None = None) -> Tensor:
    """The elements of ``x`` at ``indices`` along ``axis``, or of the flat tensor."""
    tensor = ravel(x) if axis is None else as_tensor(x)
    along = 0 if axis is None else axis
    length = tensor._data.shape[along]
    return gather(tensor, _counted_from_the_front(indices, length), axis=along)


def take_along_axis(x: Any, indices: Any, axis: int | None = None) -> Tensor:
    """For each position the element along ``axis`` that ``indices`` names there."""
    tensor, where = as_tensor(x), as_tensor(indices)
    if axis is None:
        tensor, where, axis = ravel(tensor), ravel(where), 0
    rows, order = moveaxis(tensor, axis, -1), moveaxis(where, axis, -1)
    order = _counted_from_the_front(order, rows._data.shape[-1])
    lead = np.broadcast_shapes(rows._data.shape[:-1], order._data.shape[:-1])
    rows = broadcast_to(rows, (*lead, rows._data.shape[-1]))
    order = broadcast_to(order, (*lead, order._data.shape[-1]))
    return moveaxis(take_along_last(rows, order), -1, axis)


# Diagonals and triangles of the last two axes


def _triangle(x: Any, keep: Any) -> Tensor:
    tensor = as_tensor(x)
    if tensor._data.ndim == 1:
        tensor = broadcast_to(tensor, (tensor._data.size, tensor._data.size))
    mask = layout.beside(tensor, keep(np.ones(tensor._data.shape[-2:], np.bool_)))
    return logic.select(mask, *promoted(tensor, False if tensor.dtype.is_bool else 0))


def tril(x: Any, k: int = 0) -> Tensor:
    """``x`` with zeros above the diagonal number ``k``."""
    return _triangle(x, lambda ones: np.tril(ones, k))


def triu(x: Any, k: int = 0) -> Tensor:
    """``x`` with zeros below the diagonal number ``k``."""
    return _triangle(x, lambda ones: np.triu(ones, k))


def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The diagonal number ``offset`` of two axes, as the last axis."""
    tensor = moveaxis(x, (axis1, axis2), (-2, -1))
    *_, rows, columns = tensor._data.shape
    at = np.arange(rows * columns).reshape(rows, columns).diagonal(offset)
    flat = shape.reshape(tensor, (*tensor._data.shape[:-2], rows * columns))
    return gather(flat, at.astype(np.int32), axis=-1)


def diag(x: Any, k: int = 0) -> Tensor:
    """The diagonal number ``k`` of a matrix; the matrix with that diagonal of a vector.

    Raises ValueError for another rank.
    """
    tensor = as_tensor(x)
    if tensor._data.ndim not in (1, 2):
        raise ValueError(f"diag takes a vector or a matrix, not a tensor of shape {tensor.shape}")
    if tensor._data.ndim != 1:
        return diagonal(tensor, k)
    size = tensor._data.size + builtins.abs(k)
    return diagonal_embed(tensor, k=k, rows=size, columns=size)


def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The sum of the diagonal number ``offset`` of two axes; of small integers in 32 bits."""
    return reduction.sum(diagonal(x, offset, axis1, axis2), -1)
