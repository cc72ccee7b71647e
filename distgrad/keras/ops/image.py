"""``keras.ops.image``: the functions of Keras 3 over images ``[(batch,) height, width, channels]``.

With ``data_format="channels_first"`` the channels stand before the height.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import is_floating
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.keras.layers.core import data_format_of
from distgrad.keras.layers.operation import operation
from distgrad.keras.ops.coordinates import (
    affine_transform,
    batched,
    map_coordinates,
    perspective_transform,
    scale_and_translate,
)
from distgrad.keras.ops.promotion import result_type
from distgrad.keras.random import normal
from distgrad.ops import image as images_ops
from distgrad.ops.casting import cast, identity
from distgrad.ops.clipping import saturate_cast
from distgrad.ops.convolution import depthwise_conv2d
from distgrad.ops.images import colour, crops, quality
from distgrad.ops.layout import beside
from distgrad.ops.linalg import tensordot
from distgrad.ops.padding import pad_constant
from distgrad.ops.rounding import rint
from distgrad.ops.shape import permute, stack, static, unstack
from distgrad.ops.windows import Geometry, window_geometry

# Colours


def rgb_to_grayscale(images: Any, data_format: str | None = None) -> Tensor:
    """One channel, the weighted sum of three; ValueError for another number than 1 or 3."""

    def gray(x: Tensor) -> Tensor:
        if x._data.shape[-1] == 1:
            return identity(x)
        if x._data.shape[-1] != 3:
            raise ValueError(f"rgb_to_grayscale takes 3 channels or 1, not shape {x.shape}")
        wide = cast(x, result_type(x.dtype, float))
        weights = beside(x, np.array([[0.2989], [0.587], [0.114]], wide._data.dtype))
        return cast(tensordot(wide, weights, axes=[[3], [0]]), x.dtype)

    return batched(gray, images, data_format)


def _floats(name: str, images: Any) -> Tensor:
    x = as_tensor(images)
    if not is_floating(x._data.dtype):
        raise ValueError(f"{name} takes floats, not {x.dtype.name}")
    return x


def rgb_to_hsv(images: Any, data_format: str | None = None) -> Tensor:
    """Hue, saturation and value of floats in [0, 1]; ValueError for integers."""
    return batched(colour.rgb_to_hsv, _floats("rgb_to_hsv", images), data_format)


def hsv_to_rgb(images: Any, data_format: str | None = None) -> Tensor:
    """Red, green and blue of hue, saturation and value; ValueError for integers."""
    return batched(colour.hsv_to_rgb, _floats("hsv_to_rgb", images), data_format)


# Sizes


def resize(
    images: Any,
    size: Any,
    interpolation: str = "bilinear",
    antialias: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    fill_mode: str = "constant",
    fill_value: float = 0.0,
    data_format: str | None = None,
) -> Tensor:
    """Images of another height and width; cropped or padded before, so that nothing is distorted.

    Their dtype stays: integers are rounded, and kept within their range. Raises ValueError for
    another interpolation or fill mode, or where both are asked for.
    """
    if crop_to_aspect_ratio and pad_to_aspect_ratio:
        raise ValueError("resize: crop_to_aspect_ratio or pad_to_aspect_ratio, not both")
    if fill_mode != "constant":
        raise ValueError(f"resize: fill_mode is 'constant', not {fill_mode!r}")
    tall, wide = static(size)
    if tall < 1 or wide < 1:
        raise ValueError(f"resize: size is a positive height and width, not {(tall, wide)}")

    def resized(x: Tensor) -> Tensor:
        height, width = x._data.shape[1:3]
        # Another size that has the form of the target: of the same width, or the same height.
        by_width, by_height = int(width * tall / wide), int(height * wide / tall)
        if crop_to_aspect_ratio:
            rows, columns = max(min(height, by_width), 1), max(min(width, by_height), 1)
            top, left = (height - rows) // 2, (width - columns) // 2
            x = crops.crop_to_bounding_box(x, top, left, rows, columns)
        elif pad_to_aspect_ratio:
            above = (max(height, by_width) - height) // 2
            beside_it = (max(width, by_height) - width) // 2
            frame = ((0, 0), (above, above), (beside_it, beside_it), (0, 0))
            x = bind(pad_constant, x, paddings=frame, value=_number(fill_value, x))
        found = images_ops.resize(x, (tall, wide), method=interpolation, antialias=antialias)
        if found.dtype == x.dtype:
            return found
        return saturate_cast(found if is_floating(x._data.dtype) else rint(found), x.dtype)

    return batched(resized, images, data_format)


def _number(value: Any, x: Tensor) -> Any:
    return float(value) if is_floating(x._data.dtype) else int(value)


def _missing(name: str, length: int, before: Any, after: Any, target: Any) -> tuple[int, int]:
    """Two numbers, one of which may follow from the target size."""
    if sum(value is None for value in (before, after, target)) != 1:
        raise ValueError(f"{name}: two of before, after and target are needed for each axis")
    rest = None if target is None else int(target) - length
    if before is None:
        before = rest - int(after)  # type: ignore[operator]
    if after is None:
        after = rest - int(before)  # type: ignore[operator]
    if min(int(before), int(after)) < 0:
        raise ValueError(f"{name}: {before} before and {after} after an axis of {length}")
    return int(before), int(after)


def pad_images(
    images: Any,
    top_padding: int | None = None,
    left_padding: int | None = None,
    bottom_padding: int | None = None,
    right_padding: int | None = None,
    target_height: int | None = None,
    target_width: int | None = None,
    data_format: str | None = None,
) -> Tensor:
    """Zeros around images: two of the sides and the target for each axis.

    Raises ValueError for another number of them, or one that is negative.
    """

    def padded(x: Tensor) -> Tensor:
        height, width = x._data.shape[1:3]
        rows = _missing("pad_images", height, top_padding, bottom_padding, target_height)
        columns = _missing("pad_images", width, left_padding, right_padding, target_width)
        frame = ((0, 0), rows, columns, (0, 0))
        return bind(pad_constant, x, paddings=frame, value=0)

    return batched(padded, images, data_format)


def crop_images(
    images: Any,
    top_cropping: int | None = None,
    left_cropping: int | None = None,
    bottom_cropping: int | None = None,
    right_cropping: int | None = None,
    target_height: int | None = None,
    target_width: int | None = None,
    data_format: str | None = None,
) -> Tensor:
    """What is left of images: two of the sides and the target for each axis.

    Raises ValueError for another number of them, or one that is negative.
    """

    def kept(length: int, before: Any, after: Any, target: Any) -> tuple[int, int]:
        less_than = None if target is None else 2 * length - int(target)
        first, last = _missing("crop_images", length, before, after, less_than)
        return first, length - first - last

    def cropped(x: Tensor) -> Tensor:
        height, width = x._data.shape[1:3]
        top, tall = kept(height, top_cropping, bottom_cropping, target_height)
        left, wide = kept(width, left_cropping, right_cropping, target_width)
        return crops.crop_to_bounding_box(x, top, left, tall, wide)

    return batched(cropped, images, data_format)


def extract_patches(
    images: Any,
    size: Any,
    strides: Any = None,
    dilation_rate: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
) -> Tensor:
    """Windows of images, or of volumes for three sizes, each as the channels of one place.

    Strides are the size by default. Raises TypeError or ValueError for what is no size of 2 or 3
    axes.
    """
    if isinstance(size, str) or not isinstance(size, (int, Sequence, np.ndarray, Tensor)):
        raise TypeError(f"extract_patches: size is an int or a tuple of them, not {size!r}")
    count = 2 if isinstance(size, int) else len(size)
    if count not in (2, 3):
        raise ValueError(f"extract_patches: size is one of 2 or 3 axes, not {size!r}")
    return _patches(count, images, size, strides, dilation_rate, padding, data_format)


def extract_patches_3d(
    volumes: Any,
    size: Any,
    strides: Any = None,
    dilation_rate: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
) -> Tensor:
    """Windows of volumes ``[(batch,) depth, height, width, channels]``: see ``extract_patches``.

    Raises TypeError for what is no size of 3 axes.
    """
    sizes = (size,) * 3 if isinstance(size, int) else size
    if not isinstance(sizes, (Sequence, np.ndarray, Tensor)) or len(sizes) != 3:
        raise TypeError(f"extract_patches_3d: size is an int or a tuple of three, not {size!r}")
    return extract_patches(volumes, sizes, strides, dilation_rate, padding, data_format)


def _patches(
    count: int, x: Any, size: Any, strides: Any, gaps: Any, padding: str, data_format: str | None
) -> Tensor:
    def made(x: Tensor) -> Tensor:
        sizes = (size,) * count if isinstance(size, int) else static(size)
        moves, space = strides or sizes, x._data.shape[1:-1]
        found: Geometry = window_geometry(
            "extract_patches", space, sizes, moves, padding, gaps, first=False
        )
        return crops.patches(x, found)

    return batched(made, x, data_format, count + 2)


# Filters


def gaussian_blur(
    images: Any,
    kernel_size: Sequence[int] = (3, 3),
    sigma: Sequence[float] = (1.0, 1.0),
    data_format: str | None = None,
) -> Tensor:
    """Images smoothed with a Gaussian window of ``kernel_size`` and deviations ``sigma``."""
    rows, columns = static(kernel_size)
    across, down = (float(value) for value in sigma)

    def line(size: int, deviation: float) -> np.ndarray:
        weights = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / deviation) ** 2)
        return weights / weights.sum()

    def blurred(x: Tensor) -> Tensor:
        window = np.outer(line(columns, down), line(rows, across)).reshape(rows, columns, 1, 1)
        kernel = np.repeat(window, x._data.shape[-1], axis=2).astype(x._data.dtype)
        return depthwise_conv2d(x, beside(x, kernel), [1, 1, 1, 1], "SAME")

    return batched(blurred, images, data_format)


def elastic_transform(
    images: Any,
    alpha: float = 20.0,
    sigma: float = 5.0,
    interpolation: str = "bilinear",
    fill_mode: str = "reflect",
    fill_value: float = 0.0,
    seed: Any = None,
    data_format: str | None = None,
) -> Tensor:
    """Images whose pixels are moved at random, by noise of deviation ``sigma`` that is smoothed as
    far, times ``alpha``.

    ``fill_mode`` says what lies outside, as in `map_coordinates`. Raises ValueError for another
    interpolation than "nearest" and "bilinear", another fill mode, and images of another rank.
    """
    if interpolation not in ("nearest", "bilinear"):
        raise ValueError(
            "Invalid value for argument `interpolation`. Expected of one ('nearest', 'bilinear'). "
            f"Received: interpolation={interpolation}"
        )
    size = 6 * int(sigma) | 1

    def moved(x: Tensor) -> Tensor:
        samples, height, width, channels = x._data.shape
        dtype = x.dtype if x.dtype.is_floating else "float32"
        noise = normal((samples, height, width, 2), stddev=sigma, dtype=dtype, seed=seed)
        noise = gaussian_blur(noise, (size, size), (sigma, sigma), "channels_last") * alpha
        rest = np.indices((height, width, channels)).astype(noise._data.dtype)
        found = []
        for image, way in zip(unstack(x), unstack(noise), strict=True):
            down, across = (way[..., i : i + 1] for i in (0, 1))
            row, column, channel = (beside(x, each) for each in rest)
            places = stack([row + down, column + across, channel], 0)
            order = int(interpolation == "bilinear")
            found.append(map_coordinates(image, places, order, fill_mode, fill_value))
        return stack(found, 0)

    return batched(moved, images, data_format)


def sobel_edges(images: Any, data_format: str | None = None) -> Tensor:
    """Sobel's slopes down and to the right, in a last axis of two."""
    return batched(quality.sobel_edges, images, data_format)


