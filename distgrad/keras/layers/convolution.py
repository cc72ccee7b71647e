"""Convolutions: one base class, and four ways to make outputs of windows.

Inputs are ``[batch, *space, channels]``, or ``[batch, channels, *space]`` with
``data_format="channels_first"``; "same" padding makes ``ceil(n / stride)`` outputs along an axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Tensor
from distgrad.keras import activations
from distgrad.keras.layers import shaping
from distgrad.keras.layers.adapting import Adapted, Table
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.core import (
    check_rank,
    data_format_of,
    known_size,
    one_of,
    own_weight,
    set_options,
    whole_number,
    whole_numbers,
)
from distgrad.ops import convolution as ops
from distgrad.ops.shape import reshape
from distgrad.ops.windows import channels_last

Sizes = int | Sequence[int]
Named = str | Callable[..., Any]


class Convolution(Layer):
    """Base of all convolutions: windows, bias, activation and data format.

    A subclass has ``rank`` spatial axes, makes its kernels in ``make_kernels(channels)`` and
    applies them in ``convolve(x)``, always with the channels last; ``output_channels`` counts
    those that it makes. Raises ValueError for sizes that are not positive ints, an unknown padding
    or data format, strides together with dilation, an input of another rank, with other channels
    than those the kernels were made for, or too small for one window.
    """

    one_tensor = True
    rank: int
    paddings: tuple[str, ...] = ("valid", "same")
    activation: Callable[..., Any]

    def __init__(
        self,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        activation: Named | None = None,
        use_bias: bool = True,
        *,
        bias_initializer: Named = "zeros",
        bias_regularizer: Named | None = None,
        bias_constraint: Named | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel_size = whole_numbers("kernel_size", kernel_size, self.rank)
        self.strides = whole_numbers("strides", strides, self.rank)
        self.padding = one_of("padding", str(padding).lower(), *self.paddings)
        self.data_format = data_format_of(data_format)
        self.dilation_rate = whole_numbers("dilation_rate", dilation_rate, self.rank)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                f"strides {self.strides} and dilation_rate {self.dilation_rate}: only one of them "
                "may be above 1"
            )
        self.use_bias = use_bias
        set_options(
            self,
            activation=activation,
            bias_initializer=bias_initializer,
            bias_regularizer=bias_regularizer,
            bias_constraint=bias_constraint,
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        check_rank(self, input_shape, self.rank + 2)
        self._channels = known_size(self, input_shape, self._channel_axis)
        self.make_kernels(self._channels)
        outputs = self.output_channels(self._channels)
        self.bias = own_weight(self, "bias", (outputs,)) if self.use_bias else None

    @property
    def _windows(self) -> tuple[int, int]:
        """How far the longest window reaches, and the longest step from one to the next."""
        sizes = zip(self.kernel_size, self.dilation_rate, strict=True)
        return max((size - 1) * rate + 1 for size, rate in sizes), max(self.strides)

    @property
    def _channel_axis(self) -> int:
        return 1 if self.data_format == "channels_first" else self.rank + 1

    def call(self, x: Tensor) -> Tensor:
        shape = x._data.shape
        check_rank(self, shape, self.rank + 2)
        if shape[self._channel_axis] != self._channels:
            raise ValueError(
                f"{self.name!r} expects {self._channels} channels in axis {self._channel_axis}, "
                f"got an input of shape {shape}"
            )
        if self._channel_axis == 1:
            y = channels_last(lambda x: self._biased(x, activations.linear), x, self.rank, True)
            return activations.biased(y, None, self.activation)
        return self._biased(x, self.activation)

    def _told_shape(self, shape: Any) -> Any:
        if len(shape) != self.rank + 2 or not shaping.keeps_shape(self.activation):
            return None
        channels = shape[self._channel_axis]
        if channels is None or (self.built and channels != self._channels):
            return None
        batch, first = shape[:1], 2 if self._channel_axis == 1 else 1
        if (space := self._told_space(shape[first : first + self.rank])) is None:
            return None
        outputs = (self.output_channels(channels),)
        return (*batch, *outputs, *space) if first == 2 else (*batch, *space, *outputs)

    def _told_space(self, space: Any) -> Any:
        return shaping.slid(space, self.kernel_size, self.strides, self.dilation_rate, self.padding)

    def _biased(self, x: Tensor, activation: Callable[..., Any] | None) -> Tensor:
        y = self.convolve(x)
        if 0 in y._data.shape[1:-1]:
            raise InvalidArgumentError(
                f"{self.name!r}: windows of {self.kernel_size} do not fit into spatial axes of "
                f"{x._data.shape[1:-1]}"
            )
        return activations.biased(y, self.bias, activation)

    def make_kernels(self, channels: int) -> None:
        raise NotImplementedError

    def output_channels(self, channels: int) -> int:
        raise NotImplementedError

    def convolve(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _slide(self, x: Tensor, kernel: Any) -> Tensor:
        """The convolution with this layer's strides, padding and dilation."""
        padding: Any = self.padding
        if padding == "causal":
            before = (self.kernel_size[0] - 1) * self.dilation_rate[0]
            padding = ((0, 0), (before, 0), (0, 0))
        return ops.convolution(x, kernel, self.strides, padding, dilations=self.dilation_rate)

    def _slide_channels(self, x: Tensor, kernel: Any) -> Tensor:
        """Each channel with its own kernels: ``[*size, channels, multiplier]``."""
        *size, channels, multiplier = kernel.shape
        return self._slide(x, reshape(kernel, (*size, 1, channels * multiplier)))


# Every output channel from every input channel


