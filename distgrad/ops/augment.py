"""Images ``[(batch,) height, width, channels]``: cut, padded, turned, recoloured, and by chance."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Tensor
from distgrad.ops import random
from distgrad.ops.arithmetic import square
from distgrad.ops.casting import cast
from distgrad.ops.clipping import clip_by_value, maximum
from distgrad.ops.constants import zeros
from distgrad.ops.exponential import log
from distgrad.ops.image import (
    _as_floats,
    _image,
    adjust_brightness,
    adjust_contrast,
    convert_image_dtype,
    flip_left_right,
    flip_up_down,
)
from distgrad.ops.logic import equal, where
from distgrad.ops.padding import pad
from distgrad.ops.powers import pow
from distgrad.ops.reduce import reduce_max, reduce_mean, reduce_min
from distgrad.ops.rounding import floormod
from distgrad.ops.shape import concat, static
from distgrad.ops.shape import transpose as permuted
from distgrad.ops.statistics import reduce_std

# Places


def crop_to_bounding_box(
    image: Any,
    offset_height: int,
    offset_width: int,
    target_height: int,
    target_width: int,
    name: str | None = None,
) -> Tensor:
    """The part of that size from that corner on; InvalidArgumentError where it sticks out."""
    x, axis = _image("crop_to_bounding_box", image)
    height, width = x._data.shape[axis : axis + 2]
    bottom, right = offset_height + target_height, offset_width + target_width
    inside = 0 <= offset_height < bottom <= height and 0 <= offset_width < right <= width
    if not inside:
        raise InvalidArgumentError(
            f"a box of {target_height} x {target_width} at ({offset_height}, {offset_width}) does "
            f"not lie in images of {height} x {width}"
        )
    return x[..., offset_height:bottom, offset_width:right, :]


def pad_to_bounding_box(
    image: Any,
    offset_height: int,
    offset_width: int,
    target_height: int,
    target_width: int,
    name: str | None = None,
) -> Tensor:
    """Zeros around it, so that it has that size and its corner lies there.

    Raises InvalidArgumentError where it is larger than that.
    """
    x, axis = _image("pad_to_bounding_box", image)
    height, width = x._data.shape[axis : axis + 2]
    below, right = target_height - offset_height - height, target_width - offset_width - width
    if min(offset_height, offset_width, below, right) < 0:
        raise InvalidArgumentError(
            f"images of {height} x {width} at ({offset_height}, {offset_width}) do not lie in "
            f"{target_height} x {target_width}"
        )
    around = [[0, 0]] * axis + [[offset_height, below], [offset_width, right], [0, 0]]
    return pad(x, around)


def central_crop(image: Any, central_fraction: float) -> Tensor:
    """The middle of it, which has that fraction of its height and width.

    Raises ValueError for a fraction outside (0, 1].
    """
    fraction = float(central_fraction)
    if not 0 < fraction <= 1:
        raise ValueError(f"central_fraction lies in (0, 1], not {central_fraction!r}")
    x, axis = _image("central_crop", image)
    top, left = (int((n - n * fraction) / 2) for n in x._data.shape[axis : axis + 2])
    height, width = x._data.shape[axis] - 2 * top, x._data.shape[axis + 1] - 2 * left
    return crop_to_bounding_box(x, top, left, height, width)


def resize_with_crop_or_pad(image: Any, target_height: int, target_width: int) -> Tensor:
    """Of that size: cut around the middle where it is larger, zeros around it where smaller."""
    x, axis = _image("resize_with_crop_or_pad", image)
    height, width = x._data.shape[axis : axis + 2]
    high, wide = min(height, target_height), min(width, target_width)
    x = crop_to_bounding_box(x, (height - high) // 2, (width - wide) // 2, high, wide)
    top, left = (target_height - high) // 2, (target_width - wide) // 2
    return pad_to_bounding_box(x, top, left, target_height, target_width)


def transpose(image: Any, name: str | None = None) -> Tensor:
    """Rows as columns."""
    x, axis = _image("transpose", image)
    return permuted(x, (*range(axis), axis + 1, axis, axis + 2))


def rot90(image: Any, k: int = 1, name: str | None = None) -> Tensor:
    """Turned by 90 degrees, ``k`` times, against the clock."""
    turns = operator.index(k) % 4
    if turns == 2:
        return flip_left_right(flip_up_down(image))
    if turns == 1:
        return flip_up_down(transpose(image))
    return transpose(flip_up_down(image)) if turns else _image("rot90", image)[0]


def image_gradients(image: Any) -> tuple[Tensor, Tensor]:
    """The steps to the next row and to the next column; 0 in the last ones.

    Raises ValueError for anything but a batch of images.
    """
    x = as_tensor(image)
    if x._data.ndim != 4:
        raise ValueError(f"image_gradients takes images of rank 4, not of shape {x.shape}")
    n, height, width, channels = x._data.shape
    down = concat([x[:, 1:] - x[:, :-1], zeros((n, 1, width, channels), x.dtype)], 1)
    right = concat([x[:, :, 1:] - x[:, :, :-1], zeros((n, height, 1, channels), x.dtype)], 2)
    return down, right


def psnr(a: Any, b: Any, max_val: Any, name: str | None = None) -> Tensor:
    """The ratio of ``max_val`` to the error of each image, in decibels."""
    range_ = convert_image_dtype(as_tensor(max_val, like=as_tensor(a)._data.dtype), np.float32)
    x, y = (convert_image_dtype(each, np.float32) for each in (a, b))
    error = reduce_mean(square(x - y), [-3, -2, -1])
    return (20.0 * log(range_) - 10.0 * log(error)) * (1.0 / math.log(10.0))


# Colours


def grayscale_to_rgb(images: Any, name: str | None = None) -> Tensor:
    """The one channel three times."""
    x = as_tensor(images)
    if x._data.shape[-1:] != (1,):
        raise InvalidArgumentError(f"grayscale_to_rgb takes one channel, not shape {x.shape}")
    return concat([x, x, x], -1)


def rgb_to_hsv(images: Any, name: str | None = None) -> Tensor:
    """Hue, saturation and value of floats in [0, 1]."""
    x = as_tensor(images)
    if x._data.shape[-1:] != (3,):
        raise InvalidArgumentError(f"rgb_to_hsv takes three channels, not shape {x.shape}")
    red, green, blue = x[..., 0], x[..., 1], x[..., 2]
    value = reduce_max(x, -1)
    spread = value - reduce_min(x, -1)
    saturation = where(value > 0, spread / where(value > 0, value, 1.0), 0.0)
    divisor = 6.0 * where(spread > 0, spread, 1.0)
    hue = where(
        equal(red, value),
        (green - blue) / divisor,
        where(equal(green, value), (blue - red) / divisor + 2 / 6, (red - green) / divisor + 4 / 6),
    )
    hue = where(spread > 0, where(hue < 0, hue + 1.0, hue), 0.0)
    return concat([part[..., None] for part in (hue, saturation, value)], -1)


def hsv_to_rgb(images: Any, name: str | None = None) -> Tensor:
    """Red, green and blue of hue, saturation and value."""
    x = as_tensor(images)
    if x._data.shape[-1:] != (3,):
        raise InvalidArgumentError(f"hsv_to_rgb takes three channels, not shape {x.shape}")
    hue, saturation, value = x[..., 0:1], x[..., 1:2], x[..., 2:3]
    sixths = hue * 6.0
    away = concat([abs(sixths - 3.0) - 1.0, 2.0 - abs(sixths - 2.0), 2.0 - abs(sixths - 4.0)], -1)
    return (1.0 - saturation + clip_by_value(away, 0.0, 1.0) * saturation) * value


def adjust_hue(image: Any, delta: Any, name: str | None = None) -> Tensor:
    """The hue turned on by ``delta``, a part of a whole turn."""
    x = as_tensor(image)
    hsv = rgb_to_hsv(_as_floats(x))
    hsv = concat([floormod(hsv[..., :1] + delta, 1.0), hsv[..., 1:]], -1)
    return convert_image_dtype(hsv_to_rgb(hsv), x._data.dtype, saturate=True)


def adjust_saturation(image: Any, saturation_factor: Any, name: str | None = None) -> Tensor:
    """The saturation times a factor, kept in [0, 1]."""
    x = as_tensor(image)
    hsv = rgb_to_hsv(_as_floats(x))
    saturation = clip_by_value(hsv[..., 1:2] * saturation_factor, 0.0, 1.0)
    hsv = concat([hsv[..., :1], saturation, hsv[..., 2:]], -1)
    return convert_image_dtype(hsv_to_rgb(hsv), x._data.dtype, saturate=True)


def adjust_gamma(image: Any, gamma: float = 1, gain: float = 1) -> Tensor:
    """``gain * image ** gamma``; integers stand for 0 to 1 and are clipped."""
    if not gamma >= 0:
        raise ValueError(f"gamma must not be negative, got {gamma!r}")
    x = as_tensor(image)
    return convert_image_dtype(gain * pow(_as_floats(x), gamma), x._data.dtype, saturate=True)


def per_image_standardization(image: Any) -> Tensor:
    """Each image with mean 0 and deviation 1, float32 unless it is of floats."""
    x, axis = _image("per_image_standardization", image)
    x = x if x.dtype.is_floating else cast(x, np.float32)
    axes = [axis, axis + 1, axis + 2]
    least = 1.0 / float(np.sqrt(np.prod(x._data.shape[axis:])))  # an image of one colour
    deviation = maximum(reduce_std(x, axes, keepdims=True), least)
    return (x - reduce_mean(x, axes, keepdims=True)) / deviation


# By chance


def _flipped(name: str, image: Any, flip: Any, seed: int | None) -> Tensor:
    x, axis = _image(name, image)
    chosen = random.uniform((*x._data.shape[:1], 1, 1, 1) if axis else (), seed=seed) < 0.5
    return where(chosen, flip(x), x)


def random_flip_left_right(image: Any, seed: int | None = None) -> Tensor:
    """Each image with its columns in reverse order, or as it is."""
    return _flipped("random_flip_left_right", image, flip_left_right, seed)


def random_flip_up_down(image: Any, seed: int | None = None) -> Tensor:
    """Each image with its rows in reverse order, or as it is."""
    return _flipped("random_flip_up_down", image, flip_up_down, seed)


def random_brightness(image: Any, max_delta: float, seed: int | None = None) -> Tensor:
    """``adjust_brightness`` by up to ``max_delta``."""
    if max_delta < 0:
        raise ValueError(f"max_delta must not be negative, got {max_delta!r}")
    return adjust_brightness(image, random.uniform((), -max_delta, max_delta, seed=seed))


def random_contrast(image: Any, lower: float, upper: float, seed: int | None = None) -> Tensor:
    """``adjust_contrast`` by a factor in [lower, upper)."""
    _check_range(lower, upper)
    return adjust_contrast(image, random.uniform((), lower, upper, seed=seed))


def random_saturation(image: Any, lower: float, upper: float, seed: int | None = None) -> Tensor:
    """``adjust_saturation`` by a factor in [lower, upper)."""
    _check_range(lower, upper)
    return adjust_saturation(image, random.uniform((), lower, upper, seed=seed))


def random_hue(image: Any, max_delta: float, seed: int | None = None) -> Tensor:
    """``adjust_hue`` by up to ``max_delta``, which is at most 0.5."""
    if not 0 <= max_delta <= 0.5:
        raise ValueError(f"max_delta lies in [0, 0.5], not {max_delta!r}")
    return adjust_hue(image, random.uniform((), -max_delta, max_delta, seed=seed))


def random_crop(value: Any, size: Any, seed: int | None = None, name: str | None = None) -> Tensor:
    """A part of ``size`` from a place of chance; InvalidArgumentError where it is larger."""
    x, wanted = as_tensor(value), static(size)
    known = x._data.shape
    if len(wanted) != len(known) or any(n > m for n, m in zip(wanted, known, strict=True)):
        raise InvalidArgumentError(f"random_crop of size {wanted} from a tensor of shape {x.shape}")
    free = np.array(known) - np.array(wanted) + 1
    starts = np.asarray(random.uniform((len(wanted),), seed=seed)._host() * free, np.int64)
    return x[tuple(slice(s, s + n) for s, n in zip(starts.tolist(), wanted, strict=True))]


def _check_range(lower: float, upper: float) -> None:
    if not 0 <= lower < upper:
        raise ValueError(f"the factors go from lower to upper, not from {lower!r} to {upper!r}")
