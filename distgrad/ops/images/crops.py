"""Parts of images, images in frames, quarter turns, and patches."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import cast
from distgrad.ops.clipping import clip_by_value
from distgrad.ops.image import ResizeMethod, image_and_axis, resize
from distgrad.ops.indexing import check_indices, getitem, take
from distgrad.ops.layout import beside, reverse
from distgrad.ops.logic import greater_equal, less_equal, logical_and, select
from distgrad.ops.padding import pad_constant
from distgrad.ops.rounding import ceil, floor
from distgrad.ops.shape import expand_dims, part, permute, reshape_to, stack, static
from distgrad.ops.windows import Geometry, window_geometry


def _size(name: str, *numbers: Any) -> tuple[int, ...]:
    """Heights and widths as ints; InvalidArgumentError for one below 1."""
    sizes = static(list(numbers))
    if min(sizes) < 1:
        raise InvalidArgumentError(f"{name}: sizes are above 0, not {sizes}")
    return sizes


# Crops and frames


def crop_to_bounding_box(
    image: Any, offset_height: Any, offset_width: Any, target_height: Any, target_width: Any
) -> Tensor:
    """The ``target_height x target_width`` pixels from the offsets on.

    Raises InvalidArgumentError (a ValueError) for a box that is not inside the image.
    """
    x, axis = image_and_axis("crop_to_bounding_box", image)
    tall, wide = _size("crop_to_bounding_box", target_height, target_width)
    top, left = static([offset_height, offset_width])
    height, width = x._data.shape[axis : axis + 2]
    if min(top, left) < 0 or top + tall > height or left + wide > width:
        raise InvalidArgumentError(
            f"crop_to_bounding_box: {tall} x {wide} pixels from ({top}, {left}) on do not lie in "
            f"images of shape {x.shape}"
        )
    rows, columns = slice(top, top + tall), slice(left, left + wide)
    return bind(getitem, x, key=(*(slice(None),) * axis, rows, columns))


def pad_to_bounding_box(
    image: Any, offset_height: Any, offset_width: Any, target_height: Any, target_width: Any
) -> Tensor:
    """A frame of zeros, ``target_height x target_width``, with the image at the offsets.

    Raises InvalidArgumentError (a ValueError) where the image does not lie inside the frame.
    """
    x, axis = image_and_axis("pad_to_bounding_box", image)
    tall, wide = _size("pad_to_bounding_box", target_height, target_width)
    top, left = static([offset_height, offset_width])
    height, width = x._data.shape[axis : axis + 2]
    below, right = tall - top - height, wide - left - width
    if min(top, left, below, right) < 0:
        raise InvalidArgumentError(
            f"pad_to_bounding_box: images of shape {x.shape} at ({top}, {left}) do not lie in "
            f"{tall} x {wide} pixels"
        )
    frame = ((0, 0),) * axis + ((top, below), (left, right), (0, 0))
    return bind(pad_constant, x, paddings=frame, value=0)


def central_crop(image: Any, central_fraction: Any) -> Tensor:
    """The middle of the image: that fraction of its height and of its width.

    Raises InvalidArgumentError (a ValueError) for a fraction outside (0, 1].
    """
    x, axis = image_and_axis("central_crop", image)
    fraction = float(central_fraction)
    if not 0 < fraction <= 1:
        raise InvalidArgumentError(f"central_crop: a fraction in (0, 1] is needed, not {fraction}")
    height, width = x._data.shape[axis : axis + 2]
    top, left = (int((n - n * fraction) / 2) for n in (height, width))
    return crop_to_bounding_box(x, top, left, height - 2 * top, width - 2 * left)


def resize_with_crop_or_pad(image: Any, target_height: Any, target_width: Any) -> Tensor:
    """The middle of what is too large, zeros around what is too small; nothing is resampled."""
    x, axis = image_and_axis("resize_with_crop_or_pad", image)
    tall, wide = _size("resize_with_crop_or_pad", target_height, target_width)
    height, width = x._data.shape[axis : axis + 2]
    down, right = tall - height, wide - width
    cut = max(-down // 2, 0), max(-right // 2, 0)
    x = crop_to_bounding_box(x, *cut, min(tall, height), min(wide, width))
    return pad_to_bounding_box(x, max(down // 2, 0), max(right // 2, 0), tall, wide)


def resize_with_pad(
    image: Any,
    target_height: Any,
    target_width: Any,
    method: str = ResizeMethod.BILINEAR,
    antialias: bool = False,
) -> Tensor:
    """The image as large as fits into the target without distortion, zeros around it."""
    x, axis = image_and_axis("resize_with_pad", image)
    tall, wide = _size("resize_with_pad", target_height, target_width)
    height, width = (np.float32(n) for n in x._data.shape[axis : axis + 2])
    ratio = max(width / np.float32(wide), height / np.float32(tall))
    size = height / ratio, width / ratio
    x = resize(x, [int(n) for n in size], method, antialias=antialias)
    top, left = (int((n - m) / 2) for n, m in zip((tall, wide), size, strict=True))
    return pad_to_bounding_box(x, max(0, top), max(0, left), tall, wide)


# Turns


def rot90(image: Any, k: int = 1, name: str | None = None) -> Tensor:
    """``k`` quarter turns against the clock."""
    x, axis = image_and_axis("rot90", image)
    turns = int(k) % 4
    if turns == 0:
        return x
    if turns == 2:
        return reverse(x, [axis, axis + 1])
    if turns == 1:
        return transpose(reverse(x, [axis + 1]))
    return reverse(transpose(x), [axis + 1])


def transpose(image: Any, name: str | None = None) -> Tensor:
    """Height and width exchanged."""
    x, axis = image_and_axis("transpose", image)
    return bind(permute, x, perm=(*range(axis), axis + 1, axis, axis + 2))


# Boxes of any size, resampled to one


def crop_and_resize(
    image: Any,
    boxes: Any,
    box_indices: Any,
    crop_size: Any,
    method: str = "bilinear",
    extrapolation_value: float = 0.0,
    name: str | None = None,
) -> Tensor:
    """A crop of each of n ``boxes``, resampled to ``crop_size``: ``[n, *crop_size, channels]``.

    A box is ``y1, x1, y2, x2``, in which 0 and 1 are the centres of the first and the last pixel;
    the ends may be exchanged, and lie outside. ``box_indices`` say which of the images
    ``[batch, height, width, channels]`` each belongs to. float32; "bilinear" has gradients for
    images and boxes. Raises InvalidArgumentError for other shapes, indices or methods.
    """
    x, where, which = cast(image, np.float32), cast(boxes, np.float32), as_tensor(box_indices)
    tall, wide = _size("crop_and_resize", crop_size)
    count = which._data.shape
    if x._data.ndim != 4 or len(count) != 1 or where._data.shape != (*count, 4):
        raise InvalidArgumentError(
            f"crop_and_resize takes images of rank 4, boxes [n, 4] and n indices, not shapes "
            f"{x.shape}, {where.shape} and {which.shape}"
        )
    if method not in ("bilinear", "nearest"):
        raise InvalidArgumentError(f"crop_and_resize: 'bilinear' or 'nearest', not {method!r}")
    check_indices("crop_and_resize", which, x._data.shape[0])
    height, width = x._data.shape[1:3]
    rows = _places(where[:, 0], where[:, 2], height, tall)
    columns = _places(where[:, 1], where[:, 3], width, wide)
    inside = logical_and(
        expand_dims(_within(rows, height), 2), expand_dims(_within(columns, width), 1)
    )
    rows, columns = (
        clip_by_value(rows, 0.0, height - 1.0),
        clip_by_value(columns, 0.0, width - 1.0),
    )
    first = expand_dims(cast(which, np.int64) * (height * width), 1)
    flat = bind(reshape_to, x, shape=(x._data.size // x._data.shape[3], x._data.shape[3]))

    def at(of_rows: Tensor, of_columns: Tensor) -> Tensor:
        starts = first + cast(of_rows, np.int64) * width
        chosen = expand_dims(starts, 2) + expand_dims(cast(of_columns, np.int64), 1)
        return bind(take, flat, chosen, axis=0)

    if method == "nearest":
        made = at(floor(rows + 0.5), floor(columns + 0.5))
    else:
        up, down, left, right = floor(rows), ceil(rows), floor(columns), ceil(columns)
        across = expand_dims(expand_dims(columns - left, 1), 3)
        above, below = at(up, left), at(down, left)
        above = above + (at(up, right) - above) * across
        below = below + (at(down, right) - below) * across
        made = above + (below - above) * expand_dims(expand_dims(rows - up, 2), 3)
    return select(expand_dims(inside, 3), made, float(extrapolation_value))


def _places(start: Tensor, end: Tensor, before: int, after: int) -> Tensor:
    """Where in an axis of ``before`` pixels the ``after`` pixels of each box lie: [n, after]."""
    if after == 1:
        return expand_dims((start + end) * (0.5 * (before - 1)), 1)
    steps = beside(start, np.arange(after, dtype=start._data.dtype))
    step = (end - start) * ((before - 1) / (after - 1))
    return expand_dims(start * (before - 1.0), 1) + expand_dims(step, 1) * steps


def _within(at: Tensor, length: int) -> Tensor:
    return logical_and(greater_equal(at, 0.0), less_equal(at, length - 1.0))


# Patches


def extract_patches(
    images: Any, sizes: Any, strides: Any, rates: Any, padding: Any, name: str | None = None
) -> Tensor:
    """Windows of ``[batch, height, width, channels]``, each as the last axis of one place.

    ``sizes``, ``strides`` and ``rates`` (dilations) are ``[1, rows, columns, 1]``. Raises
    InvalidArgumentError for another rank or other numbers.
    """
    x = as_tensor(images)
    if x._data.ndim != 4:
        raise InvalidArgumentError(f"extract_patches takes images of rank 4, not {x.shape}")
    each = [static(value) for value in (sizes, strides, rates)]
    if any(len(v) != 4 or v[0] != 1 or v[3] != 1 or min(v) < 1 for v in each):
        raise InvalidArgumentError(
            f"extract_patches: sizes, strides and rates are [1, rows, columns, 1], not {each}"
        )
    size, moves, gaps = (v[1:3] for v in each)
    space = x._data.shape[1:3]
    return patches(
        x, window_geometry("extract_patches", space, size, moves, padding, gaps, first=False)
    )


def patches(x: Tensor, geometry: Geometry) -> Tensor:
    """All windows of ``[batch, *space, channels]``, each flat in the last axis of its place."""
    count = len(geometry.size)
    if any(map(any, geometry.padding)):
        x = bind(pad_constant, x, paddings=((0, 0), *geometry.padding, (0, 0)), value=0)
        geometry = geometry._replace(padding=((0, 0),) * count)
    batch, *space, channels = x._data.shape
    counts = geometry.counts(space)
    # One axis after the other: as many slices as a window is long, not as it is large.
    for i in reversed(range(count)):
        starts = (at * geometry.dilations[i] for at in range(geometry.size[i]))
        reach, step = geometry.strides[i] * counts[i], geometry.strides[i]
        slices = [bind(getitem, x, key=part(i + 1, at, at + reach, step)) for at in starts]
        x = stack(slices, i + 2)
    apart = (0, *range(1, 2 * count, 2), *range(2, 2 * count + 1, 2), 2 * count + 1)
    x = bind(permute, x, perm=apart)
    return bind(reshape_to, x, shape=(batch, *counts, int(np.prod(geometry.size)) * channels))
