"""Non-maximum suppression of boxes, and boxes drawn: on the host, a captured function runs them
eagerly."""

from __future__ import annotations

import heapq
import math
from typing import Any, NamedTuple

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
    chosen, kept = _suppressed(
        np.asarray(x._host()), np.asarray(y._host()), int(max_output_size),
        _share(iou_threshold), float(score_threshold), float(soft_nms_sigma),
    )  # fmt: skip
    return beside(y, np.array(chosen, np.int32)), beside(y, np.array(kept, y._data.dtype))


def non_max_suppression_padded(
    boxes: Any,
    scores: Any,
    max_output_size: Any,
    iou_threshold: Any = 0.5,
    score_threshold: Any = float("-inf"),
    pad_to_max_output_size: bool = False,
    name: str | None = None,
    sorted_input: bool = False,
    canonicalized_coordinates: bool = False,
    tile_size: int = 512,
) -> tuple[Tensor, Tensor]:
    """Which of ``[..., n, 4]`` boxes stay, as ``non_max_suppression`` says, and how many, int32.

    ``pad_to_max_output_size`` fills up with zeros, and lets there be batches (a ValueError
    otherwise). What is said of order, corners and tiles changes nothing. Raises
    InvalidArgumentError unless there is a score for each box.
    """
    x, y = as_tensor(boxes), as_tensor(scores)
    batch, most = y._data.shape[:-1], int(max_output_size)
    if not y._data.ndim or x._data.shape != (*y._data.shape, 4):
        raise InvalidArgumentError(
            "non_max_suppression_padded takes boxes [..., n, 4] and scores [..., n], not "
            f"{x.shape} and {y.shape}"
        )
    if batch and not pad_to_max_output_size:
        raise ValueError("batches of boxes need pad_to_max_output_size=True")
    corners, points = np.asarray(x._host()), np.asarray(y._host())
    indices, counts = np.zeros((*batch, most), np.int32), np.zeros(batch, np.int32)
    for at in np.ndindex(*batch):
        chosen, _ = _suppressed(
            corners[at], points[at], most, _share(iou_threshold), float(score_threshold), 0.0
        )
        counts[at] = len(chosen)
        indices[at][: len(chosen)] = chosen
    if not pad_to_max_output_size:
        indices = indices[: int(counts)]
    return beside(y, indices), beside(y, counts)


class CombinedNonMaxSuppression(NamedTuple):
    """What ``combined_non_max_suppression`` gives."""

    nmsed_boxes: Tensor
    nmsed_scores: Tensor
    nmsed_classes: Tensor
    valid_detections: Tensor


def combined_non_max_suppression(
    boxes: Any,
    scores: Any,
    max_output_size_per_class: Any,
    max_total_size: Any,
    iou_threshold: Any = 0.5,
    score_threshold: Any = float("-inf"),
    pad_per_class: bool = False,
    clip_boxes: bool = True,
    name: str | None = None,
) -> CombinedNonMaxSuppression:
    """``non_max_suppression`` of each class of each image, and the best of all classes together.

    ``boxes`` are ``[batch, n, 1 or classes, 4]``, ``scores`` ``[batch, n, classes]``. The results,
    filled up with zeros, are ``max_total_size`` long, but with ``pad_per_class`` no longer than
    all classes give; ``clip_boxes`` cuts the boxes to [0, 1]. Raises InvalidArgumentError for
    other shapes.
    """
    x, y = as_tensor(boxes), as_tensor(scores)
    shape = y._data.shape
    if len(shape) != 3 or x._data.shape not in ((*shape[:2], 1, 4), (*shape, 4)):
        raise InvalidArgumentError(
            "combined_non_max_suppression takes boxes [batch, n, 1 or classes, 4] and scores "
            f"[batch, n, classes], not {x.shape} and {y.shape}"
        )
    batch, _, classes = shape
    per_class, size = int(max_output_size_per_class), int(max_total_size)
    if pad_per_class:
        size = min(size, per_class * classes)
    corners, points = np.asarray(x._host()), np.asarray(y._host())
    found = np.zeros((batch, size, 4), corners.dtype)
    values, kinds = np.zeros((2, batch, size), points.dtype)
    counts = np.zeros(batch, np.int32)
    for image in range(batch):
        best: list[tuple[float, int, int]] = []
        for kind in range(classes):
            of_class = corners[image, :, kind if corners.shape[2] > 1 else 0]
            chosen, kept = _suppressed(
                of_class, points[image, :, kind], per_class, _share(iou_threshold),
                float(score_threshold), 0.0,
            )  # fmt: skip
            best += [(score, kind, i) for score, i in zip(kept, chosen, strict=True)]
        best.sort(key=lambda row: -row[0])
        counts[image] = len(best[:size])
        for place, (score, kind, i) in enumerate(best[:size]):
            found[image, place] = corners[image, i, kind if corners.shape[2] > 1 else 0]
            values[image, place], kinds[image, place] = score, kind
    if clip_boxes:
        found = np.clip(found, 0, 1)
    return CombinedNonMaxSuppression(*[beside(y, a) for a in (found, values, kinds, counts)])


