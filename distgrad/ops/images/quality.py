"""How alike two images are, and the edges of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Tensor
from distgrad.ops.activations import relu
from distgrad.ops.casting import zeros_like
from distgrad.ops.convolution import depthwise_conv2d
from distgrad.ops.exponential import log
from distgrad.ops.image import convert_image_dtype
from distgrad.ops.layout import beside
from distgrad.ops.padding import pad
from distgrad.ops.pooling import avg_pool2d
from distgrad.ops.powers import pow
from distgrad.ops.reduce import reduce_mean, reduce_prod
from distgrad.ops.shape import concat, reshape, stack


def _pair(name: str, first: Any, second: Any, max_val: Any) -> tuple[Tensor, Tensor, float]:
    """Two images as floats, and the range of their values; InvalidArgumentError if unlike."""
    a, b = as_tensor(first), as_tensor(second)
    if a._data.ndim < 3 or a._data.shape[-3:] != b._data.shape[-3:]:
        raise InvalidArgumentError(
            f"{name} takes two images of one size, not of shapes {a.shape} and {b.shape}"
        )
    dtype = a._data.dtype
    whole = float(max_val) / np.iinfo(dtype).max if dtype.kind in "iu" else float(max_val)
    return convert_image_dtype(a, np.float32), convert_image_dtype(b, np.float32), whole


def psnr(a: Any, b: Any, max_val: Any, name: str | None = None) -> Tensor:
    """Peak signal-to-noise ratio of each pair of images, in decibels, float32.

    ``max_val`` is the largest value there can be. Raises InvalidArgumentError for sizes that
    differ.
    """
    x, y, whole = _pair("psnr", a, b, max_val)
    difference = x - y
    error = reduce_mean(difference * difference, [-3, -2, -1])
    return 20 * math.log10(whole) - (10 / math.log(10)) * log(error)


def ssim(
    img1: Any,
    img2: Any,
    max_val: Any,
    filter_size: int = 11,
    filter_sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
    return_index_map: bool = False,
) -> Tensor:
    """Structural similarity (Wang et al., 2004) of each pair of images, or of its pixels, float32.

    Raises InvalidArgumentError for sizes that differ or are smaller than the filter.
    """
    x, y, whole = _pair("ssim", img1, img2, max_val)
    found, _ = _per_channel(x, y, whole, filter_size, filter_sigma, k1, k2, return_index_map)
    return reduce_mean(found, [-1])


_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of Wang, Simoncelli and Bovik (2003)


def ssim_multiscale(
    img1: Any,
    img2: Any,
    max_val: Any,
    power_factors: Sequence[float] = _WEIGHTS,
    filter_size: int = 11,
    filter_sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Tensor:
    """Structural similarity over several scales, each half as large, with a weight for each.

    Raises InvalidArgumentError for sizes that differ or get smaller than the filter.
    """
    x, y, whole = _pair("ssim_multiscale", img1, img2, max_val)
    parts: list[Tensor] = []
    for scale in range(len(power_factors)):
        if scale:
            x, y = _halved(x), _halved(y)
        whole_index, structure = _per_channel(x, y, whole, filter_size, filter_sigma, k1, k2, False)
        last = scale == len(power_factors) - 1
        parts.append(relu(whole_index if last else structure))
    powers = beside(x, np.array(power_factors, np.float32))
    return reduce_mean(reduce_prod(pow(stack(parts, -1), powers), [-1]), [-1])


def _halved(x: Tensor) -> Tensor:
    """The mean of each two by two pixels; an odd edge counts twice."""
    odd = [(0, 0), *((0, n % 2) for n in x._data.shape[-3:-1]), (0, 0)]
    flat = reshape(x, (-1, *x._data.shape[-3:]))
    small = avg_pool2d(pad(flat, odd, "SYMMETRIC"), 2, 2, "VALID")
    return reshape(small, (*x._data.shape[:-3], *small._data.shape[1:]))


def _per_channel(
    x: Tensor,
    y: Tensor,
    whole: float,
    size: int,
    sigma: float,
    k1: float,
    k2: float,
    each_pixel: bool,
) -> tuple[Tensor, Tensor]:
    """The index and its part for contrast and structure, ``[..., channels]``."""
    if min(x._data.shape[-3:-1]) < size:
        raise InvalidArgumentError(f"ssim: images {x.shape} are smaller than a filter of {size}")
    at = np.arange(size) - (size - 1) / 2
    line = np.exp(-0.5 * (at / sigma) ** 2)
    window = np.outer(line, line) / line.sum() ** 2
    channels = x._data.shape[-1]
    kernel = np.repeat(window[:, :, None, None], channels, axis=2).astype(np.float32)
    weights = beside(x, kernel)

    def local(image: Tensor) -> Tensor:
        flat = reshape(image, (-1, *image._data.shape[-3:]))
        found = depthwise_conv2d(flat, weights, [1, 1, 1, 1], "VALID")
        return reshape(found, (*image._data.shape[:-3], *found._data.shape[1:]))

    c1, c2 = (k1 * whole) ** 2, (k2 * whole) ** 2
    of_x, of_y = local(x), local(y)
    product, squares = of_x * of_y * 2.0, of_x * of_x + of_y * of_y
    luminance = (product + c1) / (squares + c1)
    structure = (local(x * y) * 2.0 - product + c2) / (local(x * x + y * y) - squares + c2)
    if each_pixel:
        return luminance * structure, structure
    return reduce_mean(luminance * structure, [-3, -2]), reduce_mean(structure, [-3, -2])


# Edges


def sobel_edges(image: Any) -> Tensor:
    """Sobel's slopes down and to the right: ``[batch, height, width, channels, 2]``.

    Raises InvalidArgumentError for a rank other than 4.
    """
    x = as_tensor(image)
    if x._data.ndim != 4:
        raise InvalidArgumentError(f"sobel_edges takes images of rank 4, not {x.shape}")
    down = np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]], x._data.dtype)
    pair = np.stack([down, down.T], -1)[:, :, None]
    channels = x._data.shape[-1]
    weights = beside(x, np.repeat(pair, channels, axis=2))
    framed = pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], "REFLECT")
    found = depthwise_conv2d(framed, weights, [1, 1, 1, 1], "VALID")
    return reshape(found, (*x._data.shape, 2))


def image_gradients(image: Any) -> tuple[Tensor, Tensor]:
    """The differences to the pixel below and to that on the right; 0 at the last.

    Raises InvalidArgumentError (a ValueError) for a rank other than 4.
    """
    x = as_tensor(image)
    if x._data.ndim != 4:
        raise InvalidArgumentError(f"image_gradients takes images of rank 4, not {x.shape}")
    down = concat([x[:, 1:] - x[:, :-1], zeros_like(x[:, :1])], 1)
    right = concat([x[:, :, 1:] - x[:, :, :-1], zeros_like(x[:, :, :1])], 2)
    return down, right
