"""Images read at other places: by coordinates, by maps, and at another scale."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.keras.layers.core import data_format_of
from distgrad.keras.ops.promotion import result_type
from distgrad.ops.casting import cast, identity, ones_like, zeros_like
from distgrad.ops.clipping import clip_by_value, maximum
from distgrad.ops.layout import beside, broadcast_to
from distgrad.ops.linalg import tensordot
from distgrad.ops.logic import greater, greater_equal, less, less_equal, logical_and, select
from distgrad.ops.reduce import reduce_max, reduce_min, reduce_sum
from distgrad.ops.rounding import floor, floormod, rint
from distgrad.ops.scatter import gather_nd
from distgrad.ops.shape import concat, expand_dims, permute, squeeze, stack, static
from distgrad.ops.solvers import solve
from distgrad.ops.trigonometric import sin
from distgrad.ops.warp import FILL_MODES, INTERPOLATIONS, warp


def batched(
    fn: Callable[[Tensor], Tensor], images: Any, data_format: str | None, rank: int = 4
) -> Tensor:
    """``fn`` of a batch of images, channels last; the result laid out as the images were.

    Raises ValueError for a rank other than that of an image or of a batch.
    """
    x, first = as_tensor(images), data_format_of(data_format) == "channels_first"
    if x._data.ndim not in (rank - 1, rank):
        raise ValueError(
            f"an image has rank {rank - 1}, a batch of them rank {rank}; not shape {x.shape}"
        )
    alone = x._data.ndim == rank - 1
    if alone:
        x = expand_dims(x, 0)
    if first:
        x = bind(permute, x, perm=(0, *range(2, rank), 1))
    y = fn(x)
    if first:
        y = bind(permute, y, perm=(0, rank - 1, *range(1, rank - 1), *range(rank, y._data.ndim)))
    return squeeze(y, 0) if alone else y


# Coordinates


def map_coordinates(
    inputs: Any, coordinates: Any, order: int, fill_mode: str = "constant", fill_value: Any = 0
) -> Tensor:
    """The values of ``inputs`` at ``coordinates``, one row of them for each axis.

    ``order`` 0 takes the nearest element, 1 interpolates linearly. What lies outside is
    ``fill_value`` ("constant"), the border ("nearest"), or the tensor again ("wrap", "mirror",
    "reflect"). Raises ValueError for another fill mode or number of rows.
    """
    x, places = as_tensor(inputs), as_tensor(coordinates)
    if places._data.ndim < 2 or places._data.shape[0] != x._data.ndim:
        raise ValueError(
            f"map_coordinates: coordinates of shape {places.shape} for inputs of shape {x.shape}"
        )
    if order not in (0, 1):
        raise NotImplementedError(f"map_coordinates: order is 0 or 1, not {order!r}")
    if fill_mode not in ("constant", "nearest", "wrap", "mirror", "reflect"):
        raise ValueError(f"map_coordinates: there is no fill_mode {fill_mode!r}")
    integers = places._data.dtype.kind in "iu"
    axes = []
    for i, size in enumerate(x._data.shape):
        row = places[i]
        if order == 0 or integers:
            nodes = [(cast(row if integers else rint(row), np.int32), None)]
            if order and integers:
                nodes = nodes[:1]
        else:
            low = floor(row)
            part = row - low
            index = cast(low, np.int32)
            nodes = [(index, 1.0 - part), (index + 1, part)]
        axes.append([(*inside(index, size, fill_mode), weight) for index, weight in nodes])
    kind = np.dtype(np.float32) if integers else places._data.dtype
    total: Any = None
    for corner in itertools.product(*axes):
        found = cast(gather_nd(x, stack([index for index, _, _ in corner], -1)), kind)
        if fill_mode == "constant":
            valid = functools.reduce(logical_and, [inside for _, inside, _ in corner])
            found = select(valid, found, float(fill_value))
        weights = [weight for _, _, weight in corner if weight is not None]
        found = functools.reduce(operator.mul, weights, found)
        total = found if total is None else total + found
    if x._data.dtype.kind in "iu":
        total = rint(total)
    return cast(total, x.dtype)


def inside(index: Tensor, size: int, fill_mode: str) -> tuple[Tensor, Tensor]:
    """Positions within [0, size), and where they are so without being moved."""
    within = logical_and(greater_equal(index, 0), less(index, size))
    if fill_mode == "wrap":
        return floormod(index, size), within
    if fill_mode == "mirror":  # dcb|abcd|cba
        last = size - 1
        return last - abs(last - floormod(index, max(2 * last, 1))), within
    if fill_mode == "reflect":  # dcba|abcd|dcba
        at = floormod(abs(index), 2 * size)
        return select(less(at, size), at, 2 * size - at - 1), within
    return clip_by_value(index, 0, size - 1), within


# Maps


def affine_transform(
    images: Any,
    transform: Any,
    interpolation: str = "bilinear",
    fill_mode: str = "constant",
    fill_value: Any = 0,
    data_format: str | None = None,
) -> Tensor:
    """Each pixel (x, y) read at ``(a0 x + a1 y + a2, b0 x + b1 y + b2) / (c0 x + c1 y + 1)``.

    ``transform`` is ``[a0, a1, a2, b0, b1, b2, c0, c1]``, one or one for each image. Raises
    ValueError for another shape, interpolation or fill mode.
    """
    maps = cast(transform, np.float32)
    if maps._data.ndim not in (1, 2) or maps._data.shape[-1] != 8:
        raise ValueError(f"affine_transform: transforms are 8 numbers, not of shape {maps.shape}")
    if interpolation not in INTERPOLATIONS or fill_mode not in FILL_MODES:
        raise ValueError(
            f"affine_transform: interpolation is one of {INTERPOLATIONS} and fill_mode one of "
            f"{FILL_MODES}, not {interpolation!r} and {fill_mode!r}"
        )

    def moved(x: Tensor) -> Tensor:
        each = broadcast_to(maps, (x._data.shape[0], 8))
        wide = cast(x, result_type(x.dtype, float))
        return cast(warp(wide, each, interpolation, fill_mode, float(fill_value)), x.dtype)

    return batched(moved, images, data_format)


def perspective_transform(
    images: Any,
    start_points: Any,
    end_points: Any,
    interpolation: str = "bilinear",
    fill_value: Any = 0,
    data_format: str | None = None,
) -> Tensor:
    """Images moved so that four points (x, y) come to lie on four others, ``[(n,) 4, 2]``.

    Raises ValueError for points of another shape.
    """
    start, end = cast(start_points, np.float32), cast(end_points, np.float32)
    if start._data.shape != end._data.shape or start._data.shape[-2:] != (4, 2):
        raise ValueError(
            f"perspective_transform takes four points and four others, not shapes {start.shape} "
            f"and {end.shape}"
        )
    # Two equations for each of the points, linear in the eight numbers of the map.
    x, y, u, v = end[..., 0], end[..., 1], start[..., 0], start[..., 1]
    one, none = ones_like(x), zeros_like(x)
    of_u = stack([x, y, one, none, none, none, -u * x, -u * y], -1)
    of_v = stack([none, none, none, x, y, one, -v * x, -v * y], -1)
    found = solve(concat([of_u, of_v], -2), expand_dims(concat([u, v], -1), -1))
    maps = squeeze(found, -1)
    return affine_transform(images, maps, interpolation, "constant", fill_value, data_format)


# Scales


def _cubic(x: Tensor) -> Tensor:
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return select(greater_equal(x, 2.0), 0.0, select(greater_equal(x, 1.0), far, near))


def _lanczos(radius: float, x: Tensor) -> Tensor:
    away = greater(x, 1e-3)
    safe = select(away, x, 1.0)
    waves = radius * sin(np.pi * safe) * sin((np.pi / radius) * safe) / (np.pi**2 * safe * safe)
    return select(greater(x, radius), 0.0, select(away, waves, 1.0))


_LINEAR: Callable[[Tensor], Tensor] = lambda x: maximum(1.0 - x, 0.0)  # noqa: E731 (beside others)
_KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    **dict.fromkeys(("linear", "bilinear", "trilinear", "triangle"), _LINEAR),
    **dict.fromkeys(("cubic", "bicubic", "tricubic"), _cubic),
    "lanczos3": functools.partial(_lanczos, 3.0),
    "lanczos5": functools.partial(_lanczos, 5.0),
}


def scale_and_translate(
    images: Any,
    output_shape: Any,
    scale: Any,
    translation: Any,
    spatial_dims: Sequence[int],
    method: str,
    antialias: bool = True,
) -> Tensor:
    """``images`` stretched by ``scale`` and moved by ``translation`` along ``spatial_dims``.

    Raises ValueError for another method.
    """
    if method not in _KERNELS:
        raise ValueError(f"scale_and_translate: method is one of {', '.join(_KERNELS)}")
    x = as_tensor(images)
    factors, shifts = as_tensor(scale), as_tensor(translation)
    kind = as_dtype(result_type(factors.dtype, shifts.dtype))
    factors, shifts = cast(factors, kind), cast(shifts, kind)
    whole = x._data.dtype.kind in "iu"
    made, shape = cast(x, np.float32) if whole else identity(x), static(output_shape)
    for i, axis in enumerate(spatial_dims):
        axis %= x._data.ndim
        sizes = x._data.shape[axis], shape[axis]
        weights = _shares(*sizes, factors[i], shifts[i], _KERNELS[method], antialias)
        made = tensordot(made, cast(weights, made.dtype), axes=[[axis], [0]])
        last = made._data.ndim - 1
        back = (*range(axis), last, *range(axis, last))
        made = bind(permute, made, perm=back)
    if whole:
        low, high = cast(reduce_min(x), np.float32), cast(reduce_max(x), np.float32)
        return cast(clip_by_value(rint(made), low, high), x.dtype)
    return made


def _shares(
    before: int,
    after: int,
    scale: Tensor,
    shift: Tensor,
    kernel: Callable[[Tensor], Tensor],
    antialias: bool,
) -> Tensor:
    """How much each of ``after`` elements takes of each of ``before``: [before, after]."""
    dtype = scale._data.dtype
    step = 1.0 / scale
    wide = maximum(step, 1.0) if antialias else 1.0
    rows = beside(scale, np.arange(before, dtype=dtype)[:, None])
    at = (beside(scale, np.arange(after, dtype=dtype)) + 0.5) * step - shift * step - 0.5
    weights = kernel(abs(expand_dims(at, 0) - rows) / wide)
    total = reduce_sum(weights, 0, keepdims=True)
    some = greater(abs(total), 1000.0 * float(np.finfo(np.float32).eps))
    weights = select(some, weights / select(some, total, 1.0), 0.0)
    inside = logical_and(greater_equal(at, -0.5), less_equal(at, before - 0.5))
    return select(expand_dims(inside, 0), weights, 0.0)
