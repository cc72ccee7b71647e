"""Metrics of yes and no at thresholds: how many samples lie between two thresholds is additive.

A prediction above a threshold says yes to it. The statistics are two histograms of predictions, of
the samples whose target is yes and of the others; everything else follows from their tails.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from distgrad.keras.metrics.base import Metric, Value
from distgrad.keras.metrics.statistic import SoFar
from distgrad.keras.metrics.weighing import arrays, host

_LOWEST = -1e10  # below any score


class Counts(NamedTuple):
    """Weighted numbers of samples at each threshold, arrays of shape (thresholds, ...)."""

    true_positives: np.ndarray
    false_positives: np.ndarray
    true_negatives: np.ndarray
    false_negatives: np.ndarray


def _counted(field: str) -> SoFar:
    """One of the ``Counts``."""
    return SoFar(
        lambda metric, sums: getattr(metric.counts(sums), field),
        lambda metric, sums, value: metric.put(sums, field, value),
    )


class Thresholded(Metric):
    """Base of metrics that are a function of ``Counts``.

    ``top_k`` keeps the k largest scores of a row and takes all others for no; ``class_id`` looks at
    one column only.
    """

    top_k: int | None = None
    class_id: int | None = None
    _numbered = True
    true_positives = _counted("true_positives")
    false_positives = _counted("false_positives")
    true_negatives = _counted("true_negatives")
    false_negatives = _counted("false_negatives")
    _kept: tuple[str, ...] = Counts._fields

    def _set_thresholds(self, thresholds: Sequence[float]) -> None:
        given = np.asarray(thresholds, np.float32)
        self._order = np.argsort(given, kind="stable")
        self._sorted = given[self._order]
        self._set_labels(None)
        even = np.arange(len(given), dtype=np.float32) / np.float32(max(len(given) - 1, 1))
        self._even = len(given) > 2 and np.allclose(given, even, atol=1e-7)

    def _set_labels(self, labels: int | None) -> None:
        """Says how many columns are counted apart; None for all of them together."""
        self._labels = labels
        self._shape = (2, len(self._sorted) + 1, *(() if labels is None else (labels,)))
        self.size = int(np.prod(self._shape))

    def _bins(self, scores: np.ndarray) -> np.ndarray:
        """How many thresholds each score exceeds."""
        if not self._even:
            return np.searchsorted(self._sorted, scores, side="left")
        # In float32, as Keras does it for evenly spaced thresholds.
        steps = np.float32(len(self._sorted) - 1)
        bins = np.ceil(np.clip(scores, 0, 1) * steps).astype(np.int64)
        return np.maximum(bins, 1) if self._sorted[0] < 0 else bins

    def _scores(self, y_pred: Any) -> np.ndarray:
        return host(y_pred)

    def sums(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> np.ndarray:
        scores, target = arrays(self._scores(y_pred), y_true)
        scores = scores.astype(np.float32)
        self.expect(scores.shape)
        if self.top_k is not None:
            rank = np.argsort(np.argsort(-scores, axis=-1, kind="stable"), axis=-1)
            scores = np.where(rank < self.top_k, scores, np.float32(_LOWEST))
        if self.class_id is not None:
            if scores.ndim < 2:
                raise ValueError(f"class_id needs one column per class, not {scores.shape}")
            scores, target = scores[..., self.class_id, None], target[..., self.class_id, None]
        weight = self._weight(sample_weight, scores.shape)
        bins = self._bins(np.where(np.isnan(scores), np.float32(_LOWEST), scores))
        if self._labels is not None:
            if scores.ndim != 2 or scores.shape[1] != self._labels:
                raise ValueError(
                    f"predictions of shape {scores.shape} for num_labels={self._labels}"
                )
            bins = bins * self._labels + np.arange(self._labels)
        yes = np.broadcast_to(target.astype(bool), scores.shape)
        length = self.size // 2
        halves = [np.bincount(bins[m], weight[m], length) for m in (yes, ~yes)]
        return np.concatenate(halves)

    def _weight(self, sample_weight: Any, shape: tuple[int, ...]) -> np.ndarray:
        if sample_weight is None:
            return np.ones(shape)
        weight = host(sample_weight).astype(np.float64)
        weight = weight.reshape(weight.shape + (1,) * (len(shape) - weight.ndim))
        return np.broadcast_to(weight, shape)

    def counts(self, sums: np.ndarray) -> Counts:
        """The counts at each threshold, in the order in which they were given."""
        tails = np.cumsum(sums.reshape(self._shape)[:, ::-1], axis=1)[:, ::-1]
        totals, above = tails[:, :1], np.empty_like(tails[:, 1:])
        above[:, self._order] = tails[:, 1:]
        below = totals - above
        return Counts(above[0], above[1], below[1], below[0])

    def put(self, sums: np.ndarray, field: str, value: np.ndarray) -> None:
        """Makes one of the counts be ``value``; of the same samples another may change with it."""
        row = 0 if field in ("true_positives", "false_negatives") else 1
        bins, ordered = sums.reshape(self._shape)[row], value[self._order]
        if field.endswith("_positives"):
            bins[1:] = np.diff(ordered[::-1], axis=0, prepend=0)[::-1]
        else:
            bins[:-1] = np.diff(ordered, axis=0, prepend=0)


def ratio(part: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """``part / (part + rest)``, 0 where both are 0."""
    return quotient(part, part + rest)


def quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a / b``, 0 where ``b`` is 0."""
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b != 0)


