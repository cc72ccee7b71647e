"""Boxes and masks drawn on images, which come back as arrays of NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.keras.layers.core import data_format_of
from distgrad.keras.utils import images as files
from distgrad.keras.utils.bounding_boxes import convert_format

Colour = Sequence[int]
_TEXT_HEIGHT = 12  # pixels, of a font of scale 1
_PALETTE = np.array([2**25 - 1, 2**15 - 1, 2**21 - 1])


def checked(images: Any, data_format: str | None) -> np.ndarray:
    """A batch of images as an array, the channels last. Raises ValueError for another rank."""
    array = np.array(as_tensor(images)._host())
    if array.ndim != 4:
        raise ValueError(
            f"`images` must be batched 4D tensor. Received: images.shape={array.shape}"
        )
    return array.transpose(0, 2, 3, 1) if data_format_of(data_format) == "channels_first" else array


def draw_bounding_boxes(
    images: Any,
    bounding_boxes: Mapping[str, Any],
    bounding_box_format: str,
    class_mapping: Mapping[int, str] | None = None,
    color: Colour = (128, 128, 128),
    line_thickness: int = 2,
    text_thickness: int = 1,
    font_scale: float = 1.0,
    data_format: str | None = None,
) -> np.ndarray:
    """The images as uint8, with a frame around each box, but for those of class -1.

    ``bounding_boxes`` has "boxes" [batch, boxes, 4] and "labels", and may have "confidences"; the
    names of classes in ``class_mapping`` stand above. Raises TypeError for boxes that are no dict,
    ValueError where it lacks one of the two, and MissingExtraError for names without Pillow.
    """
    array = checked(images, data_format)
    if not isinstance(bounding_boxes, Mapping):
        raise TypeError(f"`bounding_boxes` should be a dict. Received: {bounding_boxes!r}")
    if not {"boxes", "labels"} <= set(bounding_boxes):
        raise ValueError(
            "`bounding_boxes` should be a dict containing 'boxes' and 'labels' keys. Received: "
            f"{bounding_boxes!r}"
        )
    height, width = array.shape[1:3]
    corners = convert_format(bounding_boxes["boxes"], bounding_box_format, "xyxy", height, width)
    boxes = corners.numpy().astype(np.int32)
    labels = np.asarray(bounding_boxes["labels"]).astype(np.int32)
    chances = bounding_boxes.get("confidences")
    if array.dtype.kind == "f" and array.size:
        array = np.clip(array, 0, 1) * 255 if array.max() <= 1 else np.clip(array, 0, 255)
    drawn = array.astype(np.uint8)
    for i, image in enumerate(drawn):
        for j, (box, label) in enumerate(zip(boxes[i], labels[i], strict=True)):
            if label == -1:
                continue
            _frame(image, box.tolist(), color, line_thickness)
            text = (class_mapping or {}).get(int(label))
            if text is not None:
                if chances is not None:
                    text = f"{text} | {float(np.asarray(chances)[i, j]):.2f}"
                at = _beside(box[0], box[1], font_scale, text_thickness)
                size = max(1, int(_TEXT_HEIGHT * font_scale))
                image[...] = files.with_text(image, text, at, size, tuple(color), text_thickness)
    return drawn


def _frame(image: np.ndarray, box: Sequence[int], color: Colour, thickness: int) -> None:
    """Lines of ``thickness`` pixels about the four sides."""
    left, top, right, bottom = box
    before, after = thickness // 2, thickness - thickness // 2
    outer = slice(max(top - before, 0), max(bottom + after, 0))
    across = slice(max(left - before, 0), max(right + after, 0))
    for x in (left, right):
        image[outer, max(x - before, 0) : max(x + after, 0)] = color
    for y in (top, bottom):
        image[max(y - before, 0) : max(y + after, 0), across] = color


def _beside(x: int, y: int, scale: float, thickness: int) -> tuple[int, int]:
    """Where a text about a box begins: above it, or where there is no room, within."""
    height = int(scale * _TEXT_HEIGHT)
    if y - 8 - 2 * height > 0:
        return int(x), int(y) - 8 - height
    return int(x) + 3, int(y) + height + thickness + 3


def draw_segmentation_masks(
    images: Any,
    segmentation_masks: Any,
    num_classes: int | None = None,
    color_mapping: Mapping[int, Colour] | None = None,
    alpha: float = 0.8,
    blend: bool = True,
    ignore_index: int = -1,
    data_format: str | None = None,
) -> np.ndarray:
    """The images with the pixels of each class in its colour, ``alpha`` of it where they blend.

    Masks are whole numbers [batch, height, width, 1] below ``num_classes`` (the largest of them by
    default); those of ``ignore_index`` are left as they are. Raises ValueError for another rank,
    TypeError for masks of floats.
    """
    array = checked(images, data_format).astype(np.float32)
    masks = np.asarray(as_tensor(segmentation_masks)._host())
    if masks.dtype.kind not in "iu":
        raise TypeError(
            "`segmentation_masks` must be in integer dtype. Received: "
            f"segmentation_masks.dtype={masks.dtype}"
        )
    if data_format_of(data_format) == "channels_first":
        masks = masks.transpose(0, 2, 3, 1)
    masks = masks[..., 0]
    count = int(masks.max()) if num_classes is None else num_classes
    marked = array.copy()
    for number in range(count):
        color = number * _PALETTE % 255 if color_mapping is None else color_mapping[number]
        marked[masks == number] = np.asarray(color, np.float32)
    if not blend:
        return marked
    mixed = array * np.float32(1 - alpha) + marked * np.float32(alpha)
    return np.where((masks != ignore_index)[..., None], mixed, array).astype(np.uint8)
