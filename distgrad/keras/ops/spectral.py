"""Fourier transforms of ``keras.ops``, on pairs of real and imaginary parts; frames and windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.keras.backend import floatx
from distgrad.keras.layers.core import whole_number
from distgrad.keras.ops import shaping
from distgrad.keras.ops.promotion import tensors
from distgrad.ops import fourier
from distgrad.ops.complex import complex, imag, real
from distgrad.ops.indexing import gather, take_grad
from distgrad.ops.layout import beside

Pair = tuple[Tensor, Tensor]


def _pair(x: Any) -> Pair:
    if not isinstance(x, (tuple, list)) or len(x) != 2:
        raise ValueError(
            f"Input `x` should be a tuple of two tensors - real and imaginary. Received: x={x}"
        )
    one, other = tensors(*x, also=float)
    if one._data.shape != other._data.shape or not one._data.ndim:
        raise ValueError(
            "Input `x` should be a tuple of two tensors - real and imaginary. Both the real and "
            f"imaginary parts should have the same shape. Received: x[0].shape = {one.shape}, "
            f"x[1].shape = {other.shape}"
        )
    return one, other


def _constant(x: Tensor, array: np.ndarray) -> Tensor:
    return beside(x, array.astype(x._data.dtype))


def _complex(x: Any) -> Tensor:
    return complex(*_pair(x))


def _parts(x: Tensor) -> Pair:
    return real(x), imag(x)


def fft(x: Any) -> Pair:
    """The Fourier transform of a pair of real and imaginary parts over the last axis.

    Raises ValueError for anything but two tensors of one shape.
    """
    return _parts(fourier.fft(_complex(x)))


def fft2(x: Any) -> Pair:
    """The Fourier transform over the last two axes."""
    return _parts(fourier.fft2d(_complex(x)))


def ifft2(x: Any) -> Pair:
    """The inverse of ``fft2``."""
    return _parts(fourier.ifft2d(_complex(x)))


def rfft(x: Any, fft_length: int | None = None) -> Pair:
    """The first half of the Fourier transform of real numbers: ``fft_length // 2 + 1`` of it."""
    (tensor,) = tensors(x, also=float)
    return _parts(fourier.rfft(tensor, None if fft_length is None else [fft_length]))


def irfft(x: Any, fft_length: int | None = None) -> Tensor:
    """The real numbers whose ``rfft`` is this pair; an even number of them by default."""
    return fourier.irfft(_complex(x), None if fft_length is None else [fft_length])


# Frames of a signal


def extract_sequences(x: Any, sequence_length: int, sequence_stride: int) -> Tensor:
    """Pieces of the last axis, ``sequence_stride`` apart, along an axis before it.

    Raises ValueError for a stride that is not a positive int.
    """
    tensor, sequence_stride = as_tensor(x), whole_number("sequence_stride", sequence_stride)
    return gather(
        tensor, _places(tensor._data.shape[-1], sequence_length, sequence_stride), axis=-1
    )


def _places(length: int, size: int, stride: int) -> np.ndarray:
    count = max(0, 1 + (length - size) // stride)
    places = np.arange(count)[:, None] * stride + np.arange(size)
    return places.astype(np.int32)


def _window(window: Any, length: int, fft_length: int) -> np.ndarray | None:
    if window is None:
        return None
    if isinstance(window, str):
        if window not in ("hann", "hamming"):
            raise ValueError(
                'If a string is passed to `window`, it must be one of `"hann"`, `"hamming"`. '
                f"Received: window={window}"
            )
        level = 0.5 if window == "hann" else 0.54
        shape = level - (1 - level) * np.cos(2 * np.pi * np.arange(length) / length)
    else:
        shape = np.asarray(as_tensor(window)._host(), np.float64)
    if shape.shape != (length,):
        raise ValueError(
            "The shape of `window` must be equal to [sequence_length]. Received: window "
            f"shape={shape.shape}"
        )
    before = (fft_length - length) // 2
    return np.pad(shape, (before, fft_length - length - before))


def stft(
    x: Any,
    sequence_length: int,
    sequence_stride: int,
    fft_length: int,
    window: Any = "hann",
    center: bool = True,
) -> Pair:
    """``rfft`` of pieces of a signal, each times a window: "hann", "hamming", a vector or None.

    ``center`` mirrors the ends, so that piece t is about ``t * sequence_stride``. Raises ValueError
    for a transform shorter than the pieces, a stride that is no positive int and another window.
    """
    (tensor,) = tensors(x, also=float)
    if fft_length < sequence_length:
        raise ValueError(
            "`fft_length` must equal or larger than `sequence_length`. Received: "
            f"sequence_length={sequence_length}, fft_length={fft_length}"
        )
    shape = _window(window, sequence_length, fft_length)
    if center:
        half = fft_length // 2
        widths = [(0, 0)] * (tensor._data.ndim - 1) + [(half, half)]
        tensor = shaping.pad(tensor, widths, "reflect")
    frames = extract_sequences(tensor, fft_length, sequence_stride)
    return rfft(frames if shape is None else frames * _constant(tensor, shape), fft_length)


def istft(
    x: Any,
    sequence_length: int,
    sequence_stride: int,
    fft_length: int,
    length: int | None = None,
    window: Any = "hann",
    center: bool = True,
) -> Tensor:
    """The signal whose ``stft`` is this pair, cut to ``length`` if that is given."""
    sequence_stride = whole_number("sequence_stride", sequence_stride)
    frames = irfft(x, fft_length)
    shape = _window(window, sequence_length, fft_length)
    if shape is not None:  # what overlaps of its square adds up to one
        blocks = -(-fft_length // sequence_stride)
        padded = np.pad(shape**2, (0, blocks * sequence_stride - fft_length))
        total = padded.reshape(blocks, sequence_stride).sum(0)
        inverse = shape / np.tile(total, blocks)[:fft_length]
        frames = frames * _constant(frames, inverse)
    count = frames._data.shape[-2]
    whole = fft_length + sequence_stride * (count - 1)
    places = _places(whole, fft_length, sequence_stride)
    lead = frames._data.shape[:-2]
    indices = as_tensor(places)
    signal = bind(take_grad, frames, indices, shape=(*lead, whole), axis=len(lead))
    start = fft_length // 2 if center else 0
    stop = start + length if length is not None else whole - (fft_length // 2 if center else 0)
    return signal[..., start:stop]


# Windows of M points


def _points(x: Any, make: Any, *more: Any) -> Tensor:
    count = int(as_tensor(x)._host())
    return shaping.array(make(count, *more), floatx())


def bartlett(x: Any) -> Tensor:
    """A triangle of ``x`` points."""
    return _points(x, np.bartlett)


def blackman(x: Any) -> Tensor:
    """Blackman's window of ``x`` points."""
    return _points(x, np.blackman)


def hamming(x: Any) -> Tensor:
    """Hamming's window of ``x`` points."""
    return _points(x, np.hamming)


def hanning(x: Any) -> Tensor:
    """Hann's window of ``x`` points."""
    return _points(x, np.hanning)


def kaiser(x: Any, beta: Any) -> Tensor:
    """Kaiser's window of ``x`` points, the narrower the larger ``beta`` is."""
    return _points(x, np.kaiser, float(as_tensor(beta)._host()))
