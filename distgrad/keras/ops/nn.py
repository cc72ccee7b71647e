"""Functions of ``keras.ops`` for layers: activations, windows, norms, attention, losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import limits
from distgrad.core.primitive import bind_one
from distgrad.core.tensor import Tensor
from distgrad.keras import activations
from distgrad.keras.backend import epsilon as small
from distgrad.keras.backend import floatx
from distgrad.keras.layers.attention import causal_mask
from distgrad.keras.losses.entropy import binary_entropy
from distgrad.keras.losses.entropy import categorical_crossentropy as _categorical
from distgrad.keras.losses.entropy import sparse_categorical_crossentropy as _sparse
from distgrad.keras.ops.promotion import floated, tensors
from distgrad.keras.ops.reduction import mean as _mean
from distgrad.keras.ops.reduction import var as _var
from distgrad.ops import activations as units
from distgrad.ops import clipping, exponential, indexing, logic, nn, normalization, segment
from distgrad.ops import shape as shapes
from distgrad.ops.casting import cast
from distgrad.ops.einsum import einsum
from distgrad.ops.layout import repeat
from distgrad.ops.powers import rsqrt
from distgrad.ops.reduce import reduce_any, reduce_max, reduce_mean, reduce_sum
from distgrad.ops.statistics import norm
from distgrad.ops.trigonometric import tanh
from distgrad.sparse import counting, reducing

# Activations


def _activation(name: str, function: Callable[..., Tensor]) -> Callable[[Any], Tensor]:
    def apply(x: Any) -> Tensor:
        return function(floated(x))

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"The activation ``{name}``; integers become floats."
    return apply


sigmoid = _activation("sigmoid", exponential.sigmoid)
silu = swish = _activation("silu", units.silu)
softplus = _activation("softplus", exponential.softplus)
softsign = _activation("softsign", units.softsign)
selu = _activation("selu", units.selu)
log_sigmoid = _activation("log_sigmoid", exponential.log_sigmoid)
hard_sigmoid = _activation("hard_sigmoid", units.hard_sigmoid)
hard_silu = hard_swish = _activation("hard_silu", units.hard_silu)
hard_tanh = _activation("hard_tanh", activations.hard_tanh)
tanh_shrink = _activation("tanh_shrink", activations.tanh_shrink)
sparse_plus = _activation("sparse_plus", activations.sparse_plus)
sparse_sigmoid = _activation("sparse_sigmoid", activations.sparse_sigmoid)


def relu(x: Any) -> Tensor:
    """``max(x, 0)``."""
    if type(x) is Tensor and x._data.dtype.kind == "f":
        return bind_one(units.relu, x)
    return units.relu(x)


def relu6(x: Any) -> Tensor:
    """``min(max(x, 0), 6)``."""
    return units.relu6(x)


def elu(x: Any, alpha: float = 1.0) -> Tensor:
    """``x`` where positive, else ``alpha * (exp(x) - 1)``."""
    return activations.elu(floated(x), alpha)


def celu(x: Any, alpha: float = 1.0) -> Tensor:
    """``x`` where positive, else ``alpha * (exp(x / alpha) - 1)``."""
    return activations.celu(floated(x), alpha)


def gelu(x: Any, approximate: bool = True) -> Tensor:
    """``x`` times the normal distribution function of ``x``, or an approximation by tanh."""
    return units.gelu(floated(x), approximate)


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Tensor:
    """``x`` where positive, else ``negative_slope * x``."""
    return units.leaky_relu(floated(x), negative_slope)


def glu(x: Any, axis: int = -1) -> Tensor:
    """The first half of ``x`` along ``axis`` times the sigmoid of the second."""
    return activations.glu(floated(x), axis)


def hard_shrink(x: Any, threshold: float = 0.5) -> Tensor:
    """``x`` where its absolute value is above ``threshold``, else 0."""
    return activations.hard_shrink(floated(x), threshold)


def soft_shrink(x: Any, threshold: float = 0.5) -> Tensor:
    """``x`` moved by ``threshold`` towards 0, and 0 where it would pass it."""
    return activations.soft_shrink(floated(x), threshold)


def threshold(x: Any, threshold: float, default_value: float) -> Tensor:
    """``x`` where it is above ``threshold``, else ``default_value``."""
    return activations.threshold(floated(x), threshold, default_value)


def squareplus(x: Any, b: float = 4) -> Tensor:
    """``(x + sqrt(x**2 + b)) / 2``: a smooth ``relu``."""
    return activations.squareplus(floated(x), b)


def sparsemax(x: Any, axis: int = -1) -> Tensor:
    """The nearest probabilities to ``x`` over ``axis``: many are 0."""
    return activations.sparsemax(floated(x), axis)


def softmax(x: Any, axis: Any = -1) -> Tensor:
    """``exp(x)`` divided by its sum over ``axis``: an int, several, or None for all."""
    return activations.probabilities(floated(x), axis)


def log_softmax(x: Any, axis: Any = -1) -> Tensor:
    """The logarithm of ``softmax``."""
    return activations.log_softmax(floated(x), axis)


# Classes


def one_hot(
    x: Any, num_classes: int, axis: int = -1, dtype: Any = None, sparse: bool = False
) -> Any:
    """1 at each class number along a new axis, 0 elsewhere; of dtype ``floatx`` by default.

    With ``sparse`` it is a SparseTensor.
    """
    if sparse:
        return counting.one_hot(x, num_classes, axis, dtype or floatx())
    numbers = as_tensor(x)
    numbers = numbers if numbers.dtype.is_integer else cast(numbers, np.int32)
    return indexing.one_hot(numbers, num_classes, axis=axis, dtype=dtype or floatx())


def multi_hot(
    inputs: Any,
    num_classes: int | None = None,
    axis: int = -1,
    dtype: Any = None,
    sparse: bool = False,
) -> Any:
    """1 at each of the class numbers of a sample, 0 elsewhere; with ``sparse`` a SparseTensor.

    Raises ValueError without ``num_classes``.
    """
    if num_classes is None:
        raise ValueError("multi_hot needs num_classes")
    hot = one_hot(inputs, num_classes, axis, dtype, sparse)
    along = 1 if len(hot.shape) > 2 else 0
    if sparse:
        return reducing.reduce_max(hot, along, output_is_sparse=True)
    return (reduce_any if hot.dtype.is_bool else reduce_max)(hot, along)


def in_top_k(targets: Any, predictions: Any, k: int) -> Tensor:
    """Whether the prediction of each target is among the ``k`` largest of its row."""
    return nn.in_top_k(targets, predictions, k)


def group_count(segment_ids: Any, num_segments: int | None) -> tuple[Tensor, int]:
    """The ids as int32, and the number of groups: the one given, or what the ids need."""
    ids = cast(segment_ids, np.int32)
    return ids, int(ids._host().max(initial=-1)) + 1 if num_segments is None else num_segments


def segment_sum(
    data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False
) -> Tensor:
    """The sums of the rows with the same number in ``segment_ids``."""
    return segment.unsorted_segment_sum(data, *group_count(segment_ids, num_segments))


def segment_max(
    data: Any, segment_ids: Any, num_segments: int | None = None, sorted: bool = False
) -> Tensor:
    """The largest elements of the rows with the same number in ``segment_ids``."""
    return segment.unsorted_segment_max(data, *group_count(segment_ids, num_segments))


# Norms


def moments(
    x: Any, axes: Any, keepdims: bool = False, synchronized: bool = False
) -> tuple[Tensor, Tensor]:
    """Mean and variance over ``axes``; ``synchronized`` changes nothing.

    A variance beyond the range of float16 is the largest number there.
    """
    variance = _var(x, axes, keepdims)
    if variance._data.dtype == np.float16:
        variance = clipping.minimum(variance, float(np.finfo(np.float16).max))
    return _mean(x, axes, keepdims), variance


def batch_normalization(
    x: Any,
    mean: Any,
    variance: Any,
    axis: int,
    offset: Any = None,
    scale: Any = None,
    epsilon: float = 1e-3,
) -> Tensor:
    """``(x - mean) / sqrt(variance + epsilon) * scale + offset``, with vectors along ``axis``."""
    tensor = floated(x)
    line = [1] * tensor._data.ndim
    line[axis] = -1
    mean, variance, offset, scale = (
        None if v is None else shapes.reshape(cast(v, tensor.dtype), line)
        for v in (mean, variance, offset, scale)
    )
    return normalization.batch_normalization(tensor, mean, variance, offset, scale, epsilon)


def layer_normalization(
    x: Any, gamma: Any = None, beta: Any = None, axis: Any = -1, epsilon: float | None = None
) -> Tensor:
    """``x`` with zero mean and unit variance over ``axis``, times ``gamma``, plus ``beta``."""
    tensor = floated(x)
    over = shapes.axes(axis, tensor._data.ndim)
    line = [n if i in over else 1 for i, n in enumerate(tensor._data.shape)]
    gamma, beta = (
        None if v is None else shapes.reshape(cast(v, tensor.dtype), line) for v in (gamma, beta)
    )
    least = small() if epsilon is None else epsilon
    return normalization.layer_norm(tensor, gamma, beta, over, least)


def rms_normalization(
    x: Any, scale: Any = None, axis: Any = -1, epsilon: float | None = None
) -> Tensor:
    """``x`` divided by the root of the mean of its squares over ``axis``, times ``scale``."""
    tensor = floated(x)
    squares = reduce_mean(tensor * tensor, axis, True)
    y = tensor * rsqrt(squares + (small() if epsilon is None else epsilon))
    return y if scale is None else y * cast(scale, y.dtype)


def normalize(x: Any, axis: Any = -1, order: Any = 2, epsilon: float | None = None) -> Tensor:
    """``x`` divided by its norm over ``axis``, at least ``epsilon``.

    Raises ValueError for an ``order`` that is not a positive int.
    """
    if not isinstance(order, int) or order < 1:
        raise ValueError(f"normalize: order must be an int of 1 or more, not {order!r}")
    tensor, least = floated(x), small() if epsilon is None else epsilon
    if order == 2:
        total = reduce_sum(tensor * tensor, axis, True)
        return tensor * rsqrt(clipping.maximum(total, least**2))
    return tensor / clipping.maximum(norm(tensor, order, axis, True), least)


# Attention


def dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    scale: float | None = None,
    is_causal: bool = False,
    flash_attention: bool | None = None,
    attn_logits_soft_cap: float | None = None,
) -> Tensor:
    """``softmax(query @ key * scale + bias) @ value`` for ``[batch, time, heads, features]``.

    Keys and values may have fewer heads, each for several of the query. ``mask`` (bool) and
    ``bias`` broadcast to ``[batch, heads, queries, keys]``; the scale is ``1 / sqrt(features)`` by
    default. Raises ValueError for another rank.
    """
    q, k, v = tensors(query, key, value, also=float)
    if not q._data.ndim == k._data.ndim == v._data.ndim == 4:
        raise ValueError(
            f"dot_product_attention takes tensors of rank 4, not {q.shape}, {k.shape}, {v.shape}"
        )
    shared = q._data.shape[2] // k._data.shape[2]
    if shared > 1:
        k, v = repeat(k, shared, axis=2), repeat(v, shared, axis=2)
    scores = einsum("btnh,bsnh->bnts", q, k)
    scores = scores * (1 / math.sqrt(q._data.shape[-1]) if scale is None else scale)
    if attn_logits_soft_cap is not None:
        scores = tanh(scores / attn_logits_soft_cap) * attn_logits_soft_cap
    if bias is not None:
        scores = scores + cast(bias, scores.dtype)
    least = 0.7 * float(limits(scores._data.dtype).min)
    if is_causal:
        scores = logic.where(causal_mask(*scores._data.shape[-2:]), scores, least)
    if mask is not None:
        scores = logic.where(cast(mask, np.bool_), scores, least)
    return einsum("bnts,bsnh->btnh", nn.softmax(scores), v)


# Losses of each element, or row


def binary_crossentropy(target: Any, output: Any, from_logits: bool = False) -> Tensor:
    """``-target * log(output) - (1 - target) * log(1 - output)`` of each element.

    Raises ValueError for tensors of different shapes.
    """
    truth, p = tensors(target, output, also=float)
    if truth._data.shape != p._data.shape:
        raise ValueError(f"targets of shape {truth.shape}, predictions of {p.shape}")
    return binary_entropy(truth, p, from_logits)


def categorical_crossentropy(
    target: Any, output: Any, from_logits: bool = False, axis: int = -1
) -> Tensor:
    """``-sum(target * log(output))`` over ``axis``; rows of ``output`` are renormalised."""
    truth, scores = tensors(target, output, also=float)
    return _categorical(truth, scores, from_logits, axis=axis)


def sparse_categorical_crossentropy(
    target: Any, output: Any, from_logits: bool = False, axis: int = -1
) -> Tensor:
    """``-log`` of the element of ``output`` that ``target`` numbers, in each row."""
    return _sparse(target, output, from_logits, axis=axis)
