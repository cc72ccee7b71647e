"""Images seen from the side, at random in training."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.tensor import Tensor
from distgrad.keras.layers.core import fraction, one_of
from distgrad.keras.layers.image_layer import Augmentation, Factor, factor_range
from distgrad.keras.ops.coordinates import perspective_transform
from distgrad.ops.casting import zeros_like
from distgrad.ops.layout import beside
from distgrad.ops.logic import select
from distgrad.ops.warp import INTERPOLATIONS


class RandomPerspective(Augmentation):
    """Corners moved by up to half of ``scale`` times their distance from the one at the top left.

    An image is changed with a chance from ``factor``; one number f is (0, f). What comes from
    outside is ``fill_value``. Raises ValueError for a factor or scale outside [0, 1], or another
    interpolation.
    """

    def __init__(
        self,
        factor: Factor = 1.0,
        scale: float = 1.0,
        interpolation: str = "bilinear",
        fill_value: float = 0.0,
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.factor = factor_range("factor", factor, 0.0, 1.0)
        self.scale = fraction("scale", scale)
        self.interpolation = one_of("interpolation", interpolation, *INTERPOLATIONS)
        self.fill_value = fill_value

    def augment(self, x: Tensor, training: bool) -> Tensor:
        samples, height, width, _ = x._data.shape
        chosen = self._chosen(x, self.factor)
        moves = self._draw((samples, 4, 2), -0.5 * self.scale, 0.5 * self.scale)
        right, bottom = width - 1.0, height - 1.0
        corners = np.array([[0, 0], [right, 0], [0, bottom], [right, bottom]], np.float32)
        start = zeros_like(moves) + beside(x, corners)
        y = perspective_transform(
            x, start, start + start * moves, self.interpolation, self.fill_value, "channels_last"
        )
        return select(chosen, y, x)
