"""Metrics of several classes: F scores and intersections over unions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.keras.metrics.base import Metric, Value
from distgrad.keras.metrics.statistic import SoFar
from distgrad.keras.metrics.weighing import arrays, host

_EPSILON = 1e-7


class FBetaScore(Metric):
    """Weighted harmonic mean of precision and recall, for one-hot (or multi-hot) targets.

    ``average`` is "micro" (one score of all classes together), "macro" or "weighted" (means over
    classes), or None for one score per class. Without ``num_classes`` there are as many as the
    first predictions have columns, without a ``threshold`` the largest score of a row says yes.
    Raises ValueError for other settings.
    """

    direction = "up"

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str | None = None,
        dtype: Any = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__(name or "fbeta_score", dtype)
        if average not in (None, "micro", "macro", "weighted"):
            raise ValueError(f"average must be micro, macro, weighted or None, not {average!r}")
        if not isinstance(beta, (int, float)) or not beta > 0:
            raise ValueError(f"beta must be a positive number, not {beta!r}")
        if threshold is not None and not (
            isinstance(threshold, (int, float)) and 0 < threshold <= 1
        ):
            raise ValueError(f"threshold must be a number in (0, 1], not {threshold!r}")
        self.average = average
        self.beta = beta
        self.threshold = threshold
        self.num_classes = num_classes
        self.size = 3 * (1 if average == "micro" else int(num_classes or 1))

    def expect(self, shape: tuple[int, ...]) -> None:
        if self.num_classes is None and self.average != "micro":
            self.num_classes = shape[-1]
            self.size = 3 * self.num_classes

    def sums(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> np.ndarray:
        target, scores = (array.astype(np.float64) for array in arrays(y_true, y_pred))
        if target.ndim != 2 or target.shape != scores.shape:
            raise ValueError(
                f"{type(self).__name__} takes targets and predictions of shape (batch, classes), "
                f"got {target.shape} and {scores.shape}"
            )
        self.expect(scores.shape)
        if self.threshold is None:
            yes = (scores >= scores.max(axis=-1, keepdims=True)) & (np.abs(scores) > 1e-9)
        else:
            yes = scores.astype(np.float32) > np.float32(self.threshold)
        weight = np.ones(1) if sample_weight is None else host(sample_weight).astype(np.float64)
        parts = (yes * target, yes * (1 - target), ~yes * target)
        axis = None if self.average == "micro" else 0
        return np.concatenate([np.ravel((p * weight[:, None]).sum(axis=axis)) for p in parts])

    def value(self, sums: np.ndarray) -> Value:
        tp, fp, fn = sums.reshape(3, -1)
        precision, recall = tp / (tp + fp + _EPSILON), tp / (tp + fn + _EPSILON)
        mean = precision * recall / (self.beta**2 * precision + recall + _EPSILON)
        scores = mean * (1 + self.beta**2)
        if self.average == "weighted":
            return float((scores * (tp + fn) / ((tp + fn).sum() + _EPSILON)).sum())
        return scores.tolist() if self.average is None else float(scores.mean())


class F1Score(FBetaScore):
    """Harmonic mean of precision and recall; see FBetaScore."""

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str | None = None,
        dtype: Any = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__(average, 1.0, threshold, name or "f1_score", dtype, num_classes)

    def get_config(self) -> dict[str, Any]:
        return {key: value for key, value in super().get_config().items() if key != "beta"}


class IoU(Metric):
    """Mean over ``target_class_ids`` of intersection over union of targets and predictions.

    Both are class numbers, or scores of which the largest along ``axis`` counts where
    ``sparse_y_true`` or ``sparse_y_pred`` is False. Numbers outside the classes and those of
    ``ignore_class`` do not count. ``total_cm`` has how much of each class (rows) was predicted to
    be of each (columns). Raises ValueError for a target class that does not exist.
    """

    direction = "up"
    _numbered = True
    total_cm = SoFar(
        lambda self, sums: sums.reshape(self.num_classes, self.num_classes),
        name="total_confusion_matrix",
    )
    _kept = ("total_cm",)

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        super().__init__(name, dtype)
        if any(not 0 <= each < num_classes for each in target_class_ids):
            raise ValueError(f"target_class_ids {target_class_ids} outside [0, {num_classes})")
        self.num_classes = num_classes
        self.target_class_ids = list(target_class_ids)
        self.ignore_class = ignore_class
        self.sparse_y_true = sparse_y_true
        self.sparse_y_pred = sparse_y_pred
        self.axis = axis
        self.size = num_classes**2

    def sums(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> np.ndarray:
        target, found = host(y_true), host(y_pred)
        target = target if self.sparse_y_true else target.argmax(axis=self.axis)
        found = found if self.sparse_y_pred else found.argmax(axis=self.axis)
        target, found = arrays(target.astype(np.int64), found.astype(np.int64))
        weight = np.ones(()) if sample_weight is None else host(sample_weight).astype(np.float64)
        weight = weight.reshape(weight.shape + (1,) * (target.ndim - weight.ndim))
        weight = np.broadcast_to(weight, target.shape)
        counts = (target >= 0) & (target < self.num_classes)
        counts &= (found >= 0) & (found < self.num_classes)
        if self.ignore_class is not None:
            counts &= target != self.ignore_class
        cells = target[counts] * self.num_classes + found[counts]
        return np.bincount(cells, weight[counts], self.size)

    def value(self, sums: np.ndarray) -> Value:
        table = sums.reshape(self.num_classes, self.num_classes)
        both = np.diag(table)
        either = table.sum(axis=0) + table.sum(axis=1) - both
        chosen = np.array(self.target_class_ids)
        both, either = both[chosen], either[chosen]
        there = either > 1e-9
        shares = np.where(there, both / (either + _EPSILON), 0.0)
        return float(shares.sum() / (there.sum() + _EPSILON))


class MeanIoU(IoU):
    """Mean over all classes of intersection over union."""

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        super().__init__(
            num_classes,
            range(num_classes),
            name,
            dtype,
            ignore_class,
            sparse_y_true,
            sparse_y_pred,
            axis,
        )

    def get_config(self) -> dict[str, Any]:
        return {k: v for k, v in super().get_config().items() if k != "target_class_ids"}


class OneHotIoU(IoU):
    """`IoU` of targets with a single 1 in each row, and of scores (or ``sparse_y_pred``)."""

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(
            num_classes, target_class_ids, name, dtype, ignore_class, False, sparse_y_pred, axis
        )

    def get_config(self) -> dict[str, Any]:
        return {k: v for k, v in super().get_config().items() if k != "sparse_y_true"}


class OneHotMeanIoU(MeanIoU):
    """`MeanIoU` of targets with a single 1 in each row, and of scores, or numbers."""

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, name, dtype, ignore_class, False, sparse_y_pred, axis)

    def get_config(self) -> dict[str, Any]:
        return {k: v for k, v in super().get_config().items() if k != "sparse_y_true"}


class BinaryIoU(IoU):
    """Intersection over union of yes and no, for scores and a threshold."""

    def __init__(
        self,
        target_class_ids: Sequence[int] = (0, 1),
        threshold: float = 0.5,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(2, target_class_ids, name, dtype)
        self.threshold = threshold

    def sums(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> np.ndarray:
        scores = host(y_pred).astype(np.float32)
        return super().sums(y_true, scores >= np.float32(self.threshold), sample_weight)
