"""Transposes of convolutions: from windows back to the array that they were taken from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.keras.layers.convolution import Convolution, Named, Sizes
from distgrad.keras.layers.core import own_weight, set_options, whole_number, whole_numbers
from distgrad.ops import convolution as ops


class ConvTranspose(Convolution):
    """The transpose (gradient) of a convolution: kernels ``[*size, filters, channels]``.

    An axis of n becomes ``(n - 1) * stride + size`` elements with "valid" padding (``n * stride``
    if that is more) and ``n * stride`` with "same"; ``output_padding`` states what is added to
    ``(n - 1) * stride + size`` or, for "same", to ``(n - 1) * stride + size % 2``.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        output_padding: Sizes | None = None,
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
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
        self.output_padding = (
            None
            if output_padding is None
            else whole_numbers("output_padding", output_padding, self.rank, least=0)
        )
        for added, stride in zip(self.output_padding or (), self.strides, strict=False):
            if added >= stride:
                raise ValueError(
                    f"output_padding {self.output_padding} must be less than the strides, "
                    f"{self.strides}"
                )
        set_options(
            self,
            kernel_initializer=kernel_initializer,
            kernel_regularizer=kernel_regularizer,
            kernel_constraint=kernel_constraint,
        )

    def make_kernels(self, channels: int) -> None:
        self.kernel = own_weight(self, "kernel", (*self.kernel_size, self.filters, channels))

    def output_channels(self, channels: int) -> int:
        return self.filters

    def _lengths(self, space: Sequence[int]) -> list[int]:
        added: Sequence[int | None] = self.output_padding or (None,) * self.rank
        each = zip(space, self.kernel_size, self.strides, self.dilation_rate, added, strict=True)
        return [transposed_length(self.padding, *one) for one in each]

    def _told_space(self, space: Any) -> Any:
        if self.output_padding is not None:
            return None  # it may be too large
        lengths = self._lengths([n or 1 for n in space])
        return [n and length for n, length in zip(space, lengths, strict=True)]

    def convolve(self, x: Tensor) -> Tensor:
        samples, *space, _ = x._data.shape
        shape = (samples, *self._lengths(space), self.filters)
        return ops.conv_transpose(
            x, self.kernel, shape, self.strides, self.padding, dilations=self.dilation_rate
        )


class Conv1DTranspose(ConvTranspose):
    """Transpose of a convolution over time."""

    rank = 1


class Conv2DTranspose(ConvTranspose):
    """Transpose of a convolution over images."""

    rank = 2


class Conv3DTranspose(ConvTranspose):
    """Transpose of a convolution over volumes."""

    rank = 3


def transposed_length(
    padding: str, n: int, size: int, stride: int, dilation: int, more: int | None
) -> int:
    """What an axis of n becomes; ``more`` is the output padding, if it is given."""
    reach = (size - 1) * dilation + 1
    valid = padding == "valid"
    if more is None:
        more = max(stride - reach, 0) if valid else stride - reach % 2
    return (n - 1) * stride + (reach if valid else reach % 2) + more
