"""What sums up tensors: weighted moments, sufficient statistics, and whether they are in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import cast, ones_like
from distgrad.ops.division import divide_no_nan
from distgrad.ops.logic import greater, greater_equal
from distgrad.ops.reduce import reduce_all, reduce_sum
from distgrad.ops.shape import reshape, squeeze, static


def weighted_moments(
    x: Any, axes: Any, frequency_weights: Any, keepdims: bool = False, name: str | None = None
) -> tuple[Tensor, Tensor]:
    """Mean and variance over ``axes``, each element as often as its weight says."""
    value = as_tensor(x)
    dtype = value._data.dtype
    wide = cast(value, np.float32) if dtype.itemsize == 2 else value
    weights = cast(frequency_weights, wide._data.dtype)
    total = reduce_sum(weights * ones_like(wide), axes, keepdims=True)
    mean = divide_no_nan(reduce_sum(weights * wide, axes, keepdims=True), total)
    far = wide - mean
    variance = divide_no_nan(reduce_sum(weights * (far * far), axes, keepdims=True), total)
    if not keepdims:
        mean, variance = squeeze(mean, axes), squeeze(variance, axes)
    return cast(mean, dtype), cast(variance, dtype)


def sufficient_statistics(
    x: Any, axes: Sequence[int], shift: Any = None, keepdims: bool = False, name: str | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The count, the sum and the sum of squares over ``axes``, of ``x - shift``, and the shift."""
    value = as_tensor(x)
    over = static(axes)
    count = int(np.prod([value._data.shape[axis] for axis in set(over)], dtype=np.int64))
    by = None if shift is None else as_tensor(shift, like=value._data.dtype)
    moved = value if by is None else value - by
    sums = (reduce_sum(each, over, keepdims=keepdims) for each in (moved, moved * moved))
    return as_tensor(np.array(count, value._data.dtype)), *sums, by  # type: ignore[return-value]


def normalize_moments(
    counts: Any, mean_ss: Any, variance_ss: Any, shift: Any, name: str | None = None
) -> tuple[Tensor, Tensor]:
    """Mean and variance from what ``sufficient_statistics`` gives."""
    part = 1.0 / as_tensor(counts)
    moved = mean_ss * part
    return moved if shift is None else moved + shift, variance_ss * part - moved * moved


def is_non_decreasing(x: Any, name: str | None = None) -> Tensor:
    """Whether no element is below the one before it, in row-major order."""
    flat = reshape(x, (-1,))
    return reduce_all(greater_equal(flat[1:], flat[:-1]))


def is_strictly_increasing(x: Any, name: str | None = None) -> Tensor:
    """Whether every element is above the one before it, in row-major order."""
    flat = reshape(x, (-1,))
    return reduce_all(greater(flat[1:], flat[:-1]))
