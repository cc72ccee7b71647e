"""Layers that may be called on texts: arrays of NumPy or lists, which no tensor holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.composite import Composite
from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.core.texts import as_texts
from distgrad.core.variable import Variable
from distgrad.keras.layers import symbolic
from distgrad.keras.layers.base import Layer


class OnTexts(Layer):
    """Base of layers that may be called on texts. Raises ValueError where a model describes it."""

    casts_inputs = False
    output_mode: str

    def __call__(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        (inputs,) = args or kwargs.values()
        if isinstance(inputs, Composite):
            return self._of_composite(inputs)
        if symbolic.symbols(inputs) or isinstance(inputs, (Tensor, Variable)):
            return super().__call__(inputs)
        array = rows_of(self.name, inputs)
        if array.dtype.kind in "biuf":
            return super().__call__(array)
        self.built = True
        return self.of_texts(as_texts(array))

    def of_texts(self, texts: np.ndarray) -> Any:
        raise NotImplementedError

    def _of_composite(self, given: Any) -> Any:
        """A number, or a vector, for each value of what is ragged or sparse, or one a row."""
        if self.output_mode == "int" or getattr(self, "invert", False):
            return given.with_flat_values(self(given.flat_values))
        numbers = as_tensor(self._numbers(np.asarray(given.flat_values)))
        return self.encoded(given.with_flat_values(numbers))

    def _numbers(self, values: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def encoded(self, numbers: Any) -> Any:
        raise NotImplementedError


def rows_of(name: str, inputs: Any) -> np.ndarray:
    try:
        return np.asarray(inputs)
    except ValueError as error:  # of tf.strings.unicode_split, say
        raise ValueError(
            f"{name!r} takes rows of one length: call it on each row, or fill up the shorter ones"
        ) from error
