"""Layers that put elements in other places, whatever they are: texts, too."""

from __future__ import annotations

from typing import Any

from distgrad.core import tree
from distgrad.core.tensor import Tensor
from distgrad.core.texts import are_texts, by_number
from distgrad.keras.layers.base import Layer


class Moving(Layer):
    """Base of such layers: ``call`` is given a number for each text.

    Raises ValueError for texts among numbers.
    """

    takes_texts = True

    def _run_call(self, inputs: tuple, kwargs: dict[str, Any]) -> Any:
        if inputs and type(inputs[0]) is not Tensor:  # nearly always it is
            texts = [are_texts(leaf) for leaf in tree.flatten(inputs)]
            if any(texts) and not all(texts):
                raise ValueError(f"layer {self.name!r} takes texts or numbers, not both at once")
            if any(texts):
                return by_number(lambda given: self.call(*given, **kwargs), inputs, back=True)
        return super()._run_call(inputs, kwargs)
