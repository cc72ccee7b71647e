"""Images as a JPEG of some quality shows them (``tf.image``)."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Tensor
from distgrad.image_files import decode_jpeg, encode_jpeg
from distgrad.ops.image import convert_image_dtype
from distgrad.ops.random import stateless_uniform, uniform


def adjust_jpeg_quality(
    image: Any, jpeg_quality: Any, dct_method: str = "", name: str | None = None
) -> Tensor:
    """One image ``[height, width, 1 or 3]`` written as a JPEG of a quality from 0 to 100, and read.

    Floats stand for 0 to 1. ``dct_method`` changes nothing. Raises InvalidArgumentError (a
    ValueError) for another image or quality.
    """
    x, quality = as_tensor(image), int(jpeg_quality)
    if not 0 <= quality <= 100:
        raise InvalidArgumentError(f"jpeg_quality lies in [0, 100], not {quality}")
    pixels = convert_image_dtype(x, np.uint8, saturate=True)
    contents = encode_jpeg(pixels, quality=quality)
    back = decode_jpeg(contents, channels=x._data.shape[-1])
    return convert_image_dtype(back, x.dtype, saturate=True)


def _checked(low: Any, high: Any) -> tuple[int, int]:
    if not 0 <= low < high <= 100:
        raise ValueError(f"a JPEG's quality lies in a range within [0, 100], not {low} to {high}")
    return int(low), int(high)


def random_jpeg_quality(
    image: Any, min_jpeg_quality: Any, max_jpeg_quality: Any, seed: int | None = None
) -> Tensor:
    """``adjust_jpeg_quality`` by chance; ValueError unless ``0 <= min < max <= 100``."""
    low, high = _checked(min_jpeg_quality, max_jpeg_quality)
    return adjust_jpeg_quality(image, uniform([], low, high, np.int32, seed))


def stateless_random_jpeg_quality(
    image: Any, min_jpeg_quality: Any, max_jpeg_quality: Any, seed: Any
) -> Tensor:
    """``random_jpeg_quality`` that depends on the two ints of ``seed`` alone."""
    low, high = _checked(min_jpeg_quality, max_jpeg_quality)
    return adjust_jpeg_quality(image, stateless_uniform([], seed, low, high, np.int32))
