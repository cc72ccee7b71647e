"""Sliding windows: the arithmetic and array views that convolution and pooling share.

Kernels see arrays ``[batch, *space, channels]``; sizes, strides and dilations have one entry per
spatial axis, padding has one (before, after) pair.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.ops.shape import permute, reshape_to, static

Pairs = tuple[tuple[int, int], ...]


class Geometry(NamedTuple):
    """How windows of ``size`` move over the spatial axes: a static parameter of primitives."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Pairs
    dilations: tuple[int, ...]

    def counts(self, space: Sequence[int]) -> tuple[int, ...]:
        """Number of windows along each spatial axis.

        Raises InvalidArgumentError where the padded axis is too short for one.
        """
        counts = []
        for n, k, s, (before, after), d in zip(space, *self, strict=True):
            reach = (k - 1) * d + 1
            counts.append((n + before + after - reach) // s + 1)
            if counts[-1] < 0:
                raise InvalidArgumentError(
                    f"a window of {reach} does not fit into {n + before + after} elements "
                    f"(spatial shape {tuple(space)}, window {self.size}, padding {self.padding})"
                )
        return tuple(counts)

    def offsets(self, counts: Sequence[int]) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Each position in a window, with the index of its element of every window."""
        for at in itertools.product(*map(range, self.size)):
            space = [
                slice(i * d, i * d + s * n, s)
                for i, d, s, n in zip(at, self.dilations, self.strides, counts, strict=True)
            ]
            yield at, (slice(None), *space, slice(None))

    def views(self, xp: Any, x: Any, counts: Sequence[int]) -> Any:
        """All windows of a padded array, as one view ``[batch, *counts, *size, channels]``."""
        outer, *space, inner = x.strides
        return xp.lib.stride_tricks.as_strided(
            x,
            shape=(x.shape[0], *counts, *self.size, x.shape[-1]),
            strides=(
                outer,
                *(t * s for t, s in zip(space, self.strides, strict=True)),
                *(t * d for t, d in zip(space, self.dilations, strict=True)),
                inner,
            ),
        )

    def padded(self, xp: Any, x: Any, value: Any = 0) -> Any:
        """``x`` with ``value`` around its spatial axes; x itself where there is none to add."""
        if not any(itertools.chain(*self.padding)):
            return x
        result = xp.full(self.padded_shape(x.shape), value, dtype=x.dtype)
        result[self.inside(x.shape)] = x
        return result

    def padded_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        space = [n + sum(pair) for n, pair in zip(shape[1:-1], self.padding, strict=True)]
        return (shape[0], *space, shape[-1])

    def inside(self, shape: Sequence[int]) -> tuple[slice, ...]:
        """The index of an array of ``shape`` within the padded one."""
        space = [slice(b, b + n) for n, (b, _) in zip(shape[1:-1], self.padding, strict=True)]
        return (slice(None), *space, slice(None))


def spatial(name: str, what: str, value: Any, count: int, first: bool) -> tuple[int, ...]:
    """An int, or a list of 1, ``count`` or ``count + 2`` of them, as ``count`` positive ints.

    ``first`` says that the channels stand before the spatial axes. Raises InvalidArgumentError for
    another length, a number below 1, or anything but 1 for the batch and the channels.
    """
    given = static(value)
    inner = slice(2, None) if first else slice(1, -1)
    if len(given) == count + 2:
        rest = given[:2] if first else (given[0], given[-1])
        if rest != (1, 1):
            raise InvalidArgumentError(
                f"{name}: {what} {list(given)} must be 1 for batch and channels"
            )
        given = given[inner]
    elif len(given) == 1:
        given = given * count
    if len(given) != count or min(given) < 1:
        raise InvalidArgumentError(
            f"{name}: {what} is one positive int or {count} of them, not {value!r}"
        )
    return given


def window_geometry(
    name: str,
    space: Sequence[int],
    size: tuple[int, ...],
    strides: Any,
    padding: Any,
    dilations: Any,
    first: bool,
) -> Geometry:
    """The geometry that a caller's strides, padding and dilations mean on a spatial shape."""
    count = len(size)
    s = spatial(name, "strides", 1 if strides is None else strides, count, first)
    d = spatial(name, "dilations", 1 if dilations is None else dilations, count, first)
    return Geometry(size, s, _pairs(name, padding, space, size, s, d, first), d)


def _pairs(
    name: str,
    padding: Any,
    space: Sequence[int],
    size: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    first: bool,
) -> Pairs:
    """Zeros before and after each spatial axis, for "SAME", "VALID" or explicit pairs.

    "SAME" makes ``ceil(n / stride)`` windows; an odd zero goes after. Raises InvalidArgumentError
    for another text, or pairs that are not one per axis of the tensor.
    """
    if isinstance(padding, str):
        text = padding.upper()
        if text == "VALID":
            return ((0, 0),) * len(space)
        if text != "SAME":
            raise InvalidArgumentError(
                f"{name}: padding is 'SAME', 'VALID' or pairs, not {padding!r}"
            )
        pairs = []
        for n, k, s, d in zip(space, size, strides, dilations, strict=True):
            total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            pairs.append((total // 2, total - total // 2))
        return tuple(pairs)
    given = tuple((int(before), int(after)) for before, after in padding)
    outer = given[:2] if first else (given[0], given[-1])
    inner = given[2:] if first else given[1:-1]
    if len(inner) != len(space) or outer != ((0, 0), (0, 0)) or np.min(inner, initial=0) < 0:
        raise InvalidArgumentError(
            f"{name}: explicit padding is one pair per axis, 0 for batch and channels, not "
            f"{padding!r}"
        )
    return inner


def channels_first(name: str, data_format: str | None, count: int) -> bool:
    """Whether ``data_format`` puts the channels before the spatial axes.

    Raises InvalidArgumentError for another text.
    """
    space = "DHW"[3 - count :]
    if data_format in (None, f"N{space}C"):
        return False
    if data_format == f"NC{space}":
        return True
    raise InvalidArgumentError(
        f"{name}: data_format is 'N{space}C' or 'NC{space}', not {data_format!r}"
    )


def channels_last(fn: Callable[[Tensor], Tensor], x: Tensor, count: int, first: bool) -> Tensor:
    """``fn`` of ``x`` with its channels last and one batch axis; the result laid out as x was."""
    batch = x._data.shape[: -count - 1]
    if len(batch) != 1:
        x = bind(reshape_to, x, shape=(int(np.prod(batch)), *x._data.shape[-count - 1 :]))
    if first:
        x = bind(permute, x, perm=(0, *range(2, count + 2), 1))
    y = fn(x)
    if first:
        y = bind(permute, y, perm=(0, count + 1, *range(1, count + 1)))
    if len(batch) != 1:
        y = bind(reshape_to, y, shape=(*batch, *y._data.shape[1:]))
    return y
