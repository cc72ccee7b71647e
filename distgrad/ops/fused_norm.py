"""The fused batch normalizations that libraries call by their names in ``tf.raw_ops``."""

from __future__ import annotations

import math
from typing import Any

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import stop_gradient
from distgrad.ops.normalization import batch_normalization
from distgrad.ops.shape import reshape
from distgrad.ops.statistics import moments


def FusedBatchNormV2(
    *,
    x: Any,
    scale: Any,
    offset: Any,
    mean: Any,
    variance: Any,
    epsilon: float = 0.0001,
    exponential_avg_factor: float = 1.0,
    data_format: str = "NHWC",
    is_training: bool = True,
    name: str | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``x`` of rank 4 by its own statistics, or with ``is_training=False`` by those given.

    Returns it, the mean, the variance for moving averages (of n - 1 elements), and once more the
    mean and the variance, each of shape (channels,). Gradients go through the statistics of ``x``.
    """
    x, mean, variance = as_tensor(x), stop_gradient(mean), stop_gradient(variance)
    channels = 3 if data_format == "NHWC" else 1
    row = [-1 if axis == channels else 1 for axis in range(4)]
    if is_training:
        axes = [axis for axis in range(4) if axis != channels]
        found, spread = moments(x, axes)
        count = math.prod(x.shape[axis] for axis in axes)
        kept = spread * (count / max(count - 1, 1))
        told, factor = found, exponential_avg_factor
        if factor != 1.0:
            told = (1.0 - factor) * mean + factor * found
            kept = (1.0 - factor) * variance + factor * kept
    else:
        found = told = reshape(mean, (-1,))
        spread = kept = reshape(variance, (-1,))
    at, by, up, times = (reshape(each, row) for each in (found, spread, offset, scale))
    return batch_normalization(x, at, by, up, times, epsilon), told, kept, found, spread


def FusedBatchNormV3(**arguments: Any) -> tuple[Tensor, ...]:
    """`FusedBatchNormV2`, with one more result, which nobody needs."""
    results = FusedBatchNormV2(**arguments)
    return (*results, results[-1])
