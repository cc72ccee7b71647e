"""Metrics of how targets and predictions vary together, along an axis of each sample."""

from __future__ import annotations

from typing import Any

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.keras.backend import epsilon
from distgrad.keras.losses.base import floating, same_rank
from distgrad.keras.metrics.base import MeanMetric
from distgrad.ops.casting import cast
from distgrad.ops.reduce import reduce_mean
from distgrad.ops.statistics import reduce_std, reduce_variance


def _alike(y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor]:
    prediction = floating(y_pred)
    return same_rank(cast(as_tensor(y_true), prediction._data.dtype), prediction)


def pearson_correlation(y_true: Any, y_pred: Any, axis: int = -1) -> Tensor:
    """Pearson's coefficient along ``axis``: from -1 to 1."""
    parts = []
    for x in _alike(y_true, y_pred):
        centred = x - reduce_mean(x, axis, True)
        parts.append(centred / reduce_std(centred, axis, True))
    return reduce_mean(parts[0] * parts[1], axis)


def concordance_correlation(y_true: Any, y_pred: Any, axis: int = -1) -> Tensor:
    """Lin's coefficient along ``axis``, as Keras has it: its covariance is about the predictions'
    mean."""
    target, prediction = _alike(y_true, y_pred)
    means = reduce_mean(target, axis, True), reduce_mean(prediction, axis, True)
    spread = reduce_variance(target - means[0], axis, True)
    spread = spread + reduce_variance(prediction - means[1], axis, True)
    together = (target - means[1]) * (prediction - means[1])
    shift = means[0] - means[1]
    return reduce_mean(2 * together / (spread + shift * shift + epsilon()), axis)


class PearsonCorrelation(MeanMetric):
    """Mean of `pearson_correlation` over the samples."""

    direction = "up"

    def __init__(
        self, name: str | None = "pearson_correlation", dtype: Any = None, axis: int = -1
    ) -> None:
        super().__init__(name, dtype)
        self.axis = axis

    def per_sample(self, y_true: Any, y_pred: Any) -> Tensor:
        return pearson_correlation(y_true, y_pred, self.axis)


class ConcordanceCorrelation(MeanMetric):
    """Mean of `concordance_correlation` over the samples."""

    direction = "up"

    def __init__(
        self, name: str | None = "concordance_correlation", dtype: Any = None, axis: int = -1
    ) -> None:
        super().__init__(name, dtype)
        self.axis = axis

    def per_sample(self, y_true: Any, y_pred: Any) -> Tensor:
        return concordance_correlation(y_true, y_pred, self.axis)
