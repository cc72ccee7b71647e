"""Pooling: the largest or the mean element of windows, or of all space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distgrad.core.composite import Composite
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import is_floating
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Tensor
from distgrad.keras.backend import floatx
from distgrad.keras.layers import shaping
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.core import check_rank, data_format_of, one_of, whole_numbers
from distgrad.ops import pooling as ops
from distgrad.ops.casting import cast
from distgrad.ops.logic import select
from distgrad.ops.reduce import reduce_max, reduce_mean, reduce_sum
from distgrad.ops.shape import expand_dims


class Pooling(Layer):
    """Base of pooling over windows; ``strides`` are the ``pool_size`` by default.

    Padding never counts: not as a maximum, nor in a mean. Raises ValueError for sizes that are not
    positive ints, an unknown padding or data format, an input of another rank, or one too small
    for one window.
    """

    one_tensor = True
    rank: int
    pool: Callable[..., Tensor]

    def __init__(
        self,
        pool_size: int | Sequence[int] = 2,
        strides: int | Sequence[int] | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pool_size = whole_numbers("pool_size", pool_size, self.rank)
        moves = pool_size if strides is None else strides
        self.strides = whole_numbers("strides", moves, self.rank)
        self.padding = one_of("padding", str(padding).lower(), "valid", "same")
        self.data_format = data_format_of(data_format)

    @property
    def _windows(self) -> tuple[int, int]:
        """The longest window, and the longest step from one to the next."""
        return max(self.pool_size), max(self.strides)

    def _told_shape(self, shape: Any) -> Any:
        if len(shape) != self.rank + 2:
            return None
        first = 2 if self.data_format == "channels_first" else 1
        space, ones = shape[first : first + self.rank], (1,) * self.rank
        windows = shaping.slid(space, self.pool_size, self.strides, ones, self.padding)
        return (*shape[:first], *windows, *shape[first + self.rank :])

    def call(self, x: Tensor) -> Tensor:
        check_rank(self, x._data.shape, self.rank + 2)
        axes = "DHW"[3 - self.rank :]
        layout = f"NC{axes}" if self.data_format == "channels_first" else f"N{axes}C"
        y = type(self).pool(x, self.pool_size, self.strides, self.padding, layout)
        if 0 in y._data.shape[1:]:
            raise InvalidArgumentError(
                f"{self.name!r}: windows of {self.pool_size} do not fit into an input of shape "
                f"{x._data.shape}"
            )
        return y


class MaxPooling1D(Pooling):
    """The largest element of each window over time."""

    rank = 1
    pool = ops.max_pool


class MaxPooling2D(Pooling):
    """The largest element of each window of images."""

    rank = 2
    pool = ops.max_pool


class MaxPooling3D(Pooling):
    """The largest element of each window of volumes."""

    rank = 3
    pool = ops.max_pool


class AveragePooling1D(Pooling):
    """The mean of each window over time."""

    rank = 1
    pool = ops.avg_pool


class AveragePooling2D(Pooling):
    """The mean of each window of images."""

    rank = 2
    pool = ops.avg_pool


class AveragePooling3D(Pooling):
    """The mean of each window of volumes."""

    rank = 3
    pool = ops.avg_pool


class GlobalPooling(Layer):
    """Base of pooling over all space: ``[batch, channels]``, or axes of 1 with ``keepdims``.

    Raises ValueError for an unknown data format or an input of another rank.
    """

    one_tensor = True
    rank: int

    def __init__(
        self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format_of(data_format)
        self.keepdims = keepdims

    def _told_shape(self, shape: Any) -> Any:
        if len(shape) != self.rank + 2:
            return None
        first, ones = 2 if self.data_format == "channels_first" else 1, (1,) * self.rank
        space = ones if self.keepdims else ()
        return (*shape[:first], *space, *shape[first + self.rank :])

    def _space(self, x: Tensor) -> list[int]:
        check_rank(self, x.shape if isinstance(x, Composite) else x._data.shape, self.rank + 2)
        first = 2 if self.data_format == "channels_first" else 1
        return list(range(first, first + self.rank))


def _as_floats(x: Tensor) -> Tensor:
    """Numbers whose mean is one of them: whole ones as floats."""
    return x if is_floating(x._data.dtype) else cast(x, floatx())


class GlobalMaxPooling1D(GlobalPooling):
    """The largest element over time, of the rows of a ragged tensor as well."""

    rank = 1
    takes_kinds: tuple[str, ...] = ("ragged",)

    def call(self, x: Tensor) -> Tensor:
        return reduce_max(x, self._space(x), keepdims=self.keepdims)


class GlobalMaxPooling2D(GlobalMaxPooling1D):
    """The largest element of each image."""

    takes_kinds = ()

    rank = 2


class GlobalMaxPooling3D(GlobalMaxPooling1D):
    """The largest element of each volume."""

    rank = 3


class GlobalAveragePooling1D(GlobalPooling):
    """The mean over time; of the steps that are not masked, where there is a mask.

    That of the rows of a ragged tensor as well.
    """

    rank = 1
    supports_masking = True
    takes_kinds = ("ragged",)

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        return None  # no time is left

    def call(self, x: Tensor, mask: Any = None) -> Tensor:
        x = x if isinstance(x, Composite) else _as_floats(x)
        space = self._space(x)
        if mask is None:
            return reduce_mean(x, space, keepdims=self.keepdims)
        kept = cast(as_tensor(mask), bool)
        kept = expand_dims(kept, 1 if self.data_format == "channels_first" else 2)
        total = reduce_sum(select(kept, x, 0), space, keepdims=self.keepdims)
        return total / reduce_sum(cast(kept, x.dtype), space, keepdims=self.keepdims)


class GlobalAveragePooling2D(GlobalPooling):
    """The mean of each image."""

    rank = 2

    def call(self, x: Tensor) -> Tensor:
        return reduce_mean(_as_floats(x), self._space(x), keepdims=self.keepdims)


class GlobalAveragePooling3D(GlobalAveragePooling2D):
    """The mean of each volume."""

    rank = 3


MaxPool1D, MaxPool2D, MaxPool3D = MaxPooling1D, MaxPooling2D, MaxPooling3D
AvgPool1D, AvgPool2D, AvgPool3D = AveragePooling1D, AveragePooling2D, AveragePooling3D
GlobalMaxPool1D, GlobalMaxPool2D = GlobalMaxPooling1D, GlobalMaxPooling2D
GlobalAvgPool1D, GlobalAvgPool2D = GlobalAveragePooling1D, GlobalAveragePooling2D
GlobalMaxPool3D, GlobalAvgPool3D = GlobalMaxPooling3D, GlobalAveragePooling3D
