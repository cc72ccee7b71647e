"""Signals: frames, short-time Fourier transforms, cosine transforms, mel scales (``tf.signal``)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.ops.fourier import fitted, irfft, rfft
from distgrad.ops.indexing import take, take_grad
from distgrad.ops.layout import beside
from distgrad.ops.linalg import tensordot
from distgrad.ops.padding import pad_constant
from distgrad.ops.shape import one_axis
from distgrad.ops.tapers import hann_window

# Frames


def frame(
    signal: Any,
    frame_length: Any,
    frame_step: Any,
    pad_end: bool = False,
    pad_value: Any = 0,
    axis: int = -1,
    name: str | None = None,
) -> Tensor:
    """Pieces of ``frame_length``, one at each ``frame_step``: ``axis`` becomes two.

    ``pad_end`` fills the last ones up with ``pad_value``; without it they are left out. Raises
    InvalidArgumentError for a length or a step below 1.
    """
    x, length, step = as_tensor(signal), int(frame_length), int(frame_step)
    if length < 1 or step < 1 or not x._data.ndim:
        raise InvalidArgumentError(
            f"frame: a length of {length} and a step of {step} for a signal of shape {x.shape}"
        )
    along = one_axis("frame", axis, x._data.ndim)
    samples = x._data.shape[along]
    if pad_end:
        count = -(-samples // step)
        missing = max(0, length + step * (count - 1) - samples)
        around = [(0, 0)] * x._data.ndim
        around[along] = (0, missing)
        value = as_tensor(pad_value, like=x._data.dtype)._host().item()
        x = bind(pad_constant, x, paddings=tuple(around), value=value)
    else:
        count = max(0, 1 + (samples - length) // step)
    places = np.arange(count)[:, None] * step + np.arange(length)
    return bind(take, x, beside(x, places), axis=along)


def overlap_and_add(signal: Any, frame_step: Any, name: str | None = None) -> Tensor:
    """The sum of frames ``[..., frames, length]``, each ``frame_step`` after the one before it.

    Raises InvalidArgumentError for fewer axes, and a step below 1.
    """
    x, step = as_tensor(signal), int(frame_step)
    if x._data.ndim < 2 or step < 1:
        raise InvalidArgumentError(
            f"overlap_and_add takes frames [..., frames, length] and a step, not {x.shape}, {step}"
        )
    *batch, count, length = x._data.shape
    places = np.arange(count)[:, None] * step + np.arange(length)
    whole = (*batch, (count - 1) * step + length)
    return bind(take_grad, x, beside(x, places), shape=whole, axis=len(batch))


# Short-time Fourier transforms

Window = Callable[..., Any]


def _power_of_two(length: int) -> int:
    return 1 << (length - 1).bit_length()


def stft(
    signals: Any,
    frame_length: Any,
    frame_step: Any,
    fft_length: Any = None,
    window_fn: Window | None = hann_window,
    pad_end: bool = False,
    name: str | None = None,
) -> Tensor:
    """The Fourier transform of each frame: ``[..., samples]`` to ``[..., frames, bins]``.

    ``fft_length`` is the next power of two by default, of which ``n // 2 + 1`` bins are kept;
    ``window_fn(frame_length, dtype=...)`` weighs the samples of a frame.
    """
    length = int(frame_length)
    frames = frame(signals, length, frame_step, pad_end)
    if window_fn is not None:
        frames = frames * window_fn(length, dtype=frames.dtype)
    return rfft(frames, [_power_of_two(length) if fft_length is None else int(fft_length)])


def inverse_stft(
    stfts: Any,
    frame_length: Any,
    frame_step: Any,
    fft_length: Any = None,
    window_fn: Window | None = hann_window,
    name: str | None = None,
) -> Tensor:
    """The signal whose frames have these Fourier transforms, added where they overlap.

    With the window that ``inverse_stft_window_fn`` makes it undoes ``stft``.
    """
    x, length = as_tensor(stfts), int(frame_length)
    size = _power_of_two(length) if fft_length is None else int(fft_length)
    frames = fitted(irfft(x, [size]), (length,))
    if window_fn is not None:
        frames = frames * window_fn(length, dtype=frames.dtype)
    return overlap_and_add(frames, frame_step)


def inverse_stft_window_fn(
    frame_step: Any, forward_window_fn: Window = hann_window, name: str | None = None
) -> Window:
    """The window for ``inverse_stft`` that undoes ``stft`` with ``forward_window_fn``."""
    step = int(frame_step)

    def window(frame_length: Any, dtype: Any) -> Tensor:
        length = int(frame_length)
        forward = np.asarray(as_tensor(forward_window_fn(length, dtype=dtype))._host())
        overlaps = -(-length // step)
        squares = np.zeros(overlaps * step, forward.dtype)
        squares[:length] = forward**2
        total = np.tile(squares.reshape(overlaps, step).sum(0), overlaps)[:length]
        inverse = np.divide(forward, total, out=np.zeros_like(forward), where=total != 0)
        return as_tensor(inverse)

    return window


# Cosine transforms, by their matrices


def _cosines(kind: int, length: int) -> np.ndarray:
    """``[from, to]`` of a discrete cosine transform, as ``scipy.fft`` scales it."""
    n, k = np.arange(length)[:, None], np.arange(length)
    if kind == 1:
        weights = np.where((n == 0) | (n == length - 1), 1.0, 2.0)
        return np.asarray(weights * np.cos(np.pi * n * k / max(length - 1, 1)))
    if kind == 2:
        return np.asarray(2 * np.cos(np.pi * k * (2 * n + 1) / (2 * length)))
    if kind == 3:
        weights = np.where(n == 0, 1.0, 2.0)
        return np.asarray(weights * np.cos(np.pi * n * (2 * k + 1) / (2 * length)))
    return np.asarray(2 * np.cos(np.pi * (2 * n + 1) * (2 * k + 1) / (4 * length)))


def dct(
    input: Any,
    type: int = 2,
    n: int | None = None,
    axis: int = -1,
    norm: str | None = None,
    name: str | None = None,
) -> Tensor:
    """The discrete cosine transform of ``type`` 1 to 4 over the last axis, of length ``n``.

    ``norm="ortho"`` makes it orthonormal (not for type 1). Raises ValueError for another type,
    axis or norm.
    """
    x = as_tensor(input)
    if type not in (1, 2, 3, 4) or norm not in (None, "ortho") or (type == 1 and norm):
        raise ValueError(f"dct: there is no type {type!r} with norm {norm!r}")
    if axis not in (-1, x._data.ndim - 1):
        raise ValueError(f"dct works on the last axis, not on {axis}")
    if n is not None:
        x = fitted(x, (int(n),))
    length = x._data.shape[-1]
    if type == 1 and length < 2:
        raise ValueError("dct of type 1 needs two numbers or more")
    matrix = _cosines(type, length)
    if norm == "ortho":
        matrix = matrix * math.sqrt(1 / (2 * length))
        if type == 2:
            matrix[:, 0] *= math.sqrt(1 / 2)
        elif type == 3:
            matrix[0] *= math.sqrt(2)
    return tensordot(x, beside(x, matrix.astype(x._data.dtype)), axes=[[x._data.ndim - 1], [0]])


def idct(
    input: Any,
    type: int = 2,
    n: int | None = None,
    axis: int = -1,
    norm: str | None = None,
    name: str | None = None,
) -> Tensor:
    """The inverse of ``dct`` of the same type; without "ortho" it lacks a factor of ``1 / (2 n)``.

    (Of ``1 / (2 (n - 1))`` for type 1.) Raises ValueError as ``dct`` does.
    """
    if type not in (1, 2, 3, 4):
        raise ValueError(f"idct: there is no type {type!r}")
    return dct(input, {1: 1, 2: 3, 3: 2, 4: 4}[type], n, axis, norm)


# Mel scales


def _mels(hertz: Any) -> Any:
    return 1127.0 * np.log(1 + np.asarray(hertz) / 700.0)


def linear_to_mel_weight_matrix(
    num_mel_bins: int = 20,
    num_spectrogram_bins: int = 129,
    sample_rate: Any = 8000,
    lower_edge_hertz: float = 125.0,
    upper_edge_hertz: float = 3800.0,
    dtype: Any = np.float32,
    name: str | None = None,
) -> Tensor:
    """The matrix ``[spectrogram bins, mel bins]`` that turns a spectrogram into a mel one.

    Raises ValueError for numbers of bins below 1, or edges that are not in order within half the
    sample rate.
    """
    rate = float(sample_rate)
    if num_mel_bins < 1 or num_spectrogram_bins < 1 or rate <= 0:
        raise ValueError(
            f"linear_to_mel_weight_matrix: {num_mel_bins} of {num_spectrogram_bins} bins at {rate}"
        )
    if not 0 <= lower_edge_hertz < upper_edge_hertz <= rate / 2:
        raise ValueError(
            f"linear_to_mel_weight_matrix: edges {lower_edge_hertz} and {upper_edge_hertz} at a "
            f"sample rate of {rate}"
        )
    bins = _mels(np.linspace(0, rate / 2, num_spectrogram_bins))[:, None]
    edges = np.linspace(_mels(lower_edge_hertz), _mels(upper_edge_hertz), num_mel_bins + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    weights = np.maximum(0, np.minimum(rising, falling))
    weights[0] = 0
    return as_tensor(weights.astype(as_dtype(dtype).numpy_dtype))


def mfccs_from_log_mel_spectrograms(log_mel_spectrograms: Any, name: str | None = None) -> Tensor:
    """The mel-frequency cepstral coefficients of ``[..., mel bins]``, as HTK scales them.

    Raises ValueError where there are no bins.
    """
    x = as_tensor(log_mel_spectrograms)
    bins = x._data.shape[-1]
    if not bins:
        raise ValueError("mfccs_from_log_mel_spectrograms needs one mel bin or more")
    return dct(x, 2) * (1 / math.sqrt(2 * bins))
