"""Losses: per-sample values, and their reduction over the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Tensor
from distgrad.keras.registry import lookup, snake_case
from distgrad.ops import nn
from distgrad.ops.elementwise import cast, log, maximum, minimum
from distgrad.ops.indexing import one_hot
from distgrad.ops.reduce import reduce_mean, reduce_sum
from distgrad.ops.shape import squeeze

_EPSILON = 1e-7  # probabilities are kept this far from 0 and 1
_REDUCTIONS = ("sum_over_batch_size", "sum", "none", None)


class Loss:
    """Base of all losses: ``call(y_true, y_pred)`` gives one value per sample.

    ``reduction``: ``sum_over_batch_size`` (weighted sum over number of values), ``sum``, or None.
    """

    def __init__(
        self, name: str | None = None, reduction: str | None = "sum_over_batch_size"
    ) -> None:
        if reduction not in _REDUCTIONS:
            raise ValueError(f"reduction must be one of {_REDUCTIONS}, not {reduction!r}")
        self.name = name or snake_case(type(self).__name__)
        self.reduction = None if reduction == "none" else reduction

    def call(self, y_true: Any, y_pred: Tensor) -> Tensor:
        raise NotImplementedError

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        values = self.call(as_tensor(y_true), as_tensor(y_pred))
        if sample_weight is not None:
            weight = cast(as_tensor(sample_weight), values._data.dtype)
            if weight._data.ndim == values._data.ndim + 1:
                weight = squeeze(weight, -1)
            values = values * weight
        if self.reduction == "sum":
            return reduce_sum(values)
        return reduce_mean(values) if self.reduction is not None else values


class SparseCategoricalCrossentropy(Loss):
    """Cross entropy of class numbers under predicted probabilities (or logits).

    Probabilities are renormalised and kept within [1e-7, 1 - 1e-7]; those that come from the
    softmax activation are taken back to its logits. Raises InvalidArgumentError for labels outside
    the classes or of another shape.
    """

    def __init__(
        self,
        from_logits: bool = False,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(name, reduction)
        self.from_logits = from_logits

    def call(self, y_true: Any, y_pred: Tensor) -> Tensor:
        return sparse_categorical_crossentropy(y_true, y_pred, self.from_logits)


def sparse_categorical_crossentropy(y_true: Any, y_pred: Any, from_logits: bool = False) -> Tensor:
    """Cross entropy of class numbers, one value per sample."""
    scores, labels = as_tensor(y_pred), as_tensor(y_true)
    if labels._data.ndim == scores._data.ndim and labels._data.shape[-1] == 1:
        labels = squeeze(labels, -1)
    if labels._data.dtype.kind == "f":
        labels = cast(labels, as_dtype("int64"))
    nn.check_labels(labels, scores._data.shape)
    if not from_logits:
        logits = getattr(scores, "_logits", None)
        if logits is None:
            # The softmax of log p is p again, renormalised.
            logits = log(minimum(maximum(scores / _row_sums(scores), _EPSILON), 1 - _EPSILON))
            hot = one_hot(labels, scores._data.shape[-1], dtype=scores._data.dtype)
            return reduce_sum(-logits * hot, axis=-1)
        scores = logits
    return nn.sparse_cross_entropy(scores, labels)


def _row_sums(scores: Tensor) -> Tensor:
    return reduce_sum(scores, axis=-1, keepdims=True)


class MeanSquaredError(Loss):
    """Mean of squared differences over the last axis."""

    def call(self, y_true: Any, y_pred: Tensor) -> Tensor:
        return mean_squared_error(y_true, y_pred)


def mean_squared_error(y_true: Any, y_pred: Any) -> Tensor:
    """Mean of squared differences over the last axis, one value per sample."""
    prediction = as_tensor(y_pred)
    target = cast(as_tensor(y_true), prediction._data.dtype)
    if target._data.ndim + 1 == prediction._data.ndim and prediction._data.shape[-1] == 1:
        prediction = squeeze(prediction, -1)
    if target._data.shape != prediction._data.shape:
        raise InvalidArgumentError(
            f"targets of shape {target.shape} for predictions of shape {prediction.shape}"
        )
    difference = prediction - target
    squared = difference * difference
    return reduce_mean(squared, axis=-1) if squared._data.ndim > 1 else squared


mse = MSE = mean_squared_error


class _Function(Loss):
    """A user's function of (y_true, y_pred) as a loss."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        super().__init__(getattr(fn, "__name__", "loss"))
        self.fn = fn

    def call(self, y_true: Any, y_pred: Tensor) -> Tensor:
        return as_tensor(self.fn(y_true, y_pred))


_KNOWN: dict[str, Any] = {
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
}

__all__ = ["Loss", "MeanSquaredError", "SparseCategoricalCrossentropy"]


def get(identifier: Any) -> Any:
    """The loss for a name, an object or a function. Raises ValueError for an unknown name."""
    if identifier is None or isinstance(identifier, Loss):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Loss):
        return identifier()
    if callable(identifier):
        return _Function(identifier)
    return lookup("loss", identifier, _KNOWN)()
