"""Layers that change the shape alone: order, padding, cropping, repetition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.core import (
    check_rank,
    data_format_of,
    one_of,
    whole_number,
    whole_numbers,
)
from distgrad.keras.layers.moving import Moving
from distgrad.ops.image import interpolate
from distgrad.ops.layout import repeat
from distgrad.ops.padding import pad
from distgrad.ops.shape import expand_dims
from distgrad.sparse.mixed import reshape, shape_of, transpose

Pair = tuple[int, int]


class Flatten(Moving):
    """All axes but the first as one: (n, a, b) becomes (n, a * b), and (n,) becomes (n, 1).

    With ``data_format="channels_first"`` the channels are first moved to the end.
    """

    one_tensor = True
    takes_kinds = ("sparse",)

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format_of(data_format)

    def _told_shape(self, shape: Any) -> Any:
        return None if None in shape[1:] else (*shape[:1], math.prod(shape[1:]))

    def call(self, x: Any) -> Any:
        shape = shape_of(x)
        if self.data_format == "channels_first" and len(shape) > 2:
            x = transpose(x, (0, *range(2, len(shape)), 1))
        return reshape(x, (shape[0], math.prod(shape[1:])))


class Reshape(Moving):
    """Each sample in another shape, in which one axis may be -1.

    Raises ValueError for two such axes, or where the number of elements differs.
    """

    one_tensor = True
    takes_kinds = ("sparse",)

    def __init__(self, target_shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        target = tuple(target_shape)
        if (
            not all(isinstance(n, (int, np.integer)) and n >= -1 for n in target)
            or target.count(-1) > 1
        ):
            raise ValueError(
                f"target_shape must hold ints of 0 or more, and -1 at most once, not {target}"
            )
        self.target_shape = tuple(map(int, target))

    def _told_shape(self, shape: Any) -> Any:
        if None not in shape[1:]:
            return None
        return (*shape[:1], *(None if n == -1 else n for n in self.target_shape))

    def call(self, x: Any) -> Any:
        samples, *shape = shape_of(x)
        # The free axis is found from one sample, so that a batch of none has a shape, too.
        rest = math.prod(n for n in self.target_shape if n != -1)
        free = math.prod(shape) // rest if rest else 0
        target = tuple(free if n == -1 else n for n in self.target_shape)
        if math.prod(target) != math.prod(shape):
            raise ValueError(
                f"{self.name!r}: samples of shape {tuple(shape)} do not fit into target_shape "
                f"{self.target_shape}"
            )
        return reshape(x, (samples, *target))


class Permute(Moving):
    """The axes of each sample in another order: ``dims`` counts them from 1.

    Raises ValueError unless ``dims`` holds each axis once.
    """

    one_tensor = True
    takes_kinds = ("sparse",)

    def __init__(self, dims: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dims = tuple(dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ValueError(f"dims must hold 1 to {len(self.dims)}, each once, not {self.dims}")

    def call(self, x: Any) -> Any:
        check_rank(self, shape_of(x), len(self.dims) + 1)
        return transpose(x, (0, *self.dims))


class RepeatVector(Moving):
    """Each vector ``n`` times: (batch, size) becomes (batch, n, size).

    Raises ValueError for an ``n`` that is not a positive int.
    """

    one_tensor = True

    def __init__(self, n: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n = whole_number("n", n)

    def call(self, x: Tensor) -> Tensor:
        check_rank(self, x._data.shape, 2)
        return repeat(expand_dims(x, 1), self.n, axis=1)


# Borders: one (before, after) for each spatial axis


def _pairs(name: str, value: Any, count: int) -> tuple[Pair, ...]:
    """From one int, one for each axis, or one pair for each axis. Raises ValueError otherwise."""
    if isinstance(value, (int, np.integer)):
        value = (value,) * count
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != count:
        raise ValueError(
            f"{name} must be an int, or an int or a (before, after) for each of {count} axes, not "
            f"{value!r}"
        )
    pairs = []
    for each in value:
        before, after = whole_numbers(name, each, 2, least=0)
        pairs.append((before, after))
    return tuple(pairs)


def _space(layer: Layer, x: Tensor, count: int, data_format: str) -> range:
    """The spatial axes. Raises ValueError for another rank."""
    check_rank(layer, x._data.shape, count + 2)
    first = 2 if data_format == "channels_first" else 1
    return range(first, first + count)


def _padded(x: Tensor, axes: range, pairs: Sequence[Pair]) -> Tensor:
    widths = [(0, 0)] * x._data.ndim
    widths[axes.start : axes.stop] = pairs
    return pad(x, widths)


def _wider(shape: Sequence[int | None], data_format: str, more: Sequence[int]) -> Any:
    """The shape with so much more along the spatial axes; None where it is of another rank."""
    if len(shape) != len(more) + 2:
        return None
    first = 2 if data_format == "channels_first" else 1
    space = shape[first : first + len(more)]
    sizes = [None if n is None else n + m for n, m in zip(space, more, strict=True)]
    return (*shape[:first], *sizes, *shape[first + len(more) :])


def _cropped(layer: Layer, x: Tensor, axes: range, pairs: Sequence[Pair]) -> Tensor:
    key = [slice(None)] * x._data.ndim
    for axis, (before, after) in zip(axes, pairs, strict=True):
        length = x._data.shape[axis]
        if before + after >= length:
            raise ValueError(
                f"{layer.name!r}: cropping {tuple(pairs)} leaves nothing of an input of shape "
                f"{x._data.shape}"
            )
        key[axis] = slice(before, length - after)
    return x[tuple(key)]


class ZeroPadding1D(Layer):
    """Zeros before and after the steps of ``[batch, time, channels]``."""

    def __init__(
        self, padding: int | Sequence[int] = 1, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.padding = whole_numbers("padding", padding, 2, least=0)
        self.data_format = data_format_of(data_format)

    def call(self, x: Tensor) -> Tensor:
        before, after = self.padding
        return _padded(x, _space(self, x, 1, self.data_format), [(before, after)])


class ZeroPadding2D(Layer):
    """Zeros around images: one int, (height, width), or ((top, bottom), (left, right))."""

    def __init__(
        self,
        padding: int | Sequence[int | Sequence[int]] = (1, 1),
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.padding = _pairs("padding", padding, 2)
        self.data_format = data_format_of(data_format)

    def call(self, x: Tensor) -> Tensor:
        return _padded(x, _space(self, x, 2, self.data_format), self.padding)

    def _told_shape(self, shape: Any) -> Any:
        return _wider(shape, self.data_format, [a + b for a, b in self.padding])


class ZeroPadding3D(Layer):
    """Zeros around volumes: one int, one for each axis, or one (before, after) for each."""

    def __init__(
        self,
        padding: int | Sequence[int | Sequence[int]] = ((1, 1), (1, 1), (1, 1)),
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.padding = _pairs("padding", padding, 3)
        self.data_format = data_format_of(data_format)

    def call(self, x: Tensor) -> Tensor:
        return _padded(x, _space(self, x, 3, self.data_format), self.padding)


class Cropping1D(Layer):
    """Takes steps away at both ends of ``[batch, time, channels]``. ValueError if none is left."""

    def __init__(self, cropping: int | Sequence[int] = (1, 1), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cropping = whole_numbers("cropping", cropping, 2, least=0)

    def call(self, x: Tensor) -> Tensor:
        before, after = self.cropping
        return _cropped(self, x, _space(self, x, 1, "channels_last"), [(before, after)])


class Cropping2D(Layer):
    """Takes the borders of images away: one int, (height, width), or a pair for each.

    Raises ValueError where nothing is left.
    """

    def __init__(
        self,
        cropping: int | Sequence[int | Sequence[int]] = ((0, 0), (0, 0)),
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cropping = _pairs("cropping", cropping, 2)
        self.data_format = data_format_of(data_format)

    def call(self, x: Tensor) -> Tensor:
        return _cropped(self, x, _space(self, x, 2, self.data_format), self.cropping)

    def _told_shape(self, shape: Any) -> Any:
        return _wider(shape, self.data_format, [-a - b for a, b in self.cropping])


class Cropping3D(Layer):
    """Takes the borders of volumes away: one int, one for each axis, or a pair for each.

    Raises ValueError where nothing is left.
    """

    def __init__(
        self,
        cropping: int | Sequence[int | Sequence[int]] = ((1, 1), (1, 1), (1, 1)),
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cropping = _pairs("cropping", cropping, 3)
        self.data_format = data_format_of(data_format)

    def call(self, x: Tensor) -> Tensor:
        return _cropped(self, x, _space(self, x, 3, self.data_format), self.cropping)


class UpSampling1D(Layer):
    """Each step of ``[batch, time, channels]`` ``size`` times."""

    def __init__(self, size: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = whole_number("size", size)

    def call(self, x: Tensor) -> Tensor:
        check_rank(self, x._data.shape, 3)
        return repeat(x, self.size, axis=1)


_METHODS = ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")


class UpSampling2D(Layer):
    """Images whose height and width are ``size`` times as large.

    ``interpolation`` is "nearest", which repeats pixels, or one of ``tf.image.resize``.
    """

    def __init__(
        self,
        size: int | Sequence[int] = (2, 2),
        data_format: str | None = None,
        interpolation: str = "nearest",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size = whole_numbers("size", size, 2)
        self.data_format = data_format_of(data_format)
        self.interpolation = one_of("interpolation", interpolation, *_METHODS)

    def call(self, x: Tensor) -> Tensor:
        for axis, times in zip(_space(self, x, 2, self.data_format), self.size, strict=True):
            if self.interpolation == "nearest":
                x = repeat(x, times, axis=axis)
            else:
                n = x._data.shape[axis]
                sizes = {"axis": axis, "before": n, "after": n * times, "transpose": False}
                x = bind(interpolate, x, **sizes, method=self.interpolation, antialias=False)
        return x


class UpSampling3D(Layer):
    """Volumes ``size`` times as large along each axis: every element is repeated."""

    def __init__(
        self, size: int | Sequence[int] = (2, 2, 2), data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.size = whole_numbers("size", size, 3)
        self.data_format = data_format_of(data_format)

    def call(self, x: Tensor) -> Tensor:
        for axis, times in zip(_space(self, x, 3, self.data_format), self.size, strict=True):
            x = repeat(x, times, axis=axis)
        return x