class Conv(Adapted, Convolution):
    """Kernels ``[*size, channels / groups, filters]``; each group makes its share of the filters.

    Raises ValueError too where groups do not divide the filters and the channels.
    """

    adapted = "kernel"
    kernel = Table()

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        groups: int = 1,
        activation: Named | None = None,
        use_bias: bool = True,
        kernel_initializer: Named = "glorot_uniform",
        *,
        kernel_regularizer: Named | None = None,
        kernel_constraint: Named | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias,
            **kwargs,
        )  # fmt: skip
        self.filters = whole_number("filters", filters)
        self.groups = whole_number("groups", groups)
        if filters % groups:
            raise ValueError(f"groups {groups} must divide the number of filters, {filters}")
        set_options(
            self,
            kernel_initializer=kernel_initializer,
            kernel_regularizer=kernel_regularizer,
            kernel_constraint=kernel_constraint,
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        self._adapt()

    def make_kernels(self, channels: int) -> None:
        if channels % self.groups:
            raise ValueError(
                f"{self.name!r}: groups {self.groups} must divide the number of input channels, "
                f"{channels}"
            )
        shape = (*self.kernel_size, channels // self.groups, self.filters)
        self.kernel = own_weight(self, "kernel", shape)

    def output_channels(self, channels: int) -> int:
        return self.filters

    def convolve(self, x: Tensor) -> Tensor:
        return self._slide(x, self.kernel)

    def convolution_op(self, inputs: Any, kernel: Any) -> Tensor:
        """``inputs``, in the layer's data format, convolved with ``kernel``; no bias is added.

        A subclass may define another, or call this one with other kernels.
        """
        first = self._channel_axis == 1
        return channels_last(lambda x: self._slide(x, kernel), as_tensor(inputs), self.rank, first)

    def call(self, x: Tensor) -> Tensor:
        if type(self).convolution_op is Conv.convolution_op:
            return super().call(x)
        y = self.convolution_op(x, self.kernel)
        if self.bias is not None:
            along = (-1, *(1,) * self.rank) if self._channel_axis == 1 else (-1,)
            y = y + reshape(self.bias, along)
        return activations.biased(y, None, self.activation)


class Conv1D(Conv):
    """Convolution over time; "causal" padding lets no output see a later step."""

    rank = 1
    paddings = ("valid", "same", "causal")


class Conv2D(Conv):
    """Convolution over images."""

    rank = 2


class Conv3D(Conv):
    """Convolution over volumes: ``[batch, depth, height, width, channels]``."""

    rank = 3


# Each input channel makes its own output channels


class DepthwiseConv(Convolution):
    """Kernels ``[*size, channels, depth_multiplier]``: as many outputs for each channel."""

    def __init__(
        self,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        activation: Named | None = None,
        use_bias: bool = True,
        depthwise_initializer: Named = "glorot_uniform",
        *,
        depthwise_regularizer: Named | None = None,
        depthwise_constraint: Named | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias,
            **kwargs,
        )  # fmt: skip
        self.depth_multiplier = whole_number("depth_multiplier", depth_multiplier)
        set_options(
            self,
            depthwise_initializer=depthwise_initializer,
            depthwise_regularizer=depthwise_regularizer,
            depthwise_constraint=depthwise_constraint,
        )

    def make_kernels(self, channels: int) -> None:
        shape = (*self.kernel_size, channels, self.depth_multiplier)
        self.kernel = own_weight(self, "kernel", shape, "depthwise")

    def output_channels(self, channels: int) -> int:
        return channels * self.depth_multiplier

    def convolve(self, x: Tensor) -> Tensor:
        return self._slide_channels(x, self.kernel)


class DepthwiseConv1D(DepthwiseConv):
    """Convolution over time, channel by channel."""

    rank = 1


class DepthwiseConv2D(DepthwiseConv):
    """Convolution over images, channel by channel."""

    rank = 2


class SeparableConv(Convolution):
    """A depthwise convolution, then one with windows of 1 that mixes the channels.

    Source: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions".
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        depth_multiplier: int = 1,
        activation: Named | None = None,
        use_bias: bool = True,
        depthwise_initializer: Named = "glorot_uniform",
        pointwise_initializer: Named = "glorot_uniform",
        *,
        depthwise_regularizer: Named | None = None,
        pointwise_regularizer: Named | None = None,
        depthwise_constraint: Named | None = None,
        pointwise_constraint: Named | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias,
            **kwargs,
        )  # fmt: skip
        self.filters = whole_number("filters", filters)
        self.depth_multiplier = whole_number("depth_multiplier", depth_multiplier)
        set_options(
            self,
            depthwise_initializer=depthwise_initializer,
            pointwise_initializer=pointwise_initializer,
            depthwise_regularizer=depthwise_regularizer,
            pointwise_regularizer=pointwise_regularizer,
            depthwise_constraint=depthwise_constraint,
            pointwise_constraint=pointwise_constraint,
        )

    def make_kernels(self, channels: int) -> None:
        middle = channels * self.depth_multiplier
        depthwise = (*self.kernel_size, channels, self.depth_multiplier)
        pointwise = (*(1,) * self.rank, middle, self.filters)
        self.depthwise_kernel = own_weight(self, "depthwise_kernel", depthwise, "depthwise")
        self.pointwise_kernel = own_weight(self, "pointwise_kernel", pointwise, "pointwise")

    def output_channels(self, channels: int) -> int:
        return self.filters

    def convolve(self, x: Tensor) -> Tensor:
        return ops.convolution(
            self._slide_channels(x, self.depthwise_kernel), self.pointwise_kernel
        )


class SeparableConv1D(SeparableConv):
    """Depthwise, then pointwise convolution over time."""

    rank = 1


class SeparableConv2D(SeparableConv):
    """Depthwise, then pointwise convolution over images."""

    rank = 2
