"""Parts of images erased at random in training, and the boxes that such parts are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.tensor import Tensor
from distgrad.keras.layers.image_layer import Augmentation, Factor, factor_range, value_bounds
from distgrad.ops import random
from distgrad.ops.casting import cast
from distgrad.ops.clipping import clip
from distgrad.ops.layout import beside
from distgrad.ops.logic import greater_equal, less, logical_and, select
from distgrad.ops.powers import sqrt


def inside_boxes(x: Tensor, down: tuple[Tensor, Tensor], across: tuple[Tensor, Tensor]) -> Tensor:
    """Whether a pixel of ``x`` lies in the box of its image: [batch, height, width, 1].

    A box is the share of each side that it takes and where it begins: 0 first, 1 as far as it goes.
    """

    def between(axis: int, share: Tensor, place: Tensor) -> Tensor:
        size = x._data.shape[axis]
        shape = tuple(size if i == axis else 1 for i in range(4))
        at = beside(share, np.arange(size, dtype=share._data.dtype).reshape(shape))
        length = share * float(size)
        start = place * (size - length)
        return logical_and(greater_equal(at, start), less(at, start + length))

    return logical_and(between(1, *down), between(2, *across))


class RandomErasing(Augmentation):
    """A box of each image filled: with ``fill_value``, or with noise, clipped to ``value_range``.

    An image is changed with a chance from ``factor``. Height and width of its box are roots of
    numbers from ``scale``, as shares of the image. One number f is (0, f). Raises ValueError for a
    factor or scale outside [0, 1], and for a fill value that is not a number or one per channel.
    """

    def __init__(
        self,
        factor: Factor = 1.0,
        scale: Factor = (0.02, 0.33),
        fill_value: float | Sequence[float] | None = None,
        value_range: Sequence[float] = (0, 255),
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.factor = factor_range("factor", factor, 0.0, 1.0)
        self.scale = factor_range("scale", scale, 0.0, 1.0)
        self.value_range = value_bounds(value_range)
        self.fill_value = fill_value
        if fill_value is not None and np.asarray(fill_value).dtype.kind not in "iuf":
            raise ValueError(f"fill_value must be None, or one number or three, not {fill_value!r}")

    def augment(self, x: Tensor, training: bool) -> Tensor:
        shape = (x._data.shape[0], 1, 1, 1)
        down, across = (
            (sqrt(self._draw(shape, *self.scale)), self._draw(shape, 0.0, 1.0)) for _ in range(2)
        )
        erased = logical_and(inside_boxes(x, down, across), self._chosen(x, self.factor))
        return select(erased, clip(self._filling(x), *self.value_range), x)

    def _filling(self, x: Tensor) -> Tensor:
        if self.fill_value is None:
            noise = random.normal(x._data.shape, seed=self.seed)
            return cast(noise * self.value_range[1], x._data.dtype)
        given = np.asarray(self.fill_value, x._data.dtype)
        if given.shape not in ((), x._data.shape[-1:]):
            raise ValueError(
                f"{self.name!r}: fill_value {self.fill_value!r} is not one number, or one for each "
                f"of {x._data.shape[-1]} channels"
            )
        return beside(x, given)
