"""Pipeline: layers one after the other as one layer, for data before a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distgrad.keras import registry
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.reviving import deserialize


class Pipeline(Layer):
    """Calls ``layers`` one after the other; unlike a Sequential model it is a plain layer.

    It trains unless ``training=False`` is said, as layers that change images do. Raises ValueError
    for anything but layers.
    """

    casts_inputs = False

    def __init__(self, layers: Sequence[Layer], name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        for layer in layers:
            if not isinstance(layer, Layer):
                raise ValueError(f"a Pipeline is made of layers, not of {layer!r}")
        self.layers = list(layers)

    def call(self, inputs: Any, training: bool = True, mask: Any = None) -> Any:
        for layer in self.layers:
            taken = {"mask": mask} if mask is not None and "mask" in layer._mask_for else {}
            inputs = layer(inputs, training=training, **taken)
        return inputs

    def get_config(self) -> dict[str, Any]:
        return {"layers": [registry.serialize(each) for each in self.layers], "name": self.name}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """A pipeline of the layers in such a config, made anew. Raises ValueError without them."""
        if "layers" not in config:
            raise ValueError(f"a Pipeline's config has its layers, not {sorted(config)} alone")
        return cls([deserialize(each) for each in config["layers"]], config.get("name"))
