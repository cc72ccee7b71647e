"""Window functions of signals (``tf.signal``): computed on the host, in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.backend.numpy import backend as numpy_backend
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype, is_floating
from distgrad.core.tensor import Tensor


def _length(window_length: Any, dtype: Any) -> tuple[int, np.dtype]:
    wanted = as_dtype(dtype).numpy_dtype
    if not is_floating(wanted):
        raise ValueError(f"a window is made of floats, not of {wanted}")
    return int(window_length), wanted


def _raised_cosine(window_length: Any, periodic: bool, dtype: Any, a: float) -> Tensor:
    length, wanted = _length(window_length, dtype)
    if length == 1:
        return as_tensor(np.ones(1, wanted))
    count = length - 1 + (1 if periodic and length % 2 == 0 else 0)
    values = a - (1 - a) * np.cos(2 * np.pi * np.arange(length) / count)
    return as_tensor(values.astype(wanted))


def hann_window(
    window_length: Any, periodic: bool = True, dtype: Any = np.float32, name: str | None = None
) -> Tensor:
    """The Hann window; ValueError for a dtype that is not floating."""
    return _raised_cosine(window_length, bool(periodic), dtype, 0.5)


def hamming_window(
    window_length: Any, periodic: bool = True, dtype: Any = np.float32, name: str | None = None
) -> Tensor:
    """The Hamming window; ValueError for a dtype that is not floating."""
    return _raised_cosine(window_length, bool(periodic), dtype, 0.54)


def kaiser_window(
    window_length: Any, beta: Any = 12.0, dtype: Any = np.float32, name: str | None = None
) -> Tensor:
    """The Kaiser window of shape ``beta``; ValueError for a dtype that is not floating."""
    length, wanted = _length(window_length, dtype)
    return as_tensor(_kaiser(length, float(beta)).astype(wanted))


def _kaiser(length: int, beta: float) -> np.ndarray:
    if length == 1:
        return np.ones(1)
    at = np.linspace(-1, 1, length)
    i0 = numpy_backend.special.i0
    return np.asarray(i0(beta * np.sqrt(np.maximum(1 - at**2, 0))) / i0(beta))


def kaiser_bessel_derived_window(
    window_length: Any, beta: Any = 12.0, dtype: Any = np.float32, name: str | None = None
) -> Tensor:
    """The window made of the running sums of a Kaiser window; for an even length."""
    length, wanted = _length(window_length, dtype)
    sums = np.cumsum(_kaiser(length // 2 + 1, float(beta)))
    half = np.sqrt(sums[:-1] / sums[-1])
    return as_tensor(np.concatenate([half, half[::-1]]).astype(wanted))


def vorbis_window(window_length: Any, dtype: Any = np.float32, name: str | None = None) -> Tensor:
    """The window of the Vorbis codec; ValueError for a dtype that is not floating."""
    length, wanted = _length(window_length, dtype)
    inner = np.sin(np.pi / length * (np.arange(length) + 0.5))
    return as_tensor(np.sin(np.pi / 2 * inner**2).astype(wanted))
