"""Sums and means of rows of a tensor by number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import is_floating
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Tensor
from distgrad.ops.indexing import gather
from distgrad.ops.segment import (
    unsorted_segment_mean,
    unsorted_segment_sqrt_n,
    unsorted_segment_sum,
)


def segment_sum(
    data: Any,
    indices: Any,
    segment_ids: Any,
    num_segments: int | None = None,
    name: str | None = None,
    sparse_gradient: bool = False,
) -> Tensor:
    """Sums of the rows of ``data`` at ``indices`` that have one of the sorted ``segment_ids``.

    A number that is left out gives 0; ``sparse_gradient`` changes nothing. Raises
    InvalidArgumentError for numbers that are not sorted, not as many as indices, or too large.
    """
    return _segments(unsorted_segment_sum, data, indices, segment_ids, num_segments)


def segment_mean(
    data: Any,
    indices: Any,
    segment_ids: Any,
    num_segments: int | None = None,
    name: str | None = None,
    sparse_gradient: bool = False,
) -> Tensor:
    """Means of such rows, of floats; otherwise like ``segment_sum``."""
    return _segments(unsorted_segment_mean, _floats(data), indices, segment_ids, num_segments)


def segment_sqrt_n(
    data: Any,
    indices: Any,
    segment_ids: Any,
    num_segments: int | None = None,
    name: str | None = None,
    sparse_gradient: bool = False,
) -> Tensor:
    """Their sums over the root of how many they are; otherwise like ``segment_mean``."""
    return _segments(unsorted_segment_sqrt_n, _floats(data), indices, segment_ids, num_segments)


def _floats(data: Any) -> Tensor:
    tensor = as_tensor(data)
    if not is_floating(tensor.dtype.numpy_dtype):
        raise InvalidArgumentError(f"data must be floats, not {tensor.dtype.name}: use cast")
    return tensor


def _segments(
    reduction: Callable[..., Tensor], data: Any, indices: Any, segment_ids: Any, count: int | None
) -> Tensor:
    rows, ids = np.asarray(indices), np.asarray(segment_ids)
    if ids.ndim != 1 or rows.shape != ids.shape:
        raise InvalidArgumentError(f"segment_ids of shape {ids.shape} for indices {rows.shape}")
    if ids.size and (ids[0] < 0 or (ids[1:] < ids[:-1]).any()):
        raise InvalidArgumentError(f"segment ids must be sorted and from 0 on: {ids.tolist()}")
    most = int(ids[-1]) + 1 if ids.size else 0
    size = most if count is None else int(count)
    if most > size:
        raise InvalidArgumentError(f"segment id {most - 1} is not below num_segments, {size}")
    return reduction(gather(data, rows), ids, size)
