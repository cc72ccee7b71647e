"""Random numbers: by the next key of the stream in force, or by a stateless seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype, is_floating, limits
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import Primitive, bind
from distgrad.core.tensor import Tensor
from distgrad.core.texts import moves_texts
from distgrad.ops.arithmetic import negative
from distgrad.ops.casting import cast
from distgrad.ops.clipping import minimum
from distgrad.ops.draws import (
    random_integers,
    random_normal,
    random_permutation,
    random_truncated_normal,
    random_uniform,
)
from distgrad.ops.exponential import log
from distgrad.ops.indexing import take
from distgrad.ops.reduce import argmax
from distgrad.ops.shape import expand_dims, static
from distgrad.ops.streams import WORD, next_key, pair_key


def normal(
    shape: Any,
    mean: Any = 0.0,
    stddev: Any = 1.0,
    dtype: Any = np.float32,
    seed: int | None = None,
    name: str | None = None,
) -> Tensor:
    """Normally distributed floats."""
    return scaled_normal(random_normal, next_key(seed), shape, mean, stddev, dtype)


def uniform(
    shape: Any,
    minval: Any = 0,
    maxval: Any = None,
    dtype: Any = np.float32,
    seed: int | None = None,
    name: str | None = None,
) -> Tensor:
    """Uniform numbers in [minval, maxval); maxval is 1 by default, and needed for integers."""
    return drawn_uniform(next_key(seed), shape, minval, maxval, dtype)


def drawn_uniform(key: Tensor, shape: Any, minval: Any, maxval: Any, dtype: Any) -> Tensor:
    """Uniform numbers of a key; integers from all there are where the bounds are both None."""
    wanted = as_dtype(dtype).numpy_dtype
    if wanted.kind in "iu":
        if maxval is None and minval is None:  # all of them
            minval, maxval = np.iinfo(wanted).min, int(np.iinfo(wanted).max) + 1
        elif maxval is None:
            raise ValueError("uniform needs maxval for an integer dtype")
        if np.ndim(minval) or np.ndim(maxval):
            raise InvalidArgumentError("uniform: minval and maxval of integers are scalars")
        low, high = int(minval), int(maxval)
        if low >= high:
            raise InvalidArgumentError(f"uniform: minval {low} must be below maxval {high}")
        return bind(random_integers, key, low=low, high=high, shape=static(shape), dtype=wanted)
    draw = bind(random_uniform, key, shape=static(shape), dtype=_float_dtype(dtype))
    if wanted.itemsize == 2:
        draw = minimum(draw, _below(1, wanted))
    maxval = 1.0 if maxval is None else maxval
    minval, maxval = (
        as_tensor(v, wanted) if isinstance(v, (list, tuple)) else v for v in (minval, maxval)
    )
    if type(minval) not in (int, float) or type(maxval) not in (int, float):
        return draw * (maxval - minval) + minval
    if (minval, maxval) == (0, 1):
        return draw
    scaled = draw * float(maxval - minval) + float(minval)
    # Rounding may reach maxval itself, which lies outside of [minval, maxval).
    return minimum(scaled, _below(maxval, wanted)) if minval < maxval else scaled


def drawn_seed() -> int:
    """A seed for streams of its own, by the next draw of the stream in force."""
    return int(uniform((), 0, 2**31 - 1, dtype=np.int64))


def _below(value: float, dtype: np.dtype) -> float:
    """The largest number of ``dtype`` below ``value``."""
    return float(np.nextafter(dtype.type(value), dtype.type(-np.inf)))


def scaled_normal(
    kind: Primitive, key: Tensor, shape: Any, mean: Any, stddev: Any, dtype: Any
) -> Tensor:
    """Numbers that a primitive draws with a key, of another mean and deviation."""
    draw = bind(kind, key, shape=static(shape), dtype=_float_dtype(dtype))
    plain = type(stddev) in (int, float) and type(mean) in (int, float)
    return draw if plain and (stddev, mean) == (1, 0) else draw * stddev + mean


def truncated_normal(
    shape: Any,
    mean: Any = 0.0,
    stddev: Any = 1.0,
    dtype: Any = np.float32,
    seed: int | None = None,
    name: str | None = None,
) -> Tensor:
    """Normal floats within two standard deviations: those outside are drawn again."""
    return scaled_normal(random_truncated_normal, next_key(seed), shape, mean, stddev, dtype)


@moves_texts
def shuffle(value: Any, seed: int | None = None, name: str | None = None) -> Tensor:
    """``value`` with its first axis in random order; a scalar as it is."""
    return _shuffled(as_tensor(value), next_key(seed))


def stateless_shuffle(value: Any, seed: Any, alg: Any = "auto_select", name: Any = None) -> Tensor:
    """``value`` with its first axis in an order that depends on the two ints of ``seed`` alone."""
    return _shuffled(as_tensor(value), pair_key(seed))


def _shuffled(tensor: Tensor, key: Tensor) -> Tensor:
    if not tensor._data.ndim:
        return tensor
    return take(tensor, bind(random_permutation, key, n=tensor._data.shape[0]), axis=0)


def categorical(
    logits: Any,
    num_samples: int,
    dtype: Any = np.int64,
    seed: int | None = None,
    name: str | None = None,
) -> Tensor:
    """``num_samples`` class numbers for each row of ``logits``, with their softmax as chances.

    Raises InvalidArgumentError unless ``logits`` have shape (rows, classes).
    """
    return _categorical(next_key(seed), as_tensor(logits), num_samples, dtype)


def _categorical(key: Tensor, scores: Tensor, num_samples: int, dtype: Any) -> Tensor:
    def uniform(shape: tuple[int, ...]) -> Tensor:
        return drawn_uniform(key, shape, 0, 1, _float_dtype(scores.dtype))

    return drawn_classes(scores, num_samples, dtype, uniform)


def drawn_classes(
    scores: Tensor, num_samples: int, dtype: Any, uniform: Callable[[tuple[int, ...]], Tensor]
) -> Tensor:
    """``categorical`` by numbers in [0, 1), which ``uniform`` gives by their shape.

    Raises InvalidArgumentError unless ``scores`` have shape (rows, classes).
    """
    if scores._data.ndim != 2:
        raise InvalidArgumentError(f"categorical takes logits of rank 2, not {scores.shape}")
    rows, classes = scores._data.shape
    draw = uniform((rows, int(num_samples), classes))
    # The largest of logits + Gumbel noise falls on each class with its chance (Gumbel, 1954).
    noise = negative(log(negative(log(draw + float(limits(scores._data.dtype).tiny)))))
    return argmax(expand_dims(scores, 1) + noise, axis=-1, output_type=dtype)


def stateless_normal(
    shape: Any,
    seed: Any,
    mean: Any = 0.0,
    stddev: Any = 1.0,
    dtype: Any = np.float32,
    name: str | None = None,
    alg: Any = "auto_select",
) -> Tensor:
    """Normal floats that depend on the two ints of ``seed`` and the arguments alone, no ``alg``."""
    return scaled_normal(random_normal, pair_key(seed), shape, mean, stddev, dtype)


def stateless_truncated_normal(
    shape: Any,
    seed: Any,
    mean: Any = 0.0,
    stddev: Any = 1.0,
    dtype: Any = np.float32,
    name: str | None = None,
    alg: Any = "auto_select",
) -> Tensor:
    """Normal floats within two deviations that depend on ``seed``, two ints; no ``alg`` matters."""
    return scaled_normal(random_truncated_normal, pair_key(seed), shape, mean, stddev, dtype)


def stateless_uniform(
    shape: Any,
    seed: Any,
    minval: Any = 0,
    maxval: Any = None,
    dtype: Any = np.float32,
    name: str | None = None,
    alg: Any = "auto_select",
) -> Tensor:
    """Uniform numbers that depend on the two ints of ``seed`` and the arguments alone, no ``alg``.

    Integers are drawn from all there are where ``minval`` and ``maxval`` are both None.
    """
    return drawn_uniform(pair_key(seed), shape, minval, maxval, dtype)


def stateless_categorical(
    logits: Any, num_samples: int, seed: Any, dtype: Any = np.int64, name: str | None = None
) -> Tensor:
    """``categorical`` with numbers that depend on the two ints of ``seed`` alone."""
    return _categorical(pair_key(seed), as_tensor(logits), num_samples, dtype)


def split(seed: Any, num: int = 2, alg: Any = "auto_select") -> Tensor:
    """``num`` stateless seeds made from one, a tensor of shape (num, 2) and of its dtype.

    Raises InvalidArgumentError unless ``seed`` is two ints.
    """
    seed = as_tensor(seed)
    seeds = drawn_uniform(_derived(seed, 0), (int(num), 2), None, None, np.int32)
    return cast(seeds, seed.dtype)


def fold_in(seed: Any, data: Any, alg: Any = "auto_select") -> Tensor:
    """A stateless seed made from one and the integer ``data``, of its dtype: shape (2,).

    Raises InvalidArgumentError unless ``seed`` is two ints.
    """
    data = as_tensor(data)
    seed = drawn_uniform(_derived(seed, 1 + 2 * int(data)), (2,), None, None, np.int32)
    return cast(seed, data.dtype)


def _derived(seed: Any, which: int) -> Tensor:
    """A key to draw seeds with, apart from those that the seed itself draws numbers with."""
    key = pair_key(seed)._data.copy()
    key[2:] = WORD - 1, which & WORD
    return Tensor(key)


def _float_dtype(dtype: Any) -> np.dtype:
    wanted = as_dtype(dtype).numpy_dtype
    if not is_floating(wanted):
        raise ValueError(f"random floats cannot have dtype {wanted}")
    return wanted
