"""More functions of ``keras.ops`` that make, cut, join and compare tensors, in NumPy's ways."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.keras.ops import reduction, shaping
from distgrad.keras.ops.linalg import matmul
from distgrad.keras.ops.promotion import floated, tensors
from distgrad.ops import layout, linalg, logic, powers, shape
from distgrad.ops.casting import cast
from distgrad.ops.diagonal import diagonal_embed
from distgrad.ops.indexing import gather, one_hot
from distgrad.ops.reduce import reduce_any, reduce_sum
from distgrad.ops.shape import one_axis

# New tensors


def identity(n: int, dtype: Any = None) -> Tensor:
    """Ones on the diagonal of ``[n, n]`` zeros."""
    return shaping.eye(n, dtype=dtype)


def tri(N: int, M: int | None = None, k: int = 0, dtype: Any = None) -> Tensor:
    """Ones on and below the diagonal number ``k`` of ``[N, M]`` zeros."""
    return shaping.array(np.tri(N, M, k), dtype or "float32")


def empty_like(x: Any, dtype: Any = None) -> Tensor:
    """A tensor of the shape (and dtype) of ``x``: here, zeros."""
    return shaping.zeros_like(x, dtype)


def logspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    base: Any = 10,
    dtype: Any = None,
    axis: int = 0,
) -> Tensor:
    """``base`` to the power of ``num`` numbers in equal steps from ``start`` to ``stop``."""
    line = powers.power(float(base), shaping.linspace(start, stop, num, endpoint, axis=axis))
    return line if dtype is None else cast(line, dtype)


def geomspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    dtype: Any = None,
    axis: int = 0,
) -> Tensor:
    """``num`` numbers from ``start`` to ``stop``, each the same multiple of the one before."""
    first, last = tensors(start, stop, also=float)
    share = shaping.linspace(0.0, 1.0, num, endpoint, dtype=first.dtype)
    share = shape.reshape(share, (-1, *(1,) * builtins.max(first._data.ndim, last._data.ndim)))
    line = shaping.moveaxis(first * powers.power(last / first, share), 0, axis)
    return line if dtype is None else cast(line, dtype)


def vander(x: Any, N: int | None = None, increasing: bool = False) -> Tensor:
    """The powers of each element of a vector as a row, the highest first."""
    tensor = as_tensor(x)
    count = tensor._data.shape[0] if N is None else N
    exponents = np.arange(count) if increasing else np.arange(count)[::-1]
    return powers.pow(shape.expand_dims(tensor, -1), exponents.astype(tensor._data.dtype))


# Joined and cut


def append(x1: Any, x2: Any, axis: int | None = None) -> Tensor:
    """``x2`` after ``x1`` along ``axis``, or both flat."""
    a, b = tensors(x1, x2)
    if axis is None:
        return shape.concat([shaping.ravel(a), shaping.ravel(b)], 0)
    return shape.concat([a, b], axis)


def dstack(xs: Sequence[Any]) -> Tensor:
    """The tensors joined along the third axis; matrices and vectors get one."""
    parts = [shaping.expand_dims(x, 0) if not x._data.ndim else x for x in tensors(*xs)]
    parts = [shaping.expand_dims(x, 0) if x._data.ndim == 1 else x for x in parts]
    parts = [shaping.expand_dims(x, 2) if x._data.ndim == 2 else x for x in parts]
    return shape.concat(parts, 2)


def array_split(x: Any, indices_or_sections: Any, axis: int = 0) -> list[Tensor]:
    """``x`` cut along ``axis`` into so many parts, the first of them one longer where need be."""
    if not isinstance(indices_or_sections, (int, np.integer)):
        return shaping.split(x, indices_or_sections, axis)
    length, count = as_tensor(x)._data.shape[axis], int(indices_or_sections)
    sizes = [length // count + (i < length % count) for i in range(count)]
    return shape.split(x, sizes, axis)


def hsplit(x: Any, indices_or_sections: Any) -> list[Tensor]:
    """``x`` cut along the second axis, a vector along its only one."""
    return shaping.split(x, indices_or_sections, 1 if as_tensor(x)._data.ndim > 1 else 0)


def vsplit(x: Any, indices_or_sections: Any) -> list[Tensor]:
    """``x`` cut along the first axis."""
    return shaping.split(x, indices_or_sections, 0)


def dsplit(x: Any, indices_or_sections: Any) -> list[Tensor]:
    """``x`` cut along the third axis."""
    return shaping.split(x, indices_or_sections, 2)


def fliplr(x: Any) -> Tensor:
    """``x`` with its second axis turned round."""
    return shaping.flip(x, 1)


def flipud(x: Any) -> Tensor:
    """``x`` with its first axis turned round."""
    return shaping.flip(x, 0)


def rot90(array: Any, k: int = 1, axes: Sequence[int] = (0, 1)) -> Tensor:
    """``array`` turned ``k`` times by a right angle, from the first of ``axes`` to the second.

    Raises ValueError for axes that are not there, or are one.
    """
    tensor = as_tensor(array)
    first, second = (one_axis("rot90", axis, tensor._data.ndim) for axis in axes)
    if first == second:
        raise ValueError(f"rot90: axes are two different ones, not {tuple(axes)}")
    times = k % 4
    if times == 2:
        return shaping.flip(tensor, (first, second))
    if times == 0:
        return tensor
    if times == 1:
        return shaping.swapaxes(shaping.flip(tensor, second), first, second)
    return shaping.flip(shaping.swapaxes(tensor, first, second), second)


def rearrange(tensor: Any, pattern: str, **axes_lengths: int) -> Any:
    """Axes cut, moved and merged as a pattern says: ``"b (h1 h) w c -> (b h1) h w c", h1=2``.

    Raises ValueError for a pattern that does not fit the shape.
    """
    from distgrad.keras import ops  # which take KerasTensors

    sides = pattern.split("->")
    if len(sides) != 2:
        raise ValueError(f"a pattern has one ->, not as in {pattern!r}")
    given, wanted = ([part.strip("()").split() for part in _PARTS.findall(side)] for side in sides)
    shape = ops.shape(tensor)
    if len(given) != len(shape):
        raise ValueError(f"{pattern!r} does not fit a tensor of shape {shape}")
    sizes: dict[str, int | None] = dict(axes_lengths)
    for names, size in zip(given, shape, strict=True):
        unknown = [name for name in names if name not in sizes]
        known = _product(sizes[name] for name in names if name in sizes)
        if known is None or len(unknown) > 1 or (size is not None and size % known):
            raise ValueError(f"{pattern!r} does not fit a tensor of shape {shape} with {sizes}")
        if not unknown and known != size:
            raise ValueError(f"{pattern!r} does not fit a tensor of shape {shape} with {sizes}")
        for name in unknown:
            sizes[name] = None if size is None else size // known
    order = [name for names in given for name in names]
    moved = [name for names in wanted for name in names]
    if sorted(order) != sorted(moved):
        raise ValueError(f"the two sides of {pattern!r} have different axes")
    cut = ops.reshape(tensor, [_or_rest(sizes[name]) for name in order])
    turned = ops.transpose(cut, [order.index(name) for name in moved])
    whole = [_or_rest(_product(sizes[name] for name in names)) for names in wanted]
    return ops.reshape(turned, whole)


def _or_rest(size: int | None) -> int:
    return -1 if size is None else size


def _product(sizes: Iterable[int | None]) -> int | None:
    """Of all sizes; None where one is not known."""
    found = 1
    for size in sizes:
        if size is None:
            return None
        found *= size
    return found


_PARTS = re.compile(r"\(.*?\)|\w+")


# Products and differences


def kron(x1: Any, x2: Any) -> Tensor:
    """The Kronecker product: each element of ``x1`` times all of ``x2``, as blocks."""
    a, b = tensors(x1, x2)
    rank = builtins.max(a._data.ndim, b._data.ndim)
    one, other = ([1] * (rank - t._data.ndim) + list(t._data.shape) for t in (a, b))
    left = shape.reshape(a, [n for size in one for n in (size, 1)])
    right = shape.reshape(b, [n for size in other for n in (1, size)])
    return shape.reshape(left * right, [m * n for m, n in zip(one, other, strict=True)])


def cross(
    x1: Any,
    x2: Any,
    axisa: int = -1,
    axisb: int = -1,
    axisc: int = -1,
    axis: int | None = None,
) -> Tensor:
    """The cross product of vectors of 2 or 3 numbers along an axis.

    Of two vectors of 2 numbers it is the third number alone. Raises ValueError for other sizes.
    """
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = tensors(x1, x2)
    a, b = shaping.moveaxis(a, axisa, -1), shaping.moveaxis(b, axisb, -1)
    sizes = a._data.shape[-1], b._data.shape[-1]
    if not set(sizes) <= {2, 3}:
        raise ValueError(f"cross takes vectors of 2 or 3 numbers, not of {sizes}")
    flat = sizes == (2, 2)
    a, b = (shape.concat([v, v[..., :1] * 0], -1) if v._data.shape[-1] == 2 else v for v in (a, b))
    lead = np.broadcast_shapes(a._data.shape[:-1], b._data.shape[:-1])
    a, b = (layout.broadcast_to(v, (*lead, 3)) for v in (a, b))
    found = linalg.cross(a, b)
    return found[..., 2] if flat else shaping.moveaxis(found, -1, axisc)


def diff(a: Any, n: int = 1, axis: int = -1) -> Tensor:
    """The differences of neighbours along ``axis``, ``n`` times over."""
    tensor = as_tensor(a)
    for _ in range(n):
        length = tensor._data.shape[axis]
        before, after = (
            shaping.take(tensor, np.arange(start, length - 1 + start, dtype=np.int32), axis)
            for start in (0, 1)
        )
        bools = tensor._data.dtype.kind == "b"
        tensor = logic.not_equal(after, before) if bools else after - before
    return tensor


def trapezoid(y: Any, x: Any = None, dx: float = 1.0, axis: int = -1) -> Tensor:
    """The area below ``y`` along ``axis`` by trapezoids, at places ``x`` or ``dx`` apart."""
    heights = shaping.moveaxis(floated(y), axis, -1)
    widths: Any = dx
    if x is not None:
        places = cast(x, heights._data.dtype)
        places = places if places._data.ndim == 1 else shaping.moveaxis(places, axis, -1)
        widths = diff(places)
    return reduce_sum((heights[..., 1:] + heights[..., :-1]) * widths, -1) / 2.0


def corrcoef(x: Any) -> Tensor:
    """Pearson's coefficients of the rows of a matrix with each other."""
    rows = floated(x)
    rows = shape.reshape(rows, (1, -1)) if rows._data.ndim == 1 else rows
    apart = rows - reduction.mean(rows, -1, True)
    spread = powers.sqrt(reduce_sum(apart * apart, -1, True))
    scaled = apart / spread
    found = matmul(scaled, shape.transpose(scaled))
    return found[0, 0] if as_tensor(x)._data.ndim == 1 else found


