"""Adaptive pooling: so many windows along each spatial axis, whatever there is of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.core import check_rank, data_format_of, whole_numbers
from distgrad.keras.ops.regions import adaptive_average_pool, adaptive_max_pool


class _AdaptivePooling(Layer):
    """Base of these: ``output_size`` windows along each axis, as equal as they can be.

    Raises ValueError for sizes that are not positive ints, an unknown data format, and an input of
    another rank.
    """

    rank: int
    pool: Callable[..., Tensor]

    def __init__(
        self, output_size: int | Sequence[int], data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.output_size = whole_numbers("output_size", output_size, self.rank)
        self.data_format = data_format_of(data_format)

    def call(self, x: Tensor) -> Tensor:
        check_rank(self, x._data.shape, self.rank + 2)
        return type(self).pool(x, self.output_size, self.data_format)


class AdaptiveAveragePooling1D(_AdaptivePooling):
    """The means of ``output_size`` windows over time."""

    rank = 1
    pool = staticmethod(adaptive_average_pool)


class AdaptiveAveragePooling2D(AdaptiveAveragePooling1D):
    """The means of ``output_size`` windows of images: rows by columns, or one number for both."""

    rank = 2


class AdaptiveAveragePooling3D(AdaptiveAveragePooling1D):
    """The means of ``output_size`` windows of volumes: three numbers, or one for all."""

    rank = 3


class AdaptiveMaxPooling1D(_AdaptivePooling):
    """The largest elements of ``output_size`` windows over time."""

    rank = 1
    pool = staticmethod(adaptive_max_pool)


class AdaptiveMaxPooling2D(AdaptiveMaxPooling1D):
    """The largest elements of ``output_size`` windows of images."""

    rank = 2


class AdaptiveMaxPooling3D(AdaptiveMaxPooling1D):
    """The largest elements of ``output_size`` windows of volumes."""

    rank = 3
