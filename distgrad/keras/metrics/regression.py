"""Metrics that are means of losses, and others of numbers against numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.core.user_line import warn
from distgrad.keras import losses
from distgrad.keras.metrics.base import MeanMetric, Metric, Value
from distgrad.keras.metrics.weighing import arrays, host, mean_sums
from distgrad.ops.casting import cast


class _LossMetric(MeanMetric):
    """The mean of a loss, one value per sample."""

    fn: Callable[..., Tensor]
    direction = "down"

    def _options(self) -> dict[str, Any]:
        return {}

    def per_sample(self, y_true: Any, y_pred: Any) -> Tensor:
        return type(self).fn(as_tensor(y_true), as_tensor(y_pred), **self._options())


class MeanSquaredError(_LossMetric):
    """Mean of squared differences."""

    fn = staticmethod(losses.mean_squared_error)


class MeanAbsoluteError(_LossMetric):
    """Mean of absolute differences."""

    fn = staticmethod(losses.mean_absolute_error)


class MeanAbsolutePercentageError(_LossMetric):
    """Mean of differences in percent of the target."""

    fn = staticmethod(losses.mean_absolute_percentage_error)


class MeanSquaredLogarithmicError(_LossMetric):
    """Mean of squared differences of ``log(x + 1)``."""

    fn = staticmethod(losses.mean_squared_logarithmic_error)


class LogCoshError(_LossMetric):
    """Mean of the logarithm of the hyperbolic cosine of the difference."""

    fn = staticmethod(losses.log_cosh)

    def __init__(self, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name or "logcosh", dtype)


class Hinge(_LossMetric):
    """Mean of ``max(1 - y_true * y_pred, 0)``."""

    fn = staticmethod(losses.hinge)


class SquaredHinge(_LossMetric):
    """Mean of the squared hinge."""

    fn = staticmethod(losses.squared_hinge)


class CategoricalHinge(_LossMetric):
    """How far the right class is from leading every wrong one by 1."""

    fn = staticmethod(losses.categorical_hinge)


class KLDivergence(_LossMetric):
    """Mean of ``sum(y_true * log(y_true / y_pred))``."""

    fn = staticmethod(losses.kl_divergence)


class Poisson(_LossMetric):
    """Mean of ``y_pred - y_true * log(y_pred)``."""

    fn = staticmethod(losses.poisson)


class BinaryCrossentropy(_LossMetric):
    """Mean cross entropy of independent classes."""

    fn = staticmethod(losses.binary_crossentropy)

    def __init__(
        self,
        name: str | None = None,
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(name, dtype)
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing

    def _options(self) -> dict[str, Any]:
        return {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing}


class CategoricalCrossentropy(_LossMetric):
    """Mean cross entropy of rows of probabilities."""

    fn = staticmethod(losses.categorical_crossentropy)

    def __init__(
        self,
        name: str | None = None,
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
    ) -> None:
        super().__init__(name, dtype)
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing
        self.axis = axis

    def _options(self) -> dict[str, Any]:
        return {
            "from_logits": self.from_logits,
            "label_smoothing": self.label_smoothing,
            "axis": self.axis,
        }


class SparseCategoricalCrossentropy(_LossMetric):
    """Mean cross entropy of class numbers.

    As in Keras, samples of ``ignore_class`` count as 0 in a plain mean, and not at all in a
    weighted one.
    """

    fn = staticmethod(losses.sparse_categorical_crossentropy)

    def __init__(
        self,
        name: str | None = None,
        dtype: Any = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ) -> None:
        super().__init__(name, dtype)
        self.from_logits = from_logits
        self.ignore_class = ignore_class
        self.axis = axis

    def _options(self) -> dict[str, Any]:
        return {
            "from_logits": self.from_logits,
            "ignore_class": self.ignore_class,
            "axis": self.axis,
        }

    def sums(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> np.ndarray:
        if self.ignore_class is not None and sample_weight is not None:
            counted = (host(y_true) != self.ignore_class).reshape(np.shape(y_pred)[:-1])
            weight = host(sample_weight)
            weight = weight.reshape(weight.shape + (1,) * (counted.ndim - weight.ndim))
            sample_weight = counted * weight
        return super().sums(y_true, y_pred, sample_weight)


class CosineSimilarity(MeanMetric):
    """Mean of the cosine of the angle between targets and predictions along ``axis``."""

    direction = "up"

    def __init__(self, name: str | None = None, dtype: Any = None, axis: int = -1) -> None:
        super().__init__(name, dtype)
        self.axis = axis

    def per_sample(self, y_true: Any, y_pred: Any) -> Tensor:
        return -losses.cosine_similarity(y_true, y_pred, self.axis)


class RootMeanSquaredError(Metric):
    """Root of the mean of squared differences."""

    direction = "down"

    def sums(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> np.ndarray:
        target, prediction = arrays(y_true, cast(as_tensor(y_pred), "float64"))
        return mean_sums((prediction - target) ** 2, sample_weight)

    def value(self, sums: np.ndarray) -> Value:
        return math.sqrt(sums[0] / sums[1]) if sums[1] else 0.0


class R2Score(Metric):
    """Share of the variance of the targets that the predictions explain.

    Targets and predictions have shape (batch, ``num_outputs``), by default that of the first.
    ``class_aggregation`` is
    "uniform_average", "variance_weighted_average" or None for one score per output.
    ``num_regressors`` adjusts it for that many predictors. Raises ValueError for other settings or
    shapes.
    """

    direction = "up"

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str | None = None,
        dtype: Any = None,
        num_outputs: int | None = None,
    ) -> None:
        super().__init__(name or "r2_score", dtype)
        if class_aggregation not in (None, "uniform_average", "variance_weighted_average"):
            raise ValueError(
                "class_aggregation must be uniform_average, variance_weighted_average or None, "
                f"not {class_aggregation!r}"
            )
        if num_regressors < 0 or (num_outputs is not None and num_outputs < 1):
            raise ValueError(
                f"num_regressors={num_regressors} must not be negative, and "
                f"num_outputs={num_outputs} must be 1 or more"
            )
        self.class_aggregation = class_aggregation
        self.num_regressors = num_regressors
        self.num_outputs = num_outputs
        self.size = 4 * (num_outputs or 1) + 1

    def expect(self, shape: tuple[int, ...]) -> None:
        if self.num_outputs is None:
            self.num_outputs = shape[-1]
            self.size = 4 * self.num_outputs + 1

    def sums(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> np.ndarray:
        target, prediction = (a.astype(np.float64) for a in arrays(y_true, y_pred))
        if prediction.ndim > 1:
            self.expect(prediction.shape)
        if target.shape != prediction.shape or target.shape[1:] != (self.num_outputs,):
            raise ValueError(
                f"R2Score(num_outputs={self.num_outputs}) takes targets and predictions of shape "
                f"(batch, {self.num_outputs}), got {target.shape} and {prediction.shape}"
            )
        weight = np.ones(1) if sample_weight is None else host(sample_weight).astype(np.float64)
        weight = np.broadcast_to(weight[:, None] if weight.ndim == 1 else weight, target.shape)
        columns = (
            weight * target,
            weight * target**2,
            weight * (target - prediction) ** 2,
            weight,
        )
        return np.concatenate([*(column.sum(axis=0) for column in columns), [target.size]])

    def value(self, sums: np.ndarray) -> Value:
        total, squares, residual, count = sums[:-1].reshape(4, -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = squares - total * (total / count)
            scores = 1 - residual / spread
            scores = np.where(np.isinf(scores), 0.0, scores)
            if self.class_aggregation == "variance_weighted_average":
                scores = (spread * scores).sum() / spread.sum()
            elif self.class_aggregation == "uniform_average":
                scores = scores.mean()
        spare = sums[-1] - self.num_regressors - 1
        if self.num_regressors and spare > 0:
            scores = 1 - (1 - scores) * (sums[-1] - 1) / spare
        elif self.num_regressors:
            warn("R2Score has too few samples to adjust for its regressors")
        return scores.tolist()
