"""Colour spaces, and changes of hue, saturation and gamma; channels stand last."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import cast
from distgrad.ops.clipping import clip_by_value, maximum
from distgrad.ops.image import as_floats, convert_image_dtype
from distgrad.ops.layout import beside
from distgrad.ops.linalg import tensordot
from distgrad.ops.logic import equal, greater, less, select
from distgrad.ops.powers import pow
from distgrad.ops.reduce import reduce_max, reduce_mean, reduce_min
from distgrad.ops.rounding import floor
from distgrad.ops.shape import concat, stack
from distgrad.ops.statistics import reduce_std


def _channels(name: str, images: Any, count: int = 3) -> Tensor:
    x = as_tensor(images)
    if x._data.shape[-1:] != (count,):
        raise InvalidArgumentError(
            f"{name} takes images with {count} channels in the last axis, not shape {x.shape}"
        )
    return x


# Hue, saturation and value


def rgb_to_hsv(images: Any, name: str | None = None) -> Tensor:
    """Hue, saturation and value, all in [0, 1], of floats ``[..., 3]`` in [0, 1].

    Raises InvalidArgumentError for another last axis.
    """
    x = _channels("rgb_to_hsv", images)
    red, green, blue = x[..., 0], x[..., 1], x[..., 2]
    value = reduce_max(x, -1)
    spread = value - reduce_min(x, -1)
    saturation = select(greater(value, 0.0), spread / select(greater(value, 0.0), value, 1.0), 0.0)
    colourful = greater(spread, 0.0)
    scale = 1.0 / (6.0 * select(colourful, spread, 1.0))
    of_blue = scale * (red - green) + 4 / 6
    of_green = select(equal(green, value), scale * (blue - red) + 2 / 6, of_blue)
    hue = select(equal(red, value), scale * (green - blue), of_green)
    hue = select(colourful, select(less(hue, 0.0), hue + 1.0, hue), 0.0)
    return stack([hue, saturation, value], -1)


def hsv_to_rgb(images: Any, name: str | None = None) -> Tensor:
    """Red, green and blue of hue, saturation and value: floats ``[..., 3]`` in [0, 1].

    Raises InvalidArgumentError for another last axis.
    """
    x = _channels("hsv_to_rgb", images)
    hue, saturation, value = x[..., 0] * 6.0, x[..., 1], x[..., 2]
    full = [
        abs(hue - 3.0) - 1.0,
        2.0 - abs(hue - 2.0),
        2.0 - abs(hue - 4.0),
    ]
    rest = 1.0 - saturation
    return stack([(rest + saturation * clip_by_value(c, 0.0, 1.0)) * value for c in full], -1)


def adjust_hue(image: Any, delta: Any, name: str | None = None) -> Tensor:
    """RGB images with ``delta``, a fraction of the circle of colours, added to their hue.

    Raises InvalidArgumentError unless ``delta`` lies in [-1, 1] and the last axis is 3.
    """
    x = _channels("adjust_hue", image)
    if type(delta) in (int, float) and not -1 <= delta <= 1:
        raise InvalidArgumentError(f"adjust_hue: delta lies in [-1, 1], not {delta!r}")
    hsv = rgb_to_hsv(as_floats(x))
    hue = hsv[..., :1] + factor_beside(delta, hsv)
    rgb = hsv_to_rgb(concat([hue - floor(hue), hsv[..., 1:]], -1))
    return convert_image_dtype(rgb, x._data.dtype)


def adjust_saturation(image: Any, saturation_factor: Any, name: str | None = None) -> Tensor:
    """RGB images with their saturation times ``saturation_factor``, at most 1.

    Raises InvalidArgumentError where the last axis is not 3.
    """
    x = _channels("adjust_saturation", image)
    hsv = rgb_to_hsv(as_floats(x))
    saturation = clip_by_value(hsv[..., 1:2] * factor_beside(saturation_factor, hsv), 0.0, 1.0)
    rgb = hsv_to_rgb(concat([hsv[..., :1], saturation, hsv[..., 2:]], -1))
    return convert_image_dtype(rgb, x._data.dtype)


def factor_beside(factor: Any, x: Tensor) -> Any:
    """A factor as a number or a tensor that can stand beside ``x``."""
    return factor if type(factor) in (int, float) else cast(factor, x._data.dtype)


def adjust_gamma(image: Any, gamma: Any = 1, gain: Any = 1) -> Tensor:
    """``gain * image ** gamma``; integer images stand for 0 to 1, and are clipped.

    Raises InvalidArgumentError (a ValueError) for a negative ``gamma``.
    """
    x = as_tensor(image)
    if type(gamma) in (int, float) and gamma < 0:
        raise InvalidArgumentError(f"adjust_gamma: gamma is not negative, unlike {gamma!r}")
    y = as_floats(x)
    made = pow(y, factor_beside(gamma, y)) * factor_beside(gain, y)
    return convert_image_dtype(made, x._data.dtype, saturate=True)


def per_image_standardization(image: Any) -> Tensor:
    """Each image ``[..., height, width, channels]`` with mean 0 and variance 1, as float32.

    A deviation below ``1 / sqrt(pixels)`` counts as that. Raises InvalidArgumentError for rank
    below 3.
    """
    x = as_tensor(image)
    if x._data.ndim < 3:
        raise InvalidArgumentError(f"per_image_standardization: a shape of {x.shape}")
    y = cast(x, np.float32)
    axes = [-1, -2, -3]
    smallest = 1.0 / float(max(np.prod(x._data.shape[-3:]), 1)) ** 0.5
    deviation = maximum(reduce_std(y, axes, keepdims=True), smallest)
    return (y - reduce_mean(y, axes, keepdims=True)) / deviation


# Gray, YUV and YIQ


def grayscale_to_rgb(images: Any, name: str | None = None) -> Tensor:
    """One channel, in the last axis, three times; InvalidArgumentError for another number."""
    x = _channels("grayscale_to_rgb", images, 1)
    return concat([x, x, x], -1)


_YUV = [
    [0.299, -0.14714119, 0.61497538],
    [0.587, -0.28886916, -0.51496512],
    [0.114, 0.43601035, -0.10001026],
]
_FROM_YUV = [[1, 1, 1], [0, -0.394642334, 2.03206185], [1.13988303, -0.58062185, 0]]
_YIQ = [
    [0.299, 0.59590059, 0.2115],
    [0.587, -0.27455667, -0.52273617],
    [0.114, -0.32134392, 0.31119955],
]
_FROM_YIQ = [
    [1, 1, 1],
    [0.95598634, -0.27201283, -1.10674021],
    [0.6208248, -0.64720424, 1.70423049],
]  # fmt: skip


def _mixed(name: str, images: Any, matrix: Any) -> Tensor:
    x = _channels(name, images)
    return tensordot(x, beside(x, np.array(matrix, x._data.dtype)), axes=[[x._data.ndim - 1], [0]])


def rgb_to_yuv(images: Any) -> Tensor:
    """Luma and two differences of colour (YUV) of floats ``[..., 3]`` in [0, 1]."""
    return _mixed("rgb_to_yuv", images, _YUV)


def yuv_to_rgb(images: Any) -> Tensor:
    """The inverse of ``rgb_to_yuv``."""
    return _mixed("yuv_to_rgb", images, _FROM_YUV)


def rgb_to_yiq(images: Any) -> Tensor:
    """Luma and two differences of colour (YIQ) of floats ``[..., 3]`` in [0, 1]."""
    return _mixed("rgb_to_yiq", images, _YIQ)


def yiq_to_rgb(images: Any) -> Tensor:
    """The inverse of ``rgb_to_yiq``."""
    return _mixed("yiq_to_rgb", images, _FROM_YIQ)
