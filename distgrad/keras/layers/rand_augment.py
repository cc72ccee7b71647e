"""RandAugment and AugMix: a few of many ways to change images, drawn for each of them."""

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
from distgrad.ops.casting import cast, zeros_like
from distgrad.ops.clipping import clip
from distgrad.ops.distributions import gamma
from distgrad.ops.logic import equal, select
from distgrad.ops.reduce import reduce_sum


class RandAugment(Augmentation):
    """``num_ops`` of eleven layers one after the other, drawn for each image, all of one strength.

    They are shear, translation, rotation, brightness, colour degeneration, contrast, sharpness,
    posterization, solarization, auto contrast and equalization. (Keras draws them once for a
    batch.) Raises ValueError for a factor outside [0, 1] or ``num_ops`` that is not 0 or more.
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
        self.num_ops = whole_number("num_ops", num_ops, 0)
        self.factor = factor_range("factor", factor, 0.0, 1.0)
        self.interpolation = interpolation
        self._parts = _ways(self.factor, self.value_range, interpolation, seed)

    def augment(self, x: Tensor, training: bool) -> Tensor:
        for _ in range(self.num_ops):
            x = _one_of(self._parts, x, training, len(self._parts), self.seed)
        return x


class AugMix(Augmentation):
    """Each image mixed with changed ones: ``num_chains`` of up to ``chain_depth`` changes.

    The changes are the layers of `RandAugment`, or without ``all_ops`` those that leave brightness,
    colours, contrast and sharpness alone. The shares of the chains, and of the image, come from
    distributions of Dirichlet and beta, of parameter ``alpha``. (Keras draws all of it once for a
    batch.) Raises ValueError for a factor outside [0, 1], counts that are not positive ints, or an
    alpha that is not positive. Source: Hendrycks et al., 2020.
    """

    def __init__(
        self,
        value_range: Sequence[float] = (0, 255),
        num_chains: int = 3,
        chain_depth: int = 3,
        factor: Factor = 0.3,
        alpha: float = 1.0,
        all_ops: bool = True,
        interpolation: str = "bilinear",
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.value_range = value_bounds(value_range)
        self.num_chains = whole_number("num_chains", num_chains)
        self.chain_depth = whole_number("chain_depth", chain_depth)
        self.factor = factor_range("factor", factor, 0.0, 1.0)
        if not alpha > 0:
            raise ValueError(f"alpha must be positive, not {alpha!r}")
        self.alpha, self.all_ops, self.interpolation = alpha, all_ops, interpolation
        parts = _ways(self.factor, self.value_range, interpolation, seed)
        self._parts = [part for part in parts if all_ops or not isinstance(part, _OF_COLOURS)]

    def augment(self, x: Tensor, training: bool) -> Tensor:
        shape = (x._data.shape[0], 1, 1, 1)
        drawn = cast(gamma((self.num_chains + 2, *shape), self.alpha, seed=self.seed), x.dtype)
        chains, own, mixed = drawn[2:], drawn[0] / (drawn[0] + drawn[1]), zeros_like(x)
        shares = chains / reduce_sum(chains, 0, keepdims=True)
        for chain in range(self.num_chains):
            y = x
            for _ in range(self.chain_depth):  # one number more than there are changes: none
                y = _one_of(self._parts, y, training, len(self._parts) + 1, self.seed)
            mixed = mixed + shares[chain] * y
        return clip(own * x + (1.0 - own) * mixed, *self.value_range)


_OF_COLOURS = (RandomBrightness, RandomColorDegeneration, RandomContrast, RandomSharpness)


def _ways(
    factor: tuple[float, float], value_range: tuple[float, float], interpolation: str, seed: Any
) -> list[ImageLayer]:
    """The eleven layers, all of one strength."""
    moved: dict[str, Any] = {"interpolation": interpolation, "seed": seed}
    valued: dict[str, Any] = {"value_range": value_range, "seed": seed}
    return [
        RandomShear(factor, factor, **moved),
        RandomTranslation(factor, factor, **moved),
        RandomRotation(factor, **moved),
        RandomBrightness(factor, **valued),
        RandomColorDegeneration(factor, **valued),
        RandomContrast(factor, **valued),
        RandomSharpness(factor, **valued),
        RandomPosterization(max(1, int(8 * factor[1])), **valued),
        Solarization(factor, factor, **valued),
        AutoContrast(value_range),
        Equalization(value_range),
    ]


def _one_of(
    parts: Sequence[ImageLayer], x: Tensor, training: bool, count: int, seed: Any
) -> Tensor:
    """Each image changed by the layer whose number it draws, of ``count``; by none beyond them."""
    drawn = random.uniform((x._data.shape[0], 1, 1, 1), 0, count, np.int64, seed)
    y = x
    for number, part in enumerate(parts):
        y = select(equal(drawn, number), part.augment(x, training), y)
    return y
