"""Boxes in images: from one format to another, moved, cut, compared, and as offsets of anchors.

Boxes are ``[(batch,) boxes, 4]``. Formats are "xyxy" and "yxyx" (two corners), "xywh" (a corner and
the size), "center_xywh" and "center_yxhw" (the centre and the size); "rel_" before the first four
of them means shares of the image's size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.keras import ops, settings
from distgrad.ops.casting import cast
from distgrad.ops.shape import concat, stack

__all__ = [
    "affine_transform",
    "clip_to_image_size",
    "compute_ciou",
    "compute_iou",
    "convert_format",
    "crop",
    "decode_deltas_to_boxes",
    "encode_box_to_deltas",
    "pad",
]

_ABSOLUTE = ("xyxy", "yxyx", "xywh", "center_xywh", "center_yxhw")
_FORMATS = (*_ABSOLUTE, "rel_xyxy", "rel_yxyx", "rel_xywh", "rel_center_xywh")


def _split(boxes: Any) -> list[Tensor]:
    return [boxes[..., i : i + 1] for i in range(4)]


def _only_corners(name: str) -> None:
    if name != "xyxy":
        raise NotImplementedError(f"boxes are in the format 'xyxy' here, not {name!r}")


def convert_format(
    boxes: Any,
    source: str,
    target: str,
    height: Any = None,
    width: Any = None,
    dtype: Any = "float32",
) -> Any:
    """Boxes, or a dict with "boxes", from one format to another.

    The size of the images is needed from or to shares of it. Raises ValueError for an unknown
    format, a last axis that is not of 4, and a size that is missing.
    """
    if isinstance(boxes, Mapping):
        found = convert_format(boxes["boxes"], source, target, height, width, dtype)
        return {**boxes, "boxes": found}
    boxes = as_tensor(boxes)
    if tuple(boxes.shape)[-1:] != (4,):
        raise ValueError(
            "`boxes` must be a tensor with the last dimension of 4. Received: "
            f"boxes.shape={tuple(boxes.shape)}"
        )
    source, target = source.lower(), target.lower()
    if source not in _FORMATS or target not in _FORMATS:
        raise ValueError(
            f"Invalid source or target format: {source!r}, {target!r}. Supported formats: "
            f"{_FORMATS}"
        )
    relative = source.startswith("rel_"), target.startswith("rel_")
    if any(relative) and (height is None or width is None):
        raise ValueError(
            "convert_format() must receive `height` and `width` transforming between relative and "
            f"absolute formats: from {source!r} to {target!r}, but height={height} and "
            f"width={width}."
        )
    boxes = cast(boxes, dtype)
    if source == target:
        return boxes
    size = [None if n is None else cast(as_tensor(n), dtype) for n in (width, height)] * 2
    corners = _corners(_split(boxes), source.removeprefix("rel_"))
    if relative == (True, False):
        corners = [v * n for v, n in zip(corners, size, strict=True)]
    numbers = _of_corners(corners, target.removeprefix("rel_"))
    if relative == (False, True):
        size = [size[1], size[0]] * 2 if target == "rel_yxyx" else size
        numbers = [v / n for v, n in zip(numbers, size, strict=True)]
    return concat(numbers, axis=-1)


def _corners(numbers: list[Tensor], form: str) -> list[Tensor]:
    """Left, top, right and bottom."""
    a, b, c, d = numbers
    if form in ("yxyx", "center_yxhw"):
        a, b, c, d = b, a, d, c
    if form == "xywh":
        return [a, b, a + c, b + d]
    if form.startswith("center"):
        return [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0]
    return [a, b, c, d]


def _of_corners(corners: list[Tensor], form: str) -> list[Tensor]:
    a, b, c, d = corners
    if form == "xywh":
        return [a, b, c - a, d - b]
    if form.startswith("center"):
        a, b, c, d = a + (c - a) / 2.0, b + (d - b) / 2.0, c - a, d - b
    return [b, a, d, c] if form in ("yxyx", "center_yxhw") else [a, b, c, d]


# Moved and cut


def clip_to_image_size(
    bounding_boxes: Mapping[str, Any],
    height: Any = None,
    width: Any = None,
    bounding_box_format: str = "xyxy",
) -> dict[str, Any]:
    """A dict whose "boxes" lie in the image; the "labels" of those with nothing in it become -1.

    Raises NotImplementedError for formats other than "xyxy" and "rel_xyxy", ValueError where the
    first of them lacks the image's size.
    """
    if bounding_box_format not in ("xyxy", "rel_xyxy"):
        raise NotImplementedError(
            f"boxes are in the format 'xyxy' or 'rel_xyxy' here, not {bounding_box_format!r}"
        )
    absolute = bounding_box_format == "xyxy"
    if absolute and (height is None or width is None):
        raise ValueError("`height` and `width` must be set if `format='xyxy'`.")
    boxes, labels = as_tensor(bounding_boxes["boxes"]), bounding_boxes.get("labels")
    most = [cast(as_tensor(n), boxes.dtype) if absolute else 1.0 for n in (width, height)] * 2
    x1, y1, x2, y2 = (ops.clip(v, 0, n) for v, n in zip(_split(boxes), most, strict=True))
    found = {**bounding_boxes, "boxes": concat([x1, y1, x2, y2], axis=-1)}
    if labels is not None:
        found["labels"] = ops.where(ops.squeeze((x2 - x1) * (y2 - y1), -1) > 0, labels, -1)
    return found


def crop(
    boxes: Any,
    top: Any,
    left: Any,
    height: Any,
    width: Any,
    bounding_box_format: str = "xyxy",
) -> Tensor:
    """Boxes as they lie in a piece of the image that begins at (top, left).

    Raises NotImplementedError for another format than "xyxy", as ``pad`` does.
    """
    _only_corners(bounding_box_format)
    x1, y1, x2, y2 = _split(as_tensor(boxes))
    x1, x2 = (ops.clip(x - left, 0, width) for x in (x1, x2))
    y1, y2 = (ops.clip(y - top, 0, height) for y in (y1, y2))
    return concat([x1, y1, x2, y2], axis=-1)


def pad(
    boxes: Any,
    top: Any,
    left: Any,
    height: Any = None,
    width: Any = None,
    bounding_box_format: str = "xyxy",
) -> Tensor:
    """Boxes as they lie in an image with rows above and columns to the left added to it."""
    _only_corners(bounding_box_format)
    x1, y1, x2, y2 = _split(as_tensor(boxes))
    return concat([x1 + left, y1 + top, x2 + left, y2 + top], axis=-1)


def affine_transform(
    boxes: Any,
    angle: Any,
    translate_x: Any,
    translate_y: Any,
    scale: Any,
    shear_x: Any,
    shear_y: Any,
    height: Any,
    width: Any,
    center_x: Any = None,
    center_y: Any = None,
    bounding_box_format: str = "xyxy",
) -> Tensor:
    """The boxes ``[batch, boxes, 4]`` around what these become in images that are warped.

    Angles are in degrees, moves and the centre in shares of the image, one number for each image.
    Raises NotImplementedError for another format than "xyxy".
    """
    _only_corners(bounding_box_format)
    matrix = _inverse(
        as_tensor(angle), translate_x, translate_y, scale, shear_x, shear_y, height, width,
        0.5 if center_x is None else center_x, 0.5 if center_y is None else center_y,
    )  # fmt: skip
    x1, y1, x2, y2 = _split(cast(as_tensor(boxes), matrix.dtype))
    x, y = (concat(v, axis=-1) for v in ([x1, x2, x2, x1], [y1, y1, y2, y2]))
    points = stack([x, y, ops.ones_like(x)], axis=-1)
    moved = ops.einsum("bnxy,bzy->bnxz", points, matrix)
    return concat([ops.min(moved, axis=2), ops.max(moved, axis=2)], axis=-1)


def _inverse(
    angle: Tensor,
    translate_x: Any,
    translate_y: Any,
    scale: Any,
    shear_x: Any,
    shear_y: Any,
    height: Any,
    width: Any,
    center_x: Any,
    center_y: Any,
) -> Tensor:
    """``[batch, 2, 3]``: the rotation, shear and scale about the centre, and then the move."""
    radians = math.pi / 180.0
    rotation, sx, sy = -angle * radians, -shear_x * radians, -shear_y * radians
    cx, cy = center_x * (width - 1), center_y * (height - 1)
    tx, ty = -translate_x * (width - 1) + cx, -translate_y * (height - 1) + cy
    a = ops.cos(rotation - sy) / ops.cos(sy)
    b = a * ops.tan(sx) + ops.sin(rotation)
    c = -ops.sin(rotation - sy) / ops.cos(sy)
    d = ops.cos(rotation) - c * ops.tan(sx)
    a0, a1, b0, b1 = d * scale, -b * scale, -c * scale, a * scale
    rows = [[a0, a1, cx - a0 * tx - a1 * ty], [b0, b1, cy - b0 * tx - b1 * ty]]
    return stack([stack(row, axis=-1) for row in rows], axis=1)


# Anchors


def _encoding(name: str, variance: Any, image_shape: Any) -> tuple[Any, dict[str, Any]]:
    if variance is not None:
        variance = cast(as_tensor(variance), "float32")
        if variance.shape[-1] != 4:
            raise ValueError(f"`variance` must be length 4, got {variance}")
    if name not in ("center_xywh", "center_yxhw"):
        raise ValueError(
            f"deltas are in the format 'center_xywh' or 'center_yxhw', but got '{name}'."
        )
    height, width = (None, None) if image_shape is None else image_shape[:2]
    return variance, {"height": height, "width": width}


def encode_box_to_deltas(
    anchors: Any,
    boxes: Any,
    anchor_format: str,
    box_format: str,
    encoding_format: str = "center_yxhw",
    variance: Any = None,
    image_shape: Any = None,
) -> Tensor:
    """How boxes differ from anchors: the way in their sizes, and the logarithm of the sizes' ratio.

    ``variance`` divides the four numbers. Raises ValueError for other than four of it, and for
    another ``encoding_format`` than the two around the centre.
    """
    variance, size = _encoding(encoding_format, variance, image_shape)
    anchors = convert_format(anchors, anchor_format, encoding_format, **size)
    boxes = convert_format(boxes, box_format, encoding_format, **size)
    own = ops.maximum(anchors[..., 2:], settings.epsilon)
    other = ops.maximum(boxes[..., 2:], settings.epsilon)
    move = (boxes[..., :2] - anchors[..., :2]) / own
    deltas = concat([move, ops.log(other / own)], axis=-1)
    return deltas if variance is None else deltas / variance


def decode_deltas_to_boxes(
    anchors: Any,
    boxes_delta: Any,
    anchor_format: str,
    box_format: str,
    encoded_format: str = "center_yxhw",
    variance: Any = None,
    image_shape: Any = None,
) -> Any:
    """The boxes that differ so from anchors, or from a dict of them; undoes the encoding.

    Raises ValueError as ``encode_box_to_deltas`` does.
    """
    if isinstance(anchors, Mapping) and isinstance(boxes_delta, Mapping):
        options = (anchor_format, box_format, encoded_format, variance, image_shape)
        return {
            level: decode_deltas_to_boxes(anchor, boxes_delta[level], *options)
            for level, anchor in anchors.items()
        }
    variance, size = _encoding(encoded_format, variance, image_shape)
    anchors = convert_format(anchors, anchor_format, encoded_format, **size)
    deltas = as_tensor(boxes_delta)
    deltas = deltas if variance is None else deltas * variance
    move, sizes = deltas[..., :2] * anchors[..., 2:], ops.exp(deltas[..., 2:]) * anchors[..., 2:]
    boxes = concat([move + anchors[..., :2], sizes], axis=-1)
    return convert_format(boxes, encoded_format, box_format, **size)


# Compared


def compute_iou(
    boxes1: Any,
    boxes2: Any,
    bounding_box_format: str,
    use_masking: bool = False,
    mask_val: float = -1,
    image_shape: Any = None,
) -> Tensor:
    """What each of ``boxes1`` shares with each of ``boxes2``: ``[(batch,) boxes1, boxes2]``.

    With ``use_masking`` it is ``mask_val`` for boxes of numbers below 0. Raises ValueError for
    ranks other than 2 and 3, and for shares of an image without ``image_shape``.
    """
    for name, boxes in (("boxes1", boxes1), ("boxes2", boxes2)):
        if as_tensor(boxes)._data.ndim not in (2, 3):
            raise ValueError(
                f"compute_iou() expects {name} of rank 2, or 3 with a batch. Received "
                f"{name}.shape={tuple(as_tensor(boxes).shape)}"
            )
    if "rel" in bounding_box_format and image_shape is None:
        raise ValueError(
            "When using relative bounding box formats (e.g. `rel_yxyx`) the `image_shape` argument "
            f"must be provided. Received `image_shape`: {image_shape}"
        )
    height, width = (None, None) if image_shape is None else image_shape[:2]
    one, other = (
        convert_format(boxes, bounding_box_format, "xyxy", height, width)
        for boxes in (boxes1, boxes2)
    )
    (left, top, right, bottom), others = _split(one), map(_across, _split(other))
    left2, top2, right2, bottom2 = others
    wide = ops.maximum(ops.minimum(right, right2) - ops.maximum(left, left2), 0)
    high = ops.maximum(ops.minimum(bottom, bottom2) - ops.maximum(top, top2), 0)
    shared = wide * high
    areas = (right - left) * (bottom - top) + (right2 - left2) * (bottom2 - top2)
    found = shared / (areas - shared + settings.epsilon)
    if not use_masking:
        return found
    below, below2 = (ops.max(boxes, axis=-1, keepdims=True) < 0.0 for boxes in (one, other))
    return ops.where(ops.logical_or(below, _across(below2)), mask_val, found)


def _across(column: Tensor) -> Tensor:
    return ops.swapaxes(column, -1, -2)


def compute_ciou(
    boxes1: Any, boxes2: Any, bounding_box_format: str, image_shape: Any = None
) -> Tensor:
    """The complete IoU of boxes and boxes, pair by pair: less for far centres and other forms.

    Raises ValueError for shares of an image. Zheng et al., 2020.
    """
    if "rel" in bounding_box_format:
        raise ValueError(
            f"compute_ciou() takes boxes in pixels, not {bounding_box_format!r}: convert them with "
            "convert_format first"
        )
    tiny = settings.epsilon
    one, other = (
        [ops.squeeze(v, -1) for v in _split(convert_format(boxes, bounding_box_format, "xyxy"))]
        for boxes in (boxes1, boxes2)
    )
    (left, top, right, bottom), (left2, top2, right2, bottom2) = one, other
    wide, high = right - left, bottom - top + tiny
    wide2, high2 = right2 - left2, bottom2 - top2 + tiny
    shared = ops.maximum(ops.minimum(right, right2) - ops.maximum(left, left2), 0) * ops.maximum(
        ops.minimum(bottom, bottom2) - ops.maximum(top, top2), 0
    )
    iou = shared / (wide * high + wide2 * high2 - shared + tiny + tiny)
    around = ops.square(ops.maximum(right, right2) - ops.minimum(left, left2)) + ops.square(
        ops.maximum(bottom, bottom2) - ops.minimum(top, top2)
    )
    apart = ops.square((left + right) / 2 - (left2 + right2) / 2) + ops.square(
        (top + bottom) / 2 - (top2 + bottom2) / 2
    )
    angles = ops.arctan(wide2 / high2) - ops.arctan(wide / high)
    form = 4 / math.pi**2 * ops.square(angles)
    share = form / (form - iou + (1 + tiny))
    return iou - (apart / (around + tiny) + form * share)
