"""What the outputs of a model mean: classes with their probabilities, or values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from distgrad.data.preparation import Preparation
from distgrad.keras import losses

_OVER_CLASSES = (
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
)
_OVER_TWO = ("binary_crossentropy", "binary_focal_crossentropy")


@dataclass(frozen=True)
class Outputs:
    """The last axis of a model's outputs: as many ``classes`` as it has entries, or none.

    ``logits``: outputs are scores that have yet to become probabilities. ``two``: one number stands
    for two classes, and is the probability of the second.
    """

    classes: tuple[str, ...] = ()
    logits: bool = False
    two: bool = False

    @classmethod
    def of(cls, model: Any, how: Preparation) -> Outputs:
        """Those of a compiled model, as its loss takes them."""
        loss, units = model.loss, int(model.output_shape[-1])
        if isinstance(loss, str):
            loss = losses.as_loss(loss)
        name = getattr(loss, "name", "")
        two = name in _OVER_TWO and units == 1
        if not two and name not in _OVER_CLASSES:
            return cls()
        number = 2 if two else units
        # Units beyond the classes of the data are there, if seldom right.
        known = tuple(map(_visible, how.alphabet)) if how.kind == "text" else how.classes
        names = (*known[:number], *map(str, range(len(known), number)))
        logits = bool(getattr(loss, "from_logits", False)) and not _activated(model)
        return cls(names, logits, two)

    def probabilities(self, found: np.ndarray) -> np.ndarray:
        """(..., classes) in float32 for the outputs of a model."""
        values = found.astype(np.float64)
        if self.two:
            first, second = 1 - values, values
            if self.logits:
                small = np.exp(-np.abs(values))  # of the side that it speaks against
                less, more = small / (1 + small), 1 / (1 + small)
                first, second = np.where(values > 0, [less, more], [more, less])
            return np.concatenate([first, second], axis=-1).astype(np.float32)
        if self.logits:
            values = np.exp(values - values.max(axis=-1, keepdims=True))
            values /= values.sum(axis=-1, keepdims=True)
        return values.astype(np.float32)


def _visible(character: str) -> str:
    if not character:
        return "(other)"
    return character if character.isprintable() and not character.isspace() else repr(character)


def _activated(model: Any) -> bool:
    """Whether the last layer gives probabilities, in spite of a loss that would take scores."""
    last = model.layers[-1]
    name = getattr(getattr(last, "activation", None), "__name__", "")
    return name in ("softmax", "sigmoid") or type(last).__name__ == "Softmax"
