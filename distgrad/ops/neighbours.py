"""Less common windows: pooling by name or with positions, morphology, local responses."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import cast
from distgrad.ops.clipping import maximum
from distgrad.ops.indexing import getitem, take
from distgrad.ops.layout import beside, reverse
from distgrad.ops.linalg import tensors
from distgrad.ops.padding import pad_constant
from distgrad.ops.pooling import lowest, max_windows, mean_windows, pool_windows
from distgrad.ops.powers import pow
from distgrad.ops.reduce import argmax
from distgrad.ops.shape import part, stack
from distgrad.ops.windows import spatial, window_geometry


def bias_add(
    value: Any, bias: Any, data_format: str | None = None, name: str | None = None
) -> Tensor:
    """``value`` plus one number per channel: the last axis, or the second ("NC...").

    Raises InvalidArgumentError unless there are as many numbers as channels.
    """
    x, b = tensors("bias_add", value, bias)
    if data_format is not None and not (
        data_format.startswith("NC") or (data_format[0] == "N" and data_format[-1] == "C")
    ):
        raise ValueError(f"bias_add: data_format is 'N...C' or 'NC...', not {data_format!r}")
    axis = 1 if data_format is not None and data_format.startswith("NC") else x._data.ndim - 1
    if x._data.ndim < 2 or b._data.shape != x._data.shape[axis : axis + 1]:
        raise InvalidArgumentError(
            f"bias_add: a bias of shape {b.shape} for a value of shape {x.shape}"
        )
    after = (None,) * (x._data.ndim - axis - 1)
    return x + (bind(getitem, b, key=(slice(None), *after)) if after else b)


def pool(
    input: Any,
    window_shape: Any,
    pooling_type: str,
    strides: Any = None,
    padding: Any = "VALID",
    data_format: str | None = None,
    dilations: Any = None,
    name: str | None = None,
) -> Tensor:
    """The largest element ("MAX") or the mean ("AVG") of each window, over 1 to 3 axes.

    Raises ValueError for another kind, InvalidArgumentError for windows that do not fit.
    """
    kinds = {"MAX": max_windows, "AVG": mean_windows}
    if pooling_type not in kinds:
        raise ValueError(f"pool: pooling_type is 'MAX' or 'AVG', not {pooling_type!r}")
    return pool_windows(
        "pool", kinds[pooling_type], None, input, window_shape, strides, padding, data_format,
        dilations, "window_shape",
    )  # fmt: skip


class MaxPoolWithArgmax(NamedTuple):
    """What ``max_pool_with_argmax`` gives."""

    output: Tensor
    argmax: Tensor


def max_pool_with_argmax(
    input: Any,
    ksize: Any,
    strides: Any,
    padding: str,
    data_format: str = "NHWC",
    output_dtype: Any = np.int64,
    include_batch_in_index: bool = False,
    name: str | None = None,
) -> MaxPoolWithArgmax:
    """The largest element of each window, and where it stands in the flat image.

    The place is ``(row * width + column) * channels + channel``, after those of the images before
    it where ``include_batch_in_index``. Raises InvalidArgumentError for a rank other than 4.
    """
    x = as_tensor(input)
    if x._data.ndim != 4 or data_format != "NHWC":
        raise InvalidArgumentError(
            f"max_pool_with_argmax takes NHWC images of rank 4, not {data_format} and {x.shape}"
        )
    batch, height, width, channels = x._data.shape
    size = spatial("max_pool_with_argmax", "ksize", ksize, 2, False)
    moves = window_geometry(
        "max_pool_with_argmax", (height, width), size, strides, padding, None, False
    )
    largest = max_windows(x, geometry=moves)
    counts = moves.counts((height, width))
    # Which pixel each element of each window is; the frame around the image is never the largest.
    pixels = np.arange(height * width).reshape(1, height, width, 1)
    numbers = moves.padded(np, pixels, -1)
    frame = ((0, 0), *moves.padding, (0, 0))
    low = float(lowest(x._data.dtype)) if x._data.dtype.kind == "f" else lowest(x._data.dtype)
    framed = bind(pad_constant, x, paddings=frame, value=low)
    indices = [index for _, index in moves.offsets(counts)]
    which = argmax(stack([bind(getitem, framed, key=index) for index in indices], 0), 0)
    table = np.stack([numbers[index][0, :, :, 0] for index in indices], -1)  # [rows, columns, k]
    starts = np.arange(counts[0] * counts[1]).reshape(1, *counts, 1) * len(indices)
    pixel = bind(take, beside(x, table.reshape(-1)), which + beside(x, starts), axis=0)
    place = pixel * channels + beside(x, np.arange(channels))
    if include_batch_in_index:
        images = np.arange(batch).reshape(batch, 1, 1, 1)
        place = place + beside(x, images * (height * width * channels))
    return MaxPoolWithArgmax(largest, cast(place, as_dtype(output_dtype)))


# Morphology


def dilation2d(
    input: Any,
    filters: Any,
    strides: Any,
    padding: str,
    data_format: str,
    dilations: Any,
    name: str | None = None,
) -> Tensor:
    """The largest of ``pixel + filter`` over each window, per channel; filters are ``[h, w, c]``.

    Raises InvalidArgumentError where ranks or channels do not fit.
    """
    x, w = tensors("dilation2d", input, filters)
    if data_format != "NHWC" or x._data.ndim != 4 or w._data.shape[2:] != x._data.shape[3:]:
        raise InvalidArgumentError(
            f"dilation2d takes NHWC images of rank 4 and filters [h, w, channels], not "
            f"{data_format}, {x.shape} and {w.shape}"
        )
    moves = window_geometry(
        "dilation2d", x._data.shape[1:3], w._data.shape[:2], strides, padding, dilations, False
    )
    counts = moves.counts(x._data.shape[1:3])
    low = float(np.finfo(x._data.dtype).min)  # far below any sum, and finite beside any filter
    x = bind(pad_constant, x, paddings=((0, 0), *moves.padding, (0, 0)), value=low)
    found: Tensor | None = None
    for at, index in moves.offsets(counts):
        each = bind(getitem, x, key=index) + bind(getitem, w, key=at)
        found = each if found is None else maximum(found, each)
    assert found is not None
    return found


def erosion2d(
    value: Any,
    filters: Any,
    strides: Any,
    padding: str,
    data_format: str,
    dilations: Any,
    name: str | None = None,
) -> Tensor:
    """The smallest of ``pixel - filter`` over each window, per channel: see ``dilation2d``."""
    x, w = tensors("erosion2d", value, filters)
    return -dilation2d(-x, reverse(w, [0, 1]), strides, padding, data_format, dilations)


# Responses


def local_response_normalization(
    input: Any,
    depth_radius: int = 5,
    bias: float = 1,
    alpha: float = 1,
    beta: float = 0.5,
    name: str | None = None,
) -> Tensor:
    """``x / (bias + alpha * sum(x**2)) ** beta``, the sum over the channels up to a radius away.

    Raises InvalidArgumentError for a rank other than 4.
    """
    x = as_tensor(input)
    if x._data.ndim != 4:
        raise InvalidArgumentError(f"local_response_normalization takes rank 4, not {x.shape}")
    radius, channels = int(depth_radius), x._data.shape[3]
    frame = ((0, 0),) * 3 + ((radius, radius),)
    squares = bind(pad_constant, x * x, paddings=frame, value=0.0)
    total = bind(getitem, squares, key=part(3, 0, channels))
    for at in range(1, 2 * radius + 1):
        total = total + bind(getitem, squares, key=part(3, at, at + channels))
    return x * pow(total * float(alpha) + float(bias), -float(beta))


lrn = local_response_normalization
