"""Noise in training: dropout, of elements or of whole channels, and Gaussian noise.

All of these are the identity unless ``training=True``; every call draws anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.keras import regularizers
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.core import data_format_of, fraction, whole_number
from distgrad.ops import nn, random
from distgrad.ops.casting import cast
from distgrad.ops.logic import greater_equal

_LOWEST = -1.6732632423543772 * 1.0507009873554805  # of SELU


class BaseDropout(Layer):
    """Zeroes a fraction of its input and scales the rest. ValueError for a rate outside [0, 1]."""

    supports_masking = True
    takes_kinds = ("sparse",)  # which stays as it is, but for training
    noise_shape: Sequence[int | None] | None = None

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = fraction("rate", rate)
        self.seed = seed

    @property
    def of_each_value(self) -> bool:  # type: ignore[override]
        return self.noise_shape is None

    def _told_shape(self, shape: Any) -> Any:
        return shape

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        if not training or self.rate == 0:
            return x
        if self.rate == 1:
            return x * 0.0
        return nn.dropout(x, self.rate, self.noise_shape, seed=self.seed)


class Dropout(BaseDropout):
    """Zeroes a fraction of its input and scales the rest.

    ``noise_shape`` broadcasts to the input's shape (None stands for the input's own size): an axis
    of 1 is kept or dropped whole. Raises ValueError for a rate outside [0, 1] or a noise_shape that
    holds anything but positive ints and None. Source: Srivastava et al. 2014.
    """

    def __init__(
        self,
        rate: float,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(rate, seed, **kwargs)
        if isinstance(noise_shape, str) or not isinstance(noise_shape, (Sequence, type(None))):
            raise ValueError(f"noise_shape must be a list of ints and None, not {noise_shape!r}")
        for n in noise_shape or ():
            if n is not None:
                whole_number("noise_shape: each axis", n)
        self.noise_shape = None if noise_shape is None else tuple(noise_shape)


class SpatialDropout1D(BaseDropout):
    """Dropout of whole channels of ``[batch, time, channels]``. Source: Tompson et al. 2014."""

    noise_shape = (None, 1, None)
    _not_in_config = (*Layer._not_in_config, "trainable")  # Keras takes none


class _SpatialDropout(BaseDropout):
    """Dropout of whole channels, over ``rank`` axes."""

    rank: int
    _not_in_config = (*Layer._not_in_config, "trainable")  # Keras takes none

    def __init__(
        self, rate: float, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(rate, seed, **kwargs)
        self.data_format = data_format_of(data_format)
        space = (1,) * self.rank
        first = self.data_format == "channels_first"
        self.noise_shape = (None, None, *space) if first else (None, *space, None)


class SpatialDropout2D(_SpatialDropout):
    """Dropout of whole channels of images. Source: Tompson et al. 2014."""

    rank = 2


class SpatialDropout3D(_SpatialDropout):
    """Dropout of whole channels of volumes. Source: Tompson et al. 2014."""

    rank = 3


class AlphaDropout(Layer):
    """Dropout that keeps mean and variance of what SELU gives: dropped values become its lowest.

    ``noise_shape`` broadcasts to the input's shape. Raises ValueError for a rate outside [0, 1].
    Source: Klambauer et al. 2017.
    """

    supports_masking = True
    takes_kinds = ("sparse",)

    def __init__(
        self,
        rate: float,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rate = fraction("rate", rate)
        self.noise_shape = noise_shape
        self.seed = seed

    @property
    def of_each_value(self) -> bool:  # type: ignore[override]
        return self.noise_shape is None

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        if not training or self.rate == 0:
            return x
        shape = x._data.shape
        if self.noise_shape is not None:
            pairs = zip(self.noise_shape, shape, strict=True)
            shape = tuple(size if n is None else n for n, size in pairs)
        draw = random.uniform(shape, seed=self.seed)
        kept = cast(greater_equal(draw, self.rate), x._data.dtype)
        scale = ((1 - self.rate) * (1 + self.rate * _LOWEST**2)) ** -0.5
        return (x * kept + _LOWEST * (1 - kept)) * scale - scale * _LOWEST * self.rate


class ActivityRegularization(Layer):
    """The identity, with a penalty of its input among the losses: ``l1 * |x| + l2 * x ** 2``."""

    supports_masking = True
    _not_in_config = (*Layer._not_in_config, "activity_regularizer")

    def __init__(self, l1: float = 0.0, l2: float = 0.0, **kwargs: Any) -> None:
        super().__init__(activity_regularizer=regularizers.L1L2(l1, l2), **kwargs)
        self.l1, self.l2 = l1, l2

    def call(self, x: Tensor) -> Tensor:
        return x


class GaussianNoise(Layer):
    """Adds normal noise of mean 0. Raises ValueError for a ``stddev`` outside [0, 1]."""

    of_each_value = supports_masking = True
    takes_kinds = ("sparse",)

    def __init__(self, stddev: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stddev = fraction("stddev", stddev)
        self.seed = seed

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        if not training or self.stddev == 0:
            return x
        return x + random.normal(x._data.shape, 0.0, self.stddev, x._data.dtype, self.seed)


class GaussianDropout(Layer):
    """Multiplies with normal noise of mean 1 and variance ``rate / (1 - rate)``.

    Raises ValueError for a rate outside [0, 1). Source: Srivastava et al. 2014.
    """

    of_each_value = supports_masking = True
    takes_kinds = ("sparse",)

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = fraction("rate", rate, below_one=True)
        self.seed = seed

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        if not training or self.rate == 0:
            return x
        deviation = math.sqrt(self.rate / (1 - self.rate))
        return x * random.normal(x._data.shape, 1.0, deviation, x._data.dtype, self.seed)
