"""Padding: with a constant, or with the tensor's own mirror image."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor, weak
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import identity
from distgrad.ops.indexing import getitem
from distgrad.ops.shape import join, part


def _inside(paddings: tuple, shape: tuple) -> tuple[slice, ...]:
    """Where in the padded array the ``shape`` that was padded lies."""
    return tuple(slice(before, before + n) for (before, _), n in zip(paddings, shape, strict=True))


@primitive()
def pad_constant(xp, x, *, paddings, value):
    """``x`` with ``paddings`` (before, after) of ``value`` around each axis."""
    shape = tuple(a + n + b for n, (a, b) in zip(x.shape, paddings, strict=True))
    padded = xp.full(shape, value, dtype=x.dtype)
    padded[_inside(paddings, x.shape)] = x
    return padded


@pad_constant.vjp("x")
def _(g, x_shape, paddings):
    return bind(getitem, g, key=_inside(paddings, x_shape))


@pad_constant.samples
def _(rng):
    yield sample(rng.normal(size=(2, 3)), paddings=((1, 0), (2, 1)), value=0.5)
    yield sample(rng.normal(size=()), paddings=(), value=0.0)
    yield sample(rng.normal(size=(0,)), paddings=((1, 2),), value=1.0)


def pad(
    tensor: Any,
    paddings: Any,
    mode: str = "CONSTANT",
    constant_values: Any = 0,
    name: str | None = None,
) -> Tensor:
    """``tensor`` with ``paddings`` ((before, after) for each axis) around it.

    Modes (in any case): CONSTANT, with ``constant_values``; REFLECT, mirrored without the border
    element; SYMMETRIC, mirrored with it. Raises ValueError for another mode and
    InvalidArgumentError for paddings that do not match the rank, are negative, or are wider than
    there is to mirror.
    """
    x = as_tensor(tensor)
    widths = np.asarray(as_tensor(paddings)._host() if x._data.ndim else np.zeros((0, 2), int))
    if widths.shape != (x._data.ndim, 2) or widths.dtype.kind not in "iu" or (widths < 0).any():
        raise InvalidArgumentError(f"pad: paddings {widths.tolist()} for a tensor of {x.shape}")
    amounts = tuple((int(a), int(b)) for a, b in widths)
    kind = str(mode).upper()
    if kind == "CONSTANT":
        value = constant_values if type(constant_values) in (bool, int, float, complex) else None
        if value is None:
            value = as_tensor(constant_values).numpy().item()
        if x._data.dtype.kind == "b" and value in (0, 1):
            value = bool(value)
        return bind(pad_constant, x, paddings=amounts, value=weak("pad", value, x._data.dtype))
    if kind not in ("REFLECT", "SYMMETRIC"):
        raise ValueError(f"pad: mode is CONSTANT, REFLECT or SYMMETRIC, not {mode!r}")
    x, border = identity(x), 1 if kind == "REFLECT" else 0
    for axis, (before, after) in enumerate(amounts):
        x = _mirror(x, axis, before, after, border)
    return x


def _mirror(x: Tensor, axis: int, before: int, after: int, border: int) -> Tensor:
    if not (before or after):
        return x
    length = x._data.shape[axis]
    if max(before, after) > length - border:
        raise InvalidArgumentError(
            f"pad: axis {axis} has {length} elements, too few to mirror {max(before, after)}"
        )
    parts = [x]
    if before:
        stop = border - 1
        key = part(axis, before + border - 1, stop if stop >= 0 else None, -1)
        parts.insert(0, bind(getitem, x, key=key))
    if after:
        start = length - 1 - border
        stop = start - after
        key = part(axis, start, stop if stop >= 0 else None, -1)
        parts.append(bind(getitem, x, key=key))
    return bind(join, *parts, axis=axis)
