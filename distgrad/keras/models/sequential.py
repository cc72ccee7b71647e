"""Sequential: layers one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from distgrad.keras.layers.base import Layer
from distgrad.keras.models.model import Model
from distgrad.keras.registry import snake_case


class Sequential(Model):
    """Layers one after the other.

    A first layer that knows its input's shape builds the model at once, else the first call does.
    Raises ValueError for something that is not a layer.
    """

    def __init__(self, layers: Sequence[Layer] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._stack: list[Layer] = []
        for layer in layers or ():
            self.add(layer)

    def add(self, layer: Layer) -> None:
        """Puts a layer at the end."""
        if not isinstance(layer, Layer):
            raise ValueError(f"{layer!r} is not a layer")
        self._stack.append(layer)
        self._rename()
        first = self._stack[0]
        if first._input_shape is not None:
            self.built = False
            self.build((None, *first._input_shape))
        elif self.built:
            self.built = False

    def pop(self) -> Layer:
        """Takes the last layer away and returns it."""
        if not self._stack:
            raise ValueError("there is no layer to take away")
        return self._stack.pop()

    def _rename(self) -> None:
        """Names count up within this model, so that a second model gets the same paths."""
        layers = list(_once(self._stack))
        given = [layer._given_name for layer in layers if layer._given_name is not None]
        for name in given:
            if given.count(name) > 1:
                raise ValueError(f"two layers are named {name!r}; names must differ in a model")
        taken = set(given)
        for layer in layers:
            if layer._given_name is None:
                base, count = snake_case(type(layer).__name__), 0
                while (name := f"{base}_{count}" if count else base) in taken:
                    count += 1
                layer.name = name
                taken.add(name)

    @property
    def layers(self) -> list[Layer]:
        return [layer for layer in self._stack if type(layer).__name__ != "InputLayer"]

    def call(self, x: Any, training: bool = False) -> Any:
        for layer in self._stack:
            x = layer(x, training=training)
        return x


def _once(layers: Sequence[Layer]) -> Iterator[Layer]:
    seen: set[int] = set()
    for layer in layers:
        if id(layer) not in seen:
            seen.add(id(layer))
            yield layer
