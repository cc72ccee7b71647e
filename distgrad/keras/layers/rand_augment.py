"""RandAugment: a few of many ways to change images, drawn for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.tensor import Tensor
from distgrad.keras.layers.augmentation import (
    RandomBrightness,
    RandomContrast,
    RandomRotation,
    RandomShear,
    RandomTranslation,
)
from distgrad.keras.layers.blurring import RandomSharpness
from distgrad.keras.layers.colour import RandomColorDegeneration
from distgrad.keras.layers.core import whole_number
from distgrad.keras.layers.image_layer import (
    Augmentation,
    Factor,
    ImageLayer,
    factor_range,
    value_bounds,
)
from distgrad.keras.layers.tones import (
    AutoContrast,
    Equalization,
    RandomPosterization,
    Solarization,
)
from distgrad.ops import random
from distgrad.ops.logic import equal, select


class RandAugment(Augmentation):
    """``num_ops`` of eleven layers one after the other, drawn for each image, all of one strength.

    They are shear, translation, rotation, brightness, colour degeneration, contrast, sharpness,
    posterization, solarization, auto contrast and equalization. (Keras draws them once for a
    batch.) Raises ValueError for a factor outside [0, 1] or ``num_ops`` that is not a positive int.
    """

    def __init__(
        self,
        value_range: Sequence[float] = (0, 255),
        num_ops: int = 2,
        factor: Factor = 0.5,
        interpolation: str = "bilinear",
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.value_range = value_bounds(value_range)
        self.num_ops = whole_number("num_ops", num_ops)
        self.factor = factor_range("factor", factor, 0.0, 1.0)
        self.interpolation = interpolation
        moved: dict[str, Any] = {"interpolation": interpolation, "seed": seed}
        valued: dict[str, Any] = {"value_range": self.value_range, "seed": seed}
        self._parts: list[ImageLayer] = [
            RandomShear(self.factor, self.factor, **moved),
            RandomTranslation(self.factor, self.factor, **moved),
            RandomRotation(self.factor, **moved),
            RandomBrightness(self.factor, **valued),
            RandomColorDegeneration(self.factor, **valued),
            RandomContrast(self.factor, **valued),
            RandomSharpness(self.factor, **valued),
            RandomPosterization(max(1, int(8 * self.factor[1])), **valued),
            Solarization(self.factor, self.factor, **valued),
            AutoContrast(self.value_range),
            Equalization(self.value_range),
        ]

    def augment(self, x: Tensor, training: bool) -> Tensor:
        shape = (x._data.shape[0], 1, 1, 1)
        for _ in range(self.num_ops):
            drawn = random.uniform(shape, 0, len(self._parts), np.int64, self.seed)
            y = x
            for number, part in enumerate(self._parts):
                y = select(equal(drawn, number), part.augment(x, training), y)
            x = y
        return x
