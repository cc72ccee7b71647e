"""The area under a curve of rates, from histograms of the predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.keras.metrics.base import Value
from distgrad.keras.metrics.confusion import Counts, Thresholded, quotient, ratio
from distgrad.keras.metrics.weighing import host
from distgrad.ops.exponential import sigmoid

_EPSILON = 1e-7
_CURVES = ("ROC", "PR", "PRGAIN")
_METHODS = ("interpolation", "minoring", "majoring")


class AUC(Thresholded):
    """Area under the ROC, precision-recall or precision-recall-gain curve at fixed thresholds.

    ``summation_method`` takes the mean height of a strip (for PR: the interpolation of Davis and
    Goadrich, 2006), its smaller or its larger one. With ``multi_label`` the areas of ``num_labels``
    columns, or all that the first predictions have, are averaged, by ``label_weights``; without,
    these weigh the columns of a sample. ``thresholds`` are then all of them, with the two just
    outside of [0, 1]. Raises ValueError for other names, fewer than 2 thresholds,
    or ``num_labels`` without ``multi_label``.
    """

    direction = "up"

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: Any = None,
        thresholds: Sequence[float] | None = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Sequence[float] | None = None,
        from_logits: bool = False,
    ) -> None:
        super().__init__(name, dtype)
        if str(curve).upper() not in _CURVES:
            raise ValueError(f"curve must be one of {_CURVES}, not {curve!r}")
        if str(summation_method).lower() not in _METHODS:
            raise ValueError(f"summation_method must be one of {_METHODS}: {summation_method!r}")
        if thresholds is None and num_thresholds < 2:
            raise ValueError(f"num_thresholds must be 2 or more, not {num_thresholds!r}")
        if num_labels and not multi_label:
            raise ValueError("num_labels goes with multi_label=True, and with nothing else")
        self.curve = str(curve).upper()
        self.summation_method = str(summation_method).lower()
        self.multi_label = multi_label
        self.num_labels = num_labels
        self.label_weights = label_weights
        self.from_logits = from_logits
        if thresholds is None:
            inner = [i / (num_thresholds - 1) for i in range(1, num_thresholds - 1)]
        else:
            inner = sorted(float(t) for t in thresholds)
        self.num_thresholds = len(inner) + 2
        self.thresholds = [0.0 - _EPSILON, *inner, 1.0 + _EPSILON]
        self._chosen = thresholds is not None
        self._set_thresholds(self.thresholds)
        self._set_labels(num_labels or None)
        self._even = self._even or thresholds is None

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; of thresholds those alone that were given."""
        return {
            **super().get_config(),
            "thresholds": self.thresholds[1:-1] if self._chosen else None,
        }

    def expect(self, shape: tuple[int, ...]) -> None:
        if self.multi_label and self._labels is None:
            self._set_labels(shape[-1])

    def _scores(self, y_pred: Any) -> np.ndarray:
        return host(sigmoid(y_pred) if self.from_logits else y_pred)

    def _weight(self, sample_weight: Any, shape: tuple[int, ...]) -> np.ndarray:
        weight = super()._weight(sample_weight, shape)
        if self.label_weights is None or self.multi_label:
            return weight
        return weight * np.asarray(self.label_weights, np.float64)

    def value(self, sums: np.ndarray) -> Value:
        counts = self.counts(sums)
        if (self.curve, self.summation_method) == ("PR", "interpolation"):
            areas = _interpolated(counts)
        else:
            x, y = self._curve(counts)
            left, right = y[:-1], y[1:]
            height = {
                "interpolation": (left + right) / 2,
                "minoring": np.minimum(left, right),
                "majoring": np.maximum(left, right),
            }[self.summation_method]
            areas = ((x[:-1] - x[1:]) * height).sum(axis=0)
        if not self.multi_label or self.label_weights is None:
            return float(areas.mean())
        return float(np.average(areas, weights=self.label_weights))

    def _curve(self, counts: Counts) -> tuple[np.ndarray, np.ndarray]:
        tp, fp, tn, fn = counts
        if self.curve == "ROC":
            return ratio(fp, tn), ratio(tp, fn)
        if self.curve == "PR":
            return ratio(tp, fn), ratio(tp, fp)
        odds = quotient(tp + fn, tn + fp)
        recall = np.where(tp == 0, 0.0, 1 - odds * quotient(fn, tp))
        precision = np.where(tp == 0, 1.0, 1 - odds * quotient(fp, tp))
        return np.maximum(recall, 0.0), precision


def _interpolated(counts: Counts) -> np.ndarray:
    """The area under precision over recall with true positives interpolated between thresholds."""
    tp, fp, _, fn = counts
    said = tp + fp
    slope = quotient(tp[:-1] - tp[1:], np.maximum(said[:-1] - said[1:], 0))
    intercept = tp[1:] - slope * said[1:]
    both = (said[:-1] > 0) & (said[1:] > 0)
    growth = np.divide(said[:-1], said[1:], out=np.ones_like(slope), where=both)
    strips = slope * (tp[:-1] - tp[1:] + intercept * np.log(growth))
    return quotient(strips, np.maximum(tp[1:] + fn[1:], 0)).sum(axis=0)
