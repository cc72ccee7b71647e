"""What the shape primitives should give, element by element."""

from __future__ import annotations

import numpy as np


def reshape_to(x, *, shape):
    out = np.empty(shape, dtype=x.dtype)
    out.flat = list(x.flat)
    return out


def permute(x, *, perm):
    out = np.empty([x.shape[i] for i in perm], dtype=x.dtype)
    for at in np.ndindex(*x.shape):
        out[tuple(at[i] for i in perm)] = x[at]
    return out


def broadcast_to(x, *, shape):
    out = np.empty(shape, dtype=x.dtype)
    for at in np.ndindex(*shape):
        place = at[len(at) - x.ndim :]
        out[at] = x[tuple(0 if n == 1 else i for i, n in zip(place, x.shape, strict=True))]
    return out


def join(*xs, axis):
    lines = [line for x in xs for line in np.moveaxis(x, axis, 0)]
    return np.moveaxis(np.array(lines), 0, axis)


def split_at(x, *, axis, sizes):
    lines = list(np.moveaxis(x, axis, 0))
    rest = np.moveaxis(x, axis, 0).shape[1:]
    parts = []
    for size in sizes:
        taken, lines = lines[:size], lines[size:]
        parts.append(np.moveaxis(np.array(taken).reshape(size, *rest), 0, axis))
    return tuple(parts)


def fill(value, *, shape, dtype):
    return (np.zeros(shape) + value).astype(dtype)


def pad_constant(x, *, paddings, value):
    return np.pad(x, paddings, constant_values=value) if paddings else x


REFERENCES = {
    "broadcast_to": broadcast_to,
    "fill": fill,
    "join": join,
    "pad_constant": pad_constant,
    "permute": permute,
    "reshape_to": reshape_to,
    "split_at": split_at,
}
