"""Sums over the samples of shards, and of those over the shards in their tree: three gradients.

No user calls them: a program for several shards has them where each shard's gradient would be
added to its neighbours'. ``merges`` is the tree: the shards come in order, and after each the last
so many sums that wait are added to it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.primitive import primitive, sample
from distgrad.ops.indexing import take_grad


def in_tree(parts: Any, merges: Sequence[int]) -> Any:
    """The sum of some arrays, or of the rows of one, in the order of a tree."""
    if len(merges) == 1:
        return parts[0]
    if type(parts) is np.ndarray and _is_balanced(tuple(merges)):  # level by level: fewer calls
        while len(parts) > 1:
            parts = parts[::2] + parts[1::2]
        return parts[0]
    waiting: list[Any] = []
    for part, merged in zip(parts, merges, strict=True):
        for _ in range(merged):
            part = waiting.pop() + part
        waiting.append(part)
    (total,) = waiting
    return total


@functools.lru_cache(64)
def _is_balanced(merges: tuple[int, ...]) -> bool:
    """Whether neighbours are added, then neighbours of these, until one is left."""
    return merges == tuple((n & -n).bit_length() - 1 for n in range(1, len(merges) + 1)) and (
        len(merges) & (len(merges) - 1) == 0
    )


def halves(merges: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The two trees whose sums are added last, of a tree of more than one shard."""
    waiting = split = 0
    for number, merged in enumerate(merges[:-1], 1):
        waiting += 1 - merged
        if waiting == 1:
            split = number
    return tuple(merges[:split]), (*merges[split:-1], merges[-1] - 1)


@primitive(vjp=None)
def product_over_shards(xp, x, g, *, merges):
    """The sum of x[v]^T g[v], for ``x`` of (shards, samples, height), ``g`` of (.., .., width)."""
    shards = range(len(merges))
    return in_tree([xp.matmul(x[v, ...].T, g[v, ...]) for v in shards], merges)


@product_over_shards.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 4, 5)), merges=(0, 1, 1))


@primitive(vjp=None)
def sum_over_shards(xp, x, *, merges):
    """The sum of all rows of ``x``, of (shards, samples, width), shard by shard."""
    sums = xp.sum(x, axis=1)
    return in_tree([sums[v, ...] for v in range(len(merges))], merges)


@sum_over_shards.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4, 2)), merges=(0, 1, 1))


@primitive(vjp=None, match=("g",), constant=("indices",))
def rows_over_shards(xp, g, indices, *, shape, merges):
    """Zeros of ``shape`` with the rows ``g`` (shards, samples, width) added at ``indices``.

    Shard by shard, and then over the shards. The rows are those of the first axis, flat.
    """
    parts = [
        take_grad.kernel(
            xp, g[v, ...].reshape(-1, *shape[1:]), indices[v, ...], shape=shape, axis=0
        )
        for v in range(len(merges))
    ]
    return in_tree(parts, merges)


@rows_over_shards.samples
def _(rng):
    where = rng.integers(0, 5, (3, 4))
    yield sample(rng.normal(size=(3, 4, 6)), where, shape=(5, 2, 3), merges=(0, 1, 1))
