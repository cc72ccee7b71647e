"""Non-maximum suppression of boxes, on the host: a captured function runs it eagerly."""

from __future__ import annotations

import heapq
import math
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Tensor
from distgrad.ops.layout import beside


def non_max_suppression(
    boxes: Any,
    scores: Any,
    max_output_size: Any,
    iou_threshold: Any = 0.5,
    score_threshold: Any = float("-inf"),
    name: str | None = None,
) -> Tensor:
    """Which of n ``boxes`` (y1, x1, y2, x2) stay, the best first, int32: none overlaps a better.

    Boxes overlap where their intersection is more than ``iou_threshold`` of their union. Raises
    InvalidArgumentError unless there are boxes ``[n, 4]`` and n scores.
    """
    return non_max_suppression_with_scores(
        boxes, scores, max_output_size, iou_threshold, score_threshold
    )[0]


def non_max_suppression_with_scores(
    boxes: Any,
    scores: Any,
    max_output_size: Any,
    iou_threshold: Any = 0.5,
    score_threshold: Any = float("-inf"),
    soft_nms_sigma: Any = 0.0,
    name: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Which boxes stay, and their scores; with a ``soft_nms_sigma`` an overlap lowers the score.

    Soft suppression is that of Bodla et al. (2017). Raises InvalidArgumentError as
    ``non_max_suppression`` does.
    """
    x, y = as_tensor(boxes), as_tensor(scores)
    count = y._data.shape
    if len(count) != 1 or x._data.shape != (*count, 4):
        raise InvalidArgumentError(
            f"non_max_suppression takes boxes [n, 4] and n scores, not {x.shape} and {y.shape}"
        )
    if not 0 <= float(iou_threshold) <= 1:
        raise InvalidArgumentError(f"iou_threshold lies in [0, 1], not {iou_threshold!r}")
    corners = np.asarray(x._host())
    low = np.minimum(corners[:, :2], corners[:, 2:])
    high = np.maximum(corners[:, :2], corners[:, 2:])
    chosen, kept = _suppressed(
        low, high, np.asarray(y._host()), int(max_output_size), float(iou_threshold),
        float(score_threshold), float(soft_nms_sigma),
    )  # fmt: skip
    return beside(y, np.array(chosen, np.int32)), beside(y, np.array(kept, y._data.dtype))


def _suppressed(
    low: np.ndarray,
    high: np.ndarray,
    scores: np.ndarray,
    most: int,
    limit: float,
    least: float,
    sigma: float,
) -> tuple[list[int], list[float]]:
    areas = np.prod(high - low, axis=1)
    waiting = [(-float(s), i, 0) for i, s in enumerate(scores) if s > least]
    heapq.heapify(waiting)  # the best first; of equal ones the first in the list
    chosen: list[int] = []
    kept: list[float] = []
    while waiting and len(chosen) < most:
        negative, i, seen = heapq.heappop(waiting)
        score = -negative
        others = chosen[seen:]
        sides = np.minimum(high[i], high[others]) - np.maximum(low[i], low[others])
        shared = np.prod(np.maximum(sides, 0), axis=1)
        union = areas[i] + areas[others] - shared
        overlap = np.where(shared > 0, shared / np.where(shared > 0, union, 1), 0)
        if sigma > 0:
            lowered = score * math.exp(-0.5 / sigma * float((overlap**2).sum()))
            if lowered != score:
                if lowered > least:
                    heapq.heappush(waiting, (-lowered, i, len(chosen)))
                continue
        elif (overlap > limit).any():
            continue
        chosen.append(i)
        kept.append(score)
    return chosen, kept
