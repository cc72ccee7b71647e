"""What the indexing primitives should give, element by element."""

from __future__ import annotations

import itertools

import numpy as np


def positions(shape, key):
    """The positions of ``shape`` that ``key`` asks for, row-major."""
    key = list(key) if ... in key else [*key, ...]
    used = sum(1 for item in key if item is not None and item is not ...)
    at = key.index(...)
    key[at : at + 1] = [slice(None)] * (len(shape) - used)
    lists, axis = [], 0
    for item in key:
        if item is None:
            continue
        chosen = range(shape[axis])[item]
        lists.append(list(chosen) if isinstance(item, slice) else [chosen])
        axis += 1
    return itertools.product(*lists)


def getitem(x, *, key):
    values = [x[at] for at in positions(x.shape, key)]
    return np.array(values, dtype=x.dtype).reshape(np.zeros(x.shape)[key].shape)


def getitem_grad(g, *, shape, key):
    out = np.zeros(shape)
    for at, value in zip(positions(shape, key), g.flat, strict=True):
        out[at] += value
    return out


def mask_select(x, mask):
    return np.array([x[at] for at in zip(*np.nonzero(mask), strict=True)]).reshape(
        int(mask.sum()), *x.shape[mask.ndim :]
    )


def mask_select_grad(g, mask, *, shape):
    out = np.zeros(shape)
    for at, value in zip(zip(*np.nonzero(mask), strict=True), g, strict=True):
        out[at] += value
    return out


def take(x, indices, *, axis):
    out = np.empty(x.shape[:axis] + np.shape(indices) + x.shape[axis + 1 :])
    lines = np.moveaxis(x, axis, 0)
    for at in np.ndindex(*np.shape(indices)):
        key = (slice(None),) * axis + at
        out[key] = lines[indices[at]]
    return out


def take_grad(g, indices, *, shape, axis):
    out = np.zeros(shape)
    lines = np.moveaxis(out, axis, 0)
    for at in np.ndindex(*np.shape(indices)):
        key = (slice(None),) * axis + at
        lines[indices[at]] += g[key]
    return out


def row_positions(indices, *, length):
    out = np.empty_like(indices)
    for at in np.ndindex(*indices.shape):
        out[at] = indices[at] + at[0] * length
    return out


def ravel_index(indices, *, shape):
    if not shape:
        return np.zeros(indices.shape[:-1], dtype=np.int64)
    return np.ravel_multi_index(tuple(np.moveaxis(indices, -1, 0)), shape)


def put_rows(x, updates, rows):
    out = np.array(x)
    for at in np.ndindex(*np.shape(rows)):
        out[rows[at]] = updates[at]
    return out


def put_extreme(better):
    def reference(x, updates, rows):
        out = np.array(x)
        for at in np.ndindex(*np.shape(rows)):
            out[rows[at]] = better(out[rows[at]], updates[at])
        return out

    return reference


def diagonal_embed(x, *, k, rows, columns):
    out = np.zeros((*x.shape[:-1], rows, columns))
    for i in range(x.shape[-1]):
        out[..., i + max(0, -k), i + max(0, k)] = x[..., i]
    return out


def diagonal_of(x, *, k):
    rows, columns = x.shape[-2:]
    pairs = [(i, i + k) for i in range(rows) if 0 <= i + k < columns]
    return np.stack([x[..., i, j] for i, j in pairs], axis=-1)


def band(x, *, lower, upper):
    out = np.zeros(x.shape)
    for i, j in np.ndindex(*x.shape[-2:]):
        if (lower < 0 or i - j <= lower) and (upper < 0 or j - i <= upper):
            out[..., i, j] = x[..., i, j]
    return out


REFERENCES = {
    "band": band,
    "diagonal_embed": diagonal_embed,
    "diagonal_of": diagonal_of,
    "gather_rows": lambda x, indices: take(x, indices, axis=0),
    "getitem": getitem,
    "getitem_grad": getitem_grad,
    "mask_select": mask_select,
    "mask_select_grad": mask_select_grad,
    "put_max": put_extreme(np.fmax),
    "put_min": put_extreme(np.fmin),
    "put_rows": put_rows,
    "ravel_index": ravel_index,
    "row_positions": row_positions,
    "take": take,
    "take_grad": take_grad,
}