def _share(iou_threshold: Any) -> float:
    if not 0 <= float(iou_threshold) <= 1:
        raise InvalidArgumentError(f"iou_threshold lies in [0, 1], not {iou_threshold!r}")
    return float(iou_threshold)


def _suppressed(
    corners: np.ndarray, scores: np.ndarray, most: int, limit: float, least: float, sigma: float
) -> tuple[list[int], list[float]]:
    low = np.minimum(corners[:, :2], corners[:, 2:])
    high = np.maximum(corners[:, :2], corners[:, 2:])
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


# The colours of boxes where none are given: red, green, blue and how opaque, from yellow on.
_COLOURS = (
    (1, 1, 0, 1), (0, 0, 1, 1), (1, 0, 0, 1), (0, 1, 0, 1), (0.5, 0, 0.5, 1),
    (0.5, 0.5, 0, 1), (0.5, 0, 0, 1), (0, 0, 0.5, 1), (0, 1, 1, 1), (1, 0, 1, 1),
)  # fmt: skip


def draw_bounding_boxes(images: Any, boxes: Any, colors: Any, name: str | None = None) -> Tensor:
    """Float images ``[batch, height, width, channels]`` with the edges of ``boxes`` in ``colors``.

    Boxes ``[batch, n, 4]`` are (y1, x1, y2, x2), from 0 to 1. ``colors`` ``[m, channels]`` are
    taken in turn; None stands for ten of them. Raises InvalidArgumentError for other shapes or
    dtypes.
    """
    x, y = as_tensor(images), as_tensor(boxes)
    shape = x._data.shape
    channels = shape[-1] if len(shape) == 4 else 0
    if (
        channels not in (1, 3, 4)
        or y._data.ndim != 3
        or y._data.shape != (shape[0], *y.shape[1:2], 4)
    ):
        raise InvalidArgumentError(
            "draw_bounding_boxes takes images [batch, height, width, 1, 3 or 4] and boxes "
            f"[batch, n, 4], not {x.shape} and {y.shape}"
        )
    if not x.dtype.is_floating:
        raise InvalidArgumentError(
            f"draw_bounding_boxes takes images of floats, not {x.dtype.name}"
        )
    if colors is None:
        palette = np.array(_COLOURS if channels > 1 else [[1.0]])[:, :channels]
    else:
        palette = np.asarray(as_tensor(colors)._host())
        if palette.ndim != 2 or palette.shape[1] < channels:
            raise InvalidArgumentError(f"colors are [m, {channels}], not {palette.shape}")
    drawn = np.array(x._host())
    for image, edges in zip(drawn, np.asarray(y._host(), np.float32), strict=True):
        for number, box in enumerate(edges):
            _draw(image, box, palette[number % len(palette), :channels])
    return beside(x, drawn)


def _draw(image: np.ndarray, box: np.ndarray, colour: np.ndarray) -> None:
    height, width, _ = image.shape
    top, left, bottom, right = (
        int(v) for v in box * np.array([height - 1, width - 1] * 2, np.float32)
    )
    outside = top >= height or bottom < 0 or left >= width or right < 0
    if outside or top > bottom or left > right:
        return
    rows = slice(max(top, 0), min(bottom, height - 1) + 1)
    columns = slice(max(left, 0), min(right, width - 1) + 1)
    for row in (top, bottom):
        if 0 <= row < height:
            image[row, columns] = colour
    for column in (left, right):
        if 0 <= column < width:
            image[rows, column] = colour
