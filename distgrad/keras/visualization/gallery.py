"""Galleries of images, drawn by matplotlib: on the screen, or in a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.core.errors import MissingExtraError
from distgrad.keras.visualization.marking import (
    Colour,
    checked,
    draw_bounding_boxes,
    draw_segmentation_masks,
)


def plot_image_gallery(
    images: Any,
    y_true: Any = None,
    y_pred: Any = None,
    label_map: Mapping[int, str] | None = None,
    rows: int | None = None,
    cols: int | None = None,
    value_range: Sequence[float] = (0, 255),
    scale: float = 2,
    path: Any = None,
    show: bool | None = None,
    transparent: bool = True,
    dpi: int = 60,
    legend_handles: Any = None,
    data_format: str | None = None,
) -> None:
    """Shows images in rows and columns, or writes them to the file ``path``.

    The names that ``label_map`` has for ``y_true`` and ``y_pred`` stand above. Values go from the
    first to the second of ``value_range``. Raises ValueError for images of another rank than 4,
    labels without a map, and where ``path`` and ``show`` are given; MissingExtraError without
    matplotlib.
    """
    plt = _pyplot()
    if path is not None and show:
        raise ValueError("plot_gallery() expects either `path` to be set, or `show` to be true.")
    if (y_true is not None or y_pred is not None) and label_map is None:
        raise ValueError(
            "If `y_true` or `y_pred` are provided, a `label_map` must also be provided."
        )
    array = checked(images, data_format)
    rows = rows or math.ceil(math.sqrt(len(array)))
    cols = cols or math.ceil(len(array) / rows)
    low, high = value_range
    array = np.clip((array - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    figure, axes = plt.subplots(
        rows, cols, figsize=(cols * scale, rows * scale), frameon=False, layout="tight",
        squeeze=False, sharex="row", sharey="col",
    )  # fmt: skip
    if legend_handles is not None:
        figure.legend(handles=legend_handles, loc="lower center")
    for index, place in enumerate(axes.flat):
        place.axis("off")
        if index >= len(array):
            continue
        place.imshow(array[index] if array.shape[-1] > 1 else array[index, ..., 0], cmap="gray")
        place.margins(x=0, y=0)
        title = [
            f"{what}: {(label_map or {}).get(int(np.asarray(labels)[index]), 'Unknown')}"
            for what, labels in (("Label", y_true), ("Pred", y_pred))
            if labels is not None and index < len(labels)
        ]
        place.set_title("  ".join(title), fontsize=8)
    if path is not None:
        options = {"pad_inches": 0, "bbox_inches": "tight", "transparent": transparent}
        figure.savefig(path, dpi=dpi, **options)
    elif show is not False:
        plt.show()
    plt.close(figure)


def plot_bounding_box_gallery(
    images: Any,
    bounding_box_format: str,
    y_true: Mapping[str, Any] | None = None,
    y_pred: Mapping[str, Any] | None = None,
    value_range: Sequence[float] = (0, 255),
    true_color: Colour = (0, 188, 212),
    pred_color: Colour = (255, 235, 59),
    line_thickness: int = 2,
    font_scale: float = 1.0,
    text_thickness: int | None = None,
    class_mapping: Mapping[int, str] | None = None,
    ground_truth_mapping: Mapping[int, str] | None = None,
    prediction_mapping: Mapping[int, str] | None = None,
    legend: bool = False,
    legend_handles: Any = None,
    rows: int | None = None,
    cols: int | None = None,
    data_format: str | None = None,
    **kwargs: Any,
) -> None:
    """``plot_image_gallery`` of images with the boxes that are true and those that a model sees.

    Raises ValueError for a ``legend`` beside ``legend_handles``.
    """
    drawn = checked(images, data_format)
    for boxes, color, names in (
        (y_true, true_color, ground_truth_mapping or class_mapping),
        (y_pred, pred_color, prediction_mapping or class_mapping),
    ):
        if boxes is not None:
            drawn = draw_bounding_boxes(
                drawn, boxes, bounding_box_format, names, color, line_thickness,
                text_thickness or line_thickness, font_scale, "channels_last",
            )  # fmt: skip
    if legend and legend_handles:
        raise ValueError(
            "Only pass `legend` OR `legend_handles` to "
            "`keras.visualization.plot_bounding_box_gallery()`."
        )
    if legend:
        legend_handles = [
            _patch(color, name)
            for color, name in ((true_color, "Ground Truth"), (pred_color, "Prediction"))
        ]
    options = {"rows": rows, "cols": cols, "legend_handles": legend_handles, **kwargs}
    plot_image_gallery(drawn, value_range=value_range, data_format="channels_last", **options)


def plot_segmentation_mask_gallery(
    images: Any,
    num_classes: int,
    value_range: Sequence[float] = (0, 255),
    y_true: Any = None,
    y_pred: Any = None,
    color_mapping: Mapping[int, Colour] | None = None,
    blend: bool = True,
    alpha: float = 0.8,
    ignore_index: int = -1,
    data_format: str | None = None,
    **kwargs: Any,
) -> None:
    """``plot_image_gallery`` of images, and of each with its true mask and a model's beside it."""
    columns = [checked(images, data_format)]
    for masks in (y_true, y_pred):
        if masks is not None:
            given = checked(masks, data_format).astype(np.int32)
            chosen = (num_classes, color_mapping, alpha, blend, ignore_index, "channels_last")
            columns.append(draw_segmentation_masks(columns[0], given, *chosen))
    together = np.stack(columns, axis=1).reshape(-1, *columns[0].shape[1:])
    options = {"rows": len(columns[0]), "cols": len(columns), **kwargs}
    plot_image_gallery(together, value_range=value_range, data_format="channels_last", **options)


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise MissingExtraError(
            'galleries need matplotlib: pip install "distgrad[report]"'
        ) from None
    return plt


def _patch(color: Colour, label: str) -> Any:
    from matplotlib.patches import Patch

    red, green, blue = (part / 255 for part in color)
    return Patch(color=(red, green, blue), label=label)
