"""Losses of regions and of embeddings: how far they overlap, or lie apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.keras.backend import epsilon
from distgrad.keras.losses.base import Loss, floating, same_rank
from distgrad.ops.casting import cast
from distgrad.ops.clipping import maximum
from distgrad.ops.exponential import softplus
from distgrad.ops.indexing import one_hot
from distgrad.ops.linalg import matmul
from distgrad.ops.logic import equal, greater, logical_and, logical_not, select
from distgrad.ops.powers import power
from distgrad.ops.reduce import reduce_sum
from distgrad.ops.shape import expand_dims, reshape
from distgrad.ops.statistics import reduce_logsumexp

Axis = int | Sequence[int] | None


def _alike(y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor]:
    prediction = floating(y_pred)
    return cast(as_tensor(y_true), prediction._data.dtype), prediction


def dice(y_true: Any, y_pred: Any, axis: Axis = None) -> Tensor:
    """``1 - 2 * sum(y_true * y_pred) / (sum(y_true) + sum(y_pred))`` over ``axis``."""
    target, prediction = _alike(y_true, y_pred)
    both = reduce_sum(target * prediction, axis)
    total = reduce_sum(target, axis) + reduce_sum(prediction, axis)
    return 1 - 2.0 * both / (total + epsilon())


def tversky(
    y_true: Any, y_pred: Any, alpha: float = 0.5, beta: float = 0.5, axis: Axis = None
) -> Tensor:
    """Dice's loss, with ``alpha`` the weight of what is missed and ``beta`` of what is too much.

    As in Keras, which calls the former false positives. Source: Salehi et al., 2017.
    """
    target, prediction = _alike(y_true, y_pred)
    both = reduce_sum(target * prediction, axis)
    missed = reduce_sum((1 - prediction) * target, axis)
    beyond = reduce_sum(prediction * (1 - target), axis)
    return 1 - both / (both + missed * alpha + beyond * beta + epsilon())


def circle(
    y_true: Any,
    y_pred: Any,
    ref_labels: Any = None,
    ref_embeddings: Any = None,
    remove_diagonal: bool = True,
    gamma: float = 80,
    margin: float = 0.4,
) -> Tensor:
    """For each embedding of length 1: those of its class should be near, all others far away.

    ``ref_embeddings`` with ``ref_labels`` are what it is compared with, by default the batch
    itself, without the embedding (``remove_diagonal``). Source: Sun et al., 2020.
    """
    embeddings, labels = floating(y_pred), reshape(cast(y_true, "int32"), (-1,))
    others = embeddings if ref_embeddings is None else floating(ref_embeddings)
    known = labels if ref_labels is None else reshape(cast(ref_labels, "int32"), (-1,))
    apart = maximum(1 - matmul(embeddings, others, transpose_b=True), 0.0)
    same = equal(expand_dims(labels, 1), expand_dims(known, 0))
    other = logical_not(same)
    if remove_diagonal:
        rows = np.eye(labels.shape[0], known.shape[0], dtype=bool)
        same = logical_and(same, logical_not(rows))
    near = -gamma * maximum(margin + apart, 0.0) * (margin - apart)
    far = gamma * maximum(1 + margin - apart, 0.0) * (1 - margin - apart)
    low = -math.inf
    pulled = reduce_logsumexp(select(same, near, low), 1)
    values = softplus(pulled + reduce_logsumexp(select(other, far, low), 1))
    values._keras_mask = greater(values, 0.0)  # a mean is over those alone
    return values


def categorical_generalized_cross_entropy(y_true: Any, y_pred: Any, q: float) -> Tensor:
    """``(1 - p ** q) / q`` for the probability p of the class number: robust to wrong labels.

    Source: Zhang and Sabuncu, 2018.
    """
    prediction, numbers = floating(y_pred), cast(y_true, "int32")
    if len(numbers.shape) == len(prediction.shape) and numbers.shape[-1] == 1:
        numbers = reshape(numbers, numbers.shape[:-1])
    chosen = one_hot(numbers, prediction.shape[-1], dtype=prediction.dtype)
    return (1 - power(reduce_sum(prediction * chosen, -1), q)) / q


class Dice(Loss):
    """`dice`, over everything by default, the batch too, or over ``axis``."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "dice",
        axis: Axis = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.axis = axis

    def call(self, y_true: Any, y_pred: Tensor) -> Tensor:
        return dice(*same_rank(y_true, y_pred), self.axis)


class Tversky(Loss):
    """`tversky`, over everything by default, the batch too, or over ``axis``."""

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "tversky",
        axis: Axis = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.alpha, self.beta, self.axis = alpha, beta, axis

    def call(self, y_true: Any, y_pred: Tensor) -> Tensor:
        return tversky(*same_rank(y_true, y_pred), self.alpha, self.beta, self.axis)


class Circle(Loss):
    """`circle` of a batch of embeddings of length 1 and their class numbers."""

    casts_targets = False
    masks_values = True

    def __init__(
        self,
        gamma: float = 80.0,
        margin: float = 0.4,
        remove_diagonal: bool = True,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "circle",
        dtype: Any = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.gamma, self.margin, self.remove_diagonal = gamma, margin, remove_diagonal

    def call(self, y_true: Any, y_pred: Tensor) -> Tensor:
        return circle(
            y_true,
            y_pred,
            remove_diagonal=self.remove_diagonal,
            gamma=self.gamma,
            margin=self.margin,
        )


class CategoricalGeneralizedCrossEntropy(Loss):
    """`categorical_generalized_cross_entropy`. Raises ValueError for a ``q`` outside (0, 1)."""

    casts_targets = False

    def __init__(
        self,
        q: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_generalized_cross_entropy",
        dtype: Any = None,
    ) -> None:
        if not 0 < q < 1:
            raise ValueError(f"q must be in the interval (0, 1), not {q!r}")
        super().__init__(name, reduction, dtype)
        self.q = q

    def call(self, y_true: Any, y_pred: Tensor) -> Tensor:
        return categorical_generalized_cross_entropy(y_true, y_pred, self.q)
