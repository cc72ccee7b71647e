"""Shares of right answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.tensor import Tensor
from distgrad.keras.losses.entropy import kind_of_targets
from distgrad.keras.metrics.base import MeanMetric
from distgrad.keras.metrics.weighing import arrays, host
from distgrad.ops.casting import cast
from distgrad.ops.logic import equal
from distgrad.ops.reduce import argmax, reduce_mean, reduce_sum
from distgrad.ops.shape import squeeze, stack


def _matches(found: Any) -> Tensor:
    return Tensor(np.asarray(found, np.float32))


def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Tensor:
    """1 where ``y_pred > threshold`` is as ``y_true`` (0 or 1) says, else 0; elementwise."""
    target, score = arrays(y_true, y_pred)
    return _matches((score > threshold) == target)


def categorical_accuracy(y_true: Any, y_pred: Any) -> Tensor:
    """1 where the largest score is at the largest target, else 0; one per row."""
    return _matches(host(y_pred).argmax(axis=-1) == host(y_true).argmax(axis=-1))


def _labels_and_scores(y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
    """Class numbers, without a last axis of one, and scores of each class, on the host."""
    labels, scores = host(y_true), host(y_pred)
    if labels.ndim == scores.ndim and labels.shape[-1] == 1:
        labels = labels[..., 0]
    return labels, scores


def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Tensor:
    """1 where the largest score is at the class number given, else 0; one per row."""
    labels, scores = _labels_and_scores(y_true, y_pred)
    return _matches(scores.argmax(axis=-1) == labels)


def _right_classes(labels: Tensor, scores: Tensor) -> Tensor | None:
    """The sums of sparse categorical accuracy over samples, by operations."""
    target, score = labels._data.shape, scores._data.shape
    if labels._data.dtype.kind not in "iu" or not score[:1] or not all(score):
        return None
    if target != score[:-1]:
        if target != (*score[:-1], 1):
            return None
        labels = squeeze(labels, -1)
    right = cast(equal(argmax(scores, axis=-1), cast(labels, "int64")), "float64")
    if len(score) > 2:
        right = reduce_mean(right, axis=list(range(1, len(score) - 1)))
    return stack([reduce_sum(right), float(score[0])])


def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Tensor:
    """1 where the largest target has one of the ``k`` largest scores, else 0; one per row."""
    return sparse_top_k_categorical_accuracy(host(y_true).argmax(axis=-1), y_pred, k)


def sparse_top_k_categorical_accuracy(
    y_true: Any, y_pred: Any, k: int = 5, from_sorted_ids: bool = False
) -> Tensor:
    """1 where the class has one of the ``k`` largest scores, a tie with the last one included.

    With ``from_sorted_ids`` the predictions are class numbers, best first.
    """
    labels, scores = _labels_and_scores(y_true, y_pred)
    if from_sorted_ids:
        return _matches((scores[..., :k] == labels[..., None]).any(axis=-1))
    labels = labels.astype(np.int64)
    known = (labels >= 0) & (labels < scores.shape[-1]) & np.isfinite(scores).all(axis=-1)
    own = np.take_along_axis(scores, np.where(known, labels, 0)[..., None], axis=-1)
    return _matches(((scores > own).sum(axis=-1) < k) & known)


class Accuracy(MeanMetric):
    """Share of predictions that equal their targets."""

    direction = "up"

    def per_sample(self, y_true: Any, y_pred: Any) -> Any:
        target, prediction = arrays(y_true, y_pred)
        return target == prediction


class BinaryAccuracy(MeanMetric):
    """Share of predictions on the right side of a threshold."""

    direction = "up"

    def __init__(self, name: str | None = None, dtype: Any = None, threshold: float = 0.5) -> None:
        super().__init__(name, dtype)
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must lie in [0, 1], not {threshold!r}")
        self.threshold = threshold

    def per_sample(self, y_true: Any, y_pred: Any) -> Any:
        return binary_accuracy(y_true, y_pred, self.threshold)


class CategoricalAccuracy(MeanMetric):
    """Share of samples whose largest score is at the largest target."""

    direction = "up"

    def per_sample(self, y_true: Any, y_pred: Any) -> Any:
        return categorical_accuracy(y_true, y_pred)


class SparseCategoricalAccuracy(MeanMetric):
    """Share of samples whose largest score is at the class number given."""

    direction = "up"

    def operations(self, y_true: Tensor, y_pred: Tensor) -> Tensor | None:
        return _right_classes(y_true, y_pred)

    def per_sample(self, y_true: Any, y_pred: Any) -> Any:
        return sparse_categorical_accuracy(y_true, y_pred)


class TopKCategoricalAccuracy(MeanMetric):
    """Share of samples whose largest target has one of the ``k`` largest scores."""

    direction = "up"

    def __init__(self, k: int = 5, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name or "top_k_categorical_accuracy", dtype)
        self.k = k

    def per_sample(self, y_true: Any, y_pred: Any) -> Any:
        return top_k_categorical_accuracy(y_true, y_pred, self.k)


class SparseTopKCategoricalAccuracy(MeanMetric):
    """Share of samples whose class has one of the ``k`` largest scores."""

    direction = "up"

    def __init__(
        self,
        k: int = 5,
        name: str | None = None,
        dtype: Any = None,
        from_sorted_ids: bool = False,
    ) -> None:
        super().__init__(name or "sparse_top_k_categorical_accuracy", dtype)
        self.k = k
        self.from_sorted_ids = from_sorted_ids

    def per_sample(self, y_true: Any, y_pred: Any) -> Any:
        return sparse_top_k_categorical_accuracy(y_true, y_pred, self.k, self.from_sorted_ids)


class FittingAccuracy(MeanMetric):
    """What "accuracy" means in ``compile``: binary, sparse or categorical, by the shapes."""

    direction = "up"

    def operations(self, y_true: Tensor, y_pred: Tensor) -> Tensor | None:
        sparse = kind_of_targets(y_true._data.shape, y_pred._data.shape) == "sparse"
        return _right_classes(y_true, y_pred) if sparse else None

    def per_sample(self, y_true: Any, y_pred: Any) -> Any:
        fitting = _FITTING[kind_of_targets(np.shape(y_true), np.shape(y_pred))]
        return fitting(y_true, y_pred)


_FITTING = {
    "binary": binary_accuracy,
    "sparse": sparse_categorical_accuracy,
    "categorical": categorical_accuracy,
}
