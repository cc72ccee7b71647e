"""MelSpectrogram: a signal as the strength of bands that sound equally far apart, over time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distgrad.core.tensor import Tensor
from distgrad.keras.layers.base import Layer
from distgrad.keras.ops.spectral import stft
from distgrad.ops.arithmetic import square
from distgrad.ops.casting import cast
from distgrad.ops.clipping import maximum
from distgrad.ops.exponential import log
from distgrad.ops.layout import beside
from distgrad.ops.linalg import matmul
from distgrad.ops.powers import pow, sqrt
from distgrad.ops.reduce import reduce_max
from distgrad.ops.signals import linear_to_mel_weight_matrix


class MelSpectrogram(Layer):
    """A signal [(batch,) samples] as [(batch,) ``num_mel_bins``, frames].

    Frames of ``sequence_length`` (``fft_length`` by default) stand ``sequence_stride`` apart. The
    strength to the power of ``mag_exp`` is added up in bands from ``min_freq`` to ``max_freq``
    hertz (half the ``sampling_rate`` by default). With ``power_to_db`` it is in decibels above
    ``ref_power``, at most ``top_db`` below the loudest of all the signals. Raises ValueError for an
    ``fft_length`` below ``sequence_length``, and for bands outside half the sampling rate.
    """

    casts_inputs = True

    def __init__(
        self,
        fft_length: int = 2048,
        sequence_stride: int = 512,
        sequence_length: int | None = None,
        window: Any = "hann",
        sampling_rate: int = 16000,
        num_mel_bins: int = 128,
        min_freq: float = 20.0,
        max_freq: float | None = None,
        power_to_db: bool = True,
        top_db: float = 80.0,
        mag_exp: float = 2.0,
        min_power: float = 1e-10,
        ref_power: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.fft_length = fft_length
        self.sequence_stride = sequence_stride
        self.sequence_length = sequence_length or fft_length
        if self.fft_length < self.sequence_length:
            raise ValueError(
                "`fft_length` must be greater than or equal to `sequence_length`. Received: "
                f"sequence_length={self.sequence_length}, fft_length={self.fft_length}."
            )
        self.window = window
        self.sampling_rate = sampling_rate
        self.num_mel_bins = num_mel_bins
        self.min_freq = min_freq
        self.max_freq = max_freq or int(sampling_rate / 2)
        self.power_to_db = power_to_db
        self.top_db = top_db
        self.mag_exp = mag_exp
        self.min_power = min_power
        self.ref_power = ref_power

    def call(self, inputs: Tensor) -> Tensor:
        x = cast(inputs, "float32") if inputs.dtype.size < 4 else inputs
        real, imag = stft(
            x, self.sequence_length, self.sequence_stride, self.fft_length, self.window
        )
        strength = pow(sqrt(square(real) + square(imag)), self.mag_exp)
        bands = linear_to_mel_weight_matrix(
            self.num_mel_bins,
            self.fft_length // 2 + 1,
            self.sampling_rate,
            self.min_freq,
            self.max_freq,
            x.dtype,
        )
        weights = np.ascontiguousarray(bands._host().T)
        y = matmul(beside(x, weights), strength, transpose_b=True)
        if self.power_to_db:
            y = self._in_decibels(y)
        return cast(y, self.compute_dtype)

    def _in_decibels(self, power: Tensor) -> Tensor:
        zero = 10.0 * math.log10(max(abs(self.ref_power), self.min_power))
        level = 10.0 / math.log(10.0) * log(maximum(power, self.min_power)) - zero
        return maximum(level, reduce_max(level) - self.top_db)
