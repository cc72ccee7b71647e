"""Bits moved left and right, and read as another dtype."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor


@primitive(vjp=None, kinds="iu")
def left_shift(xp, x, y):
    """The bits of ``x`` moved left by ``y``, elementwise."""
    return xp.left_shift(x, y)


@primitive(vjp=None, kinds="iu")
def right_shift(xp, x, y):
    """The bits of ``x`` moved right by ``y``, elementwise; the sign is kept."""
    return xp.right_shift(x, y)


for _shift in (left_shift, right_shift):

    @_shift.samples
    def _(rng):
        yield sample(rng.integers(-9, 9, (3, 4)), rng.integers(0, 5, 4))
        yield sample(rng.integers(-9, 9, (3, 4)), 2)


@primitive(vjp=None)
def reread(xp, x, *, dtype):
    """The bytes of ``x`` as another dtype: a smaller one has an axis more, a larger one less."""
    size, wanted = x.dtype.itemsize, np.dtype(dtype).itemsize
    x = x.copy()  # in row-major order, as a view of another size needs it
    if size > wanted:
        return xp.ascontiguousarray(x).reshape(*x.shape, 1).view(dtype)
    if size < wanted:
        return xp.ascontiguousarray(x).view(dtype).reshape(x.shape[:-1])
    return xp.ascontiguousarray(x).reshape(x.shape).view(dtype)


@reread.samples
def _(rng):
    yield sample(rng.integers(-9, 9, (3, 2)), dtype=np.dtype(np.uint64))
    yield sample(rng.integers(-9, 9, (3, 2)), dtype=np.dtype(np.int32))
    yield sample(rng.integers(-9, 9, (3, 2)).astype(np.int32), dtype=np.dtype(np.int64))


def bitcast(input: Any, type: Any, name: str | None = None) -> Tensor:
    """The bytes of ``input`` as another dtype, unchanged.

    A smaller dtype adds an axis for the parts of an element, a larger one takes the last axis
    away. Raises InvalidArgumentError where that does not make whole elements.
    """
    x, wanted = as_tensor(input), as_dtype(type).numpy_dtype
    size = x._data.dtype.itemsize
    if size < wanted.itemsize and x._data.shape[-1:] != (wanted.itemsize // size,):
        raise InvalidArgumentError(
            f"bitcast: {x.dtype.name} of shape {x.shape} is not made of whole {wanted}"
        )
    return bind(reread, x, dtype=wanted)
