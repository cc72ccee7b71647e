"""The functions of the old ``keras.backend`` (K), of which custom losses and metrics are full.

Those of which layers were made are in `legacy_layers`.
TensorFlow still has them beside Keras 3. New code says ``tf.reduce_sum``, or ``keras.ops.sum``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype
from distgrad.core.gradients import gradients as _gradients
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.keras import mixed_precision
from distgrad.ops import constants, cross_entropy, indexing, nn, random, reduce, scan, statistics
from distgrad.ops import shape as shapes
from distgrad.ops.activations import softsign
from distgrad.ops.arithmetic import abs, sign, square
from distgrad.ops.casting import cast, ones_like, stop_gradient, zeros_like
from distgrad.ops.clipping import clip_by_value, maximum, minimum
from distgrad.ops.constants import shape
from distgrad.ops.exponential import exp, log, sigmoid, softplus
from distgrad.ops.indexing import gather
from distgrad.ops.layout import reverse, tile
from distgrad.ops.linalg import matmul, tensordot
from distgrad.ops.logic import equal, greater, greater_equal, less, less_equal, not_equal
from distgrad.ops.normalization import l2_normalize
from distgrad.ops.powers import pow, sqrt
from distgrad.ops.reduce import reduce_all as all
from distgrad.ops.reduce import reduce_any as any
from distgrad.ops.reduce import reduce_max as max
from distgrad.ops.reduce import reduce_min as min
from distgrad.ops.reduce import reduce_prod as prod
from distgrad.ops.reduce import reduce_sum as sum
from distgrad.ops.rounding import round
from distgrad.ops.shape import reshape, squeeze, stack
from distgrad.ops.shape import transpose as permute_dimensions
from distgrad.ops.trigonometric import cos, sin, tanh

__all__ = [
    "abs",
    "all",
    "any",
    "argmax",
    "argmin",
    "batch_flatten",
    "batch_get_value",
    "batch_set_value",
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "cast",
    "cast_to_floatx",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "clip",
    "concatenate",
    "constant",
    "cos",
    "count_params",
    "cumprod",
    "cumsum",
    "dot",
    "dtype",
    "equal",
    "eval",
    "exp",
    "expand_dims",
    "eye",
    "flatten",
    "gather",
    "get_value",
    "gradients",
    "greater",
    "greater_equal",
    "int_shape",
    "l2_normalize",
    "less",
    "less_equal",
    "log",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "ndim",
    "not_equal",
    "one_hot",
    "ones",
    "ones_like",
    "permute_dimensions",
    "pow",
    "prod",
    "random_normal",
    "random_normal_variable",
    "random_uniform",
    "random_uniform_variable",
    "reshape",
    "reverse",
    "round",
    "set_value",
    "shape",
    "sigmoid",
    "sign",
    "sin",
    "softmax",
    "softplus",
    "softsign",
    "sparse_categorical_crossentropy",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "stop_gradient",
    "sum",
    "tanh",
    "tile",
    "transpose",
    "update",
    "update_add",
    "update_sub",
    "var",
    "variable",
    "zeros",
    "zeros_like",
]

_EPSILON = 1e-7


def or_floatx(dtype: Any) -> Any:
    """The dtype; in place of None that of the variables of the global policy."""
    return mixed_precision.global_policy().variable_dtype if dtype is None else dtype


def _numbers(x: Any) -> Tensor:
    """Bools as the floats 0 and 1; anything else as it is."""
    tensor = as_tensor(x)
    return cast(tensor, or_floatx(None)) if tensor.dtype.is_bool else tensor


# Means and places


def argmax(x: Any, axis: int = -1) -> Tensor:
    """The index of the first largest element along ``axis``."""
    return reduce.argmax(x, axis)


def argmin(x: Any, axis: int = -1) -> Tensor:
    """The index of the first smallest element along ``axis``."""
    return reduce.argmin(x, axis)


def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The mean over ``axis``; of bools the share that is true."""
    return reduce.reduce_mean(_numbers(x), axis, keepdims)


