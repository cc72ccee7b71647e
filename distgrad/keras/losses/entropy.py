"""Losses of predicted probabilities (or logits); the functions give one value per sample.

Probabilities that come from the softmax or sigmoid activation are taken back to its logits, so
that a saturated activation still has an exact loss and gradient.
"""

from __future__ import annotations

from typing import Any

from distgrad.core.dispatch import as_tensor
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.core.user_line import warn
from distgrad.keras.activations import logits_of
from distgrad.keras.backend import epsilon
from distgrad.keras.losses.base import Loss, PlainLoss, floating, pair
from distgrad.ops.casting import cast
from distgrad.ops.clipping import clip
from distgrad.ops.cross_entropy import (
    check_labels,
    focused,
    mean_sparse_cross_entropy,
    sigmoid_cross_entropy,
    softmax_cross_entropy_with_logits,
    sparse_cross_entropy,
)
from distgrad.ops.exponential import log, sigmoid
from distgrad.ops.logic import not_equal, select
from distgrad.ops.nn import softmax
from distgrad.ops.powers import power
from distgrad.ops.reduce import reduce_mean, reduce_sum
from distgrad.ops.shape import expand_dims, squeeze


def _clipped(probabilities: Tensor) -> Tensor:
    return clip(probabilities, epsilon(), 1 - epsilon())


def _logits(scores: Tensor, from_logits: bool, activation: str) -> Tensor | None:
    """The logits behind ``scores``, None where they are probabilities from elsewhere."""
    found = logits_of(scores, activation)
    if found is not None and from_logits:
        warn(
            f"from_logits=True, but the predictions come from the {activation} activation; its "
            "logits are used"
        )
    return scores if from_logits and found is None else found


def _scores(y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor]:
    """Targets and predictions of exactly one shape; the predictions keep their logits."""
    scores = floating(y_pred)
    target = cast(as_tensor(y_true, like=scores._data.dtype), scores._data.dtype)
    if target._data.shape != scores._data.shape:
        target, scores = pair(target, scores)
    return target, scores


def _labels(y_true: Any, scores: Tensor) -> Tensor:
    labels = as_tensor(y_true)
    if labels._data.ndim == scores._data.ndim and labels._data.shape[-1] == 1:
        labels = squeeze(labels, -1)
    return labels if labels._data.dtype.kind in "iu" else cast(labels, "int64")


def sparse_categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
) -> Tensor:
    """``-log(probability of the class)``; 0 where the class number is ``ignore_class``.

    Raises InvalidArgumentError for labels outside the classes or of another shape, ValueError for
    another axis than the last.
    """
    logits, labels, counts = _of_classes(y_true, y_pred, from_logits, ignore_class, axis)
    values = bind(sparse_cross_entropy, logits, labels)
    return values if counts is None else select(counts, values, 0.0)


