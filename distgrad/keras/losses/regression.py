"""Losses of numbers against numbers; the functions give one value per sample."""

from __future__ import annotations

import math
from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.keras.backend import epsilon
from distgrad.keras.losses.base import Loss, PlainLoss, pair
from distgrad.ops.arithmetic import abs, square
from distgrad.ops.clipping import maximum, minimum
from distgrad.ops.exponential import log, softplus
from distgrad.ops.logic import equal, less_equal, logical_or, select
from distgrad.ops.powers import rsqrt
from distgrad.ops.reduce import reduce_all, reduce_max, reduce_mean, reduce_sum


def _mean(values: Tensor) -> Tensor:
    return reduce_mean(values, axis=-1) if values._data.ndim else values


def mean_squared_error(y_true: Any, y_pred: Any) -> Tensor:
    """Mean of ``(y_true - y_pred) ** 2`` over the last axis."""
    target, prediction = pair(y_true, y_pred)
    return _mean(square(prediction - target))


def mean_absolute_error(y_true: Any, y_pred: Any) -> Tensor:
    """Mean of ``abs(y_true - y_pred)`` over the last axis."""
    target, prediction = pair(y_true, y_pred)
    return _mean(abs(target - prediction))


def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Tensor:
    """``100 * abs((y_true - y_pred) / y_true)``, its mean over the last axis."""
    target, prediction = pair(y_true, y_pred)
    return 100.0 * _mean(abs((target - prediction) / maximum(abs(target), epsilon())))


def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Tensor:
    """Mean of ``(log(y_true + 1) - log(y_pred + 1)) ** 2`` over the last axis."""
    target, prediction = pair(y_true, y_pred)
    first, second = (log(maximum(x, epsilon()) + 1.0) for x in (prediction, target))
    return _mean(square(first - second))


def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Tensor:
    """Half the squared error up to ``delta``, linear beyond; its mean over the last axis."""
    target, prediction = pair(y_true, y_pred)
    error = prediction - target
    size = abs(error)
    beyond = size * delta - 0.5 * delta**2
    return _mean(select(less_equal(size, delta), square(error) * 0.5, beyond))


def log_cosh(y_true: Any, y_pred: Any) -> Tensor:
    """Mean of ``log(cosh(y_pred - y_true))`` over the last axis, without overflow."""
    target, prediction = pair(y_true, y_pred)
    error = prediction - target
    return _mean(error + softplus(error * -2.0) - math.log(2.0))


def normalized(x: Tensor, axis: int = -1) -> Tensor:
    """``x`` at length 1 along ``axis``; a vector of zeros stays one."""
    inverse = rsqrt(reduce_sum(square(x), axis=axis, keepdims=True))
    return x * minimum(inverse, 1 / epsilon())


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Tensor:
    """Minus the cosine of the angle between targets and predictions along ``axis``."""
    target, prediction = pair(y_true, y_pred)
    return -reduce_sum(normalized(target, axis) * normalized(prediction, axis), axis=axis)


# Of classes -1 and 1


def _signs(target: Tensor) -> Tensor:
    """Targets that are all 0 or 1 as -1 or 1."""
    binary = logical_or(equal(target, 0.0), equal(target, 1.0))
    return select(reduce_all(binary), target * 2.0 - 1.0, target)


def hinge(y_true: Any, y_pred: Any) -> Tensor:
    """Mean of ``max(1 - y_true * y_pred, 0)`` over the last axis, for targets -1 or 1 (or 0, 1)."""
    target, prediction = pair(y_true, y_pred)
    return _mean(maximum(1.0 - _signs(target) * prediction, 0.0))


def squared_hinge(y_true: Any, y_pred: Any) -> Tensor:
    """Mean of ``max(1 - y_true * y_pred, 0) ** 2`` over the last axis."""
    target, prediction = pair(y_true, y_pred)
    return _mean(square(maximum(1.0 - _signs(target) * prediction, 0.0)))


def categorical_hinge(y_true: Any, y_pred: Any) -> Tensor:
    """``max(largest score of a wrong class - score of the right one + 1, 0)``, rows one-hot."""
    target, prediction = pair(y_true, y_pred)
    right = reduce_sum(target * prediction, axis=-1)
    wrong = reduce_max((1.0 - target) * prediction, axis=-1)
    return maximum(wrong - right + 1.0, 0.0)


class MeanSquaredError(PlainLoss):
    """Mean of squared differences over the last axis."""

    fn = staticmethod(mean_squared_error)


class MeanAbsoluteError(PlainLoss):
    """Mean of absolute differences over the last axis."""

    fn = staticmethod(mean_absolute_error)


class MeanAbsolutePercentageError(PlainLoss):
    """Mean of differences in percent of the target."""

    fn = staticmethod(mean_absolute_percentage_error)


class MeanSquaredLogarithmicError(PlainLoss):
    """Mean of squared differences of ``log(x + 1)``."""

    fn = staticmethod(mean_squared_logarithmic_error)


class LogCosh(PlainLoss):
    """Mean of the logarithm of the hyperbolic cosine of the difference."""

    fn = staticmethod(log_cosh)


class Hinge(PlainLoss):
    """Mean of ``max(1 - y_true * y_pred, 0)``, for targets -1 or 1 (or 0 and 1)."""

    fn = staticmethod(hinge)


class SquaredHinge(PlainLoss):
    """Mean of the squared hinge."""

    fn = staticmethod(squared_hinge)


class CategoricalHinge(PlainLoss):
    """How far the right class is from leading every wrong one by 1."""

    fn = staticmethod(categorical_hinge)


class Huber(Loss):
    """Half the squared error up to ``delta``, linear beyond (Huber, 1964)."""

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "huber_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.delta = delta

    def call(self, y_true: Any, y_pred: Tensor) -> Tensor:
        return huber(y_true, y_pred, self.delta)


class CosineSimilarity(Loss):
    """Minus the cosine of the angle between targets and predictions along ``axis``."""

    def __init__(
        self,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.axis = axis

    def call(self, y_true: Any, y_pred: Tensor) -> Tensor:
        return cosine_similarity(y_true, y_pred, self.axis)
