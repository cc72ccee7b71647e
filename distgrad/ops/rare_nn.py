"""Functions of ``tf.nn`` that few scripts need, made of others."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from distgrad.core import recording
from distgrad.core.custom import custom_gradient
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tape import GradientTape
from distgrad.core.tensor import Tensor
from distgrad.ops.arithmetic import negative
from distgrad.ops.casting import cast
from distgrad.ops.constants import zeros
from distgrad.ops.convolution import conv2d_transpose, depthwise_conv2d
from distgrad.ops.host import on_host
from distgrad.ops.nn import general_dropout, stateless_dropout
from distgrad.ops.normalization import batch_normalization
from distgrad.ops.shape import one_axis, static, transpose
from distgrad.ops.sorting import top_k

experimental = SimpleNamespace(general_dropout=general_dropout, stateless_dropout=stateless_dropout)


def _moved(x: Tensor, axis: int, to: int) -> Tensor:
    """``x`` with an axis in another place."""
    order = list(range(x._data.ndim))
    order.insert(to % len(order), order.pop(axis))
    return transpose(x, order)


class ApproxTopK(NamedTuple):
    """The largest elements, or the smallest ones, and where they are."""

    values: Tensor
    indices: Tensor


def approx_max_k(
    operand: Any,
    k: int,
    reduction_dimension: int = -1,
    recall_target: float = 0.95,
    reduction_input_size_override: int = -1,
    aggregate_to_topk: bool = True,
    name: str | None = None,
) -> ApproxTopK:
    """The ``k`` largest elements along an axis; all of them are found, whatever is asked for."""
    x = as_tensor(operand)
    axis = one_axis("approx_max_k", reduction_dimension, x._data.ndim)
    found = top_k(_moved(x, axis, -1), k)
    return ApproxTopK(*(_moved(each, -1, axis) for each in found))


def approx_min_k(
    operand: Any,
    k: int,
    reduction_dimension: int = -1,
    recall_target: float = 0.95,
    reduction_input_size_override: int = -1,
    aggregate_to_topk: bool = True,
    name: str | None = None,
) -> ApproxTopK:
    """The ``k`` smallest elements along an axis; all of them are found, whatever is asked for."""
    values, indices = approx_max_k(negative(as_tensor(operand)), k, reduction_dimension)
    return ApproxTopK(negative(values), indices)


def atrous_conv2d_transpose(
    value: Any, filters: Any, output_shape: Any, rate: int, padding: str, name: str | None = None
) -> Tensor:
    """The transpose of ``atrous_conv2d``; ``filters`` are ``[h, w, out, in]``."""
    return conv2d_transpose(value, filters, output_shape, 1, padding, dilations=rate)


def batch_norm_with_global_normalization(
    input: Any,
    mean: Any,
    variance: Any,
    beta: Any,
    gamma: Any,
    variance_epsilon: float,
    scale_after_normalization: bool,
    name: str | None = None,
) -> Tensor:
    """``batch_normalization``, with ``gamma`` only where ``scale_after_normalization`` says so."""
    scale = gamma if scale_after_normalization else None
    return batch_normalization(input, mean, variance, beta, scale, variance_epsilon)


def depthwise_conv2d_backprop_input(
    input_sizes: Any,
    filter: Any,
    out_backprop: Any,
    strides: Any,
    padding: Any,
    data_format: str = "NHWC",
    dilations: Any = (1, 1, 1, 1),
    name: str | None = None,
) -> Tensor:
    """The gradient of ``depthwise_conv2d`` with respect to an input of these sizes."""
    w = as_tensor(filter)
    blank = zeros(static(input_sizes), w.dtype)
    options = (strides, padding, data_format, _spatial(dilations, data_format))
    return _gradient(lambda x: depthwise_conv2d(x, w, *options), blank, out_backprop)


def depthwise_conv2d_backprop_filter(
    input: Any,
    filter_sizes: Any,
    out_backprop: Any,
    strides: Any,
    padding: Any,
    data_format: str = "NHWC",
    dilations: Any = (1, 1, 1, 1),
    name: str | None = None,
) -> Tensor:
    """The gradient of ``depthwise_conv2d`` with respect to a filter of these sizes."""
    x = as_tensor(input)
    blank = zeros(static(filter_sizes), x.dtype)
    options = (strides, padding, data_format, _spatial(dilations, data_format))
    return _gradient(lambda w: depthwise_conv2d(x, w, *options), blank, out_backprop)


def _spatial(dilations: Any, data_format: str) -> list[int]:
    given = list(static(dilations))
    return given if len(given) == 2 else given[2:] if data_format == "NCHW" else given[1:3]


def _gradient(of: Callable[[Tensor], Tensor], blank: Tensor, upstream: Any) -> Tensor:
    """That of a function which is linear in its argument, so that any argument does."""
    with GradientTape() as tape:
        tape.watch(blank)
        y = of(blank)
    return tape.gradient(y, blank, as_tensor(upstream, like=y._data.dtype))


# Label sequences


def collapse_repeated(
    labels: Any, seq_length: Any, name: str | None = None
) -> tuple[Tensor, Tensor]:
    """Rows without what stands in them twice in a row, filled up with 0, and their new lengths."""
    sequences, lengths = as_tensor(labels), as_tensor(seq_length)

    def kept(rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
        changes = np.ones(rows.shape, bool)
        changes[:, 1:] = rows[:, 1:] != rows[:, :-1]
        return changes & (np.arange(rows.shape[1]) < counts[:, None])

    def shorter(rows: Any, counts: Any) -> np.ndarray:
        rows, there = np.asarray(rows), kept(np.asarray(rows), np.asarray(counts))
        found = np.zeros((len(rows), int(there.sum(1).max(initial=0))), rows.dtype)
        found[np.arange(found.shape[1]) < there.sum(1)[:, None]] = rows[there]
        return found

    def count(rows: Any, counts: Any) -> np.ndarray:
        return kept(np.asarray(rows), np.asarray(counts)).sum(1)

    recording.refuse("the longest of collapsed rows depends on values")
    new = cast(on_host(count, sequences, lengths), lengths.dtype)
    return on_host(shorter, sequences, lengths), new


def ctc_unique_labels(labels: Any, name: str | None = None) -> tuple[Tensor, Tensor]:
    """The different labels of each row, as they come, filled up with 0, and where each one lies.

    Raises InvalidArgumentError unless ``labels`` are a matrix.
    """
    rows = as_tensor(labels)
    if rows._data.ndim != 2:
        raise InvalidArgumentError(f"ctc_unique_labels takes [batch, labels], not {rows.shape}")

    def run(given: Any) -> np.ndarray:
        given = np.asarray(given)
        found = np.zeros((2, *given.shape), np.int64)
        for row, unique, places in zip(given, *found, strict=True):
            order = list(dict.fromkeys(row.tolist()))
            unique[: len(order)] = order
            places[:] = [order.index(label) for label in row.tolist()]
        return found

    found = on_host(run, rows)
    return cast(found[0], rows.dtype), cast(found[1], np.int32)


def isotonic_regression(
    inputs: Any, decreasing: bool = True, axis: int = -1
) -> tuple[Tensor, Tensor]:
    """The nearest numbers that only fall along an axis, or only rise, and int32 which are the same.

    Numbers that fall are means of neighbours; the gradient is spread over these. Integers give
    float64. Best and Chakravarti, 1990.
    """
    x = as_tensor(inputs)
    x = x if x.dtype.is_floating else cast(x, np.float64)
    along = one_axis("isotonic_regression", axis, x._data.ndim)
    last = _moved(x, along, -1)
    segments = on_host(lambda rows: _segments(np.asarray(rows), decreasing), last)

    @custom_gradient
    def averaged(rows: Tensor) -> Any:
        return _means(rows, segments), lambda g: _means(g, segments)

    return _moved(averaged(last), -1, along), _moved(segments, -1, along)


def _means(rows: Tensor, segments: Tensor) -> Tensor:
    """Each number as the mean of its segment."""

    def run(values: Any, numbers: Any) -> np.ndarray:
        values, numbers = np.asarray(values), np.asarray(numbers)
        found = np.empty_like(values)
        for at in np.ndindex(values.shape[:-1]):
            totals = np.bincount(numbers[at], values[at].astype(np.float64))
            found[at] = (totals / np.bincount(numbers[at]))[numbers[at]]
        return found

    return on_host(run, rows, segments)


def _segments(rows: np.ndarray, decreasing: bool) -> np.ndarray:
    """Which neighbours are pooled: those that stand in the wrong order, again and again."""
    found = np.zeros(rows.shape, np.int32)
    for at in np.ndindex(rows.shape[:-1]):
        blocks: list[tuple[float, int]] = []  # a sum, and of how many
        for value in (rows[at] if decreasing else -rows[at]).tolist():
            total, count = value, 1
            while blocks and blocks[-1][0] * count < total * blocks[-1][1]:
                before = blocks.pop()
                total, count = total + before[0], count + before[1]
            blocks.append((total, count))
        found[at] = np.repeat(np.arange(len(blocks)), [count for _, count in blocks])
    return found
