"""Fourier transforms over the last axes, in complex64 or complex128, and their real forms.

They are linear, so that the gradient of each is its adjoint: the other one, scaled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.ops.casting import cast
from distgrad.ops.complex import conj, real_part
from distgrad.ops.indexing import getitem
from distgrad.ops.layout import roll
from distgrad.ops.padding import pad_constant
from distgrad.ops.shape import join, permute, static


def _normal(rng: Any, *shape: int) -> Any:
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


@primitive(kinds="c")
def fourier(xp, x, *, count, inverse):
    """The discrete Fourier transform over the last ``count`` axes, or its inverse."""
    transform = xp.fft.ifftn if inverse else xp.fft.fftn
    return transform(x, axes=tuple(range(-count, 0))).astype(x.dtype, copy=False)


@fourier.vjp("x")
def _(g, x_shape, count, inverse):
    size = float(math.prod(x_shape[-count:]))
    back = bind(fourier, g, count=count, inverse=not inverse)
    return back * (1.0 / size if inverse else size)


@fourier.samples
def _(rng):
    for inverse in (False, True):
        yield sample(_normal(rng, 2, 5), count=1, inverse=inverse)
        yield sample(_normal(rng, 2, 3, 4), count=2, inverse=inverse)


@primitive(kinds="f")
def real_fourier(xp, x):
    """The first half of the discrete Fourier transform of reals along the last axis."""
    half = xp.fft.rfft(x, axis=-1)
    return half.astype(xp.result_type(x.dtype, xp.complex64), copy=False)


@real_fourier.vjp("x")
def _(g, x_shape):
    length = x_shape[-1]
    missing = length - g._data.shape[-1]
    whole = bind(pad_constant, g, paddings=_after(g, missing), value=0.0)
    back = bind(fourier, whole, count=1, inverse=True)
    return bind(real_part, back) * float(length)


@real_fourier.samples
def _(rng):
    yield sample(rng.normal(size=(2, 5)))
    yield sample(rng.normal(size=6))


def _after(x: Tensor, count: int) -> tuple:
    return ((0, 0),) * (x._data.ndim - 1) + ((0, count),)


# Under TensorFlow's names


def _numbers(name: str, value: Any, like: type, count: int) -> Tensor:
    """``value`` as a tensor; what is none, reals in lists and arrays, as ``like``.

    Raises InvalidArgumentError, naming the function, for fewer than ``count`` axes.
    """
    tensor = as_tensor(value)
    if tensor._data.ndim < count:
        raise InvalidArgumentError(f"{name} of a tensor of shape {tensor.shape}")
    if isinstance(value, (Tensor, Variable)):
        return tensor
    real = tensor._data.dtype.kind != "c"
    fits = real or (isinstance(value, np.ndarray) and like is np.complex64)
    return cast(tensor, like) if fits else tensor


def _last_axes(count: int) -> str:
    return "last axis" if count == 1 else f"last {count} axes"


def _complex(name: str, count: int, inverse: bool) -> Callable[..., Tensor]:
    def transform(input: Any, name: str | None = None) -> Tensor:
        x = _numbers(transform.__name__, input, np.complex64, count)
        return fourier(x, count=count, inverse=inverse)

    transform.__name__ = transform.__qualname__ = name
    which = f"{'inverse ' * inverse}discrete Fourier transform"
    transform.__doc__ = f"The {which} of complex numbers over the {_last_axes(count)}."
    return transform


fft, ifft = _complex("fft", 1, False), _complex("ifft", 1, True)
fft2d, ifft2d = _complex("fft2d", 2, False), _complex("ifft2d", 2, True)
fft3d, ifft3d = _complex("fft3d", 3, False), _complex("ifft3d", 3, True)


def fitted(x: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """The last axes cut, or filled up with zeros, to ``lengths``."""
    shape = x._data.shape[x._data.ndim - len(lengths) :]
    if shape == lengths:
        return x
    key = (..., *(slice(0, n) for n in lengths))
    if any(n < m for n, m in zip(lengths, shape, strict=True)):
        x = bind(getitem, x, key=key)
    more = [(0, max(0, n - m)) for n, m in zip(lengths, shape, strict=True)]
    frame = ((0, 0),) * (x._data.ndim - len(lengths)) + tuple(more)
    return bind(pad_constant, x, paddings=frame, value=0.0) if any(map(any, more)) else x


def _real(name: str, count: int) -> Callable[..., Tensor]:
    def transform(input_tensor: Any, fft_length: Any = None, name: str | None = None) -> Tensor:
        x = _numbers(transform.__name__, input_tensor, np.float32, count)
        if fft_length is not None:
            x = fitted(x, _lengths(transform.__name__, fft_length, count))
        half = real_fourier(x)
        if count == 1:
            return half
        # The axes before the last: those of the transform stand last for a moment.
        order = _last_first(half._data.ndim, count)
        turned = _permuted(half, order)
        return _permuted(bind(fourier, turned, count=count - 1, inverse=False), _undone(order))

    transform.__name__ = transform.__qualname__ = name
    transform.__doc__ = (
        f"The Fourier transform of reals over the {_last_axes(count)}: ``n // 2 + 1`` numbers.\n\n"
        "    ``fft_length`` cuts the axes, or fills them up with zeros, before."
    )
    return transform


def _inverse_real(name: str, count: int) -> Callable[..., Tensor]:
    def transform(input_tensor: Any, fft_length: Any = None, name: str | None = None) -> Tensor:
        x = _numbers(transform.__name__, input_tensor, np.complex64, count)
        if fft_length is None:
            lengths = (*x._data.shape[x._data.ndim - count : -1], 2 * (x._data.shape[-1] - 1))
        else:
            lengths = _lengths(transform.__name__, fft_length, count)
        x = fitted(x, (*lengths[:-1], lengths[-1] // 2 + 1))
        if count > 1:
            order = _last_first(x._data.ndim, count)
            turned = _permuted(x, order)
            x = _permuted(bind(fourier, turned, count=count - 1, inverse=True), _undone(order))
        # The other half are the conjugates in reverse order, without the first and the middle.
        key = (..., slice((lengths[-1] - 1) // 2, 0, -1))
        whole = bind(join, x, conj(bind(getitem, x, key=key)), axis=x._data.ndim - 1)
        return bind(real_part, bind(fourier, whole, count=1, inverse=True))

    transform.__name__ = transform.__qualname__ = name
    transform.__doc__ = (
        f"The reals whose Fourier transform over the {_last_axes(count)} begins with the input.\n\n"
        "    ``fft_length`` is that of the result: even, ``2 * (n - 1)``, by default."
    )
    return transform


def _lengths(name: str, fft_length: Any, count: int) -> tuple[int, ...]:
    lengths = static(fft_length)
    if len(lengths) != count or min(lengths) < 1:
        raise InvalidArgumentError(
            f"{name}: fft_length is {count} positive numbers, not {fft_length!r}"
        )
    return lengths


def _last_first(ndim: int, count: int) -> tuple[int, ...]:
    return (*range(ndim - count), ndim - 1, *range(ndim - count, ndim - 1))


def _undone(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(order.index(i) for i in range(len(order)))


def _permuted(x: Tensor, order: tuple[int, ...]) -> Tensor:
    return bind(permute, x, perm=order)


rfft, irfft = _real("rfft", 1), _inverse_real("irfft", 1)
rfft2d, irfft2d = _real("rfft2d", 2), _inverse_real("irfft2d", 2)
rfft3d, irfft3d = _real("rfft3d", 3), _inverse_real("irfft3d", 3)


def _shifted(x: Any, axes: Any, back: bool) -> Tensor:
    value = as_tensor(x)
    over = tuple(range(value._data.ndim)) if axes is None else static(axes)
    half = [value._data.shape[axis] // 2 for axis in over]
    return roll(value, [-n for n in half] if back else half, over)


def fftshift(x: Any, axes: Any = None, name: str | None = None) -> Tensor:
    """The frequency 0 moved into the middle of the axes: all of them by default."""
    return _shifted(x, axes, back=False)


def ifftshift(x: Any, axes: Any = None, name: str | None = None) -> Tensor:
    """The inverse of ``fftshift``."""
    return _shifted(x, axes, back=True)
