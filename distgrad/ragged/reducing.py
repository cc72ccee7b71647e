"""Reductions of ragged tensors: along a ragged axis they are those of segments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.composite import of_composites
from distgrad.ops import nn, reduce, scan, statistics
from distgrad.ops.arithmetic import square
from distgrad.ops.casting import cast, ones_like, stop_gradient
from distgrad.ops.clipping import maximum
from distgrad.ops.exponential import exp
from distgrad.ops.logic import greater
from distgrad.ops.segment import (
    unsorted_segment_max,
    unsorted_segment_mean,
    unsorted_segment_min,
    unsorted_segment_prod,
    unsorted_segment_sqrt_n,
    unsorted_segment_sum,
)
from distgrad.ops.shape import expand_dims, one_axis
from distgrad.ragged import partition
from distgrad.ragged.elementwise import broadcast
from distgrad.ragged.tensor import RaggedTensor, count_of

# What a reduction is of rows that share a number: (values, the numbers, how many) to rows.
Segments = Callable[[Any, Any, int], Any]


def segments(reduction: Segments, values: Any, ids: np.ndarray, count: int) -> Any:
    """Rows with one number reduced to one; ragged rows element by element, to the longest one."""
    if not isinstance(values, RaggedTensor):
        return reduction(values, ids, count)
    lengths = partition.lengths_of(values._splits)
    longest = np.zeros(count, lengths.dtype)
    np.maximum.at(longest, ids, lengths)
    splits = partition.of_lengths(longest)
    starts = splits[:-1][ids]
    places, _ = partition.ranges(starts, starts + lengths)
    return RaggedTensor(segments(reduction, values.values, places, int(splits[-1])), splits)


def reduced(dense: Any, reduction: Segments, x: Any, axis: Any, keepdims: bool = False) -> Any:
    """A reduction over one axis, several, or all (None); ``dense`` is that of a tensor."""
    if not isinstance(x, RaggedTensor):
        return dense(x, axis, keepdims)
    rank = len(x.shape)
    if axis is None:
        made = dense(x.flat_values, None, keepdims)
        for _ in range(x.ragged_rank if keepdims else 0):
            made = expand_dims(made, 0)
        return made
    axes = sorted({one_axis("reduce", a, rank) for a in np.atleast_1d(np.asarray(axis)).tolist()})
    for each in reversed(axes):
        x = _along(dense, reduction, x, each)
    for each in axes if keepdims else ():
        x = expand_dims(x, each)
    return x


def _along(dense: Any, reduction: Segments, x: Any, axis: int) -> Any:
    if not isinstance(x, RaggedTensor):
        return dense(x, axis, False)
    if axis > 1:
        return x.with_values(_along(dense, reduction, x.values, axis - 1))
    if axis == 1:
        return segments(reduction, x.values, partition.row_ids(x._splits), count_of(x))
    lengths = partition.lengths_of(x._splits)
    columns, _ = partition.ranges(np.zeros_like(lengths), lengths)
    return segments(reduction, x.values, columns, int(lengths.max(initial=0)))


def _of_bools(reduction: Segments) -> Segments:
    """Any is the largest of 0 and 1, all the smallest."""
    return lambda values, ids, count: greater(reduction(cast(values, np.int32), ids, count), 0)


def _register(primitive: Any, public: Callable[..., Any], reduction: Segments) -> None:
    @of_composites(primitive)
    def of_ragged(x: Any, axis: Any, keepdims: bool) -> Any:
        return reduced(public, reduction, x, axis, keepdims)


_register(reduce.sum, reduce.reduce_sum, unsorted_segment_sum)
_register(reduce.prod, reduce.reduce_prod, unsorted_segment_prod)
_register(reduce.max, reduce.reduce_max, unsorted_segment_max)
_register(reduce.min, reduce.reduce_min, unsorted_segment_min)
_register(reduce.any_true, reduce.reduce_any, _of_bools(unsorted_segment_max))
_register(reduce.all_true, reduce.reduce_all, _of_bools(unsorted_segment_min))


@of_composites(reduce.mean)
def _mean(x: RaggedTensor, axis: Any, keepdims: bool) -> Any:
    """The sum by the number of elements: nan for an empty row."""
    return reduce.reduce_sum(x, axis, keepdims) / reduce.reduce_sum(ones_like(x), axis, keepdims)


@of_composites(statistics.reduce_variance)
def _variance(
    input_tensor: RaggedTensor, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Any:
    # As TensorFlow has it: a mean over rows does not broadcast back to rows of unequal lengths.
    squares = reduce.reduce_mean(square(input_tensor), axis, keepdims)
    return maximum(squares - square(reduce.reduce_mean(input_tensor, axis, keepdims)), 0)


@of_composites(nn.softmax)
def _softmax(logits: RaggedTensor, axis: int | None = None, name: str | None = None) -> Any:
    axis = one_axis("softmax", -1 if axis is None else axis, len(logits.shape))
    if axis > logits.ragged_rank:
        inner = axis - logits.ragged_rank
        return logits.with_flat_values(nn.softmax(logits.flat_values, inner))
    weights = exp(logits - stop_gradient(reduce.reduce_max(logits, axis, True)))
    return weights / reduce.reduce_sum(weights, axis, True)


@of_composites(scan.cumsum)
def _cumsum(
    x: RaggedTensor, axis: int = 0, exclusive: bool = False, reverse: bool = False, name: Any = None
) -> Any:
    axis = one_axis("cumsum", axis, len(x.shape))
    if axis > x.ragged_rank:
        inner = axis - x.ragged_rank
        return x.with_flat_values(scan.cumsum(x.flat_values, inner, exclusive, reverse))
    whole = scan.cumsum(x.to_tensor(), axis, exclusive, reverse)  # zeros change no sum
    return RaggedTensor.from_tensor(whole, lengths=x.nested_row_lengths())


def _of_segments(dense: Any) -> None:
    @of_composites(dense)
    def of_ragged(data: Any, segment_ids: Any, num_segments: Any, name: Any = None) -> Any:
        """Where both are ragged, alike, every value has a number."""
        if isinstance(segment_ids, RaggedTensor):
            flat, _ = broadcast([data, segment_ids])
            return dense(*flat, num_segments)
        return segments(dense, data, partition.integers(segment_ids), int(num_segments))


for _dense in (
    unsorted_segment_max,
    unsorted_segment_mean,
    unsorted_segment_min,
    unsorted_segment_prod,
    unsorted_segment_sqrt_n,
    unsorted_segment_sum,
):
    _of_segments(_dense)
