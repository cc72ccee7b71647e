"""Images changed at random in training: flipped, moved, cropped, made brighter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.tensor import Tensor
from distgrad.keras.layers.core import one_of, whole_number
from distgrad.keras.layers.image_layer import Augmentation, Factor, factor_range, value_bounds
from distgrad.keras.layers.preprocessing import fitted
from distgrad.ops.casting import cast
from distgrad.ops.clipping import clip
from distgrad.ops.indexing import gather
from distgrad.ops.layout import beside, reverse
from distgrad.ops.logic import greater, less_equal, select
from distgrad.ops.reduce import reduce_mean
from distgrad.ops.rounding import floor
from distgrad.ops.shape import stack
from distgrad.ops.trigonometric import cos, sin
from distgrad.ops.warp import FILL_MODES, INTERPOLATIONS, warp


class RandomFlip(Augmentation):
    """Half of the images mirrored: "horizontal", "vertical", or both ways.

    As in Keras 3, an image that is mirrored one way with both asked for is mirrored both ways.
    Raises ValueError for another mode.
    """

    def __init__(
        self,
        mode: str = "horizontal_and_vertical",
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.mode = one_of("mode", mode, "horizontal", "vertical", "horizontal_and_vertical")

    def augment(self, x: Tensor, training: bool) -> Tensor:
        flips = less_equal(self._draw((x._data.shape[0], 1, 1, 1), 0, 1), 0.5)
        axes = [axis for axis, word in ((1, "vertical"), (2, "horizontal")) if word in self.mode]
        return select(flips, reverse(x, axes), x)


class Warping(Augmentation):
    """Base of what moves pixels: ``maps`` gives the six numbers of each image's map.

    Raises ValueError for an unknown fill mode or interpolation.
    """

    def __init__(
        self,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.fill_mode = one_of("fill_mode", fill_mode, *FILL_MODES)
        self.interpolation = one_of("interpolation", interpolation, *INTERPOLATIONS)
        self.fill_value = fill_value

    def augment(self, x: Tensor, training: bool) -> Tensor:
        samples, height, width, _ = x._data.shape
        maps = stack(self.maps(samples, height, width), axis=1)
        return warp(x, maps, self.interpolation, self.fill_mode, self.fill_value)

    def maps(self, samples: int, height: int, width: int) -> list[Tensor]:
        raise NotImplementedError


class RandomRotation(Warping):
    """Images turned by an angle from ``factor``, in full turns: 0.1 is from -36 to 36 degrees.

    Raises ValueError for a factor outside [-1, 1].
    """

    def __init__(self, factor: Factor, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.factor = factor_range("factor", factor, -1.0, 1.0)

    def maps(self, samples: int, height: int, width: int) -> list[Tensor]:
        angle = self._draw((samples,), *self.factor) * (2 * math.pi)
        c, s = cos(angle), sin(angle)
        x, y = 0.5 * (width - 1), 0.5 * (height - 1)  # what stays in its place
        return [c, -s, x - c * x + s * y, s, c, y - s * x - c * y]


class RandomTranslation(Warping):
    """Images moved down and to the right by fractions of their height and width.

    Raises ValueError for a factor outside [-1, 1].
    """

    def __init__(
        self, height_factor: Factor, width_factor: Factor, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.height_factor, self.width_factor = height_factor, width_factor
        self._down = factor_range("height_factor", height_factor, -1.0, 1.0)
        self._right = factor_range("width_factor", width_factor, -1.0, 1.0)

    def maps(self, samples: int, height: int, width: int) -> list[Tensor]:
        down = self._draw((samples,), *self._down) * height
        right = self._draw((samples,), *self._right) * width
        none = down * 0.0
        one = none + 1.0
        return [one, none, -right, none, one, -down]


class RandomZoom(Warping):
    """Images seen from further away by ``height_factor`` (0.2: 20 % more), or from nearer (-0.2).

    Without ``width_factor`` the width goes with the height. Raises ValueError for a factor outside
    (-1, 1].
    """

    def __init__(
        self, height_factor: Factor, width_factor: Factor | None = None, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.height_factor, self.width_factor = height_factor, width_factor
        least = math.nextafter(-1.0, 0.0)
        self._height = factor_range("height_factor", height_factor, least, 1.0)
        self._width = None
        if width_factor is not None:
            self._width = factor_range("width_factor", width_factor, least, 1.0)

    def maps(self, samples: int, height: int, width: int) -> list[Tensor]:
        down = 1.0 + self._draw((samples,), *self._height)
        across = down if self._width is None else 1.0 + self._draw((samples,), *self._width)
        none = down * 0.0
        x, y = (1.0 - across) * (0.5 * (width - 1)), (1.0 - down) * (0.5 * (height - 1))
        return [across, none, x, none, down, y]


class RandomShear(Warping):
    """Images slanted: each row moved by a share from ``x_factor`` of its number, columns likewise.

    One number f is (0, f); half of the images go the other way. Raises ValueError for a factor
    outside [0, 1].
    """

    def __init__(
        self,
        x_factor: Factor = 0.0,
        y_factor: Factor = 0.0,
        interpolation: str = "bilinear",
        fill_mode: str = "reflect",
        fill_value: float = 0.0,
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, seed, fill_value, data_format, **kwargs)
        self.x_factor = factor_range("x_factor", x_factor, 0.0, 1.0)
        self.y_factor = factor_range("y_factor", y_factor, 0.0, 1.0)

    def maps(self, samples: int, height: int, width: int) -> list[Tensor]:
        way = select(greater(self._draw((samples,), 0.0, 1.0), 0.5), -1.0, 1.0)
        across = self._draw((samples,), *self.x_factor) * way
        down = self._draw((samples,), *self.y_factor) * way
        none = down * 0.0
        one = none + 1.0
        return [one, across, none, down, one, none]


class RandomCrop(Augmentation):
    """A part of ``height`` by ``width``, at the same random place for a whole batch.

    Where ``training=False`` or an image is too small, it is the largest part of that form in the
    middle, resized. (Keras 3.15 says so as well, but leaves images as they are in the first case
    and takes more than that part in the second.) Raises ValueError for sizes that are not positive
    ints.
    """

    acts_always = True

    def __init__(
        self,
        height: int,
        width: int,
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.height = whole_number("height", height)
        self.width = whole_number("width", width)

    def augment(self, x: Tensor, training: bool) -> Tensor:
        _, height, width, _ = x._data.shape
        if not training or height <= self.height or width <= self.width:
            return fitted(x, (self.height, self.width))
        for axis, old, new in ((1, height, self.height), (2, width, self.width)):
            start = cast(floor(self._draw((), 0.0, float(old - new + 1))), np.int64)
            x = gather(x, start + beside(start, np.arange(new)), axis=axis)
        return x


class Valued(Augmentation):
    """Changes values by a factor from ``lowest`` to 1, within their range."""

    lowest: float

    def __init__(
        self,
        factor: Factor,
        value_range: Sequence[float] = (0, 255),
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, **kwargs)
        self.factor = factor_range("factor", factor, self.lowest, 1.0)
        self.value_range = value_bounds(value_range)


class Shared(Valued):
    """What has a share as its factor, from 0 to 1; one number f is (0, f)."""

    lowest = 0.0

    def __init__(
        self,
        factor: Factor,
        value_range: Sequence[float] = (0, 255),
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(factor, value_range, seed, data_format=data_format, **kwargs)


class RandomContrast(Valued):
    """The distance of each pixel to the mean of its channel times 1 - ``factor`` to 1 + it.

    As in Keras 3 one number f is (0, f), that is contrast from 1 to 1 + f. The result is clipped
    to ``value_range``. Raises ValueError for a factor outside [0, 1].
    """

    lowest = 0.0

    def augment(self, x: Tensor, training: bool) -> Tensor:
        times = self._each(x, 1.0 - self.factor[0], 1.0 + self.factor[1])
        mean = reduce_mean(x, [1, 2], keepdims=True)
        return clip((x - mean) * times + mean, *self.value_range)


class RandomBrightness(Valued):
    """A share from ``factor`` of ``value_range`` added to each image, clipped to that range.

    Raises ValueError for a factor outside [-1, 1].
    """

    lowest = -1.0

    def augment(self, x: Tensor, training: bool) -> Tensor:
        low, high = self.value_range
        return clip(x + self._each(x, *self.factor) * (high - low), low, high)
