"""Function: what lies between KerasTensors, to be called, and no model."""

from __future__ import annotations

from typing import Any

from distgrad.core import tree
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.input import input_like
from distgrad.keras.layers.symbolic import KerasTensor, of_shapes, symbols
from distgrad.keras.models.graph import Graph


class Function:
    """Computes ``outputs`` from ``inputs``, both nests of KerasTensors, as Keras 3's does.

    A call takes a nest like ``inputs``, of arrays, tensors or KerasTensors, and gives one like
    ``outputs``. It has no weights, state or training of its own; its layers have theirs. Raises
    ValueError where an output needs an input that is not among the inputs, or there is no output.
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None) -> None:
        if not symbols(outputs):
            raise ValueError(f"a Function has outputs, KerasTensors, not {outputs!r}")
        self.name = name or "function"
        for tensor in symbols(inputs):
            if tensor.node is None:  # made by itself, not by keras.Input
                made = input_like(tensor)
                tensor.node, tensor.index = made.node, made.index
        self._graph = Graph(inputs, outputs)

    @property
    def inputs(self) -> list[KerasTensor]:
        return list(self._graph.sources)

    @property
    def outputs(self) -> list[KerasTensor]:
        return list(tree.flatten(self._graph.outputs))

    @property
    def operations(self) -> list[Layer]:
        """The layers and operations, the earliest first."""
        return list(self._graph.operations)

    def __call__(self, inputs: Any) -> Any:
        if any(isinstance(leaf, KerasTensor) for leaf in tree.flatten(inputs)):
            return self._graph.again(inputs)
        return self._graph.run(inputs)

    def compute_output_spec(self, inputs: Any) -> Any:
        """KerasTensors like the outputs for inputs like these."""
        found = self._graph.told(inputs)
        return self._graph.again(inputs) if found is None else found

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of each output, for the shape of each input."""
        found = self.compute_output_spec(of_shapes(input_shape))
        return tree.map_structure(lambda tensor: tuple(tensor.shape), found)