def ssim(
    image1: Any,
    image2: Any,
    max_val: float = 1.0,
    filter_size: int = 11,
    filter_sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
    data_format: str | None = None,
) -> Tensor:
    """Structural similarity of each pair of images; see ``tf.image.ssim``."""
    first, second = as_tensor(image1), as_tensor(image2)
    kind = result_type(first.dtype, float)
    first, second = cast(first, kind), cast(second, kind)
    if data_format_of(data_format) == "channels_first":
        order = (*range(first._data.ndim - 3), -2, -1, -3)
        perm = tuple(axis % first._data.ndim for axis in order)
        first, second = bind(permute, first, perm=perm), bind(permute, second, perm=perm)
    found = quality.ssim(first, second, max_val, filter_size, filter_sigma, k1, k2)
    return cast(found, as_tensor(image1).dtype)


__all__ = [
    "affine_transform",
    "crop_images",
    "elastic_transform",
    "extract_patches",
    "extract_patches_3d",
    "gaussian_blur",
    "hsv_to_rgb",
    "map_coordinates",
    "pad_images",
    "perspective_transform",
    "resize",
    "rgb_to_grayscale",
    "rgb_to_hsv",
    "scale_and_translate",
    "sobel_edges",
    "ssim",
]

for _name in set(__all__) - {"extract_patches_3d"}:  # which is an operation with three sizes
    globals()[_name] = operation(_name, globals()[_name])
    globals()[_name].__module__ = __name__  # where pickles are to look for it