def correlate(x1: Any, x2: Any, mode: str = "valid") -> Tensor:
    """The sums of products of two vectors at each offset.

    Raises ValueError for another ``mode`` than "valid", "same" and "full".
    """
    a, b = tensors(x1, x2)
    if not a.dtype.is_floating:
        a, b = (cast(v, "float64" if a._data.dtype == np.int64 else "float32") for v in (a, b))
    swapped = b._data.shape[0] > a._data.shape[0]
    long, short = (b, a) if swapped else (a, b)
    n, m = long._data.shape[0], short._data.shape[0]
    if mode not in ("valid", "same", "full"):
        raise ValueError(f"mode is valid, same or full, not {mode!r}")
    before = {"valid": 0, "same": (m - 1) // 2 if swapped else m // 2, "full": m - 1}[mode]
    count = {"valid": n - m + 1, "same": n, "full": n + m - 1}[mode]
    padded = shaping.pad(long, ((before, builtins.max(count + m - 1 - n - before, 0)),))
    where = np.arange(count)[:, None] + np.arange(m)
    found = reduce_sum(gather(padded, where.astype(np.int32)) * short, -1)
    return layout.reverse(found, [0]) if swapped else found


def cdist(x: Any, y: Any) -> Tensor:
    """The distances of the rows of ``x`` to those of ``y``."""
    a, b = tensors(x, y, also=float)
    apart = shape.expand_dims(a, -2) - shape.expand_dims(b, -3)
    squares = reduce_sum(apart * apart, -1)
    there = logic.greater(squares, 0.0)
    return logic.select(there, powers.sqrt(logic.select(there, squares, 1.0)), 0.0)


def diagflat(x: Any, k: int = 0) -> Tensor:
    """The matrix with the flat ``x`` as its diagonal number ``k``."""
    flat = shaping.ravel(x)
    size = flat._data.size + builtins.abs(k)
    return diagonal_embed(flat, k=k, rows=size, columns=size)


# Sets, counts and positions


def isin(x1: Any, x2: Any, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Whether each element of ``x1`` is among those of ``x2``."""
    a, b = tensors(x1, x2)
    found = reduce_any(logic.equal(shape.expand_dims(a, -1), shaping.ravel(b)), -1)
    return logic.logical_not(found) if invert else found


def unique(
    x: Any,
    sorted: bool = True,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: int | None = None,
    size: int | None = None,
    fill_value: Any = None,
) -> Any:
    """The different elements (or slices along ``axis``) of ``x``, in order; without ``sorted`` in
    that in which they come first. Each nan is another one.

    With where each comes first, which of them stands at each place, and how often each comes, all
    int32. ``size`` cuts them to so many, or fills up with ``fill_value`` (0 by default).
    """
    parts = np.unique(as_tensor(x)._host(), True, True, True, axis, equal_nan=False)
    values, index, inverse, counts = (np.asarray(part) for part in parts)
    if not sorted:
        order = np.argsort(index)
        values = np.take(values, order, 0 if axis is None else axis)
        index, inverse, counts = index[order], np.argsort(order)[inverse], counts[order]
    if size is not None:
        along = 0 if axis is None else axis
        more = builtins.max(size - values.shape[along], 0)
        kept = np.take(values, np.arange(builtins.min(size, values.shape[along])), along)
        sides = np.zeros((kept.ndim, 2), int)
        sides[along, 1] = more
        values = np.pad(kept, sides, constant_values=0 if fill_value is None else fill_value)
        index = np.pad(index[:size], (0, more), constant_values=1)  # 1 as on TensorFlow
        counts = np.pad(counts[:size], (0, more))
    wanted = ((index, return_index), (inverse, return_inverse), (counts, return_counts))
    more_parts = [as_tensor(part.astype(np.int32)) for part, asked in wanted if asked]
    return (as_tensor(values), *more_parts) if more_parts else as_tensor(values)


def histogram(x: Any, bins: int = 10, range: tuple | None = None) -> tuple[Tensor, Tensor]:
    """How many elements of a vector lie in each of ``bins`` equal parts, and where these end.

    Raises TypeError or ValueError for other bins, ranges and ranks.
    """
    if not isinstance(bins, int):
        raise TypeError(f"Argument `bins` must be of type `int`. Received: bins={bins}")
    if bins < 0:
        raise ValueError(f"Argument `bins` should be a non-negative integer. Received: bins={bins}")
    tensor = as_tensor(x)
    if tensor._data.ndim > 1:
        raise ValueError(
            f"Input tensor must be 1-dimensional. Received: input.shape={tensor.shape}"
        )
    if range is not None and len(range) != 2:
        raise ValueError(f"`range` must be a tuple of two elements. Received: range={range}")
    if range is not None and range[1] < range[0]:
        raise ValueError(
            f"The second element of `range` must be greater than the first. Received: range={range}"
        )
    low, high = (reduction.min(tensor), reduction.max(tensor)) if range is None else range
    edges = shaping.linspace(low, high, bins + 1, dtype=tensor._data.dtype)
    place = reduction.searchsorted(edges[1:-1], tensor, side="right")
    inside = logic.logical_and(tensor >= edges[0], tensor <= edges[-1])
    hits = one_hot(place, bins, dtype=tensor._data.dtype)
    kept = shape.expand_dims(cast(inside, tensor._data.dtype), -1)
    return reduce_sum(hits * kept, 0), edges


def argpartition(x: Any, kth: int, axis: int | None = -1) -> Tensor:
    """int32 positions that bring the ``kth`` smallest element to its place, smaller ones before.

    Here they sort ``x``; without an ``axis`` they are those in the flat tensor. Raises ValueError
    for a ``kth`` that is not there.
    """
    tensor = as_tensor(x)
    size = tensor._data.size if axis is None else tensor._data.shape[axis]
    if not -size <= kth < size:
        raise ValueError(f"argpartition: kth {kth} is out of bounds for {size} elements")
    return reduction.argsort(tensor, axis)


def unravel_index(indices: Any, shape: Sequence[int]) -> tuple[Tensor, ...]:
    """Positions in the flat tensor as one index for each axis of ``shape``."""
    rest, found = as_tensor(indices), []
    for size in reversed(shape):
        found.append(rest % size)
        rest = rest // size
    return tuple(reversed(found))
