"""Images bent like rubber, at random in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.tensor import Tensor
from distgrad.keras.layers.blurring import bell, weighted
from distgrad.keras.layers.core import one_of
from distgrad.keras.layers.image_layer import Augmentation, Factor, factor_range, value_bounds
from distgrad.keras.ops.coordinates import inside
from distgrad.ops import random
from distgrad.ops.casting import cast
from distgrad.ops.clipping import clip, maximum
from distgrad.ops.indexing import gather
from distgrad.ops.layout import beside
from distgrad.ops.logic import logical_and, select
from distgrad.ops.rounding import floor, rint
from distgrad.ops.shape import reshape
from distgrad.ops.warp import INTERPOLATIONS


class RandomElasticTransform(Augmentation):
    """Pixels moved by noise that is smooth, by more and more smoothly with ``scale``.

    An image is changed with a chance from ``factor``, by a scale of its own; one number f is (0, f)
    for both. The result is clipped to ``value_range``. Raises ValueError for a factor or scale
    outside [0, 1], or another interpolation or fill mode.
    """

    def __init__(
        self,
        factor: Factor = 1.0,
        scale: Factor = 1.0,
        interpolation: str = "bilinear",
        fill_mode: str = "reflect",
        fill_value: float = 0.0,
        value_range: Sequence[float] = (0, 255),
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.factor = factor_range("factor", factor, 0.0, 1.0)
        self.scale = factor_range("scale", scale, 0.0, 1.0)
        self.interpolation = one_of("interpolation", interpolation, *INTERPOLATIONS)
        modes = ("constant", "nearest", "wrap", "mirror", "reflect")
        self.fill_mode = one_of("fill_mode", fill_mode, *modes)
        self.fill_value = fill_value
        self.value_range = value_bounds(value_range)

    def augment(self, x: Tensor, training: bool) -> Tensor:
        if not (self.factor[1] and self.scale[1]):
            return x
        samples, height, width, _ = x._data.shape
        chosen = self._chosen(x, self.factor)
        scale = self._draw((samples, 1, 1, 1), *self.scale)
        far, smooth = 0.1 * max(height, width), 0.05 * min(height, width)
        deviation = maximum(scale * smooth, 1e-6)
        weights = bell(deviation, 2 * int(3 * smooth * self.scale[1]) + 1, reach=3.0)

        def bent(size: int, axis: int) -> Tensor:
            noise = random.normal((samples, height, width, 1), seed=self.seed) * deviation
            noise = weighted(weighted(noise, 1, weights), 2, weights)
            shape = tuple(size if i == axis else 1 for i in range(4))
            places = beside(noise, np.arange(size, dtype=np.float32).reshape(shape))
            return places + noise * (scale * far)

        y = self._read(x, bent(height, 1), bent(width, 2))
        return clip(select(chosen, y, x), *self.value_range)

    def _read(self, x: Tensor, down: Tensor, across: Tensor) -> Tensor:
        """The values of each image at places [batch, height, width, 1]."""
        samples, height, width, channels = x._data.shape
        rows = reshape(x, (-1, channels))
        first = np.arange(samples, dtype=np.int64).reshape(-1, 1, 1, 1) * (height * width)
        total: Any = 0.0
        for row, row_valid, row_share in self._sources(down, height):
            for column, column_valid, column_share in self._sources(across, width):
                at = row * width + column + beside(x, first)
                found = gather(rows, reshape(at, (samples, height, width)))
                if self.fill_mode == "constant":
                    valid = logical_and(row_valid, column_valid)
                    found = select(valid, found, float(self.fill_value))
                total = total + cast(row_share * column_share, x._data.dtype) * found
        return total

    def _sources(self, at: Tensor, size: int) -> list[tuple[Tensor, Tensor, Any]]:
        """What a place along an axis is read from: elements, whether it has them, their shares."""
        if self.interpolation == "nearest":
            return [(*inside(cast(rint(at), np.int64), size, self.fill_mode), at * 0.0 + 1.0)]
        low = floor(at)
        index, part = cast(low, np.int64), at - low
        nodes = ((index, 1.0 - part), (index + 1, part))
        return [(*inside(i, size, self.fill_mode), share) for i, share in nodes]
