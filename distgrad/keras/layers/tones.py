"""Values of pixels changed one by one: inverted, in fewer steps, or spread over their range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.keras.layers.augmentation import Valued
from distgrad.keras.layers.core import whole_number
from distgrad.keras.layers.image_layer import (
    Augmentation,
    Factor,
    ImageLayer,
    factor_range,
    rescaled,
    value_bounds,
)
from distgrad.ops import random
from distgrad.ops.casting import cast
from distgrad.ops.clipping import clip, maximum
from distgrad.ops.indexing import gather, take_grad
from distgrad.ops.layout import beside
from distgrad.ops.logic import equal, greater, less, select
from distgrad.ops.reduce import reduce_max, reduce_min, reduce_sum
from distgrad.ops.rounding import floor, round
from distgrad.ops.scan import cumsum
from distgrad.ops.shape import reshape

_BYTES = (0.0, 255.0)


class RandomInvert(Valued):
    """The largest value minus each pixel, for images chosen with a chance from ``factor``.

    One number f is a chance from (0, f). Raises ValueError for a factor outside [0, 1].
    """

    lowest = 0.0

    def __init__(
        self,
        factor: Factor = 1.0,
        value_range: Sequence[float] = (0, 255),
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(factor, value_range, seed, **kwargs)

    def augment(self, x: Tensor, training: bool) -> Tensor:
        return select(self._chosen(x, self.factor), self.value_range[1] - x, x)


class RandomPosterization(Augmentation):
    """Only the first bits of each value: ``factor`` of eight, or a number of them that is drawn.

    As in Keras, two ints are a range without its last number, and one int f is (1, f); in (f, f)
    f bits are kept. Raises ValueError for a factor that is not whole or outside [1, 8].
    """

    def __init__(
        self,
        factor: int | Sequence[int],
        value_range: Sequence[float] = (0, 255),
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        low, high = factor_range("factor", factor, 1, 8)
        self.factor = whole_number("factor", low), whole_number("factor", high)
        self.value_range = value_bounds(value_range)

    def augment(self, x: Tensor, training: bool) -> Tensor:
        low, high = self.factor
        bits = random.uniform(
            (x._data.shape[0], 1, 1, 1), low, max(high, low + 1), np.int64, self.seed
        )
        step = gather(beside(x, (2.0 ** (8 - np.arange(9))).astype(x._data.dtype)), bits)
        values = clip(rescaled(x, self.value_range, _BYTES), *_BYTES)
        return rescaled(floor(values / step) * step, _BYTES, self.value_range)


class Solarization(Augmentation):
    """Pixels from a threshold on inverted within ``value_range``, after something was added.

    Both are shares of that range, from ``threshold_factor`` and ``addition_factor``; one number f
    is (0, f). (Keras's code forgets to scale the lower of two numbers.) Raises ValueError for a
    factor outside [0, 1].
    """

    def __init__(
        self,
        addition_factor: Factor = 0.0,
        threshold_factor: Factor = 0.0,
        value_range: Sequence[float] = (0, 255),
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, **kwargs)
        self.addition_factor = factor_range("addition_factor", addition_factor, 0.0, 1.0)
        self.threshold_factor = factor_range("threshold_factor", threshold_factor, 0.0, 1.0)
        self.value_range = value_bounds(value_range)

    def augment(self, x: Tensor, training: bool) -> Tensor:
        more = self._each(x, *self.addition_factor) * 255.0
        threshold = self._each(x, *self.threshold_factor) * 255.0
        values = clip(rescaled(x, self.value_range, _BYTES) + more, *_BYTES)
        values = select(less(values, threshold), values, 255.0 - values)
        return rescaled(values, _BYTES, self.value_range)


class AutoContrast(ImageLayer):
    """The values of each channel of an image spread over all of ``value_range``, always.

    A channel of one value stays as it is.
    """

    acts_always = True

    def __init__(self, value_range: Sequence[float] = (0, 255), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.value_range = value_bounds(value_range)

    def augment(self, x: Tensor, training: bool) -> Tensor:
        values = rescaled(x, self.value_range, _BYTES)
        low, high = (f(values, [1, 2], keepdims=True) for f in (reduce_min, reduce_max))
        flat = equal(low, high)
        scale = 255.0 / select(flat, 1.0, high - low)
        spread = clip(values * scale - low * scale, *_BYTES)
        return select(flat, x, rescaled(spread, _BYTES, self.value_range))


class Equalization(ImageLayer):
    """The values of each channel spread so that all ``bins`` parts of the range are as frequent.

    As in Keras, the frequencies are those of a whole batch, and ``training=False`` leaves images as
    they are. A channel within one bin stays as it is. Raises ValueError for bins that are not a
    positive int.
    """

    def __init__(
        self,
        value_range: Sequence[float] = (0, 255),
        bins: int = 256,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format, **kwargs)
        self.value_range = value_bounds(value_range)
        self.bins = whole_number("bins", bins)

    def augment(self, x: Tensor, training: bool) -> Tensor:
        channels = x._data.shape[-1]
        values = rescaled(x, self.value_range, _BYTES)
        first = beside(x, np.arange(channels) * self.bins)  # the bins of one channel, then the next
        at = cast(clip(values / 255.0 * (self.bins - 1.0), 0.0, self.bins - 1.0), np.int64) + first
        at = reshape(at, (-1,))
        ones = beside(x, np.ones(at._data.shape))
        counts = bind(take_grad, ones, at, shape=(channels * self.bins,), axis=0)
        counts = reshape(counts, (channels, self.bins))
        below = cumsum(counts, axis=1)
        total = reduce_max(below, [1], keepdims=True)
        least = reduce_min(select(greater(below, 0.0), below, total), [1], keepdims=True)
        table = clip(round((below - least) * 255.0 / maximum(total - least, 1.0)), *_BYTES)
        spread = reshape(gather(reshape(table, (-1,)), at), x._data.shape)
        filled = reduce_sum(cast(greater(counts, 0.0), np.float32), [1])
        y = select(greater(filled, 1.0), cast(spread, x._data.dtype), values)
        return rescaled(y, _BYTES, self.value_range)
