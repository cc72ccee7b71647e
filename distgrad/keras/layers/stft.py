"""STFTSpectrogram: the strength of the frequencies of a signal over time, by convolution."""

from __future__ import annotations

import math
from typing import Any

from distgrad.core.dtypes import is_floating
from distgrad.core.tensor import Tensor
from distgrad.core.user_line import warn
from distgrad.keras import settings
from distgrad.keras.initializers import STFTInitializer
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.core import check_rank, data_format_of, one_of
from distgrad.ops.arithmetic import square
from distgrad.ops.clipping import maximum
from distgrad.ops.convolution import convolution
from distgrad.ops.exponential import log
from distgrad.ops.padding import pad
from distgrad.ops.powers import sqrt
from distgrad.ops.shape import concat, reshape, transpose
from distgrad.ops.trigonometric import atan2


class STFTSpectrogram(Layer):
    """Frames of a signal [batch, time, channels], each as ``fft_length // 2 + 1`` frequencies.

    ``mode`` is what is told of them: "log" or "magnitude", the power "psd", "real", "imag" or both
    in "stft", or "angle". The output is [batch, frames, channels * frequencies], or with
    ``expand_dims`` an image [batch, frames, frequencies, channels]. Its kernels, the waves times
    the ``window``, are trained like others but for ``trainable=False``. Raises ValueError for
    unknown words, a step outside 1 to ``frame_length``, an ``fft_length`` below that, and an input
    of another rank; TypeError for one that is not of floats.
    """

    def __init__(
        self,
        mode: str = "log",
        frame_length: int = 256,
        frame_step: int | None = None,
        fft_length: int | None = None,
        window: Any = "hann",
        periodic: bool = False,
        scaling: str | None = "density",
        padding: str = "valid",
        expand_dims: bool = False,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if frame_step is not None and not 1 <= frame_step <= frame_length:
            raise ValueError(
                "`frame_step` should be a positive integer not greater than `frame_length`. "
                f"Received frame_step={frame_step}, frame_length={frame_length}"
            )
        if fft_length is not None and fft_length < frame_length:
            raise ValueError(
                "`fft_length` should be not less than `frame_length`. "
                f"Received fft_length={fft_length}, frame_length={frame_length}"
            )
        if fft_length is not None and fft_length & -fft_length != fft_length:
            warn(f"`fft_length` is recommended to be a power of two. Received {fft_length}")
        modes = ("log", "magnitude", "psd", "real", "imag", "angle", "stft")
        self.mode = one_of("mode", mode, *modes)
        self.frame_length, self.frame_step, self.fft_length = frame_length, frame_step, fft_length
        self.padding = one_of("padding", padding, "valid", "same")
        self.window, self.periodic, self.scaling = window, periodic, scaling
        self._kernels = {
            side: STFTInitializer(side, window, scaling, periodic)
            for side, other in (("real", "imag"), ("imag", "real"))
            if mode != other
        }
        self.expand_dims = expand_dims
        self.data_format = data_format_of(data_format)

    @property
    def _windows(self) -> tuple[int, int]:
        """The length of a frame, and the step from one to the next."""
        return self.frame_length, self.frame_step or self.frame_length // 2

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        check_rank(self, input_shape, 3)
        size = self.fft_length or 2 ** math.ceil(math.log2(self.frame_length))
        shape = (self.frame_length, 1, size // 2 + 1)
        for side, initializer in self._kernels.items():
            setattr(
                self, f"{side}_kernel", self.add_weight(shape, initializer, name=f"{side}_kernel")
            )

    def call(self, inputs: Tensor) -> Tensor:
        check_rank(self, inputs._data.shape, 3)
        if not is_floating(inputs._data.dtype):
            raise TypeError(f"{self.name!r} takes a signal of floats, not of {inputs.dtype.name}")
        first = self.data_format == "channels_first"
        y = self._told(inputs if first else transpose(inputs, (0, 2, 1)))
        batch, channels, frames, frequencies = y._data.shape
        if self.expand_dims:
            return y if first else transpose(y, (0, 2, 3, 1))
        if first:
            return reshape(transpose(y, (0, 1, 3, 2)), (batch, channels * frequencies, frames))
        return reshape(transpose(y, (0, 2, 1, 3)), (batch, frames, channels * frequencies))

    def _told(self, signal: Tensor) -> Tensor:
        """[batch, channels, time] as [batch, channels, frames, frequencies]."""
        batch, channels, time = signal._data.shape
        flat, step = reshape(signal, (batch * channels, time, 1)), self._windows[1]
        found = []
        for side in self._kernels:
            y = convolution(flat, getattr(self, f"{side}_kernel"), step, self.padding)
            found.append(reshape(y, (batch, channels, *y._data.shape[1:])))
        if len(found) == 1:
            return found[0]
        real, imag = found
        if self.mode == "angle":
            return atan2(imag, real)
        if self.mode == "stft":
            return concat([real, imag], axis=3)
        power = square(real) + square(imag)
        if self.mode == "psd":  # a frequency stands for its negative, too
            return power + pad(power[..., 1:-1], [[0, 0], [0, 0], [0, 0], [1, 1]])
        strength = sqrt(maximum(power, settings.epsilon))
        return strength if self.mode == "magnitude" else log(maximum(strength, settings.epsilon))
