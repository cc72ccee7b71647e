"""Cross entropies from logits, and other losses of ``tf.nn``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distgrad.core import recording
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.arithmetic import square
from distgrad.ops.biased import pulled_back
from distgrad.ops.casting import ones_like, zeros_like
from distgrad.ops.exponential import exp, log, sigmoid, softplus
from distgrad.ops.linalg import tensors
from distgrad.ops.logic import logical_and, select
from distgrad.ops.nn import log_softmax_along, one_axis_of, softmax_along
from distgrad.ops.powers import power
from distgrad.ops.reduce import mean, reduce_sum
from distgrad.ops.reduce import sum as sum_over
from distgrad.ops.shape import broadcast_to, expand_dims, permute


def _exp_shifted(xp: Any, x: Any) -> Any:
    shifted = x - xp.max(x, axis=-1, keepdims=True)
    return xp.exp(shifted, out=shifted)


def _softmax(xp: Any, x: Any) -> Any:
    e = _exp_shifted(xp, x)
    e /= xp.sum(e, axis=-1, keepdims=True)
    return e


def _sum_last(x: Tensor, keepdims: bool = True) -> Tensor:
    return bind(sum_over, x, axis=(x._data.ndim - 1,), keepdims=keepdims)


def _probabilities(logits: Tensor) -> Tensor:
    return bind(softmax_along, logits, axis=logits._data.ndim - 1)


# From class numbers


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
    yield sample(rng.normal(size=4), np.array(2))
    yield sample(rng.normal(size=(0, 4)), np.zeros(0, np.int64))


@primitive(kinds="f", match=("dy", "logits"), constant=("labels",))
def sparse_cross_entropy_grad(xp, dy, logits, labels):
    """``dy * (softmax(logits) - one_hot(labels))``."""
    d = _softmax(xp, logits)
    at = labels[..., None]
    xp.put_along_axis(d, at, xp.take_along_axis(d, at, axis=-1) - 1, axis=-1)
    d *= dy[..., None]
    return d


@sparse_cross_entropy_grad.vjp("dy")
def _(g, dy, logits, labels):
    d = bind(sparse_cross_entropy_grad, ones_like(dy), logits, labels)
    return _sum_last(g * d, keepdims=False)


@sparse_cross_entropy_grad.vjp("logits")
def _(g, dy, logits):
    p = _probabilities(logits)
    weighted = expand_dims(dy, -1) * g * p
    return weighted - p * _sum_last(weighted)


@sparse_cross_entropy_grad.samples
def _(rng):
    yield sample(rng.normal(size=3), rng.normal(size=(3, 4)), rng.integers(0, 4, 3))
    yield sample(rng.normal(size=()), rng.normal(size=4), np.array(1))


@primitive(kinds="f", match=("logits",), constant=("labels",))
def mean_sparse_cross_entropy(xp, logits, labels):
    """The mean of `sparse_cross_entropy`: for eager steps, of which it is often the loss."""
    values = sparse_cross_entropy.kernel_for(xp)(logits, labels)
    return mean.kernel_for(xp)(values, axis=tuple(range(values.ndim)), keepdims=False)


@mean_sparse_cross_entropy.vjp("logits")
def _(g, logits, labels):
    return bind(mean_sparse_cross_entropy_grad, g, logits, labels)


@primitive(kinds="f", match=("dy", "logits"), constant=("labels",))
def mean_sparse_cross_entropy_grad(xp, dy, logits, labels):
    """`sparse_cross_entropy_grad` for a scalar ``dy`` that is shared by all labels."""
    each = xp.empty(labels.shape, logits.dtype)
    each[...] = dy / labels.size
    return sparse_cross_entropy_grad.kernel_for(xp)(each, logits, labels)


@mean_sparse_cross_entropy_grad.vjp("dy", "logits")
def _(g, dy, logits, labels):
    def parts(dy, logits):
        each = bind(broadcast_to, dy / labels._data.size, shape=labels._data.shape)
        return (bind(sparse_cross_entropy_grad, each, logits, labels),)

    return pulled_back(parts, (dy, logits), (g,))


@mean_sparse_cross_entropy.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), rng.integers(0, 4, 3))
    yield sample(rng.normal(size=(2, 3, 4)), rng.integers(0, 4, (2, 3)))


@mean_sparse_cross_entropy_grad.samples
def _(rng):
    yield sample(rng.normal(size=()), rng.normal(size=(2, 3, 4)), rng.integers(0, 4, (2, 3)))


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
    if not shape or data.shape != shape[:-1]:
        raise InvalidArgumentError(f"labels of shape {data.shape} for scores of shape {shape}")
    if data.size:
        recording.check(_check_range, labels, shape[-1])


_UNSIGNED = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}


def _check_range(labels: Tensor, classes: int) -> None:
    data = labels._data
    # As numbers without a sign, negative ones are the largest.
    unsigned = data.view(_UNSIGNED[data.dtype.itemsize])
    if unsigned.reshape(-1)[unsigned.argmax()] >= classes:  # in half the time of a maximum
        raise InvalidArgumentError(
            f"a label lies outside [0, {classes}): smallest {data.min()}, largest {data.max()}"
        )


_check_range.any_shape = True  # type: ignore[attr-defined]


# From probabilities


@primitive(kinds="f")
def cross_entropy(xp, logits, labels):
    """``-sum(labels * log softmax(logits))`` over the last axis, for two arrays of one shape."""
    shifted = logits - xp.max(logits, axis=-1, keepdims=True)
    total = xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))
    return xp.sum((total - shifted) * labels, axis=-1)


@cross_entropy.vjp("logits")
def _(g, logits, labels):
    return bind(cross_entropy_grad, g, logits, labels)


@cross_entropy.vjp("labels")
def _(g, logits):
    return -expand_dims(g, -1) * bind(log_softmax_along, logits, axis=logits._data.ndim - 1)


@cross_entropy.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), rng.dirichlet(np.ones(4), size=3))
    yield sample(rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4)))
    yield sample(rng.normal(size=4), rng.normal(size=4))


@primitive(kinds="f")
def cross_entropy_grad(xp, dy, logits, labels):
    """``dy * (softmax(logits) * sum(labels) - labels)``, also where labels do not add up to 1."""
    d = _softmax(xp, logits)
    d *= xp.sum(labels, axis=-1, keepdims=True)
    d -= labels
    d *= dy[..., None]
    return d


@cross_entropy_grad.vjp("dy")
def _(g, dy, logits, labels):
    d = bind(cross_entropy_grad, ones_like(dy), logits, labels)
    return _sum_last(g * d, keepdims=False)


@cross_entropy_grad.vjp("logits")
def _(g, dy, logits, labels):
    p = _probabilities(logits)
    weighted = expand_dims(dy, -1) * _sum_last(labels) * g * p
    return weighted - p * _sum_last(weighted)


@cross_entropy_grad.vjp("labels")
def _(g, dy, logits):
    return expand_dims(dy, -1) * (_sum_last(g * _probabilities(logits)) - g)


@cross_entropy_grad.samples
def _(rng):
    yield sample(rng.normal(size=3), rng.normal(size=(3, 4)), rng.dirichlet(np.ones(4), size=3))
    yield sample(rng.normal(size=()), rng.normal(size=4), rng.normal(size=4))


def softmax_cross_entropy_with_logits(
    labels: Any, logits: Any, axis: int = -1, name: str | None = None
) -> Tensor:
    """Cross entropy of ``labels`` (probabilities) under ``softmax(logits)`` over ``axis``.

    Both get gradients. Raises InvalidArgumentError for shapes that do not broadcast or an axis out
    of range.
    """
    scores, p = tensors("softmax_cross_entropy_with_logits", logits, labels)
    scores, p = _one_shape("softmax_cross_entropy_with_logits", scores, p)
    at = one_axis_of("softmax_cross_entropy_with_logits", scores, axis)
    ndim = scores._data.ndim
    if at != ndim - 1:
        order = (*(i for i in range(ndim) if i != at), at)
        scores, p = bind(permute, scores, perm=order), bind(permute, p, perm=order)
    return cross_entropy(scores, p)


def _one_shape(name: str, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    if logits._data.shape == labels._data.shape:
        return logits, labels
    try:
        shape = np.broadcast_shapes(logits._data.shape, labels._data.shape)
    except ValueError:
        raise InvalidArgumentError(
            f"{name}: logits of shape {logits.shape} and labels of shape {labels.shape}"
        ) from None
    return bind(broadcast_to, logits, shape=shape), bind(broadcast_to, labels, shape=shape)


# Of independent classes


@primitive(
    expr="where(logits > 0, logits, 0.0) - logits * labels + log1p(exp(-abs(logits)))", kinds="f"
)
def sigmoid_cross_entropy(xp, logits, labels):
    """Cross entropy of ``labels`` under ``sigmoid(logits)``, elementwise, without overflow."""
    tail = xp.log1p(xp.exp(xp.negative(xp.abs(logits))))
    return xp.maximum(logits, 0) - logits * labels + tail


@sigmoid_cross_entropy.vjp("logits")
def _(g, logits, labels):
    return g * (sigmoid(logits) - labels)


@sigmoid_cross_entropy.vjp("labels")
def _(g, logits):
    return -(g * logits)


@sigmoid_cross_entropy.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), rng.uniform(size=(3, 4)))
    yield sample(rng.normal(size=()), rng.uniform(size=()))


def _same_shape(name: str, logits: Any, labels: Any) -> list[Tensor]:
    scores, p = tensors(name, logits, labels)
    if scores._data.shape != p._data.shape:
        raise InvalidArgumentError(
            f"{name}: logits of shape {scores.shape} and labels of shape {p.shape} must be equal"
        )
    return [scores, p]


def sigmoid_cross_entropy_with_logits(labels: Any, logits: Any, name: str | None = None) -> Tensor:
    """Cross entropy of each label in [0, 1] under ``sigmoid(logit)``, elementwise.

    Raises InvalidArgumentError where the shapes differ.
    """
    return sigmoid_cross_entropy(*_same_shape("sigmoid_cross_entropy_with_logits", logits, labels))


def weighted_cross_entropy_with_logits(
    labels: Any, logits: Any, pos_weight: Any, name: str | None = None
) -> Tensor:
    """sigmoid_cross_entropy_with_logits whose positive term is multiplied by ``pos_weight``.

    Raises InvalidArgumentError where the shapes of labels and logits differ.
    """
    x, z = _same_shape("weighted_cross_entropy_with_logits", logits, labels)
    return (1 - z) * x + (1 + (pos_weight - 1) * z) * softplus(-x)


# Others


def log_poisson_loss(
    targets: Any, log_input: Any, compute_full_loss: bool = False, name: str | None = None
) -> Tensor:
    """``exp(log_input) - log_input * targets``, elementwise: a Poisson log-likelihood, negated.

    ``compute_full_loss`` adds Stirling's approximation of ``log(targets!)`` where targets are
    above 1. Raises InvalidArgumentError where the shapes differ.
    """
    c, z = _same_shape("log_poisson_loss", log_input, targets)
    loss = exp(c) - c * z
    if not compute_full_loss:
        return loss
    inside = logical_and(z >= 0, z <= 1)
    safe = select(inside, 1, z)
    stirling = safe * log(safe) - safe + 0.5 * log(2 * math.pi * safe)
    return loss + select(inside, zeros_like(z), stirling)


def l2_loss(t: Any, name: str | None = None) -> Tensor:
    """Half the sum of the squares of all elements."""
    return reduce_sum(square(as_tensor(t))) / 2


def focused(
    entropies: Tensor, target: Tensor, p: Tensor, gamma: float, alpha: float | None
) -> Tensor:
    """Binary cross entropies times ``(1 - probability of the target) ** gamma`` (Lin et al. 2018).

    With ``alpha`` those of class 1 are weighed by it, the others by ``1 - alpha``.
    """
    hit = target * p + (1.0 - target) * (1.0 - p)
    values = power(1.0 - hit, gamma) * entropies
    return values if alpha is None else (target * alpha + (1.0 - target) * (1.0 - alpha)) * values
