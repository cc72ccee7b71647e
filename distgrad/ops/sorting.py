"""Order: sort, top_k, searchsorted, unique, and counts by value."""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple

import numpy as np

from distgrad.core.dispatch import as_tensor, launches
from distgrad.core.dtypes import as_dtype
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.core.texts import all_texts, as_strings
from distgrad.ops.casting import cast
from distgrad.ops.clipping import maximum, minimum
from distgrad.ops.indexing import mask_select, row_positions, take_along_last, take_grad
from distgrad.ops.logic import less
from distgrad.ops.shape import fill, one_axis, permute, reshape_to


@primitive(vjp=None)
def argsort_last(xp, x, *, descending):
    """Positions that sort the last axis, int64; equal elements keep their order."""
    if not descending:
        return xp.argsort(x, axis=-1, kind="stable").astype(np.int64)
    # Sorted from behind and read backwards, equal elements keep their order here too.
    order = xp.argsort(xp.flip(x, -1), axis=-1, kind="stable").astype(np.int64)
    return x.shape[-1] - 1 - xp.flip(order, -1)


@argsort_last.samples
def _(rng):
    x = rng.integers(0, 3, (3, 5)) / 2.0
    yield sample(x, descending=False)
    yield sample(x, descending=True)


_FEW = 16  # largest elements that are looked for one by one: a sort costs as much as about fifty