def std(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The standard deviation over ``axis``."""
    return statistics.reduce_std(_numbers(x), axis, keepdims)


def var(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The variance over ``axis``."""
    return statistics.reduce_variance(_numbers(x), axis, keepdims)


def cumsum(x: Any, axis: int = 0) -> Tensor:
    """Sums up to each element along ``axis``."""
    return scan.cumsum(x, axis)


def cumprod(x: Any, axis: int = 0) -> Tensor:
    """Products up to each element along ``axis``."""
    return scan.cumprod(x, axis)


# Elementwise


def cast_to_floatx(x: Any) -> Any:
    """As floats of ``floatx()``: an array where it is given an array."""
    if isinstance(x, (Tensor, Variable)):
        return cast(x, or_floatx(None))
    return np.asarray(x, as_dtype(or_floatx(None)).numpy_dtype)


def clip(x: Any, min_value: Any, max_value: Any) -> Tensor:
    """``x`` kept within two ends; None is an infinity, and the upper end is not below the lower."""
    if isinstance(min_value, (int, float)) and isinstance(max_value, (int, float)):
        max_value = max_value if max_value > min_value else min_value
    low = -np.inf if min_value is None else min_value
    return clip_by_value(x, low, np.inf if max_value is None else max_value)


def softmax(x: Any, axis: int = -1) -> Tensor:
    """Softmax along ``axis``."""
    return nn.softmax(x, axis)


# Shapes


def batch_flatten(x: Any) -> Tensor:
    """Everything but the first axis in one."""
    tensor = as_tensor(x)
    return reshape(tensor, (-1, int(np.prod(tensor.shape[1:]))))


def concatenate(tensors: Sequence[Any], axis: int = -1) -> Tensor:
    """Tensors one after the other along ``axis``."""
    return shapes.concat(tensors, axis)


def dot(x: Any, y: Any) -> Tensor:
    """The product over the last axis of ``x`` and the last but one of ``y``."""
    x, y = as_tensor(x), as_tensor(y)
    return tensordot(x, y, [[-1], [y.ndim - 2]]) if x.ndim > 2 or y.ndim > 2 else matmul(x, y)


def expand_dims(x: Any, axis: int = -1) -> Tensor:
    """With an axis of size 1 more."""
    return shapes.expand_dims(x, axis)


def flatten(x: Any) -> Tensor:
    """All elements as a vector."""
    return reshape(x, (-1,))


def int_shape(x: Any) -> tuple[int | None, ...]:
    """The shape as a tuple."""
    return tuple(x.shape)


def ndim(x: Any) -> int:
    """The number of axes."""
    return len(x.shape)


def transpose(x: Any) -> Tensor:
    """With the axes in the opposite order."""
    return shapes.transpose(x)


# New values


def constant(value: Any, dtype: Any = None, shape: Any = None, name: str | None = None) -> Tensor:
    """A tensor, of ``floatx()`` by default."""
    return constants.constant(value, or_floatx(dtype), shape)


def eye(size: int, dtype: Any = None, name: str | None = None) -> Variable:
    """A variable that holds the identity matrix."""
    return Variable(constants.eye(size, dtype=or_floatx(dtype)), name=name)


def ones(shape: Any, dtype: Any = None, name: str | None = None) -> Variable:
    """A variable full of ones."""
    return Variable(constants.ones(shape, or_floatx(dtype)), name=name)


def zeros(shape: Any, dtype: Any = None, name: str | None = None) -> Variable:
    """A variable full of zeros."""
    return Variable(constants.zeros(shape, or_floatx(dtype)), name=name)


def one_hot(indices: Any, num_classes: int) -> Tensor:
    """Rows with a 1 at each index."""
    return indexing.one_hot(indices, num_classes)


def random_normal(
    shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, seed: int | None = None
) -> Tensor:
    """Normal numbers."""
    return random.normal(shape, mean, stddev, or_floatx(dtype), seed)


def random_uniform(
    shape: Any,
    minval: float = 0.0,
    maxval: float = 1.0,
    dtype: Any = None,
    seed: int | None = None,
) -> Tensor:
    """Uniform numbers in [minval, maxval)."""
    return random.uniform(shape, minval, maxval, or_floatx(dtype), seed)


def random_normal_variable(
    shape: Any,
    mean: float,
    scale: float,
    dtype: Any = None,
    name: str | None = None,
    seed: int | None = None,
) -> Variable:
    """A variable that holds normal numbers."""
    return Variable(random_normal(shape, mean, scale, dtype, seed), name=name)


def random_uniform_variable(
    shape: Any,
    low: float,
    high: float,
    dtype: Any = None,
    name: str | None = None,
    seed: int | None = None,
) -> Variable:
    """A variable that holds uniform numbers in [low, high)."""
    return Variable(random_uniform(shape, low, high, dtype, seed), name=name)


# Variables


def variable(
    value: Any, dtype: Any = None, name: str | None = None, constraint: Any = None
) -> Variable:
    """A variable, of ``floatx()`` by default."""
    return Variable(value, dtype=or_floatx(dtype), name=name)


def count_params(x: Any) -> int:
    """The number of elements."""
    return int(np.prod(x.shape))


def dtype(x: Any) -> str:
    """The name of its dtype."""
    return as_dtype(x.dtype).name


def get_value(x: Any) -> Any:
    """The value as an array."""
    return x.numpy() if hasattr(x, "numpy") else x


eval = get_value


def gradients(loss: Any, variables: Any) -> list[Any]:
    """The gradients of ``loss`` by each of ``variables``, in a function of ``tf.function``."""
    return _gradients(loss, variables)


def batch_get_value(tensors: Sequence[Any]) -> list[Any]:
    """The values as arrays."""
    return [get_value(x) for x in tensors]


def batch_set_value(tuples: Sequence[tuple[Variable, Any]]) -> None:
    """Gives each variable the value beside it."""
    for x, value in tuples:
        set_value(x, value)


def set_value(x: Variable, value: Any) -> None:
    """Gives a variable, a learning rate for example, another value."""
    x.assign(np.asarray(value, x.dtype.numpy_dtype))


def update(x: Variable, new_x: Any) -> Variable:
    """Gives a variable another value."""
    return x.assign(new_x)


def update_add(x: Variable, increment: Any) -> Variable:
    """Adds to a variable."""
    return x.assign_add(increment)


def update_sub(x: Variable, decrement: Any) -> Variable:
    """Subtracts from a variable."""
    return x.assign_sub(decrement)


# Losses of single samples


def binary_crossentropy(target: Any, output: Any, from_logits: bool = False) -> Tensor:
    """Elementwise; without a mean, unlike ``keras.losses.binary_crossentropy``."""
    if from_logits:
        return cross_entropy.sigmoid_cross_entropy_with_logits(target, output)
    p = clip_by_value(as_tensor(output), _EPSILON, 1.0 - _EPSILON)
    target = as_tensor(target, like=p._data.dtype)
    return -(target * log(p + _EPSILON) + (1.0 - target) * log(1.0 - p + _EPSILON))


def categorical_crossentropy(
    target: Any, output: Any, from_logits: bool = False, axis: int = -1
) -> Tensor:
    """Of each row of probabilities, which need not add up to 1."""
    if from_logits:
        return cross_entropy.softmax_cross_entropy_with_logits(target, output, axis)
    p = as_tensor(output)
    p = clip_by_value(p / sum(p, axis, True), _EPSILON, 1.0 - _EPSILON)
    return -sum(as_tensor(target, like=p._data.dtype) * log(p), axis)


def sparse_categorical_crossentropy(target: Any, output: Any, from_logits: bool = False) -> Tensor:
    """Of each row of probabilities and an integer."""
    logits = as_tensor(output)
    if not from_logits:
        logits = log(clip_by_value(logits, _EPSILON, 1.0 - _EPSILON))
    labels = reshape(cast(target, np.int64), logits.shape[:-1])
    return cross_entropy.sparse_softmax_cross_entropy_with_logits(labels, logits)


def binary_focal_crossentropy(
    target: Any,
    output: Any,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
) -> Tensor:
    """``binary_crossentropy`` times ``(1 - chance of the target) ** gamma``, elementwise."""
    p = sigmoid(output) if from_logits else as_tensor(output)
    target = as_tensor(target, like=p._data.dtype)
    entropies = binary_crossentropy(target, output, from_logits)
    balance = alpha if apply_class_balancing else None
    return cross_entropy.focused(entropies, target, p, gamma, balance)


def categorical_focal_crossentropy(
    target: Any,
    output: Any,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    axis: int = -1,
) -> Tensor:
    """``categorical_crossentropy``, each class weighed by ``alpha * (1 - its chance) ** gamma``."""
    p = nn.softmax(output, axis) if from_logits else as_tensor(output)
    p = clip_by_value(p / sum(p, axis, True), _EPSILON, 1.0 - _EPSILON)
    target = as_tensor(target, like=p._data.dtype)
    return sum(-target * log(p) * alpha * (1.0 - p) ** gamma, axis)
