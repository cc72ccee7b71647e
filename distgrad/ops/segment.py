"""Reductions over segments: rows that share a number are reduced to one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core import recording
from distgrad.core.composite import takes_composites
from distgrad.core.dispatch import as_tensor, backend_of
from distgrad.core.dtypes import is_floating, limits
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import cast
from distgrad.ops.clipping import maximum
from distgrad.ops.indexing import getitem, take_grad
from distgrad.ops.logic import equal, less, select
from distgrad.ops.powers import sqrt
from distgrad.ops.reduce import bound, prod
from distgrad.ops.scatter import put_max, put_min, put_rows, scattered
from distgrad.ops.shape import fill, part, reshape_to

# What each reduction does: (data, one number per row, count) to a tensor of ``count`` rows.
Reduction = Callable[[Tensor, Tensor, int], Tensor]


def _sum(data: Tensor, ids: Tensor, count: int) -> Tensor:
    shape = (count, *data._data.shape[ids._data.ndim :])
    return bind(take_grad, data, ids, shape=shape, axis=0)


def _sizes(data: Tensor, ids: Tensor, count: int) -> Tensor:
    """The number of rows in each segment, at least 1, shaped to divide its sum."""
    ones = bind(fill, 1, shape=ids._data.shape, dtype=data._data.dtype)
    total = maximum(_sum(ones, ids, count), 1)
    return bind(reshape_to, total, shape=(count, *(1,) * (data._data.ndim - ids._data.ndim)))


def _mean(data: Tensor, ids: Tensor, count: int) -> Tensor:
    return _sum(data, ids, count) / _sizes(data, ids, count)


def _sqrt_n(data: Tensor, ids: Tensor, count: int) -> Tensor:
    return _sum(data, ids, count) / sqrt(_sizes(data, ids, count))


def _extreme(put: Any, empty: str) -> Reduction:
    def reduce(data: Tensor, ids: Tensor, count: int) -> Tensor:
        dtype, shape = data._data.dtype, (count, *data._data.shape[ids._data.ndim :])
        start = bind(fill, _lowest(dtype, empty), shape=shape, dtype=dtype)
        return bind(put, start, data, ids)

    return reduce


def _lowest(dtype: np.dtype, empty: str) -> Any:
    """What TensorFlow gives for an empty segment: the end of the dtype, not an infinity."""
    if not is_floating(dtype):
        return bound(dtype, empty)
    return float(limits(dtype).min if empty == "low" else limits(dtype).max)


def _prod(data: Tensor, ids: Tensor, count: int) -> Tensor:
    """Each segment laid out as a row of the longest one's length, filled up with ones."""
    host = ids._host().ravel()
    order = np.argsort(host, kind="stable")
    sizes = np.bincount(host, minlength=count)
    longest = int(sizes.max(initial=0))
    within = np.empty_like(host)
    starts = np.cumsum(sizes) - sizes
    within[order] = np.arange(host.size) - np.repeat(starts, sizes)
    places = Tensor(backend_of(data._data).asarray(host * longest + within))
    rest = data._data.shape[ids._data.ndim :]
    ones = bind(fill, 1, shape=(count * longest, *rest), dtype=data._data.dtype)
    rows = bind(put_rows, ones, bind(reshape_to, data, shape=(host.size, *rest)), places)
    return bind(
        prod, bind(reshape_to, rows, shape=(count, longest, *rest)), axis=(1,), keepdims=False
    )


_max = _extreme(put_max, "low")
_min = _extreme(put_min, "high")


def _check_shapes(name: str, data: Tensor, ids: Tensor) -> None:
    size = ids._data.shape
    if data._data.dtype.kind == "b":
        raise InvalidArgumentError(f"{name} does not take bool tensors; use cast")
    if ids._data.dtype.kind not in "iu":
        raise InvalidArgumentError(f"{name}: segment_ids must be integers, not {ids.dtype.name}")
    if data._data.shape[: len(size)] != size:
        raise InvalidArgumentError(
            f"{name}: segment_ids of shape {ids.shape} for data of shape {data.shape}"
        )


def _sorted(name: str, reduction: Reduction, data: Any, segment_ids: Any) -> Tensor:
    x, ids = as_tensor(data), as_tensor(segment_ids)
    _check_shapes(name, x, ids)
    host = ids._host()
    if host.ndim != 1:
        raise InvalidArgumentError(f"{name}: segment_ids must be a vector, not {ids.shape}")
    if host.size and (host[0] < 0 or (np.diff(host) < 0).any()):
        raise InvalidArgumentError(f"{name}: segment_ids must be sorted and from 0 on: {ids}")
    return reduction(x, ids, int(host[-1]) + 1 if host.size else 0)


def segment_sum(data: Any, segment_ids: Any, name: str | None = None) -> Tensor:
    """Sums of the rows with one number; ``segment_ids`` is a sorted vector of them.

    A number that is left out gives 0. Raises InvalidArgumentError for numbers that are not sorted
    or not as many as rows.
    """
    return _sorted("segment_sum", _sum, data, segment_ids)