@primitive(vjp=None, kinds="iuf")
def places_of_largest(xp, x, *, count):
    """Positions of the ``count`` largest of the last axis, int64; of equal ones the first first."""
    if launches(xp) or not 0 < count <= min(_FEW, x.shape[-1] // 4):
        return argsort_last.kernel(xp, x, descending=True)[..., :count]
    left, found = x.copy(), []
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    for _ in range(count):
        place = xp.argmax(left, axis=-1, keepdims=True)
        found.append(place)
        xp.put_along_axis(left, place, lowest, axis=-1)
    places = xp.concatenate(found, axis=-1)
    if xp.any(xp.take_along_axis(x, places[..., -1:], axis=-1) == lowest):
        return argsort_last.kernel(xp, x, descending=True)[..., :count]  # one was taken twice
    return places


@places_of_largest.samples
def _(rng):
    yield sample(rng.integers(0, 9, (3, 40)) / 2.0, count=4)
    yield sample(np.where(rng.random((3, 40)) < 0.9, -np.inf, 1.0), count=8)
    yield sample(rng.integers(0, 9, (2, 5)), count=3)
    yield sample(rng.normal(size=(2, 5)), count=0)


def _last(x: Tensor, axis: int) -> Tensor:
    """``axis`` swapped with the last one; its own inverse."""
    ndim = x._data.ndim
    if axis == ndim - 1:
        return x
    order = list(range(ndim))
    order[axis], order[-1] = order[-1], order[axis]
    return bind(permute, x, perm=tuple(order))


def _descending(name: str, direction: str) -> bool:
    if direction not in ("ASCENDING", "DESCENDING"):
        raise ValueError(f"{name}: direction is ASCENDING or DESCENDING, not {direction!r}")
    return direction == "DESCENDING"


def sort(
    values: Any, axis: int = -1, direction: str = "ASCENDING", name: str | None = None
) -> Tensor:
    """``values`` sorted along ``axis``, with a gradient to where each came from.

    Raises ValueError for another direction than ASCENDING or DESCENDING and InvalidArgumentError
    for an axis outside the rank.
    """
    x = as_tensor(values)
    axis = one_axis("sort", axis, x._data.ndim)
    rows = _last(x, axis)
    order = bind(argsort_last, rows, descending=_descending("sort", direction))
    return _last(take_along_last(rows, order), axis)


def argsort(
    values: Any,
    axis: int = -1,
    direction: str = "ASCENDING",
    stable: bool = False,
    name: str | None = None,
) -> Tensor:
    """int32 positions that sort ``values`` along ``axis``; always stable, no gradient.

    Raises as ``sort`` does.
    """
    x = as_tensor(values)
    axis = one_axis("argsort", axis, x._data.ndim)
    order = bind(argsort_last, _last(x, axis), descending=_descending("argsort", direction))
    return cast(_last(order, axis), np.int32)


class TopKV2(NamedTuple):
    """What ``top_k`` gives."""

    values: Tensor
    indices: Tensor


def top_k(
    input: Any,
    k: int = 1,
    sorted: bool = True,
    index_type: Any = np.int32,
    name: str | None = None,
) -> TopKV2:
    """The ``k`` largest elements of the last axis and their positions, largest first.

    Of equal elements the first comes first. Raises InvalidArgumentError for a scalar, or for a k
    that is negative or more than there are.
    """
    x = as_tensor(input)
    count = operator.index(k)
    if not x._data.ndim or not 0 <= count <= x._data.shape[-1]:
        raise InvalidArgumentError(f"top_k: there are no {count} elements along {x.shape}")
    first = bind(places_of_largest, x, count=count)
    return TopKV2(take_along_last(x, first), cast(first, index_type))


# Searching


@primitive(vjp=None)
def search_rows(xp, sequence, values, *, side):
    """Where each value would go in the sorted sequence of its row (axis 0), int64."""
    found = xp.empty(values.shape, dtype=np.int64)
    for row in range(len(values)):
        found[row] = xp.searchsorted(sequence[row], values[row], side=side)
    return found


@search_rows.samples
def _(rng):
    for side in ("left", "right"):
        yield sample(np.sort(rng.normal(size=(2, 5))), rng.normal(size=(2, 3)), side=side)


def searchsorted(
    sorted_sequence: Any,
    values: Any,
    side: str = "left",
    out_type: Any = np.int32,
    name: str | None = None,
) -> Tensor:
    """Where each value would go in the sorted last axis, before ("left") or after equal ones.

    Leading axes of both are the same. Raises InvalidArgumentError where they differ, and
    ValueError for another side.
    """
    if side not in ("left", "right"):
        raise ValueError(f"searchsorted: side is 'left' or 'right', not {side!r}")
    sequence, wanted = as_tensor(sorted_sequence), as_tensor(values)
    shape, size = sequence._data.shape, wanted._data.shape
    if not shape or not size or shape[:-1] != size[:-1]:
        raise InvalidArgumentError(f"searchsorted: values of {wanted.shape} in {sequence.shape}")
    rows = math.prod(shape[:-1])
    found = search_rows(
        bind(reshape_to, sequence, shape=(rows, shape[-1])),
        bind(reshape_to, wanted, shape=(rows, size[-1])),
        side=side,
    )
    return cast(bind(reshape_to, found, shape=size), out_type)


@primitive(vjp=None, multiple=True, varies=True)
def unique_parts(xp, x):
    """Distinct elements in order of appearance, where each element's is, and how often."""
    values, first, inverse, counts = xp.unique(
        x, return_index=True, return_inverse=True, return_counts=True
    )
    order = xp.argsort(first)
    place = xp.argsort(order)
    return values[order], place[inverse.reshape(-1)], counts[order]


@unique_parts.samples
def _(rng):
    yield sample(rng.integers(0, 4, 9) / 2.0)
    yield sample(np.zeros(0))


class Unique(NamedTuple):
    """What ``unique`` gives; of texts ``y`` is an array of them."""

    y: Any
    idx: Tensor


class UniqueWithCounts(NamedTuple):
    """What ``unique_with_counts`` gives."""

    y: Any
    idx: Tensor
    count: Tensor  # type: ignore[assignment]  # TensorFlow's name, which a tuple has already


def unique(x: Any, out_idx: Any = np.int32, name: str | None = None) -> Unique:
    """The distinct elements of a vector as they appear, and where each element's is; no gradient.

    Raises InvalidArgumentError for another rank.
    """
    y, idx, _ = unique_with_counts(x, out_idx)
    return Unique(y, idx)


def unique_with_counts(
    x: Any, out_idx: Any = np.int32, name: str | None = None
) -> UniqueWithCounts:
    """Like ``unique``, and how often each distinct element is there.

    Raises InvalidArgumentError unless ``x`` is a vector.
    """
    if type(x) is not Tensor and all_texts(x):
        table, numbers = np.unique(np.asarray(as_strings(x)), return_inverse=True)
        found = unique_with_counts(numbers, out_idx)
        return found._replace(y=as_strings(table[found.y.numpy()]))
    tensor = as_tensor(x)
    if tensor._data.ndim != 1:
        raise InvalidArgumentError(f"unique takes a vector, not a tensor of shape {tensor.shape}")
    y, idx, count = bind(unique_parts, tensor)
    return UniqueWithCounts(y, cast(idx, out_idx), cast(count, out_idx))


def invert_permutation(x: Any, name: str | None = None) -> Tensor:
    """The permutation that undoes ``x``.

    Raises InvalidArgumentError unless ``x`` is a vector that holds each of 0 to n-1 once.
    """
    perm = as_tensor(x)
    host = perm._host()
    if (
        host.ndim != 1
        or host.dtype.kind not in "iu"
        or (np.sort(host) != np.arange(len(host))).any()
    ):
        raise InvalidArgumentError(f"invert_permutation: {perm} is not a permutation")
    return cast(bind(argsort_last, perm, descending=False), perm.dtype)


# Counts


def bincount(
    arr: Any,
    weights: Any = None,
    minlength: int | None = None,
    maxlength: int | None = None,
    dtype: Any = np.int32,
    name: str | None = None,
    axis: Any = None,
    binary_output: bool = False,
) -> Tensor:
    """How often each integer from 0 on appears in ``arr``, or the sum of its ``weights``.

    The result has ``minlength`` to ``maxlength`` entries; larger integers are not counted. With
    ``axis=-1`` each row of a matrix is counted alone. The sum is differentiable in the weights.
    Raises InvalidArgumentError for negative integers or weights of another shape.
    """
    x = as_tensor(arr)
    if x._data.dtype.kind == "b" or not x._data.size:  # an empty list would be one of floats
        x = cast(x, np.int32)
    numbers = x._data
    if numbers.dtype.kind not in "iu" or (numbers.size and numbers.min() < 0):
        raise InvalidArgumentError(f"bincount takes integers from 0 on, not {x}")
    if axis not in (None, 0, -1) or (axis == -1 and numbers.ndim > 2):
        raise InvalidArgumentError(f"bincount: axis {axis} of shape {x.shape}")
    length = int(numbers.max()) + 1 if numbers.size else 0
    length = max(length, 0 if minlength is None else int(minlength))
    length = length if maxlength is None else min(length, int(maxlength))
    if weights is None:
        amounts = bind(fill, 1, shape=numbers.shape, dtype=as_dtype(dtype).numpy_dtype)
    else:
        amounts = as_tensor(weights)
        if amounts._data.shape != numbers.shape:
            raise InvalidArgumentError(f"bincount: weights of {amounts.shape} for {x.shape}")
    rows = numbers.shape[:1] if axis == -1 and numbers.ndim == 2 else ()
    matrix = numbers.shape if rows else (1, numbers.size)
    x, amounts = (bind(reshape_to, t, shape=matrix) for t in (x, amounts))
    counted = less(x, length)
    places = bind(mask_select, bind(row_positions, x, length=length), counted)
    amounts = bind(mask_select, amounts, counted)
    total = bind(take_grad, amounts, places, shape=(matrix[0] * length,), axis=0)
    total = bind(reshape_to, total, shape=(*rows, length))
    return minimum(total, 1) if binary_output else total


def confusion_matrix(
    labels: Any,
    predictions: Any,
    num_classes: int | None = None,
    weights: Any = None,
    dtype: Any = np.int32,
    name: str | None = None,
) -> Tensor:
    """How often class j was predicted where the label is i, or the sum of the weights of those.

    Either may have a last axis of size 1 more than the other. Raises InvalidArgumentError for
    vectors of two lengths or a class outside the matrix.
    """
    rows, columns = (cast(as_tensor(each), np.int64) for each in (labels, predictions))
    more = rows._data.ndim - columns._data.ndim
    if more == 1 and rows._data.shape[-1] == 1:
        rows = bind(reshape_to, rows, shape=rows._data.shape[:-1])
    elif more == -1 and columns._data.shape[-1] == 1:
        columns = bind(reshape_to, columns, shape=columns._data.shape[:-1])
    if rows._data.ndim != 1 or rows._data.shape != columns._data.shape:
        raise InvalidArgumentError(
            f"confusion_matrix takes two vectors of one length, not {rows.shape}, {columns.shape}"
        )
    known = [t._host() for t in (rows, columns)]
    largest = max((int(each.max()) for each in known if each.size), default=-1)
    size = largest + 1 if num_classes is None else int(num_classes)
    if largest >= size or any((each < 0).any() for each in known):
        raise InvalidArgumentError(f"confusion_matrix: a class outside [0, {size})")
    weights = None if weights is None else cast(as_tensor(weights), dtype)
    counts = bincount(rows * size + columns, weights, size * size, dtype=dtype)
    return bind(reshape_to, counts, shape=(size, size))


def histogram_fixed_width_bins(
    values: Any, value_range: Any, nbins: int = 100, dtype: Any = np.int32, name: Any = None
) -> Tensor:
    """Which of ``nbins`` equal bins of ``value_range`` each value falls in; no gradient.

    Values outside fall in the first or the last. Raises InvalidArgumentError unless the range has
    two ends in order and there is at least one bin.
    """
    x = as_tensor(values)
    low, high = (float(v) for v in as_tensor(value_range)._host())
    if not low < high or nbins < 1:
        raise InvalidArgumentError(f"histogram: {nbins} bins from {low} to {high}")
    scaled = cast(x, np.float64) - low
    position = minimum(maximum(scaled * (nbins / (high - low)), 0.0), float(nbins - 1))
    return cast(cast(position, np.int64), dtype)


def histogram_fixed_width(
    values: Any, value_range: Any, nbins: int = 100, dtype: Any = np.int32, name: Any = None
) -> Tensor:
    """How many values fall in each of ``nbins`` equal bins of ``value_range``; no gradient."""
    bins = histogram_fixed_width_bins(values, value_range, nbins)
    flat = bind(reshape_to, bins, shape=(bins._data.size,))
    return bincount(flat, minlength=nbins, maxlength=nbins, dtype=dtype)
