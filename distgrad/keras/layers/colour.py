"""Colours changed at random in training: hue, saturation, less colour or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.keras.layers.augmentation import RandomBrightness, RandomContrast, Shared
from distgrad.keras.layers.core import fraction
from distgrad.keras.layers.image_layer import Augmentation, Factor, rescaled, value_bounds
from distgrad.ops.clipping import clip
from distgrad.ops.image import rgb_to_grayscale
from distgrad.ops.images.colour import hsv_to_rgb, rgb_to_hsv
from distgrad.ops.logic import greater, less, select
from distgrad.ops.shape import stack

_EPSILON = 1e-7  # of Keras


def _gray(x: Tensor) -> Tensor:
    return x if x._data.shape[-1] == 1 else rgb_to_grayscale(x)


class RandomHue(Shared):
    """The hue of RGB images turned, either way, by a share from ``factor`` of half the circle.

    One number f is (0, f). Raises ValueError for a factor outside [0, 1], and for images of
    other than 3 channels.
    """

    def augment(self, x: Tensor, training: bool) -> Tensor:
        backwards = greater(self._each(x, 0.0, 1.0), 0.5)
        turn = self._each(x, *self.factor) * 0.5
        hsv = rgb_to_hsv(rescaled(x, self.value_range, (0, 1)))
        hue = hsv[..., 0] + select(backwards, -turn, turn)[..., 0]
        hue = select(greater(hue, 1.0), hue - 1.0, hue)
        hue = select(less(hue, 0.0), hue + 1.0, hue)
        rgb = hsv_to_rgb(stack([hue, hsv[..., 1], hsv[..., 2]], -1))
        return rescaled(clip(rgb, 0.0, 1.0), (0, 1), self.value_range)


class RandomSaturation(Shared):
    """The saturation of RGB images times ``f / (1 - f)``: 0 is gray, 0.5 is as it was, 1 all of it.

    As the documentation of Keras says, one number f is (0, f) and 1 is full saturation; its code
    makes half of the images gray in the first case, and leaves the range of values in the second.
    Raises ValueError for a factor outside [0, 1], and for images of other than 3 channels.
    """

    def augment(self, x: Tensor, training: bool) -> Tensor:
        share = self._each(x, *self.factor)
        hsv = rgb_to_hsv(rescaled(x, self.value_range, (0, 1)))
        times = (share / (1.0 - share + _EPSILON))[..., 0]
        saturation = clip(hsv[..., 1] * times, 0.0, 1.0)
        rgb = hsv_to_rgb(stack([hsv[..., 0], saturation, hsv[..., 2]], -1))
        return rescaled(rgb, (0, 1), self.value_range)


class RandomColorDegeneration(Shared):
    """A share from ``factor`` of the way from each image to what it is without colours.

    As the documentation of Keras says, one number f is (0, f). Raises ValueError for a factor
    outside [0, 1], and for images of other than 3 channels.
    """

    def augment(self, x: Tensor, training: bool) -> Tensor:
        share = self._each(x, *self.factor)
        return clip(x + share * (_gray(x) - x), *self.value_range)


class RandomGrayscale(Augmentation):
    """Images without colours, in as many channels, each with the chance ``factor``.

    Raises ValueError for a factor outside [0, 1], and for images of other than 3 channels or 1.
    """

    def __init__(
        self,
        factor: float = 0.5,
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.factor = fraction("factor", factor)

    def augment(self, x: Tensor, training: bool) -> Tensor:
        chosen = less(self._draw((x._data.shape[0], 1, 1, 1), 0, 1), self.factor)
        return select(chosen, _gray(x), x)


class RandomColorJitter(Augmentation):
    """`RandomBrightness`, `RandomContrast`, `RandomSaturation` and `RandomHue`, in this order.

    Those without a factor are left out. Raises ValueError for what these layers refuse.
    """

    def __init__(
        self,
        value_range: Sequence[float] = (0, 255),
        brightness_factor: Factor | None = None,
        contrast_factor: Factor | None = None,
        saturation_factor: Factor | None = None,
        hue_factor: Factor | None = None,
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.value_range = value_bounds(value_range)
        self.brightness_factor, self.contrast_factor = brightness_factor, contrast_factor
        self.saturation_factor, self.hue_factor = saturation_factor, hue_factor
        self._parts = [
            kind(factor, self.value_range, seed=seed)
            for kind, factor in (
                (RandomBrightness, brightness_factor),
                (RandomContrast, contrast_factor),
                (RandomSaturation, saturation_factor),
                (RandomHue, hue_factor),
            )
            if factor is not None
        ]

    def augment(self, x: Tensor, training: bool) -> Tensor:
        for part in self._parts:
            x = part.augment(x, training)
        return x