def segment_mean(data: Any, segment_ids: Any, name: str | None = None) -> Tensor:
    """Means of the rows with one number, 0 for none; otherwise like ``segment_sum``.

    Truncated for integers.
    """
    x = as_tensor(data)
    return cast(_sorted("segment_mean", _mean, x, segment_ids), x.dtype)


def segment_max(data: Any, segment_ids: Any, name: str | None = None) -> Tensor:
    """Largest of the rows with one number, 0 for none; otherwise like ``segment_sum``."""
    return _sorted("segment_max", _or_zero(_max), data, segment_ids)


def segment_min(data: Any, segment_ids: Any, name: str | None = None) -> Tensor:
    """Smallest of the rows with one number, 0 for none; otherwise like ``segment_sum``."""
    return _sorted("segment_min", _or_zero(_min), data, segment_ids)


def segment_prod(data: Any, segment_ids: Any, name: str | None = None) -> Tensor:
    """Product of the rows with one number, 1 for none; otherwise like ``segment_sum``."""
    return _sorted("segment_prod", _prod, data, segment_ids)


def _or_zero(reduction: Reduction) -> Reduction:
    def reduce(data: Tensor, ids: Tensor, count: int) -> Tensor:
        ones = bind(fill, 1, shape=ids._data.shape, dtype=np.dtype(np.int32))
        rows = (count, *(1,) * (data._data.ndim - ids._data.ndim))
        empty = bind(reshape_to, equal(_sum(ones, ids, count), 0), shape=rows)
        return select(empty, 0, reduction(data, ids, count))

    return reduce


def _unsorted(
    name: str, reduction: Reduction, data: Any, segment_ids: Any, num_segments: Any
) -> Tensor:
    x, ids, count = as_tensor(data), as_tensor(segment_ids), int(num_segments)
    _check_shapes(name, x, ids)
    if count < 0:
        raise InvalidArgumentError(f"{name}: num_segments is {count}; it must be at least 0")
    recording.check(_check_range, name, ids, count)
    if not (recording.hides(ids) or (ids._data.size and ids._data.min() < 0)):
        return reduction(x, ids, count)
    # Rows with a negative number are left out: they go to one more segment, which is cut off.
    kept = select(less(ids, 0), count, ids)
    return bind(getitem, reduction(x, kept, count + 1), key=part(0, None, count))


def _check_range(name: str, ids: Tensor, count: int) -> None:
    if ids._data.size and ids._data.max() >= count:
        raise InvalidArgumentError(f"{name}: a segment id lies outside [0, {count}): {ids}")


_check_range.any_shape = True  # type: ignore[attr-defined]


@takes_composites
def unsorted_segment_sum(
    data: Any, segment_ids: Any, num_segments: Any, name: str | None = None
) -> Tensor:
    """Sums of the rows with one number, for the numbers from 0 to ``num_segments``.

    ``segment_ids`` has the shape of the leading axes of ``data``; negative ones are left out.
    Raises InvalidArgumentError for another shape or a number that is too large.
    """
    return _unsorted("unsorted_segment_sum", _sum, data, segment_ids, num_segments)


@takes_composites
def unsorted_segment_mean(
    data: Any, segment_ids: Any, num_segments: Any, name: str | None = None
) -> Tensor:
    """Means of the rows with one number, 0 for none; otherwise like ``unsorted_segment_sum``."""
    return _unsorted("unsorted_segment_mean", _mean, data, segment_ids, num_segments)


@takes_composites
def unsorted_segment_sqrt_n(
    data: Any, segment_ids: Any, num_segments: Any, name: str | None = None
) -> Tensor:
    """Sums of the rows with one number over the root of how many they are."""
    return _unsorted("unsorted_segment_sqrt_n", _sqrt_n, data, segment_ids, num_segments)


@takes_composites
def unsorted_segment_max(
    data: Any, segment_ids: Any, num_segments: Any, name: str | None = None
) -> Tensor:
    """Largest of the rows with one number, the lowest value of the dtype for none."""
    return _unsorted("unsorted_segment_max", _max, data, segment_ids, num_segments)


@takes_composites
def unsorted_segment_min(
    data: Any, segment_ids: Any, num_segments: Any, name: str | None = None
) -> Tensor:
    """Smallest of the rows with one number, the highest value of the dtype for none."""
    return _unsorted("unsorted_segment_min", _min, data, segment_ids, num_segments)


@takes_composites
def unsorted_segment_prod(
    data: Any, segment_ids: Any, num_segments: Any, name: str | None = None
) -> Tensor:
    """Product of the rows with one number, 1 for none."""
    return _unsorted("unsorted_segment_prod", _prod, data, segment_ids, num_segments)


def _times_rows(x: Tensor, updates: Tensor, rows: Tensor) -> Tensor:
    return x * unsorted_segment_prod(updates, rows, x._data.shape[0])


def scatter_mul(tensor: Any, indices: Any, updates: Any) -> Tensor:
    """``tensor`` times ``updates`` at the positions in ``indices``; repeated ones multiply up."""
    return scattered("scatter_mul", _times_rows, tensor, indices, updates)
