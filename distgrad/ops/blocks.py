"""Blocks of space moved into channels or batches, and back: no element changes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.ops.indexing import getitem
from distgrad.ops.padding import pad_constant
from distgrad.ops.shape import permute, reshape_to, static
from distgrad.ops.windows import channels_first, channels_last


def _blocks(name: str, input: Any, block_size: int, data_format: str) -> tuple[Tensor, int, bool]:
    x, block = as_tensor(input), int(block_size)
    if x._data.ndim != 4 or block < 1:
        raise InvalidArgumentError(
            f"{name} takes images of rank 4 and blocks of 1 or more, not {x.shape} and {block_size}"
        )
    return x, block, channels_first(name, data_format, 2)


def space_to_depth(
    input: Any, block_size: int, data_format: str = "NHWC", name: str | None = None
) -> Tensor:
    """Each block of ``block_size ** 2`` pixels as one pixel with as many times the channels.

    Raises InvalidArgumentError for a rank other than 4, or a size that is no multiple of it.
    """
    x, block, first = _blocks("space_to_depth", input, block_size, data_format)

    def moved(x: Tensor) -> Tensor:
        batch, height, width, channels = x._data.shape
        if height % block or width % block:
            raise InvalidArgumentError(
                f"space_to_depth: {height} x {width} pixels are no multiple of {block_size}"
            )
        rows, columns = height // block, width // block
        x = bind(reshape_to, x, shape=(batch, rows, block, columns, block, channels))
        x = bind(permute, x, perm=(0, 1, 3, 2, 4, 5))
        return bind(reshape_to, x, shape=(batch, rows, columns, block * block * channels))

    return channels_last(moved, x, 2, first)


def depth_to_space(
    input: Any, block_size: int, data_format: str = "NHWC", name: str | None = None
) -> Tensor:
    """Each pixel as a block of ``block_size ** 2``, with as many times fewer channels.

    Raises InvalidArgumentError for a rank other than 4, or channels that are no multiple of it.
    """
    x, block, first = _blocks("depth_to_space", input, block_size, data_format)

    def moved(x: Tensor) -> Tensor:
        batch, height, width, channels = x._data.shape
        if channels % block**2:
            raise InvalidArgumentError(
                f"depth_to_space: {channels} channels are no multiple of {block_size}**2"
            )
        rest = channels // block**2
        x = bind(reshape_to, x, shape=(batch, height, width, block, block, rest))
        x = bind(permute, x, perm=(0, 1, 3, 2, 4, 5))
        return bind(reshape_to, x, shape=(batch, height * block, width * block, rest))

    return channels_last(moved, x, 2, first)


# Into batches


def _sizes(name: str, x: Tensor, block_shape: Any, pairs: Any) -> tuple[tuple, list]:
    sizes = static(block_shape)
    amounts = np.asarray(as_tensor(pairs)._host() if len(sizes) else np.zeros((0, 2), int))
    if isinstance(block_shape, int):  # the same for all of the axes that there are pairs for
        sizes = sizes * len(amounts)
    if amounts.shape != (len(sizes), 2) or len(sizes) >= x._data.ndim or min(sizes, default=1) < 1:
        raise InvalidArgumentError(
            f"{name}: blocks {sizes} and pairs {amounts.tolist()} for a tensor of shape {x.shape}"
        )
    if (amounts < 0).any():
        raise InvalidArgumentError(f"{name}: {amounts.tolist()} are not negative")
    return sizes, [(int(a), int(b)) for a, b in amounts]


def space_to_batch(input: Any, block_shape: Any, paddings: Any, name: str | None = None) -> Tensor:
    """Every n-th element along the axes after the first, as a batch of its own.

    The axes are padded with zeros before. Raises InvalidArgumentError for blocks that do not
    divide them.
    """
    x = as_tensor(input)
    sizes, pairs = _sizes("space_to_batch", x, block_shape, paddings)
    count, rest = len(sizes), x._data.shape[len(sizes) + 1 :]
    x = bind(pad_constant, x, paddings=((0, 0), *pairs, *((0, 0),) * len(rest)), value=0)
    batch, *space = x._data.shape[: count + 1]
    if any(n % size for n, size in zip(space, sizes, strict=True)):
        raise InvalidArgumentError(
            f"space_to_batch: padded sizes {space} are no multiples of {sizes}"
        )
    fewer = [n // size for n, size in zip(space, sizes, strict=True)]
    apart = [n for pair in zip(fewer, sizes, strict=True) for n in pair]
    x = bind(reshape_to, x, shape=(batch, *apart, *rest))
    kept = range(2 * count + 1, 2 * count + 1 + len(rest))
    order = (*range(2, 2 * count + 1, 2), 0, *range(1, 2 * count + 1, 2), *kept)
    x = bind(permute, x, perm=order)
    return bind(reshape_to, x, shape=(batch * math.prod(sizes), *fewer, *rest))


space_to_batch_nd = space_to_batch


def batch_to_space(input: Any, block_shape: Any, crops: Any, name: str | None = None) -> Tensor:
    """The inverse of ``space_to_batch``, with ``crops`` cut off the axes in the end.

    Raises InvalidArgumentError for a batch that is no multiple of the blocks, or crops that are
    too large.
    """
    x = as_tensor(input)
    sizes, pairs = _sizes("batch_to_space", x, block_shape, crops)
    count, shape = len(sizes), x._data.shape
    rest, whole = shape[count + 1 :], math.prod(sizes)
    if shape[0] % whole:
        raise InvalidArgumentError(f"batch_to_space: {shape[0]} is no multiple of {whole}")
    batch = shape[0] // whole
    x = bind(reshape_to, x, shape=(*sizes, batch, *shape[1:]))
    pairs_of_axes = [n for i in range(count) for n in (count + 1 + i, i)]
    kept = range(2 * count + 1, 2 * count + 1 + len(rest))
    x = bind(permute, x, perm=(count, *pairs_of_axes, *kept))
    space = [n * size for n, size in zip(shape[1 : count + 1], sizes, strict=True)]
    x = bind(reshape_to, x, shape=(batch, *space, *rest))
    if any(before + after > n for n, (before, after) in zip(space, pairs, strict=True)):
        raise InvalidArgumentError(f"batch_to_space: crops {pairs} of sizes {space}")
    key = [slice(before, n - after) for n, (before, after) in zip(space, pairs, strict=True)]
    return bind(getitem, x, key=(slice(None), *key))


def required_space_to_batch_paddings(
    input_shape: Any, block_shape: Any, base_paddings: Any = None, name: str | None = None
) -> tuple[Tensor, Tensor]:
    """The paddings that make ``input_shape`` a multiple of the blocks, and the crops to undo it."""
    shape, sizes = static(input_shape), static(block_shape)
    base = [(0, 0)] * len(shape) if base_paddings is None else base_paddings
    pairs, crops = [], []
    for n, size, (before, after) in zip(shape, sizes, base, strict=True):
        more = -(n + int(before) + int(after)) % size
        pairs.append((int(before), int(after) + more))
        crops.append((0, more))
    return as_tensor(np.array(pairs, np.int32)), as_tensor(np.array(crops, np.int32))
