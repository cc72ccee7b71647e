"""Convolutions under TensorFlow's names, with its strides, padding, dilations and data formats.

Filters and inputs are as in TensorFlow: ``[*size, in_channels, out_channels]`` and, with the
channels last, ``[batch, *space, channels]``. Channels first and dilation with gradients work on
CPUs too, where TensorFlow has neither.
"""

from __future__ import annotations

from typing import Any

from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.ops.convolve import convolve, convolve_grad_x, depthwise_convolve
from distgrad.ops.linalg import tensors
from distgrad.ops.shape import concat, reshape_to, static
from distgrad.ops.windows import channels_first, channels_last, window_geometry


def _convolution(
    name: str,
    count: int,
    input: Any,
    filters: Any,
    strides: Any,
    padding: Any,
    data_format: str | None,
    dilations: Any,
) -> Tensor:
    """A convolution over ``count`` spatial axes; fewer input channels in the filters: groups."""
    x, w = tensors(name, input, filters)
    first = channels_first(name, data_format, count)
    space, channels = _split(name, x, w, count, first)
    depth, outputs = w._data.shape[-2:]
    if not depth or channels % depth or outputs % (channels // depth):
        raise InvalidArgumentError(
            f"{name}: input of shape {x.shape} has {channels} channels; filters of shape {w.shape} "
            f"take {depth}"
        )
    moves = window_geometry(name, space, w._data.shape[:-2], strides, padding, dilations, first)
    groups = channels // depth

    def run(x: Tensor) -> Tensor:
        if groups == 1:
            return convolve(x, w, geometry=moves)
        if depth == 1:
            shape = (*w._data.shape[:-2], channels, outputs // channels)
            return depthwise_convolve(x, bind(reshape_to, w, shape=shape), geometry=moves)
        each = outputs // groups
        parts = [
            convolve(
                x[..., i * depth : (i + 1) * depth],
                w[..., i * each : (i + 1) * each],
                geometry=moves,
            )
            for i in range(groups)
        ]
        return concat(parts, -1)

    return channels_last(run, x, count, first)


def _split(name: str, x: Tensor, w: Tensor, count: int, first: bool) -> tuple[tuple, int]:
    """The spatial shape and the channels of ``x``; InvalidArgumentError for a wrong rank."""
    shape = x._data.shape
    if len(shape) < count + 2 or w._data.ndim != count + 2:
        raise InvalidArgumentError(
            f"{name} takes an input of rank {count + 2} and filters of rank {count + 2}, not "
            f"shapes {x.shape} and {w.shape}"
        )
    if first:
        return shape[-count:], shape[-count - 1]
    return shape[-count - 1 : -1], shape[-1]


def conv1d(
    input: Any,
    filters: Any,
    stride: Any,
    padding: Any,
    data_format: str | None = "NWC",
    dilations: Any = None,
    name: str | None = None,
) -> Tensor:
    """1-D convolution of ``[batch, width, in]`` with ``[size, in, out]``.

    Raises InvalidArgumentError for ranks or channels that do not fit (both shapes are named), and
    for a bad stride, padding, dilation or data format; so do the others here.
    """
    return _convolution("conv1d", 1, input, filters, stride, padding, data_format, dilations)


def conv2d(
    input: Any,
    filters: Any,
    strides: Any,
    padding: Any,
    data_format: str | None = "NHWC",
    dilations: Any = None,
    name: str | None = None,
) -> Tensor:
    """2-D convolution of ``[batch, height, width, in]`` with ``[h, w, in, out]``."""
    return _convolution("conv2d", 2, input, filters, strides, padding, data_format, dilations)


def atrous_conv2d(
    value: Any, filters: Any, rate: int, padding: str, name: str | None = None
) -> Tensor:
    """``conv2d`` with ``rate - 1`` zeros between the entries of the filters, one stride a step."""
    return conv2d(value, filters, 1, padding, dilations=rate)


def conv3d(
    input: Any,
    filters: Any,
    strides: Any,
    padding: Any,
    data_format: str | None = "NDHWC",
    dilations: Any = None,
    name: str | None = None,
) -> Tensor:
    """3-D convolution of ``[batch, depth, height, width, in]`` with ``[d, h, w, in, out]``."""
    return _convolution("conv3d", 3, input, filters, strides, padding, data_format, dilations)


def convolution(
    input: Any,
    filters: Any,
    strides: Any = None,
    padding: Any = "VALID",
    data_format: str | None = None,
    dilations: Any = None,
    name: str | None = None,
) -> Tensor:
    """A convolution over as many spatial axes (1 to 3) as ``filters`` has."""
    x, w = tensors("convolution", input, filters)
    count = _axes("convolution", w)
    return _convolution("convolution", count, x, w, strides, padding, data_format, dilations)


def _axes(name: str, filters: Tensor) -> int:
    count = filters._data.ndim - 2
    if not 1 <= count <= 3:
        raise InvalidArgumentError(f"{name} takes filters of rank 3 to 5, not {filters.shape}")
    return count


def _transpose(
    name: str,
    count: int,
    input: Any,
    filters: Any,
    output_shape: Any,
    strides: Any,
    padding: Any,
    data_format: str | None,
    dilations: Any,
) -> Tensor:
    """The gradient of a convolution that maps ``output_shape`` to the shape of ``input``."""
    x, w = tensors(name, input, filters)
    first = channels_first(name, data_format, count)
    _, channels = _split(name, x, w, count, first)
    wanted = static(output_shape)
    if len(wanted) != x._data.ndim:
        raise InvalidArgumentError(f"{name}: output_shape {wanted} for an input of {x.shape}")
    batch = wanted[: -count - 1]
    space = wanted[-count:] if first else wanted[-count - 1 : -1]
    outputs = wanted[-count - 1] if first else wanted[-1]
    if w._data.shape[-1] != channels or w._data.shape[-2] != outputs:
        raise InvalidArgumentError(
            f"{name}: filters of shape {w.shape} for an input of shape {x.shape} and output_shape "
            f"{wanted}; filters are [..., out_channels, in_channels]"
        )
    moves = window_geometry(name, space, w._data.shape[:-2], strides, padding, dilations, first)

    def run(x: Tensor) -> Tensor:
        shape = x._data.shape
        if moves.counts(space) != shape[1:-1] or batch != given:
            raise InvalidArgumentError(
                f"{name}: output_shape {wanted} with filters {w.shape} is made from spatial shape "
                f"{moves.counts(space)}, not from an input of shape {shape}"
            )
        return convolve_grad_x(x, w, shape=(shape[0], *space, outputs), geometry=moves)

    given = x._data.shape[: -count - 1]
    return channels_last(run, x, count, first)


def conv1d_transpose(
    input: Any,
    filters: Any,
    output_shape: Any,
    strides: Any,
    padding: Any = "SAME",
    data_format: str | None = "NWC",
    dilations: Any = None,
    name: str | None = None,
) -> Tensor:
    """Transpose (gradient) of conv1d: from its output back to a tensor of ``output_shape``.

    ``filters`` are ``[size, out, in]``. Raises InvalidArgumentError where shapes do not fit.
    """
    return _transpose(
        "conv1d_transpose", 1, input, filters, output_shape, strides, padding, data_format,
        dilations,
    )  # fmt: skip


def conv2d_transpose(
    input: Any,
    filters: Any,
    output_shape: Any,
    strides: Any,
    padding: Any = "SAME",
    data_format: str | None = "NHWC",
    dilations: Any = None,
    name: str | None = None,
) -> Tensor:
    """Transpose (gradient) of conv2d: from its output back to a tensor of ``output_shape``.

    ``filters`` are ``[h, w, out, in]``. Raises InvalidArgumentError where shapes do not fit.
    """
    return _transpose(
        "conv2d_transpose", 2, input, filters, output_shape, strides, padding, data_format,
        dilations,
    )  # fmt: skip


def conv3d_transpose(
    input: Any,
    filters: Any,
    output_shape: Any,
    strides: Any,
    padding: Any = "SAME",
    data_format: str | None = "NDHWC",
    dilations: Any = None,
    name: str | None = None,
) -> Tensor:
    """Transpose (gradient) of conv3d: from its output back to a tensor of ``output_shape``.

    ``filters`` are ``[d, h, w, out, in]``. Raises InvalidArgumentError where shapes do not fit.
    """
    return _transpose(
        "conv3d_transpose", 3, input, filters, output_shape, strides, padding, data_format,
        dilations,
    )  # fmt: skip


def conv_transpose(
    input: Any,
    filters: Any,
    output_shape: Any,
    strides: Any,
    padding: Any = "SAME",
    data_format: str | None = None,
    dilations: Any = None,
    name: str | None = None,
) -> Tensor:
    """A transposed convolution over as many spatial axes (1 to 3) as ``filters`` has."""
    x, w = tensors("conv_transpose", input, filters)
    return _transpose(
        "conv_transpose", _axes("conv_transpose", w), x, w, output_shape, strides, padding,
        data_format, dilations,
    )  # fmt: skip


def depthwise_conv2d(
    input: Any,
    filter: Any,
    strides: Any,
    padding: Any,
    data_format: str | None = None,
    dilations: Any = None,
    name: str | None = None,
) -> Tensor:
    """Each channel of ``[batch, height, width, in]`` with its own ``[h, w, in, multiplier]``.

    Channel i makes the output channels ``i * multiplier`` and on. Raises InvalidArgumentError
    where ranks or channels do not fit.
    """
    what = "depthwise_conv2d"
    x, w = tensors(what, input, filter)
    first = channels_first(what, data_format, 2)
    space, channels = _split(what, x, w, 2, first)
    if w._data.shape[-2] != channels:
        raise InvalidArgumentError(
            f"{what}: input of shape {x.shape} has {channels} channels; filter of shape {w.shape} "
            f"takes {w._data.shape[-2]}"
        )
    moves = window_geometry(what, space, w._data.shape[:-2], strides, padding, dilations, first)
    return channels_last(lambda x: depthwise_convolve(x, w, geometry=moves), x, 2, first)


def separable_conv2d(
    input: Any,
    depthwise_filter: Any,
    pointwise_filter: Any,
    strides: Any,
    padding: Any,
    data_format: str | None = None,
    dilations: Any = None,
    name: str | None = None,
) -> Tensor:
    """depthwise_conv2d, then a convolution with ``[1, 1, in * multiplier, out]``."""
    middle = depthwise_conv2d(input, depthwise_filter, strides, padding, data_format, dilations)
    return _convolution(
        "separable_conv2d", 2, middle, pointwise_filter, 1, "VALID", data_format, None
    )
