"""Model: a layer made of layers, with a training loop."""

from __future__ import annotations

import numpy as np

from distgrad.core import recording
from distgrad.core.variable import Variable
from distgrad.keras.layers.base import Layer
from distgrad.keras.models.trainer import Trainer


class Model(Trainer):
    """A layer with a training loop. Subclasses define ``call``."""

    @property
    def layers(self) -> list[Layer]:
        return [layer for _, layer in self._children()]

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of that name or at that index. Raises ValueError where there is none."""
        found = self.layers
        if index is not None and -len(found) <= index < len(found):
            return found[index]
        for layer in found:
            if name is not None and layer.name == name:
                return layer
        names = ", ".join(layer.name for layer in found)
        raise ValueError(f"no layer {name if index is None else index!r}; there are {names}")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes all weights for inputs of this shape (None for an unknown batch size)."""
        if self.built:
            return
        with recording.paused():
            self(np.zeros((1, *input_shape[1:]), self.dtype))

    def _before_call(self, inputs: tuple) -> None:
        """Nothing: the layers of a model make their weights when it calls them."""

    def variable_paths(self) -> dict[str, Variable]:
        """Every variable, the non-trainable ones too, under its path within this model."""
        return {path: variable for path, variable, _ in self._weights()}
