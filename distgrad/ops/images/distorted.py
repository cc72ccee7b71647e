"""A random part of an image that shows enough of its boxes, on the host (``tf.image``)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Tensor
from distgrad.ops.layout import beside
from distgrad.ops.random import stateless_uniform, uniform

_Crop = tuple[int, int, int, int]  # top, left, height, width


def sample_distorted_bounding_box(
    image_size: Any,
    bounding_boxes: Any,
    seed: int = 0,
    min_object_covered: Any = 0.1,
    aspect_ratio_range: Sequence[float] | None = None,
    area_range: Sequence[float] | None = None,
    max_attempts: int | None = None,
    use_image_if_no_bounding_boxes: bool | None = None,
    name: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """``begin`` and ``size`` for ``tf.slice`` of an image, and the part as a box ``[1, 1, 4]``.

    ``image_size`` is (height, width, channels), ``bounding_boxes`` are ``[..., n, 4]`` (y1, x1, y2,
    x2) from 0 to 1. Of a part with ``aspect_ratio_range`` (0.75 to 1.33) and ``area_range`` (0.05
    to 1) some box is shown by ``min_object_covered`` at least; after ``max_attempts`` (100) in vain
    it is the whole image. Raises InvalidArgumentError for no boxes, unless
    ``use_image_if_no_bounding_boxes``, and for ranges that make no sense.
    """
    drawn = uniform([_numbers(max_attempts)], dtype=np.float64, seed=seed or None)
    return _sampled(
        drawn, image_size, bounding_boxes, min_object_covered, aspect_ratio_range, area_range,
        use_image_if_no_bounding_boxes,
    )  # fmt: skip


def stateless_sample_distorted_bounding_box(
    image_size: Any,
    bounding_boxes: Any,
    seed: Any,
    min_object_covered: Any = 0.1,
    aspect_ratio_range: Sequence[float] | None = None,
    area_range: Sequence[float] | None = None,
    max_attempts: int | None = None,
    use_image_if_no_bounding_boxes: bool | None = None,
    name: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """``sample_distorted_bounding_box`` that depends on the two ints of ``seed`` alone."""
    drawn = stateless_uniform([_numbers(max_attempts)], seed, dtype=np.float64)
    return _sampled(
        drawn, image_size, bounding_boxes, min_object_covered, aspect_ratio_range, area_range,
        use_image_if_no_bounding_boxes,
    )  # fmt: skip


def _numbers(max_attempts: int | None) -> int:
    """How many random numbers all attempts need."""
    return 4 * (100 if max_attempts is None else int(max_attempts))


def _sampled(
    drawn: Tensor,
    image_size: Any,
    bounding_boxes: Any,
    covered: Any,
    aspect_ratio_range: Sequence[float] | None,
    area_range: Sequence[float] | None,
    whole_if_none: bool | None,
) -> tuple[Tensor, Tensor, Tensor]:
    size, boxes = as_tensor(image_size), as_tensor(bounding_boxes)
    if size._data.shape != (3,) or size._data.dtype.kind not in "iu":
        raise InvalidArgumentError(f"image_size is (height, width, channels), not {image_size!r}")
    if not boxes._data.ndim or boxes._data.shape[-1] != 4:
        raise InvalidArgumentError(f"bounding_boxes are [..., n, 4], not {boxes.shape}")
    height, width = (int(n) for n in np.asarray(size._host())[:2])
    ratios = _range("aspect_ratio_range", aspect_ratio_range, 0.75, 1.33, math.inf)
    areas = _range("area_range", area_range, 0.05, 1.0, 1.0)
    rows = np.asarray(boxes._host(), np.float64).reshape(-1, 4)
    if not len(rows) and not whole_if_none:
        raise InvalidArgumentError(
            "there are no bounding_boxes: say use_image_if_no_bounding_boxes=True to take parts of "
            "any image"
        )
    objects = rows * [height, width, height, width]
    if not len(rows):
        objects = np.array([[0.0, 0.0, height, width]])
    numbers = iter(np.asarray(drawn._host()).tolist())
    top, left, tall, wide = 0, 0, height, width
    for first in numbers:
        ratio = ratios[0] + first * (ratios[1] - ratios[0])
        crop = _crop(height, width, areas, ratio, lambda n: int(next(numbers) * n))
        if crop is not None and _shows(crop, objects, float(covered)):
            top, left, tall, wide = crop
            break
    box = np.array([top / height, left / width, (top + tall) / height, (left + wide) / width])
    kind = size._data.dtype
    return (
        beside(size, np.array([top, left, 0], kind)),
        beside(size, np.array([tall, wide, -1], kind)),
        beside(size, box.astype(np.float32).reshape(1, 1, 4)),
    )


def _range(
    name: str, given: Sequence[float] | None, low: float, high: float, most: float
) -> tuple[float, float]:
    if given is not None:
        low, high = (float(v) for v in given)
    if not 0 < low <= high <= most:
        raise InvalidArgumentError(f"{name} is two numbers above 0 in order, not {given!r}")
    return low, high


def _crop(
    height: int, width: int, areas: tuple[float, float], ratio: float, draw: Callable[[int], int]
) -> _Crop | None:
    """A part of this width to height, anywhere; None where none of the area fits.

    It takes three numbers, whatever it finds.
    """
    least, most = (share * height * width for share in areas)
    low, high = round(math.sqrt(least / ratio)), round(math.sqrt(most / ratio))
    high = min(high, height, int((width + 0.5 - 1e-7) / ratio))
    tall = min(low, high)
    tall += draw(high - tall + 1)
    for change in (0, 1, -1):  # rounding may have left the range of areas
        if least <= (tall + change) * round((tall + change) * ratio) <= most:
            tall += change
            break
    wide = round(tall * ratio)
    fits = least <= tall * wide <= most and 0 < tall <= height and 0 < wide <= width
    top, left = draw(max(height - tall, 1)), draw(max(width - wide, 1))
    return (top, left, tall, wide) if fits else None


def _shows(crop: _Crop, objects: np.ndarray, covered: float) -> bool:
    """Whether the part of some box that lies in ``crop`` is as large as it has to be."""
    top, left, tall, wide = crop
    low = np.maximum(objects[:, :2], (top, left))
    high = np.minimum(objects[:, 2:], (top + tall, left + wide))
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    whole = np.prod(objects[:, 2:] - objects[:, :2], axis=1)
    return bool(((whole > 0) & (shared >= covered * whole)).any())