def _of_classes(
    y_true: Any, y_pred: Any, from_logits: bool, ignore_class: int | None, axis: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits, class numbers, and which of these count; None for all of them."""
    scores = floating(y_pred)
    if axis not in (-1, scores._data.ndim - 1):
        raise ValueError(f"sparse labels number the classes of the last axis, not of axis {axis}")
    labels, counts = _labels(y_true, scores), None
    if ignore_class is not None:
        labels = cast(labels, "int64")
        counts = not_equal(labels, ignore_class)
        labels = select(counts, labels, 0)
        scores = select(expand_dims(counts, -1), scores, 0.0)
    check_labels(labels, scores._data.shape)
    logits = _logits(scores, from_logits, "softmax")
    if logits is None:
        logits = log(_clipped(scores))  # whose softmax is the row again, renormalised
    return logits, labels, counts


def _smoothed(target: Tensor, smoothing: float, floor: float) -> Tensor:
    return target * (1.0 - smoothing) + smoothing * floor if smoothing else target


def _renormalised(scores: Tensor, axis: int) -> Tensor:
    return _clipped(scores / reduce_sum(scores, axis=axis, keepdims=True))


def categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Tensor:
    """``-sum(y_true * log(y_pred))`` over ``axis``; rows of ``y_pred`` are renormalised.

    Raises InvalidArgumentError where the shapes differ.
    """
    target, scores = _scores(y_true, y_pred)
    target = _smoothed(target, label_smoothing, 1 / target._data.shape[-1])
    logits = _logits(scores, from_logits, "softmax")
    if logits is not None:
        return softmax_cross_entropy_with_logits(target, logits, axis)
    return -reduce_sum(target * log(_renormalised(scores, axis)), axis=axis)


def binary_entropy(target: Tensor, scores: Tensor, from_logits: bool) -> Tensor:
    """``-target * log(scores) - (1 - target) * log(1 - scores)`` of each element."""
    logits = _logits(scores, from_logits, "sigmoid")
    if logits is not None:
        return sigmoid_cross_entropy(logits, target)
    p = _clipped(scores)
    return -(target * log(p) + (1.0 - target) * log(1.0 - p))


def binary_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Tensor:
    """Mean of ``-y_true * log(y_pred) - (1 - y_true) * log(1 - y_pred)`` over ``axis``.

    Raises InvalidArgumentError where the shapes differ.
    """
    target, scores = _scores(y_true, y_pred)
    target = _smoothed(target, label_smoothing, 0.5)
    return reduce_mean(binary_entropy(target, scores, from_logits), axis=axis)


def binary_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Tensor:
    """Binary cross entropy times ``(1 - probability of the target) ** gamma`` (Lin et al. 2018)."""
    target, scores = _scores(y_true, y_pred)
    target = _smoothed(target, label_smoothing, 0.5)
    p = sigmoid(scores) if from_logits else scores
    entropies = binary_entropy(target, scores, from_logits)
    balance = alpha if apply_class_balancing else None
    return reduce_mean(focused(entropies, target, p, gamma, balance), axis=axis)


def categorical_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Tensor:
    """Categorical cross entropy with each term times ``alpha * (1 - p) ** gamma``."""
    target, scores = _scores(y_true, y_pred)
    target = _smoothed(target, label_smoothing, 1 / target._data.shape[-1])
    p = _renormalised(softmax(scores, axis) if from_logits else scores, axis)
    return reduce_sum(power(1.0 - p, gamma) * alpha * (-target * log(p)), axis=axis)


def kl_divergence(y_true: Any, y_pred: Any) -> Tensor:
    """``sum(y_true * log(y_true / y_pred))`` over the last axis (Kullback and Leibler, 1951)."""
    target, prediction = (clip(x, epsilon(), 1.0) for x in pair(y_true, y_pred))
    return reduce_sum(target * log(target / prediction), axis=-1)


def poisson(y_true: Any, y_pred: Any) -> Tensor:
    """Mean of ``y_pred - y_true * log(y_pred)`` over the last axis."""
    target, prediction = pair(y_true, y_pred)
    return reduce_mean(prediction - target * log(prediction + epsilon()), axis=-1)


class KLDivergence(PlainLoss):
    """``sum(y_true * log(y_true / y_pred))`` over the last axis."""

    fn = staticmethod(kl_divergence)


class Poisson(PlainLoss):
    """Mean of ``y_pred - y_true * log(y_pred)`` over the last axis."""

    fn = staticmethod(poisson)


class SparseCategoricalCrossentropy(Loss):
    """Cross entropy of class numbers under predicted probabilities (or logits).

    Raises InvalidArgumentError for labels outside the classes or of another shape. Labels equal to
    ``ignore_class`` count for nothing; the mean is one over the others.
    """

    casts_targets = False

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.from_logits = from_logits
        self.ignore_class = ignore_class
        self.axis = axis

    def call(self, y_true: Any, y_pred: Tensor) -> Tensor:
        return sparse_categorical_crossentropy(
            y_true, y_pred, self.from_logits, self.ignore_class, self.axis
        )

    def _in_one(self, y_true: Tensor, y_pred: Tensor) -> Tensor | None:
        own = type(self).call is SparseCategoricalCrossentropy.call
        if not own or self.ignore_class is not None or not y_true._data.size:
            return None
        logits, labels, _ = _of_classes(y_true, y_pred, self.from_logits, None, self.axis)
        return bind(mean_sparse_cross_entropy, logits, labels)

    def mask(self, y_true: Tensor) -> Tensor | None:
        if self.ignore_class is None:
            return None
        return not_equal(cast(y_true, "int64"), self.ignore_class)


def kind_of_targets(target: tuple[int, ...], score: tuple[int, ...]) -> str:
    """What targets of one shape are to scores of another: "binary", "sparse" or "categorical"."""
    if score[-1:] == (1,):
        return "binary"
    return "sparse" if len(target) < len(score) or target[-1:] == (1,) else "categorical"


class FittingCrossentropy(Loss):
    """What "crossentropy" means in ``compile``: binary, sparse or categorical, by the shapes."""

    casts_targets = False

    def call(self, y_true: Any, y_pred: Tensor) -> Tensor:
        fitting = _FITTING[kind_of_targets(y_true._data.shape, y_pred._data.shape)]
        return fitting(y_true, y_pred)


_FITTING = {
    "binary": binary_crossentropy,
    "sparse": sparse_categorical_crossentropy,
    "categorical": categorical_crossentropy,
}


class _Smoothing(Loss):
    """What the cross entropies of probabilities have in common."""

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must lie in [0, 1], not {label_smoothing!r}")
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing
        self.axis = axis


class CategoricalCrossentropy(_Smoothing):
    """Cross entropy of rows of probabilities under predicted ones (or logits)."""

    def call(self, y_true: Any, y_pred: Tensor) -> Tensor:
        return categorical_crossentropy(
            y_true, y_pred, self.from_logits, self.label_smoothing, self.axis
        )


class BinaryCrossentropy(_Smoothing):
    """Cross entropy of independent classes, its mean over ``axis``."""

    def call(self, y_true: Any, y_pred: Tensor) -> Tensor:
        return binary_crossentropy(
            y_true, y_pred, self.from_logits, self.label_smoothing, self.axis
        )


class BinaryFocalCrossentropy(_Smoothing):
    """Binary cross entropy that turns from what is predicted well (Lin et al., 2018)."""

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)
        self.apply_class_balancing = apply_class_balancing
        self.alpha = alpha
        self.gamma = gamma

    def call(self, y_true: Any, y_pred: Tensor) -> Tensor:
        return binary_focal_crossentropy(
            y_true,
            y_pred,
            self.apply_class_balancing,
            self.alpha,
            self.gamma,
            self.from_logits,
            self.label_smoothing,
            self.axis,
        )


class CategoricalFocalCrossentropy(_Smoothing):
    """Categorical cross entropy that turns from what is predicted well."""

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)
        self.alpha = alpha
        self.gamma = gamma

    def call(self, y_true: Any, y_pred: Tensor) -> Tensor:
        return categorical_focal_crossentropy(
            y_true,
            y_pred,
            self.alpha,
            self.gamma,
            self.from_logits,
            self.label_smoothing,
            self.axis,
        )
