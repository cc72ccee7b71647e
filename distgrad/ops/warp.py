"""Images moved by affine and projective maps: each pixel is read from where the map sends it.

The rules at borders and between pixels are those of TensorFlow's ImageProjectiveTransformV3.
"""

from __future__ import annotations

import numpy as np

from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import cast
from distgrad.ops.clipping import clip
from distgrad.ops.indexing import take
from distgrad.ops.layout import beside
from distgrad.ops.logic import greater, less, logical_and, select
from distgrad.ops.rounding import floor
from distgrad.ops.shape import reshape

FILL_MODES = ("constant", "nearest", "reflect", "wrap")
INTERPOLATIONS = ("bilinear", "nearest")


def warp(
    images: Tensor,
    maps: Tensor,
    interpolation: str = "bilinear",
    fill_mode: str = "reflect",
    fill_value: float = 0.0,
) -> Tensor:
    """``images`` [n, height, width, channels], their pixels (x, y) read at (a x + b y + c, ...).

    ``maps`` [n, 6] holds a, b, c for x, then for y; with 8 numbers, g and h, both are divided by
    ``g x + h y + 1``. What lies outside is ``fill_value`` for
    "constant", the border for "nearest", the image mirrored or again for "reflect" and "wrap".
    """
    n, height, width, channels = images._data.shape
    across = beside(maps, np.arange(width, dtype=maps._data.dtype))
    down = beside(maps, np.arange(height, dtype=maps._data.dtype)[:, None])
    a, b, c, d, e, f = (reshape(maps[:, i], (n, 1, 1)) for i in range(6))
    x, y = a * across + b * down + c, d * across + e * down + f
    if maps._data.shape[1] == 8:
        g, h = (reshape(maps[:, i], (n, 1, 1)) for i in (6, 7))
        depth = g * across + h * down + 1.0
        x, y = x / depth, y / depth
    x, y = _inside(x, width, fill_mode), _inside(y, height, fill_mode)
    rows = reshape(images, (n * height * width, channels))
    first = beside(maps, np.arange(n, dtype=np.int64)[:, None, None] * (height * width))

    def read(column: Tensor, row: Tensor) -> Tensor:
        at = cast(clip(row, 0.0, height - 1.0), np.int64) * width
        at = at + cast(clip(column, 0.0, width - 1.0), np.int64) + first
        found = bind(take, rows, at, axis=0)
        if fill_mode != "constant":
            return found
        valid = logical_and(_within(column, width), _within(row, height))
        return select(reshape(valid, (n, height, width, 1)), found, float(fill_value))

    def share(part: Tensor) -> Tensor:
        return cast(reshape(part, (n, height, width, 1)), images._data.dtype)

    if interpolation == "nearest":
        return read(floor(x + 0.5), floor(y + 0.5))
    left, top = floor(x), floor(y)
    right, bottom = left + 1.0, top + 1.0
    upper = share(right - x) * read(left, top) + share(x - left) * read(right, top)
    lower = share(right - x) * read(left, bottom) + share(x - left) * read(right, bottom)
    return share(bottom - y) * upper + share(y - top) * lower


def _within(at: Tensor, size: int) -> Tensor:
    return logical_and(greater(at, -1.0), less(at, float(size)))


def _inside(at: Tensor, size: int, fill_mode: str) -> Tensor:
    """Coordinates within [0, size - 1]; those of "constant" as they are."""
    if fill_mode == "constant":
        return at
    if fill_mode == "reflect":  # dcba|abcd|dcba
        at = at - floor(at * (0.5 / size)) * (2.0 * size)
        at = select(less(at, float(size)), at, 2.0 * size - 1.0 - at)
    elif fill_mode == "wrap":  # abcd|abcd|abcd
        around = max(size - 1, 1)
        before = at + (floor(-at / around) + 1.0) * size
        behind = at - floor(at / around) * size
        at = select(less(at, 0.0), before, select(greater(at, size - 1.0), behind, at))
    return clip(at, 0.0, size - 1.0)
