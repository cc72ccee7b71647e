"""Images made sharper or softer at random in training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.tensor import Tensor
from distgrad.keras.layers.augmentation import Shared
from distgrad.keras.layers.image_layer import Augmentation, Factor, factor_range, value_bounds
from distgrad.ops.casting import cast
from distgrad.ops.clipping import clip
from distgrad.ops.convolution import depthwise_conv2d
from distgrad.ops.exponential import exp
from distgrad.ops.layout import beside
from distgrad.ops.logic import less_equal, select
from distgrad.ops.padding import pad
from distgrad.ops.reduce import reduce_sum


def bell(deviation: Tensor, size: int, reach: float = math.inf) -> Tensor:
    """Weights of a Gaussian for each image, [batch, 1, 1, size], up to ``reach`` deviations."""
    apart = beside(deviation, np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2))
    weights = exp(-0.5 * (apart / deviation) ** 2.0)
    if reach < math.inf:
        weights = select(less_equal(abs(apart), deviation * reach), weights, 0.0)
    return weights / reduce_sum(weights, [3], keepdims=True)


def weighted(x: Tensor, axis: int, weights: Tensor) -> Tensor:
    """Sums of neighbours along an axis (1 or 2) by the weights of each image, among zeros."""
    size, length = weights._data.shape[3], x._data.shape[axis]
    weights = cast(weights, x._data.dtype)
    wide = pad(x, [(size // 2,) * 2 if i == axis else (0, 0) for i in range(4)])
    total: Any = 0.0
    for k in range(size):
        part = wide[:, k : k + length] if axis == 1 else wide[:, :, k : k + length]
        total = total + weights[..., k : k + 1] * part
    return total


class RandomSharpness(Shared):
    """Images blurred (a factor below 0.5) or made sharper (above), clipped to ``value_range``.

    The blur is a mean of 3 by 3 pixels in which the middle counts five times; at 0 nothing else is
    left. One number f is (0, f). Raises ValueError for a factor outside [0, 1].
    """

    def augment(self, x: Tensor, training: bool) -> Tensor:
        sharpness = self._each(x, *self.factor) * 2.0
        kernel = np.full((3, 3, x._data.shape[-1], 1), 1 / 13, x._data.dtype)
        kernel[1, 1] = 5 / 13
        smooth = depthwise_conv2d(x, beside(x, kernel), [1, 1, 1, 1], "SAME")
        return clip(x + (1.0 - sharpness) * (smooth - x), *self.value_range)


class RandomGaussianBlur(Augmentation):
    """Images blurred with a Gaussian of a deviation from ``sigma``, of its own along each side.

    An image is changed with a chance from ``factor``; all are clipped to ``value_range``. One
    number f is (0, f), for ``sigma`` as well. ``kernel_size`` is an odd int, or two of them. Raises
    ValueError for another, and for a factor or sigma outside [0, 1].
    """

    def __init__(
        self,
        factor: Factor = 1.0,
        kernel_size: int | Sequence[int] = 3,
        sigma: Factor = 1.0,
        value_range: Sequence[float] = (0, 255),
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.factor = factor_range("factor", factor, 0.0, 1.0)
        sizes = (kernel_size,) * 2 if isinstance(kernel_size, int) else tuple(kernel_size)
        if len(sizes) != 2 or any(not isinstance(n, int) or n < 1 or n % 2 == 0 for n in sizes):
            raise ValueError(f"kernel_size must be an odd int or two of them, not {kernel_size!r}")
        self.kernel_size = sizes
        self.sigma = factor_range("sigma", sigma, 0.0, 1.0)
        self.value_range = value_bounds(value_range)

    def augment(self, x: Tensor, training: bool) -> Tensor:
        chosen = self._chosen(x, self.factor)
        y = x
        for axis, size in zip((1, 2), self.kernel_size, strict=True):
            deviation = self._draw((x._data.shape[0], 1, 1, 1), *self.sigma) + 1e-6
            y = weighted(y, axis, bell(deviation, size))
        return clip(select(chosen, y, x), *self.value_range)
