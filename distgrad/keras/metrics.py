"""Metrics: additive float64 statistics of a batch, and the value they stand for.

Because every metric is a sum over samples, the sums of all virtual shards can be added in one
fixed order, and a metric is the same whoever computed its parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.keras.registry import lookup, snake_case


class Metric:
    """Base of all metrics: ``sums`` of a batch (``size`` numbers), ``value`` of their total."""

    size = 2

    def __init__(self, name: str | None = None) -> None:
        self.name = name or snake_case(type(self).__name__)
        self._total = np.zeros(self.size)

    def sums(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> np.ndarray:
        """Additive statistics of one batch, float64."""
        raise NotImplementedError

    def value(self, sums: np.ndarray) -> float:
        """The metric for summed statistics."""
        return float(sums[0] / sums[1]) if sums[1] else 0.0

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self._total = self._total + self.sums(y_true, y_pred, sample_weight)

    def result(self) -> float:
        return self.value(self._total)

    def reset_state(self) -> None:
        self._total = np.zeros(self.size)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> float:
        self.update_state(y_true, y_pred, sample_weight)
        return self.result()


class MeanMetric(Metric):
    """A metric that is the weighted mean of one value per sample."""

    def per_sample(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def sums(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> np.ndarray:
        target, prediction = as_tensor(y_true)._host(), as_tensor(y_pred)._host()
        values = np.asarray(self.per_sample(target, prediction), dtype=np.float64)
        if sample_weight is None:
            return np.array([values.sum(), values.size])
        weight = as_tensor(sample_weight)._host().astype(np.float64)
        if weight.ndim == values.ndim + 1:
            weight = weight[..., 0]
        weight = np.broadcast_to(weight, values.shape)
        return np.array([(values * weight).sum(), weight.sum()])


class SparseCategoricalAccuracy(MeanMetric):
    """Share of samples whose largest score is at the class number given."""

    def per_sample(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1:
            y_true = y_true[..., 0]
        return y_pred.argmax(axis=-1) == y_true


class CategoricalAccuracy(MeanMetric):
    """Share of samples whose largest score is at the largest target."""

    def per_sample(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return y_pred.argmax(axis=-1) == y_true.argmax(axis=-1)


class BinaryAccuracy(MeanMetric):
    """Share of predictions on the right side of a threshold."""

    def __init__(self, name: str | None = None, threshold: float = 0.5) -> None:
        super().__init__(name)
        self.threshold = threshold

    def per_sample(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        if y_true.ndim + 1 == y_pred.ndim:
            y_pred = y_pred[..., 0]
        return (y_pred > self.threshold) == (y_true > 0.5)


_KNOWN: dict[str, Callable[..., Metric]] = {
    "sparse_categorical_accuracy": SparseCategoricalAccuracy,
    "categorical_accuracy": CategoricalAccuracy,
    "binary_accuracy": BinaryAccuracy,
}
_ACCURACY = ("accuracy", "acc")

__all__ = ["BinaryAccuracy", "CategoricalAccuracy", "Metric", "SparseCategoricalAccuracy"]


def get(identifier: Any, loss: Any = None) -> Metric:
    """The metric for a name or object; ``accuracy`` means the one that fits the loss.

    Raises ValueError for an unknown name.
    """
    if isinstance(identifier, Metric):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Metric):
        return identifier()
    if identifier in _ACCURACY:
        kind = getattr(loss, "name", "")
        for word in ("sparse_categorical", "binary"):
            if kind.startswith(word):
                return _KNOWN[f"{word}_accuracy"](name=identifier)
        return CategoricalAccuracy(name=identifier)
    return lookup("metric", identifier, _KNOWN)()
