"""Neural-network primitives: softmax, cross entropies, dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops import random
from distgrad.ops.elementwise import multiply, select
from distgrad.ops.reduce import sum as sum_over
from distgrad.ops.shape import expand_dims


def _exp_shifted(xp, x):
    shifted = x - xp.max(x, axis=-1, keepdims=True)
    return xp.exp(shifted, out=shifted)


@primitive(kinds="f")
def softmax_last(xp, x):
    """``exp(x) / sum(exp(x))`` over the last axis."""
    e = _exp_shifted(xp, x)
    e /= xp.sum(e, axis=-1, keepdims=True)
    return e


@softmax_last.vjp("x")
def _(g, out):
    weighted = g * out
    return weighted - out * bind(sum_over, weighted, axis=(out._data.ndim - 1,), keepdims=True)


@softmax_last.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)))
    yield sample(rng.normal(size=(2, 3, 4)))


@primitive(kinds="f")
def log_softmax_last(xp, x):
    """Logarithm of the softmax over the last axis, without overflow."""
    shifted = x - xp.max(x, axis=-1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))


@log_softmax_last.vjp("x")
def _(g, x):
    total = bind(sum_over, g, axis=(x._data.ndim - 1,), keepdims=True)
    return g - bind(softmax_last, x) * total


@log_softmax_last.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)))


def _over_last(primitive: Any, logits: Any, axis: int | None) -> Tensor:
    from distgrad.ops.shape import transpose

    x = as_tensor(logits)
    ndim = x._data.ndim
    if axis is None or axis in (-1, ndim - 1):
        return primitive(x)
    if not -ndim <= axis < ndim:
        raise InvalidArgumentError(f"axis {axis} is out of range for a tensor of rank {ndim}")
    order = list(range(ndim))
    order[axis], order[-1] = order[-1], order[axis]
    return transpose(primitive(transpose(x, order)), order)


def softmax(logits: Any, axis: int | None = -1, name: str | None = None) -> Tensor:
    """``exp(x) / sum(exp(x))`` over ``axis``."""
    return _over_last(softmax_last, logits, axis)


def log_softmax(logits: Any, axis: int | None = -1, name: str | None = None) -> Tensor:
    """Logarithm of the softmax over ``axis``."""
    return _over_last(log_softmax_last, logits, axis)


@primitive(kinds="f", match=("logits",), constant=("labels",))
def sparse_cross_entropy(xp, logits, labels):
    """``-log softmax(logits)[label]`` for int labels of shape ``logits.shape[:-1]``."""
    shifted = logits - xp.max(logits, axis=-1, keepdims=True)
    picked = xp.take_along_axis(shifted, labels[..., None], axis=-1)[..., 0]
    return xp.log(xp.sum(xp.exp(shifted), axis=-1)) - picked


@sparse_cross_entropy.vjp("logits")
def _(g, logits, labels):
    return bind(sparse_cross_entropy_grad, g, logits, labels)


@sparse_cross_entropy.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), rng.integers(0, 4, 3))
    yield sample(rng.normal(size=(2, 3, 4)), rng.integers(0, 4, (2, 3)))


@primitive(kinds="f", match=("g", "logits"), constant=("labels",))
def sparse_cross_entropy_grad(xp, g, logits, labels):
    """``g * (softmax(logits) - one_hot(labels))``."""
    d = _exp_shifted(xp, logits)
    d /= xp.sum(d, axis=-1, keepdims=True)
    at = labels[..., None]
    xp.put_along_axis(d, at, xp.take_along_axis(d, at, axis=-1) - 1, axis=-1)
    d *= g[..., None]
    return d


@sparse_cross_entropy_grad.vjp("g")
def _(g, logits, labels):
    ones = Tensor(np.ones(labels._data.shape, logits._data.dtype))
    d = bind(sparse_cross_entropy_grad, ones, logits, labels)
    return bind(sum_over, g * d, axis=(logits._data.ndim - 1,), keepdims=False)


@sparse_cross_entropy_grad.vjp("logits")
def _(g, g_shape, logits, args):
    p = bind(softmax_last, logits)
    weighted = expand_dims(args[0], -1) * g * p
    return weighted - p * bind(sum_over, weighted, axis=(len(g_shape),), keepdims=True)


@sparse_cross_entropy_grad.samples
def _(rng):
    yield sample(rng.normal(size=3), rng.normal(size=(3, 4)), rng.integers(0, 4, 3))


def sparse_softmax_cross_entropy_with_logits(
    labels: Any, logits: Any, name: str | None = None
) -> Tensor:
    """Cross entropy of int ``labels`` under ``softmax(logits)``, one value per label.

    Raises InvalidArgumentError where shapes disagree or a label lies outside the classes.
    """
    scores, classes = as_tensor(logits), as_tensor(labels)
    check_labels(classes, scores._data.shape)
    return sparse_cross_entropy(scores, classes)


def check_labels(labels: Tensor, shape: tuple[int, ...]) -> None:
    """Raises InvalidArgumentError unless ``labels`` are class numbers for scores of ``shape``."""
    data = labels._data
    if data.dtype.kind not in "iu":
        raise InvalidArgumentError(f"labels must be integers, not {labels.dtype.name}")
    if data.shape != shape[:-1]:
        raise InvalidArgumentError(f"labels of shape {data.shape} for scores of shape {shape}")
    if data.size and not (data.min() >= 0 and data.max() < shape[-1]):
        raise InvalidArgumentError(
            f"a label lies outside [0, {shape[-1]}): smallest {data.min()}, largest {data.max()}"
        )


def dropout(x: Any, rate: float, seed: Any = None, name: str | None = None) -> Tensor:
    """Zeroes a fraction ``rate`` of the elements and scales the rest by ``1 / (1 - rate)``.

    Raises ValueError for a rate outside [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: rate must lie in [0, 1), not {rate}")
    tensor = as_tensor(x)
    if rate == 0:
        return tensor
    noise = random.uniform(tensor._data.shape, dtype=tensor._data.dtype, seed=seed)
    return select(noise >= rate, multiply(tensor, 1 / (1 - rate)), 0)
