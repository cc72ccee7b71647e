"""Numbers rounded as if they had few bits, with a gradient: for training that allows for that."""

from __future__ import annotations

from typing import Any

from distgrad.core.custom import custom_gradient
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Tensor
from distgrad.ops.clipping import clip_by_value, maximum, minimum
from distgrad.ops.logic import greater, less, logical_and, select
from distgrad.ops.reduce import reduce_sum
from distgrad.ops.rounding import floor


def _bits(num_bits: int) -> int:
    if not 2 <= num_bits <= 16:
        raise InvalidArgumentError(f"num_bits must be between 2 and 16, not {num_bits}")
    return int(num_bits)


def _nudged(low: Tensor, high: Tensor, num_bits: int, narrow: bool) -> tuple[Tensor, ...]:
    """Lowest value, highest value and step of as many levels as there are, of which one is 0."""
    first, last = float(narrow), float(2 ** _bits(num_bits) - 1)
    step = (high - low) / (last - first)
    zero = first - low / step
    level = clip_by_value(floor(zero + 0.5), first, last)
    return (first - level) * step, (last - level) * step, step


def _rounded(x: Tensor, low: Tensor, high: Tensor, step: Tensor) -> Tensor:
    kept = minimum(maximum(x, low), high) - low
    return floor(kept * (1.0 / step) + 0.5) * step + low


def _within(g: Tensor, x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient where ``x`` lies between the two, below them, and above them."""
    below, above = less(x, low), greater(x, high)
    inside = logical_and(x >= low, x <= high)
    return select(inside, g, 0.0), select(below, g, 0.0), select(above, g, 0.0)


def _fake_quant(
    inputs: Any, low: Any, high: Any, num_bits: int, narrow_range: bool, channels: bool
) -> Tensor:
    x = as_tensor(inputs)
    low, high = (as_tensor(each, like=x._data.dtype) for each in (low, high))
    if channels and (low._data.shape != x._data.shape[-1:] or high._data.shape != low._data.shape):
        raise InvalidArgumentError(
            f"min and max have the size of the last axis of {tuple(x.shape)}, not shapes "
            f"{tuple(low.shape)} and {tuple(high.shape)}"
        )
    _bits(num_bits)

    @custom_gradient
    def run(x: Tensor, low: Tensor, high: Tensor) -> Any:
        def grad(g: Tensor) -> Any:
            inside, below, above = _within(g, x, least, most)
            over = list(range(x._data.ndim - 1)) if channels else None
            return inside, reduce_sum(below, over), reduce_sum(above, over)

        least, most, step = _nudged(low, high, num_bits, narrow_range)
        nothing = logical_and(low == 0.0, high == 0.0)  # there are no levels
        return select(nothing, 0.0, _rounded(x, least, most, step)), grad

    return run(x, low, high)


def fake_quant_with_min_max_args(
    inputs: Any,
    min: float = -6,
    max: float = 6,
    num_bits: int = 8,
    narrow_range: bool = False,
    name: str | None = None,
) -> Tensor:
    """``inputs`` rounded to ``2**num_bits`` levels from ``min`` to ``max``, of which one is 0.

    ``narrow_range`` leaves out the lowest. The gradient passes between the two. Raises
    InvalidArgumentError for other than 2 to 16 bits, and a ``min`` that is not below ``max``.
    """
    if not min < max:
        raise InvalidArgumentError(f"min must be below max, not {min} and {max}")
    return _fake_quant(inputs, float(min), float(max), num_bits, narrow_range, False)


def fake_quant_with_min_max_vars(
    inputs: Any,
    min: Any,
    max: Any,
    num_bits: int = 8,
    narrow_range: bool = False,
    name: str | None = None,
) -> Tensor:
    """As ``fake_quant_with_min_max_args``, with scalars that get the gradient beyond them."""
    return _fake_quant(inputs, min, max, num_bits, narrow_range, False)


def fake_quant_with_min_max_vars_per_channel(
    inputs: Any,
    min: Any,
    max: Any,
    num_bits: int = 8,
    narrow_range: bool = False,
    name: str | None = None,
) -> Tensor:
    """As ``fake_quant_with_min_max_vars``, with a pair for each entry of the last axis."""
    return _fake_quant(inputs, min, max, num_bits, narrow_range, True)
