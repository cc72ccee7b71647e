"""Channels: a bias for each, blocks of pixels as channels, normalisation by their neighbours."""

from __future__ import annotations

from typing import Any

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Tensor
from distgrad.ops.arithmetic import square
from distgrad.ops.padding import pad
from distgrad.ops.powers import pow
from distgrad.ops.scan import cumsum
from distgrad.ops.shape import reshape, transpose


def bias_add(
    value: Any, bias: Any, data_format: str | None = None, name: str | None = None
) -> Tensor:
    """A vector added along the channels: the last axis, or the second with ``NC...``.

    Raises InvalidArgumentError where it does not have one element for each channel.
    """
    x = as_tensor(value)
    b = as_tensor(bias, like=x._data.dtype)
    axis = 1 if (data_format or "").startswith("NC") else x._data.ndim - 1
    if x._data.ndim < 2 or b._data.shape != (x._data.shape[axis],):
        raise InvalidArgumentError(f"bias_add: a bias of shape {b.shape} for {x.shape}")
    return x + reshape(b, (-1, *(1,) * (x._data.ndim - 1 - axis)))


def depth_to_space(
    input: Any, block_size: int, data_format: str = "NHWC", name: str | None = None
) -> Tensor:
    """Channels as blocks of ``block_size`` x ``block_size`` pixels: ``[n, h*b, w*b, c/b/b]``."""
    x, b = _blocks("depth_to_space", input, block_size, data_format)
    n, height, width, channels = x._data.shape
    if channels % (b * b):
        raise InvalidArgumentError(f"depth_to_space: {channels} channels for blocks of {b} x {b}")
    parts = reshape(x, (n, height, width, b, b, channels // (b * b)))
    moved = transpose(parts, (0, 1, 3, 2, 4, 5))
    return reshape(moved, (n, height * b, width * b, channels // (b * b)))


def space_to_depth(
    input: Any, block_size: int, data_format: str = "NHWC", name: str | None = None
) -> Tensor:
    """Blocks of ``block_size`` x ``block_size`` pixels as channels: ``[n, h/b, w/b, c*b*b]``."""
    x, b = _blocks("space_to_depth", input, block_size, data_format)
    n, height, width, channels = x._data.shape
    if height % b or width % b:
        raise InvalidArgumentError(f"space_to_depth: blocks of {b} x {b} in {height} x {width}")
    parts = reshape(x, (n, height // b, b, width // b, b, channels))
    moved = transpose(parts, (0, 1, 3, 2, 4, 5))
    return reshape(moved, (n, height // b, width // b, channels * b * b))


def _blocks(name: str, images: Any, block_size: int, data_format: str) -> tuple[Tensor, int]:
    x = as_tensor(images)
    if x._data.ndim != 4 or data_format != "NHWC":
        raise InvalidArgumentError(f"{name} takes NHWC images, not {data_format} of {x.shape}")
    if block_size < 2:
        raise ValueError(f"{name}: block_size is at least 2, not {block_size!r}")
    return x, int(block_size)


def local_response_normalization(
    input: Any,
    depth_radius: int = 5,
    bias: float = 1,
    alpha: float = 1,
    beta: float = 0.5,
    name: str | None = None,
) -> Tensor:
    """Divided by a power of the squares of the channels within ``depth_radius`` (AlexNet)."""
    x = as_tensor(input)
    if x._data.ndim != 4:
        raise InvalidArgumentError(f"local_response_normalization takes rank 4, not {x.shape}")
    channels, width = x._data.shape[-1], 2 * depth_radius + 1
    running = cumsum(pad(square(x), [[0, 0]] * 3 + [[depth_radius + 1, depth_radius]]), -1)
    near = running[..., width:] - running[..., :channels]
    return x / pow(bias + alpha * near, beta)
