"""The functions of the old ``keras.backend`` (K) of which layers and their losses were made.

`legacy` has its arithmetic, its shapes and its variables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.keras import activations, settings
from distgrad.keras.legacy import or_floatx
from distgrad.keras.ops import alignment, windows
from distgrad.ops import constants, control, convolution, ctc, nn, normalization, random
from distgrad.ops.casting import cast
from distgrad.ops.clipping import clip_by_value
from distgrad.ops.exponential import log
from distgrad.ops.image import resize
from distgrad.ops.layout import beside
from distgrad.ops.layout import repeat as repeated
from distgrad.ops.linalg import matmul
from distgrad.ops.logic import less, where
from distgrad.ops.neighbours import bias_add as biased
from distgrad.ops.padding import pad
from distgrad.ops.reduce import reduce_min
from distgrad.ops.shape import reshape, squeeze, transpose
from distgrad.sparse import to_dense as sparse_to_dense

__all__ = [
    "arange",
    "batch_dot",
    "batch_normalization",
    "bias_add",
    "conv1d",
    "conv2d",
    "conv2d_transpose",
    "conv3d",
    "ctc_batch_cost",
    "ctc_decode",
    "depthwise_conv2d",
    "dropout",
    "elu",
    "foldl",
    "foldr",
    "hard_sigmoid",
    "in_top_k",
    "is_sparse",
    "map_fn",
    "moving_average_update",
    "pool2d",
    "pool3d",
    "random_bernoulli",
    "relu",
    "repeat",
    "repeat_elements",
    "resize_images",
    "resize_volumes",
    "separable_conv2d",
    "spatial_2d_padding",
    "spatial_3d_padding",
    "switch",
    "temporal_padding",
    "to_dense",
    "truncated_normal",
]


# Activations and noise


def relu(
    x: Any, alpha: float = 0.0, max_value: float | None = None, threshold: float = 0.0
) -> Tensor:
    """``max(x, 0)``; with a slope ``alpha`` below the threshold, and an upper bound."""
    return activations.relu(x, alpha, max_value, threshold)


def elu(x: Any, alpha: float = 1.0) -> Tensor:
    """``x`` where positive, else ``alpha * (exp(x) - 1)``."""
    return activations.elu(x, alpha)


def hard_sigmoid(x: Any) -> Tensor:
    """``0.2 * x + 0.5`` within 0 and 1: ``keras.activations.hard_sigmoid`` has a slope of 1/6."""
    return clip_by_value(as_tensor(x) * 0.2 + 0.5, 0.0, 1.0)


def dropout(x: Any, level: float, noise_shape: Any = None, seed: int | None = None) -> Tensor:
    """Without a fraction ``level`` of the elements, the rest larger by as much."""
    return nn.dropout(x, level, noise_shape, seed)


def random_bernoulli(
    shape: Any, p: float = 0.0, dtype: Any = None, seed: int | None = None
) -> Tensor:
    """1 with the chance ``p``, else 0."""
    return cast(random.uniform(shape, 0.0, 1.0, or_floatx(None), seed) <= p, or_floatx(dtype))


def truncated_normal(
    shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, seed: int | None = None
) -> Tensor:
    """Normal numbers within two standard deviations."""
    return random.truncated_normal(shape, mean, stddev, or_floatx(dtype), seed)


# Shapes, products and choices


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = "int32") -> Tensor:
    """The numbers of ``range``; of a negative end alone, none."""
    return cast(constants.range(max(start, 0) if stop is None else start, stop, step), dtype)


def batch_dot(x: Any, y: Any, axes: int | Sequence[int] | None = None) -> Tensor:
    """Of each sample the product over an axis of ``x`` and one of ``y``, at least of rank 2.

    By default they are the last of ``x`` and the last but one of ``y``, or its only one. Raises
    ValueError for tensors of rank 1, axis 0, and sizes that do not agree.
    """
    x, y = as_tensor(x), as_tensor(y)
    if x.ndim < 2 or y.ndim < 2:
        raise ValueError(f"batch_dot takes tensors of rank 2 or more, not {x.shape} and {y.shape}")
    if axes is None:
        axes = (x.ndim - 1, max(y.ndim - 2, 1))
    first, second = (axes, axes) if isinstance(axes, int) else axes
    first, second = first % x.ndim, second % y.ndim
    (*left,), (*right,) = x._data.shape, y._data.shape
    if not (first and second) or left[first] != right[second] or left[0] != right[0]:
        raise ValueError(
            f"batch_dot: no products along the axes {(first, second)} of shapes {x.shape} and "
            f"{y.shape}: their sizes and batches must agree, and axis 0 is the batch"
        )
    batch, size = left[0], left.pop(first)
    right.pop(second)
    x = transpose(x, [*(i for i in range(x.ndim) if i != first), first])
    y = transpose(y, [0, second, *(i for i in range(1, y.ndim) if i != second)])
    rest = [int(np.prod(shape[1:])) for shape in (left, right)]
    product = matmul(reshape(x, (batch, rest[0], size)), reshape(y, (batch, size, rest[1])))
    return reshape(product, [batch, *left[1:], *right[1:]] if left[1:] or right[1:] else [batch, 1])


def repeat(x: Any, n: int) -> Tensor:
    """``[batch, size]`` as ``[batch, n, size]``."""
    x = as_tensor(x)
    return repeated(reshape(x, (x._data.shape[0], 1, x._data.shape[1])), n, axis=1)


def repeat_elements(x: Any, rep: int, axis: int) -> Tensor:
    """Every element along ``axis`` so many times."""
    return repeated(x, rep, axis=axis)


def switch(condition: Any, then_expression: Any, else_expression: Any) -> Any:
    """The one or the other, a tensor or a function that makes it; elementwise for a condition that
    has axes, which are the first ones of both.

    Raises ValueError for a condition of more axes than they have.
    """
    chosen = cast(as_tensor(condition), bool)
    if not chosen.ndim:
        one, other = (
            each if callable(each) else lambda each=each: each
            for each in (then_expression, else_expression)
        )
        return control.cond(chosen, one, other)
    one = as_tensor(then_expression() if callable(then_expression) else then_expression)
    other = else_expression() if callable(else_expression) else else_expression
    if chosen.ndim > one.ndim:
        raise ValueError(
            f"switch: a condition of rank {chosen.ndim} does not choose from rank {one.ndim}"
        )
    return where(reshape(chosen, [*chosen.shape, *[1] * (one.ndim - chosen.ndim)]), one, other)


def in_top_k(predictions: Any, targets: Any, k: int) -> Tensor:
    """Whether the class of each row is among the ``k`` likeliest."""
    return nn.in_top_k(targets, predictions, k)


def map_fn(fn: Callable[[Any], Any], elems: Any, name: str | None = None, dtype: Any = None) -> Any:
    """``fn`` of every element along the first axis."""
    return control.map_fn(fn, elems, dtype)


def foldl(
    fn: Callable[[Any, Any], Any], elems: Any, initializer: Any = None, name: str | None = None
) -> Any:
    """``fn`` of what came out before, at first ``initializer``, and each element in turn."""
    return control.foldl(fn, elems, initializer)


def foldr(
    fn: Callable[[Any, Any], Any], elems: Any, initializer: Any = None, name: str | None = None
) -> Any:
    """``foldl`` from the last element to the first."""
    return control.foldr(fn, elems, initializer)


def is_sparse(tensor: Any) -> bool:
    """Whether this is a sparse tensor."""
    return isinstance(tensor, SparseTensor)


def to_dense(tensor: Any) -> Any:
    """A sparse tensor as a dense one; anything else as it is."""
    return sparse_to_dense(tensor) if is_sparse(tensor) else tensor


# Statistics of batches


def batch_normalization(
    x: Any, mean: Any, var: Any, beta: Any, gamma: Any, axis: int = -1, epsilon: float = 1e-3
) -> Tensor:
    """``(x - mean) / sqrt(var + epsilon) * gamma + beta``; beta or gamma may be None."""
    return normalization.batch_normalization(x, mean, var, beta, gamma, epsilon)


def moving_average_update(x: Variable, value: Any, momentum: Any) -> Variable:
    """Makes of a variable ``momentum`` of itself and the rest of ``value``."""
    dtype = x.dtype.numpy_dtype
    return x.assign_sub((x - cast(value, dtype)) * (1.0 - cast(momentum, dtype)))


# Windows and borders


def bias_add(x: Any, bias: Any, data_format: str | None = None) -> Tensor:
    """With a number for each channel more."""
    layout = data_format or settings.image_data_format
    return biased(x, bias, "NC..." if layout == "channels_first" else "N...C")


def conv1d(
    x: Any,
    kernel: Any,
    strides: int = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: int = 1,
) -> Tensor:
    """Convolution with a kernel ``[size, in, out]``."""
    return windows.conv(x, kernel, strides, padding, data_format, dilation_rate)


def conv2d(
    x: Any,
    kernel: Any,
    strides: Any = (1, 1),
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = (1, 1),
) -> Tensor:
    """Convolution with a kernel ``[rows, columns, in, out]``."""
    return windows.conv(x, kernel, strides, padding, data_format, dilation_rate)


def conv3d(
    x: Any,
    kernel: Any,
    strides: Any = (1, 1, 1),
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = (1, 1, 1),
) -> Tensor:
    """Convolution with a kernel ``[depth, rows, columns, in, out]``."""
    return windows.conv(x, kernel, strides, padding, data_format, dilation_rate)


def pool2d(
    x: Any,
    pool_size: Any,
    strides: Any = (1, 1),
    padding: str = "valid",
    data_format: str | None = None,
    pool_mode: str = "max",
) -> Tensor:
    """The largest or the mean of each window. Raises ValueError for another ``pool_mode``."""
    if pool_mode not in ("max", "avg"):
        raise ValueError(f"pool_mode is 'max' or 'avg', not {pool_mode!r}")
    pool = windows.max_pool if pool_mode == "max" else windows.average_pool
    return pool(x, pool_size, strides, padding, data_format)


def conv2d_transpose(
    x: Any,
    kernel: Any,
    output_shape: Any,
    strides: Any = (1, 1),
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = (1, 1),
) -> Tensor:
    """The gradient of ``conv2d`` by its images, with a kernel ``[rows, columns, out, in]``.

    ``output_shape`` is that of the whole batch, whose size may be None.
    """
    x, first = as_tensor(x), (data_format or settings.image_data_format) == "channels_first"
    shape = [x.shape[0] if output_shape[0] is None else output_shape[0], *output_shape[1:]]
    layout = "NCHW" if first else "NHWC"
    return convolution.conv2d_transpose(
        x, kernel, shape, list(strides), padding.upper(), layout, list(dilation_rate)
    )


def depthwise_conv2d(
    x: Any,
    depthwise_kernel: Any,
    strides: Any = (1, 1),
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = (1, 1),
) -> Tensor:
    """Convolution of each channel with kernels of its own, ``[rows, columns, in, each]``."""
    return windows.depthwise_conv(x, depthwise_kernel, strides, padding, data_format, dilation_rate)


def separable_conv2d(
    x: Any,
    depthwise_kernel: Any,
    pointwise_kernel: Any,
    strides: Any = (1, 1),
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = (1, 1),
) -> Tensor:
    """``depthwise_conv2d``, and sums of its channels by a kernel ``[1, 1, channels, out]``."""
    return windows.separable_conv(
        x, depthwise_kernel, pointwise_kernel, strides, padding, data_format, dilation_rate
    )


def pool3d(
    x: Any,
    pool_size: Any,
    strides: Any = (1, 1, 1),
    padding: str = "valid",
    data_format: str | None = None,
    pool_mode: str = "max",
) -> Tensor:
    """``pool2d`` of volumes."""
    return pool2d(x, pool_size, strides, padding, data_format, pool_mode)


def temporal_padding(x: Any, padding: Sequence[int] = (1, 1)) -> Tensor:
    """With steps of zeros before and after: ``[batch, steps, features]``."""
    return pad(x, [[0, 0], list(padding), [0, 0]])


def spatial_2d_padding(
    x: Any, padding: Any = ((1, 1), (1, 1)), data_format: str | None = None
) -> Tensor:
    """With rows and columns of zeros around."""
    sides, first = [list(pair) for pair in padding], data_format or settings.image_data_format
    return pad(
        x, [[0, 0], [0, 0], *sides] if first == "channels_first" else [[0, 0], *sides, [0, 0]]
    )


def spatial_3d_padding(
    x: Any, padding: Any = ((1, 1), (1, 1), (1, 1)), data_format: str | None = None
) -> Tensor:
    """With layers, rows and columns of zeros around."""
    return spatial_2d_padding(x, padding, data_format)


def resize_volumes(
    x: Any, depth_factor: int, height_factor: int, width_factor: int, data_format: str
) -> Tensor:
    """Volumes larger by whole factors."""
    axis = 2 if data_format == "channels_first" else 1
    for place, factor in enumerate((depth_factor, height_factor, width_factor)):
        x = repeat_elements(x, factor, axis + place)
    return as_tensor(x)


def resize_images(
    x: Any,
    height_factor: int,
    width_factor: int,
    data_format: str | None = None,
    interpolation: str = "nearest",
) -> Tensor:
    """Images larger by whole factors."""
    first = (data_format or settings.image_data_format) == "channels_first"
    image = transpose(x, (0, 2, 3, 1)) if first else as_tensor(x)
    rows, columns = image._data.shape[1:3]
    larger = resize(image, (rows * height_factor, columns * width_factor), interpolation)
    return transpose(larger, (0, 3, 1, 2)) if first else larger


# Labels whose places in time are not known (CTC); the last class is "nothing"


def ctc_batch_cost(y_true: Any, y_pred: Any, input_length: Any, label_length: Any) -> Tensor:
    """Minus the logarithm of the chance of each label sequence: [batch, 1].

    ``y_true`` [batch, longest] are integers, ``y_pred`` [batch, time, classes] probabilities, the
    lengths [batch, 1] say how many of them count. Labels also end before the first that is no
    class but the last one or none at all, so that any such number may fill them up.
    """
    logits = log(as_tensor(y_pred) + settings.epsilon)
    sought, steps = (cast(each, np.int32) for each in (label_length, input_length))
    labels = cast(as_tensor(y_true), np.int32)
    place = beside(labels, np.arange(labels.shape[1], dtype=np.int32))
    sought = reduce_min(where(less(labels, logits.shape[2] - 1), sought, place), 1)
    steps = squeeze(steps, -1)
    loss = ctc.ctc_loss(labels, logits, sought, steps, logits_time_major=False, blank_index=-1)
    return reshape(loss, (-1, 1))


def ctc_decode(
    y_pred: Any, input_length: Any, greedy: bool = True, beam_width: int = 100, top_paths: int = 1
) -> tuple[list[Tensor], Tensor]:
    """The likeliest label sequences of probabilities [batch, time, classes], as a list.

    Each is int64 [batch, time], filled up with -1; beside them stand the scores of
    ``keras.ops.ctc_decode``. The last class is that of "nothing".
    """
    logits = log(as_tensor(y_pred) + settings.epsilon)
    found, scores = alignment.ctc_decode(
        logits,
        cast(as_tensor(input_length), np.int32),
        "greedy" if greedy else "beam_search",
        beam_width,
        top_paths,
        mask_index=-1,
    )
    return [cast(labels, np.int64) for labels in found], scores