class _AtThresholds(Thresholded):
    """One value, or one for each of several thresholds."""

    def __init__(
        self, thresholds: float | Sequence[float] | None, name: str | None, dtype: Any
    ) -> None:
        super().__init__(name, dtype)
        self.thresholds = thresholds
        default = 0.5 if self.top_k is None else _LOWEST
        chosen = [default] if thresholds is None else np.ravel(thresholds).tolist()
        if thresholds is not None and not all(t is not None and 0 <= t <= 1 for t in chosen):
            raise ValueError(f"thresholds must lie in [0, 1], not {thresholds!r}")
        self._set_thresholds(chosen)

    def _of(self, counts: Counts) -> np.ndarray:
        raise NotImplementedError

    def value(self, sums: np.ndarray) -> Value:
        values = self._of(self.counts(sums)).tolist()
        return values[0] if len(values) == 1 else values


class _Count(_AtThresholds):
    field: str
    accumulator = SoFar(
        lambda metric, sums: metric._of(metric.counts(sums)),
        lambda metric, sums, value: metric.put(sums, metric.field, value),
    )
    _kept = ("accumulator",)

    def __init__(
        self,
        thresholds: float | Sequence[float] | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(thresholds, name, dtype)

    def _of(self, counts: Counts) -> np.ndarray:
        found: np.ndarray = getattr(counts, self.field)
        return found


class TruePositives(_Count):
    """Weighted number of samples that are rightly said to be positive."""

    field = "true_positives"


class FalsePositives(_Count):
    """Weighted number of samples that are wrongly said to be positive."""

    field = "false_positives"


class TrueNegatives(_Count):
    """Weighted number of samples that are rightly said to be negative."""

    field = "true_negatives"


class FalseNegatives(_Count):
    """Weighted number of samples that are wrongly said to be negative."""

    field = "false_negatives"


class _OfColumns(_AtThresholds):
    direction = "up"

    def __init__(
        self,
        thresholds: float | Sequence[float] | None = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        self.top_k = top_k
        self.class_id = class_id
        super().__init__(thresholds, name, dtype)


class Precision(_OfColumns):
    """Share of samples said to be positive that are so."""

    _kept = ("true_positives", "false_positives")

    def _of(self, counts: Counts) -> np.ndarray:
        return ratio(counts.true_positives, counts.false_positives)


class Recall(_OfColumns):
    """Share of positive samples that are said to be so."""

    _kept = ("true_positives", "false_negatives")

    def _of(self, counts: Counts) -> np.ndarray:
        return ratio(counts.true_positives, counts.false_negatives)


class _Constrained(Thresholded):
    """The best of one rate at any threshold where another is large enough."""

    direction = "up"

    def __init__(
        self,
        key: str,
        bound: float,
        num_thresholds: int,
        class_id: int | None,
        name: str | None,
        dtype: Any,
    ) -> None:
        super().__init__(name, dtype)
        if not 0 <= bound <= 1:
            raise ValueError(f"{key} must lie in [0, 1], not {bound!r}")
        if num_thresholds < 1:
            raise ValueError(f"num_thresholds must be 1 or more, not {num_thresholds!r}")
        self._bound = bound
        self.num_thresholds = num_thresholds
        self.class_id = class_id
        inner = [i / (num_thresholds - 1) for i in range(1, num_thresholds - 1)]
        self.thresholds = [0.5] if num_thresholds == 1 else [0.0, *inner, 1.0]
        self._set_thresholds(self.thresholds)
        self._even = num_thresholds > 1

    def _rates(self, counts: Counts) -> tuple[np.ndarray, np.ndarray]:
        """The rate that is bound, and the one to maximise."""
        raise NotImplementedError

    def value(self, sums: np.ndarray) -> Value:
        bound, wanted = self._rates(self.counts(sums))
        return float(np.where(bound >= self._bound, wanted, 0.0).max(initial=0.0))


class SensitivityAtSpecificity(_Constrained):
    """The largest true-positive rate where the true-negative rate is ``specificity`` or more."""

    def __init__(
        self,
        specificity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__("specificity", specificity, num_thresholds, class_id, name, dtype)
        self.specificity = specificity

    def _rates(self, counts: Counts) -> tuple[np.ndarray, np.ndarray]:
        tp, fp, tn, fn = counts
        return ratio(tn, fp), ratio(tp, fn)


class SpecificityAtSensitivity(_Constrained):
    """The largest true-negative rate where the true-positive rate is ``sensitivity`` or more."""

    def __init__(
        self,
        sensitivity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__("sensitivity", sensitivity, num_thresholds, class_id, name, dtype)
        self.sensitivity = sensitivity

    def _rates(self, counts: Counts) -> tuple[np.ndarray, np.ndarray]:
        tp, fp, tn, fn = counts
        return ratio(tp, fn), ratio(tn, fp)


class PrecisionAtRecall(_Constrained):
    """The largest precision where the recall is ``recall`` or more."""

    def __init__(
        self,
        recall: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__("recall", recall, num_thresholds, class_id, name, dtype)
        self.recall = recall

    def _rates(self, counts: Counts) -> tuple[np.ndarray, np.ndarray]:
        tp, fp, _, fn = counts
        return ratio(tp, fn), ratio(tp, fp)


class RecallAtPrecision(_Constrained):
    """The largest recall where the precision is ``precision`` or more."""

    def __init__(
        self,
        precision: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__("precision", precision, num_thresholds, class_id, name, dtype)
        self.precision = precision

    def _rates(self, counts: Counts) -> tuple[np.ndarray, np.ndarray]:
        tp, fp, _, fn = counts
        return ratio(tp, fp), ratio(tp, fn)
