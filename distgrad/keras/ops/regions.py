"""Functions of ``keras.ops`` on parts of images and of vectors: patches, blocks, segments, maps."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core import tree
from distgrad.core.dispatch import as_tensor
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.keras.layers.core import data_format_of
from distgrad.keras.ops import shaping
from distgrad.keras.ops.nn import group_count
from distgrad.keras.ops.promotion import floated
from distgrad.ops import segment
from distgrad.ops.indexing import gather, take_grad
from distgrad.ops.layout import beside, reverse
from distgrad.ops.linalg import matmul
from distgrad.ops.reduce import reduce_max
from distgrad.ops.shape import concat, reshape, stack, transpose


def segment_min(
    data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False
) -> Tensor:
    """The smallest elements of the rows with the same number in ``segment_ids``."""
    return segment.unsorted_segment_min(data, *group_count(segment_ids, num_segments))


def segment_prod(
    data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False
) -> Tensor:
    """The products of the rows with the same number in ``segment_ids``."""
    return segment.unsorted_segment_prod(data, *group_count(segment_ids, num_segments))


# Blocks of images


def _last(x: Tensor, data_format: str | None) -> tuple[Tensor, bool]:
    first = data_format_of(data_format) == "channels_first"
    return (transpose(x, [0, 2, 3, 1]) if first else x), first


def _block_size(value: int) -> int:
    if value < 2:
        raise ValueError(f"block_size must be at least 2, not {value!r}")
    return int(value)


def depth_to_space(x: Any, block_size: int, data_format: str = "channels_last") -> Tensor:
    """The channels of each pixel as a block of ``block_size`` by ``block_size`` pixels.

    Raises ValueError for a block of less than 2, or one that does not divide the channels.
    """
    tensor, first = _last(as_tensor(x), data_format)
    n, h, w, c = tensor._data.shape
    b = _block_size(block_size)
    if c % (b * b):
        raise ValueError(f"{c} channels are no multiple of {b} * {b}")
    cut = reshape(tensor, (n, h, w, b, b, c // (b * b)))
    out = reshape(transpose(cut, [0, 1, 3, 2, 4, 5]), (n, h * b, w * b, c // (b * b)))
    return transpose(out, [0, 3, 1, 2]) if first else out


def space_to_depth(x: Any, block_size: int, data_format: str = "channels_last") -> Tensor:
    """Each block of ``block_size`` by ``block_size`` pixels as the channels of one pixel.

    Raises ValueError for a block of less than 2, or one that does not divide the image.
    """
    tensor, first = _last(as_tensor(x), data_format)
    n, h, w, c = tensor._data.shape
    b = _block_size(block_size)
    if h % b or w % b:
        raise ValueError(f"an image of {h} by {w} has no whole blocks of {b} by {b}")
    cut = reshape(tensor, (n, h // b, b, w // b, b, c))
    out = reshape(transpose(cut, [0, 1, 3, 2, 4, 5]), (n, h // b, w // b, b * b * c))
    return transpose(out, [0, 3, 1, 2]) if first else out


def _two(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _patches(size: tuple[int, int], kernel: Any, dilation: Any, padding: Any, stride: Any) -> Any:
    """For each element of a patch and each patch, its place in the flat padded image."""
    k, d, p, s = map(_two, (kernel, dilation, padding, stride))
    padded = [n + 2 * border for n, border in zip(size, p, strict=True)]
    lines = []
    for n, window, gap, step in zip(padded, k, d, s, strict=True):
        count = (n - gap * (window - 1) - 1) // step + 1
        lines.append(np.arange(window)[:, None] * gap + np.arange(count) * step)
    rows, columns = lines
    place = rows[:, None, :, None] * padded[1] + columns[None, :, None, :]
    return place.reshape(k[0] * k[1], -1).astype(np.int32), padded, p


def unfold(
    x: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """All patches of images ``[batch, channels, height, width]``, as columns.

    Of shape (batch, channels * kernel height * kernel width, patches).
    """
    tensor = as_tensor(x)
    n, c, h, w = tensor._data.shape
    places, padded, p = _patches((h, w), kernel_size, dilation, padding, stride)
    if any(p):
        tensor = shaping.pad(tensor, ((0, 0), (0, 0), (p[0], p[0]), (p[1], p[1])))
    flat = reshape(tensor, (n, c, padded[0] * padded[1]))
    return reshape(gather(flat, places, axis=-1), (n, c * places.shape[0], places.shape[1]))


def fold(
    x: Any,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Tensor:
    """Images of ``output_size`` from patches as ``unfold`` gives them: overlaps are added up."""
    tensor, size = as_tensor(x), _two(output_size)
    places, padded, p = _patches(size, kernel_size, dilation, padding, stride)
    n, rows, count = tensor._data.shape
    c = rows // places.shape[0]
    cut = reshape(tensor, (n, c, places.shape[0], count))
    whole = (n, c, padded[0] * padded[1])
    flat = bind(take_grad, cut, as_tensor(places), shape=whole, axis=2)
    image = reshape(flat, (n, c, *padded))
    return image[:, :, p[0] : p[0] + size[0], p[1] : p[1] + size[1]]


# Pooling to a given size


def adaptive_average_pool(inputs: Any, output_size: Any, data_format: str | None = None) -> Tensor:
    """The means of so many windows along each spatial axis, as equal as they can be."""
    return _adapted(inputs, output_size, data_format, _means)


def adaptive_max_pool(inputs: Any, output_size: Any, data_format: str | None = None) -> Tensor:
    """The largest elements of so many windows along each spatial axis."""
    return _adapted(inputs, output_size, data_format, _largest)


def _adapted(inputs: Any, output_size: Any, data_format: str | None, run: Any) -> Tensor:
    x = floated(inputs)
    count = x._data.ndim - 2
    sizes = (output_size,) * count if isinstance(output_size, int) else tuple(output_size)
    first = 2 if data_format_of(data_format) == "channels_first" else 1
    for axis, size in enumerate(sizes, first):
        x = shaping.moveaxis(run(shaping.moveaxis(x, axis, -1), size), -1, axis)
    return x


def _bounds(length: int, size: int) -> list[tuple[int, int]]:
    return [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]


def _means(x: Tensor, size: int) -> Tensor:
    length = x._data.shape[-1]
    weights = np.zeros((length, size), x._data.dtype)
    for i, (start, stop) in enumerate(_bounds(length, size)):
        weights[start:stop, i] = 1 / (stop - start)
    return matmul(x, beside(x, weights))


def _largest(x: Tensor, size: int) -> Tensor:
    bounds = _bounds(x._data.shape[-1], size)
    return stack([reduce_max(x[..., start:stop], -1) for start, stop in bounds], -1)


# Functions along an axis


def associative_scan(
    f: Callable[[Any, Any], Any], elems: Any, reverse: bool = False, axis: int = 0
) -> Any:
    """All of ``f(f(a, b), c)...`` along ``axis``, for an ``f`` that may be bracketed at will.

    ``f`` takes two nests like ``elems``, whose tensors hold many elements along the axis; it is
    called about ``2 * log2(n)`` times. Raises ValueError for unequal lengths.
    """
    leaves = [as_tensor(leaf) for leaf in tree.flatten(elems)]
    lengths = {leaf._data.shape[axis] for leaf in leaves}
    if len(lengths) != 1:
        raise ValueError(
            "Array inputs to associative_scan must have the same first dimension. (saw: "
            f"{[leaf.shape for leaf in leaves]})"
        )
    if reverse:
        leaves = [reversed_along(leaf, axis) for leaf in leaves]

    def both(left: list[Tensor], right: list[Tensor]) -> list[Tensor]:
        pack = tree.pack_sequence_as
        return [as_tensor(x) for x in tree.flatten(f(pack(elems, left), pack(elems, right)))]

    found = _scanned(both, leaves, axis)
    if reverse:
        found = [reversed_along(leaf, axis) for leaf in found]
    return tree.pack_sequence_as(elems, found)


def reversed_along(x: Tensor, axis: int) -> Tensor:
    """``x`` turned round along an axis."""
    return reverse(x, [axis % x._data.ndim])


def _scanned(both: Any, leaves: list[Tensor], axis: int) -> list[Tensor]:
    n = leaves[0]._data.shape[axis]
    if n < 2:
        return leaves

    def part(x: Tensor, start: int, stop: int, step: int = 1) -> Tensor:
        places = np.arange(start, stop, step, dtype=np.int32)
        return gather(x, places, axis=axis)

    even, odd = ([part(x, start, n, 2) for x in leaves] for start in (0, 1))
    pairs = n // 2
    # Sums of pairs, scanned, stand at the odd places; those between take one element more.
    at_odd = _scanned(both, both([part(x, 0, pairs) for x in even], odd), axis)
    after = (n - 1) // 2
    rest = [part(x, 0, 1) for x in even]
    if after:
        more = both([part(x, 0, after) for x in at_odd], [part(x, 1, after + 1) for x in even])
        rest = [concat([a, b], axis) for a, b in zip(rest, more, strict=True)]
    order = np.argsort(np.concatenate([np.arange(0, n, 2), np.arange(1, n, 2)]), kind="stable")
    return [
        gather(concat([a, b], axis), order.astype(np.int32), axis=axis)
        for a, b in zip(rest, at_odd, strict=True)
    ]


def vectorize(
    pyfunc: Callable[..., Any], *, excluded: Any = None, signature: str | None = None
) -> Callable[..., Any]:
    """``pyfunc``, which takes scalars, as a function of tensors, which broadcast.

    ``excluded`` are numbers of arguments that are passed on as they are. ``signature`` such as
    "(m,n),(n)->(m)" says which last axes the function itself takes. Raises ValueError for what is
    no function.
    """
    if not callable(pyfunc):
        raise ValueError(f"Expected argument `pyfunc` to be a callable. Received: pyfunc={pyfunc}")
    skipped = set(excluded or ())
    ranks = None if signature is None else _ranks(signature)

    def run(*args: Any) -> Any:
        places = [i for i in range(len(args)) if i not in skipped]
        given = [as_tensor(args[i]) for i in places]
        own = ranks or [0] * len(given)
        split = [x._data.ndim - rank for x, rank in zip(given, own, strict=True)]
        lead = np.broadcast_shapes(*(x._data.shape[:k] for x, k in zip(given, split, strict=True)))
        rows = [
            reshape(shaping.broadcast_to(x, (*lead, *x._data.shape[k:])), (-1, *x._data.shape[k:]))
            for x, k in zip(given, split, strict=True)
        ]
        found = []
        for i in range(int(np.prod(lead, dtype=int))):
            values = list(args)
            for place, row in zip(places, rows, strict=True):
                values[place] = row[i]
            found.append(pyfunc(*values))
        columns = zip(*(tree.flatten(each) for each in found), strict=True)
        stacked = [stack([as_tensor(v) for v in column]) for column in columns]
        shaped = [reshape(x, (*lead, *x._data.shape[1:])) for x in stacked]
        return tree.pack_sequence_as(found[0], shaped)

    return run


def _ranks(signature: str) -> list[int]:
    """How many axes of each argument a function takes: what stands in its pair of brackets."""
    left = signature.replace(" ", "").split("->")[0]
    return [len([n for n in core.split(",") if n]) for core in re.findall(r"\((.*?)\)", left)]
