"""Changes of images by chance: from the stream in force, or from a seed of two ints."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.ops.image import adjust_brightness, adjust_contrast, image_and_axis
from distgrad.ops.images.colour import adjust_hue, adjust_saturation, factor_beside
from distgrad.ops.indexing import take
from distgrad.ops.layout import beside, reverse
from distgrad.ops.logic import greater, less, select
from distgrad.ops.random import stateless_uniform, uniform
from distgrad.ops.rounding import floormod
from distgrad.ops.shape import reshape, static

Draw = Callable[..., Tensor]


def _stateful(seed: int | None) -> Draw:
    return functools.partial(uniform, seed=seed)


def _stateless(seed: Any) -> Draw:
    return lambda shape, *args, **kwargs: stateless_uniform(shape, seed, *args, **kwargs)


# Flips


def _flip(name: str, image: Any, along: int, draw: Draw) -> Tensor:
    x, axis = image_and_axis(name, image)
    flipped = reverse(x, [axis + along])
    if not axis:
        return select(less(draw([]), 0.5), flipped, x)
    chance = reshape(draw([x._data.shape[0]]), (-1, 1, 1, 1))
    return select(greater(chance, 0.5), flipped, x)


def random_flip_left_right(image: Any, seed: int | None = None) -> Tensor:
    """Each image as it is or, with a chance of one half, with its columns in reverse order."""
    return _flip("random_flip_left_right", image, 1, _stateful(seed))


def random_flip_up_down(image: Any, seed: int | None = None) -> Tensor:
    """Each image as it is or, with a chance of one half, with its rows in reverse order."""
    return _flip("random_flip_up_down", image, 0, _stateful(seed))


def stateless_random_flip_left_right(image: Any, seed: Any) -> Tensor:
    """``random_flip_left_right`` that depends on the two ints of ``seed`` alone."""
    return _flip("stateless_random_flip_left_right", image, 1, _stateless(seed))


def stateless_random_flip_up_down(image: Any, seed: Any) -> Tensor:
    """``random_flip_up_down`` that depends on the two ints of ``seed`` alone."""
    return _flip("stateless_random_flip_up_down", image, 0, _stateless(seed))


# Crops


def _crop(value: Any, size: Any, draw: Draw) -> Tensor:
    x, sizes = as_tensor(value), static(size)
    shape = x._data.shape
    if len(sizes) != len(shape) or any(not 0 <= n <= m for n, m in zip(sizes, shape, strict=True)):
        raise InvalidArgumentError(f"random_crop: size {sizes} of a value of shape {shape}")
    limit = beside(x, np.array([m - n + 1 for n, m in zip(sizes, shape, strict=True)], np.int32))
    most = int(np.iinfo(np.int32).max)
    starts = floormod(draw([len(sizes)], maxval=most, dtype=np.int32), limit)
    for axis, (n, m) in enumerate(zip(sizes, shape, strict=True)):
        if n != m:  # positions as a tensor, so that a captured step draws others each time
            rows = starts[axis] + beside(x, np.arange(n, dtype=np.int32))
            x = bind(take, x, rows, axis=axis)
    return x


def random_crop(value: Any, size: Any, seed: int | None = None, name: str | None = None) -> Tensor:
    """A block of ``size``, one number for each axis, from anywhere in ``value``.

    Raises InvalidArgumentError where it does not fit.
    """
    return _crop(value, size, _stateful(seed))


def stateless_random_crop(value: Any, size: Any, seed: Any, name: str | None = None) -> Tensor:
    """``random_crop`` that depends on the two ints of ``seed`` alone."""
    return _crop(value, size, _stateless(seed))


# Tone


def _within(name: str, image: Any, low: float, high: float, adjust: Any, draw: Draw) -> Tensor:
    if low > high or (name in ("contrast", "saturation") and not 0 <= low < high):
        raise ValueError(f"random_{name}: a range from {low} to {high}")
    return adjust(image, draw([], low, high))


def _brighter(image: Any, delta: Tensor) -> Tensor:
    x = as_tensor(image)
    return adjust_brightness(x, _of_floats(delta, x))


def _with_contrast(image: Any, factor: Tensor) -> Tensor:
    x = as_tensor(image)
    return adjust_contrast(x, _of_floats(factor, x))


def _of_floats(drawn: Tensor, x: Tensor) -> Any:
    return drawn if x._data.dtype.kind in "iu" else factor_beside(drawn, x)


def random_brightness(image: Any, max_delta: float, seed: int | None = None) -> Tensor:
    """``adjust_brightness`` by up to ``max_delta``; ValueError for a negative one."""
    return _within("brightness", image, -max_delta, max_delta, _brighter, _stateful(seed))


def random_contrast(image: Any, lower: float, upper: float, seed: int | None = None) -> Tensor:
    """``adjust_contrast`` by a factor in the range; ValueError unless ``0 <= lower < upper``."""
    return _within("contrast", image, lower, upper, _with_contrast, _stateful(seed))


def random_hue(image: Any, max_delta: float, seed: int | None = None) -> Tensor:
    """``adjust_hue`` by up to ``max_delta``; ValueError unless it lies in [0, 0.5]."""
    return _within("hue", image, -_half(max_delta), max_delta, adjust_hue, _stateful(seed))


def random_saturation(image: Any, lower: float, upper: float, seed: int | None = None) -> Tensor:
    """``adjust_saturation`` by a factor in the range; ValueError unless ``0 <= lower < upper``."""
    return _within("saturation", image, lower, upper, adjust_saturation, _stateful(seed))


def stateless_random_brightness(image: Any, max_delta: float, seed: Any) -> Tensor:
    """``random_brightness`` that depends on the two ints of ``seed`` alone."""
    return _within("brightness", image, -max_delta, max_delta, _brighter, _stateless(seed))


def stateless_random_contrast(image: Any, lower: float, upper: float, seed: Any) -> Tensor:
    """``random_contrast`` that depends on the two ints of ``seed`` alone."""
    return _within("contrast", image, lower, upper, _with_contrast, _stateless(seed))


def stateless_random_hue(image: Any, max_delta: float, seed: Any) -> Tensor:
    """``random_hue`` that depends on the two ints of ``seed`` alone."""
    return _within("hue", image, -_half(max_delta), max_delta, adjust_hue, _stateless(seed))


def stateless_random_saturation(image: Any, lower: float, upper: float, seed: Any = None) -> Tensor:
    """``random_saturation`` that depends on the two ints of ``seed`` alone."""
    return _within("saturation", image, lower, upper, adjust_saturation, _stateless(seed))


def _half(max_delta: float) -> float:
    if not 0 <= max_delta <= 0.5:
        raise ValueError(f"random_hue: max_delta lies in [0, 0.5], not {max_delta!r}")
    return max_delta
