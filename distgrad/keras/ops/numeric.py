"""More functions of ``keras.ops`` that work element by element, by way of the common ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype
from distgrad.core.tensor import Tensor
from distgrad.keras.ops import shaping
from distgrad.keras.ops.elementwise import isclose, logaddexp
from distgrad.keras.ops.promotion import counted, floated, promoted, tensors
from distgrad.ops import arithmetic, clipping, logic, powers, rounding, special, trigonometric
from distgrad.ops import complex as complexes
from distgrad.ops.casting import cast, zeros_like
from distgrad.ops.exponential import log
from distgrad.ops.host import on_host
from distgrad.ops.reduce import reduce_all, reduce_mean
from distgrad.ops.shape import stack


def cbrt(x: Any) -> Tensor:
    """The cube root, of negative numbers too."""
    tensor = floated(x)
    return arithmetic.sign(tensor) * powers.power(arithmetic.abs(tensor), 1 / 3)


def deg2rad(x: Any) -> Tensor:
    """Degrees as radians."""
    return floated(x) * (math.pi / 180)


def rad2deg(x: Any) -> Tensor:
    """Radians as degrees."""
    return floated(x) * (180 / math.pi)


def fabs(x: Any) -> Tensor:
    """The absolute value, in floats."""
    return arithmetic.abs(floated(x))


def erfc(x: Any) -> Tensor:
    """``1 - erf(x)``, exact for large ``x``."""
    return special.erfc(floated(x))


def i0(x: Any) -> Tensor:
    """The modified Bessel function of order 0; no gradient."""
    tensor = floated(x)
    dtype = tensor._data.dtype
    return on_host(lambda x: np.i0(x._host().astype(np.float64)).astype(dtype), tensor)


def sinc(x: Any) -> Tensor:
    """``sin(pi x) / (pi x)``, and 1 at 0."""
    tensor = floated(x) * math.pi
    there = logic.not_equal(tensor, 0.0)
    angle = logic.select(there, tensor, 1.0)
    return logic.select(there, trigonometric.sin(angle) / angle, 1.0)


def trunc(x: Any) -> Tensor:
    """``x`` without what follows the point."""
    tensor = as_tensor(x)
    if tensor._data.dtype.kind in "iub":
        return tensor
    return logic.select(logic.less(tensor, 0.0), rounding.ceil(tensor), rounding.floor(tensor))


def signbit(x: Any) -> Tensor:
    """Whether the sign bit is set: of negative numbers and of -0."""
    return on_host(lambda x: np.signbit(x._host()), counted(x))


def isposinf(x: Any) -> Tensor:
    """Whether x is infinity."""
    return logic.equal(floated(x), math.inf)


def isneginf(x: Any) -> Tensor:
    """Whether x is minus infinity."""
    return logic.equal(floated(x), -math.inf)


def isreal(x: Any) -> Tensor:
    """Whether x has no imaginary part."""
    tensor = as_tensor(x)
    if tensor._data.dtype.kind != "c":
        return shaping.ones_like(tensor, "bool")
    return logic.equal(complexes.imag(tensor), 0)


def angle(x: Any) -> Tensor:
    """The angle of complex numbers in the plane; of real ones 0 or pi."""
    tensor = floated(x)
    if tensor._data.dtype.kind != "c":
        return logic.select(logic.less(tensor, 0.0), math.pi, zeros_like(tensor))
    return trigonometric.atan2(complexes.imag(tensor), complexes.real(tensor))


def bitwise_invert(x: Any) -> Tensor:
    """Every bit of an integer flipped."""
    return logic.invert(as_tensor(x))


# Two arguments


def fmax(x1: Any, x2: Any) -> Tensor:
    """The larger of two, or the one that is not nan."""
    return _but_nan(clipping.maximum, x1, x2)


def fmin(x1: Any, x2: Any) -> Tensor:
    """The smaller of two, or the one that is not nan."""
    return _but_nan(clipping.minimum, x1, x2)


def _but_nan(pick: Any, x1: Any, x2: Any) -> Tensor:
    a, b = tensors(x1, x2)
    if a._data.dtype.kind not in "f":
        return pick(a, b)
    first, second = logic.select(logic.is_nan(a), b, a), logic.select(logic.is_nan(b), a, b)
    return pick(first, second)


def fmod(x1: Any, x2: Any) -> Tensor:
    """What is left of a division, with the sign of ``x1``."""
    return rounding.truncatemod(*tensors(x1, x2))


def heaviside(x1: Any, x2: Any) -> Tensor:
    """0 below 0, 1 above, and ``x2`` at 0."""
    x, middle = tensors(x1, x2, also=float)
    step = cast(logic.greater(x, 0.0), x._data.dtype)
    return logic.select(logic.equal(x, 0.0), middle, step)


def hypot(x1: Any, x2: Any) -> Tensor:
    """``sqrt(x1**2 + x2**2)`` without overflow."""
    a, b = (arithmetic.abs(x) for x in tensors(x1, x2, also=float))
    large, small = clipping.maximum(a, b), clipping.minimum(a, b)
    none = logic.equal(large, 0.0)
    ratio = small / logic.select(none, 1.0, large)
    return logic.select(none, 0.0, large * powers.sqrt(1.0 + ratio * ratio))


def ldexp(x1: Any, x2: Any) -> Tensor:
    """``x1 * 2**x2``."""
    return floated(x1) * powers.power(2.0, cast(x2, floated(x1)._data.dtype))


def logaddexp2(x1: Any, x2: Any) -> Tensor:
    """``log2(2**x1 + 2**x2)`` without overflow."""
    a, b = tensors(x1, x2, also=float)
    two = math.log(2)
    return logaddexp(a * two, b * two) / two


def nextafter(x1: Any, x2: Any) -> Tensor:
    """The next number after ``x1`` on the way to ``x2``."""
    return arithmetic.nextafter(*tensors(x1, x2, also=float))


def gcd(x1: Any, x2: Any) -> Tensor:
    """The greatest common divisor of integers."""
    return on_host(lambda a, b: np.gcd(a._host(), b._host()), *tensors(x1, x2))


def lcm(x1: Any, x2: Any) -> Tensor:
    """The least common multiple of integers."""
    return on_host(lambda a, b: np.lcm(a._host(), b._host()), *tensors(x1, x2))


def _shifted(run: Any, x: Any, y: Any) -> Tensor:
    a, b = tensors(x, y)
    return on_host(lambda a, b: run(a._host(), b._host()), a, b)


def bitwise_left_shift(x: Any, y: Any) -> Tensor:
    """The bits of integers moved ``y`` places to the left."""
    return _shifted(np.left_shift, x, y)


def bitwise_right_shift(x: Any, y: Any) -> Tensor:
    """The bits of integers moved ``y`` places to the right; the sign stays."""
    return _shifted(np.right_shift, x, y)


left_shift, right_shift = bitwise_left_shift, bitwise_right_shift


def allclose(
    x1: Any, x2: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """Whether all elements are as near as `isclose` demands."""
    return reduce_all(isclose(x1, x2, rtol, atol, equal_nan))


# Choices and parts of complex numbers


def select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Tensor:
    """The element of the first choice whose condition holds, else ``default``.

    Raises ValueError unless there are as many conditions as choices.
    """
    if len(condlist) != len(choicelist):
        raise ValueError(f"{len(condlist)} conditions for {len(choicelist)} choices")
    *choices, result = tensors(*choicelist, default)
    for condition, choice in zip(reversed(condlist), reversed(choices), strict=True):
        result = logic.where(cast(condition, np.bool_), choice, result)
    return result


def polar(abs_: Any, angle: Any) -> Tensor:
    """The complex number of that absolute value and angle."""
    size, turn = tensors(abs_, angle, also=float)
    return complexes.complex(size * trigonometric.cos(turn), size * trigonometric.sin(turn))


def view_as_complex(x: Any) -> Tensor:
    """Pairs in the last axis as complex numbers. Raises ValueError for another size of it."""
    tensor = floated(x)
    if not tensor._data.ndim or tensor._data.shape[-1] != 2:
        raise ValueError(f"the last axis must hold pairs, not as in shape {tensor.shape}")
    return complexes.complex(tensor[..., 0], tensor[..., 1])


def view_as_real(x: Any) -> Tensor:
    """Real and imaginary parts, along a new last axis."""
    tensor = as_tensor(x)
    return stack([complexes.real(tensor), complexes.imag(tensor)], -1)


def view(x: Any, dtype: Any = None) -> Tensor:
    """The bytes of ``x`` read as another dtype; the last axis grows or shrinks with its size.

    Raises ValueError where they do not fit.
    """
    tensor = as_tensor(x)
    wanted = tensor._data.dtype if dtype is None else as_dtype(dtype).numpy_dtype
    return on_host(lambda x: np.asarray(x._host(), order="C").view(wanted), tensor)


def psnr(x1: Any, x2: Any, max_val: Any) -> Tensor:
    """How near two images are, in decibels below ``max_val``: the peak signal-to-noise ratio.

    Raises ValueError for different shapes.
    """
    a, b = promoted(floated(x1), x2)
    if a._data.shape != b._data.shape:
        raise ValueError(f"Input shapes {a.shape} and {b.shape} must match for PSNR calculation.")
    error = reduce_mean(arithmetic.square(a - b))
    top = cast(as_tensor(max_val), a._data.dtype)
    return (20 * log(top) - 10 * log(error)) / math.log(10)
