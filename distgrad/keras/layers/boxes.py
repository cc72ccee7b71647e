"""MaxNumBoundingBoxes: as many boxes for each image, so that batches have one shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.keras.layers.image_layer import ImageLayer
from distgrad.ops.casting import cast
from distgrad.ops.padding import pad


class MaxNumBoundingBoxes(ImageLayer):
    """Cuts "boxes" and "labels" in the "bounding_boxes" of a dict to ``max_number``, or fills up.

    What is filled up holds ``fill_value``. Images are left as they are. Raises ValueError for
    bounding boxes without a ``bounding_box_format``, or without boxes and labels.
    """

    acts_always = True

    def __init__(
        self,
        max_number: int,
        fill_value: int = -1,
        *,
        bounding_box_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_number = int(max_number)
        self.fill_value = int(fill_value)
        self.bounding_box_format = bounding_box_format

    def _converted_input(self, value: Any, named: bool = False) -> Any:
        if not isinstance(value, Mapping) or "bounding_boxes" not in value:
            return super()._converted_input(value, named)
        given = value["bounding_boxes"]
        if not isinstance(given, Mapping) or not {"boxes", "labels"} <= set(given):
            raise ValueError(
                f"Expected `bounding_boxes` to be a dict with keys 'boxes' and 'labels', not "
                f"{given!r}"
            )
        rest = {name: item for name, item in value.items() if name != "bounding_boxes"}
        boxes = {"boxes": cast(as_tensor(given["boxes"]), "float32")}
        boxes["labels"] = as_tensor(given["labels"])
        return {**super()._converted_input(rest), "bounding_boxes": {**given, **boxes}}

    def call(self, x: Any, training: bool = True) -> Any:
        found = super().call(x, training)
        if not isinstance(x, Mapping) or "bounding_boxes" not in x:
            return found
        if self.bounding_box_format is None:
            raise ValueError(
                "You passed an input with a 'bounding_boxes' key, but you didn't specify a "
                f"bounding box format. Pass a `bounding_box_format` argument to your "
                f"{type(self).__name__} layer, e.g. `bounding_box_format='xyxy'`."
            )
        given = x["bounding_boxes"]
        axis = x["images"]._data.ndim - 3
        whole = {name: self._fitted(given[name], axis) for name in ("boxes", "labels")}
        return {**found, "bounding_boxes": {**given, **whole}}

    def _fitted(self, x: Tensor, axis: int) -> Tensor:
        """``x`` with ``max_number`` entries along an axis."""
        kept = x[(slice(None),) * axis + (slice(self.max_number),)]
        missing = [(0, 0)] * kept._data.ndim
        missing[axis] = (0, self.max_number - kept._data.shape[axis])
        return pad(kept, missing, constant_values=self.fill_value)

    def augment(self, x: Tensor, training: bool) -> Tensor:
        return x
