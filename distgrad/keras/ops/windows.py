"""Convolutions and pooling of ``keras.ops``: sizes, strides and layouts in Keras's words."""

from __future__ import annotations

from typing import Any

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.keras.layers.core import data_format_of
from distgrad.keras.layers.transposed import transposed_length
from distgrad.keras.ops.promotion import tensors
from distgrad.ops import convolution, pooling
from distgrad.ops.shape import expand_dims, squeeze


def _layout(data_format: str | None, count: int) -> str:
    space = "DHW"[-count:]
    return f"NC{space}" if data_format_of(data_format) == "channels_first" else f"N{space}C"


def _each(value: Any, count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(value)


def _pooled(pool: Any, inputs: Any, size: Any, strides: Any, padding: str, layout: Any) -> Tensor:
    x = as_tensor(inputs)
    moves = size if strides is None else strides
    return pool(x, size, moves, padding, _layout(layout, x._data.ndim - 2))


def max_pool(
    inputs: Any,
    pool_size: Any,
    strides: Any = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> Tensor:
    """The largest element of each window, over 1 to 3 axes; strides are the size by default."""
    return _pooled(pooling.max_pool, inputs, pool_size, strides, padding, data_format)


def average_pool(
    inputs: Any,
    pool_size: Any,
    strides: Any = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> Tensor:
    """The mean of each window, over 1 to 3 axes; strides are the size by default."""
    return _pooled(pooling.avg_pool, inputs, pool_size, strides, padding, data_format)


def conv(
    inputs: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Tensor:
    """Convolution with a kernel ``[*size, in, out]``, over 1 to 3 axes."""
    x, w = tensors(inputs, kernel)
    layout = _layout(data_format, w._data.ndim - 2)
    return convolution.convolution(x, w, strides, padding, layout, dilation_rate)


def depthwise_conv(
    inputs: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Tensor:
    """Each channel with kernels of its own, ``[*size, in, multiplier]``, over 1 or 2 axes."""
    x, w = tensors(inputs, kernel)
    count = w._data.ndim - 2
    moves, gaps = _each(strides, count), _each(dilation_rate, count)
    if count == 2:
        layout = _layout(data_format, 2)
        return convolution.depthwise_conv2d(x, w, moves, padding, layout, gaps)
    row = 2 if data_format_of(data_format) == "channels_first" else 1  # one axis is a row of two
    x, w, layout = expand_dims(x, row), expand_dims(w, 0), _layout(data_format, 2)
    moves, gaps = moves * 2, (1, *gaps)
    return squeeze(convolution.depthwise_conv2d(x, w, moves, padding, layout, gaps), row)


def separable_conv(
    inputs: Any,
    depthwise_kernel: Any,
    pointwise_kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Tensor:
    """``depthwise_conv``, then ``conv`` with a kernel of size 1."""
    middle = depthwise_conv(inputs, depthwise_kernel, strides, padding, data_format, dilation_rate)
    return conv(middle, pointwise_kernel, 1, "valid", data_format)


def conv_transpose(
    inputs: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    output_padding: Any = None,
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Tensor:
    """The transpose of a convolution, with a kernel ``[*size, out, in]``, over 1 to 3 axes."""
    x, w = tensors(inputs, kernel)
    *sizes, filters, _ = w._data.shape
    count = len(sizes)
    moves, gaps = _each(strides, count), _each(dilation_rate, count)
    first = data_format_of(data_format) == "channels_first"
    space = x._data.shape[2:] if first else x._data.shape[1:-1]
    added = _each(output_padding, count) if output_padding is not None else (None,) * count
    each = zip(space, sizes, moves, gaps, added, strict=True)
    lengths = [transposed_length(padding.lower(), *one) for one in each]
    samples = x._data.shape[0]
    shape = (samples, filters, *lengths) if first else (samples, *lengths, filters)
    layout = _layout(data_format, count)
    return convolution.conv_transpose(x, w, shape, moves, padding, layout, gaps)
