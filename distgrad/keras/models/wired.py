"""Wired: KerasTensors and the calls between them, as something that can be copied and pickled.

Left to themselves, ``copy`` and ``pickle`` would follow a tensor to the call that made it, to what
that was called on, and so on: as deep as the model. Here the calls lie in one list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from distgrad.core import tree
from distgrad.keras.layers.input import Input, InputLayer
from distgrad.keras.layers.symbolic import KerasTensor, Node, symbols


class _Place:
    """Stands for a KerasTensor, by its number (and is no tuple: that would be a nest)."""

    def __init__(self, number: int) -> None:
        self.number = number


class Wired:
    """A nest of KerasTensors, ``ends``, and the nodes that lead to them, in order.

    A copy has nodes and tensors of its own, on copies of the layers; a tensor that comes from no
    InputLayer and none of the nodes becomes an input.
    """

    def __init__(self, ends: Any, nodes: Iterable[Node]) -> None:
        self.ends = ends
        self.nodes = list(nodes)

    def __reduce__(self) -> tuple[Callable[..., Wired], tuple]:
        numbers: dict[int, int] = {}
        inputs: list[Any] = []
        inside = {id(node) for node in self.nodes}

        def place(leaf: Any) -> Any:
            if not isinstance(leaf, KerasTensor):
                return leaf
            if id(leaf) not in numbers:
                numbers[id(leaf)] = len(numbers)
                node = leaf.node
                if node is not None and isinstance(node.layer, InputLayer):
                    inputs.append((numbers[id(leaf)], node.layer))
                elif id(node) not in inside:
                    known = *_known(leaf), leaf.name
                    inputs.append((numbers[id(leaf)], known))
            return _Place(numbers[id(leaf)])

        def placed(nest: Any) -> Any:
            return tree.map_structure(place, nest)

        def made(tensor: KerasTensor) -> tuple:
            return place(tensor).number, _known(tensor), tensor._keras_mask

        calls = []
        for node in self.nodes:
            args, kwargs = placed(list(node.args)), placed(node.kwargs)
            outputs = [made(tensor) for tensor in symbols(node.outputs)]
            calls.append((node.layer, args, kwargs, placed(node.outputs), outputs))
        return _rewired, (placed(self.ends), inputs, calls)


def _known(tensor: KerasTensor) -> tuple[Any, ...]:
    """What a KerasTensor is made of."""
    return tensor.shape, tensor.dtype.name, tensor.sparse, tensor.ragged


def _rewired(ends: Any, inputs: list[Any], calls: list[Any]) -> Wired:
    tensors: dict[int, KerasTensor] = {}
    for number, source in inputs:
        if isinstance(source, InputLayer):
            tensors[number] = source.output
        else:
            shape, dtype, sparse, ragged, name = source
            tensors[number] = Input(
                batch_shape=shape, dtype=dtype, sparse=sparse, ragged=ragged, name=name
            )

    def filled(nest: Any) -> Any:
        return tree.map_structure(
            lambda leaf: tensors[leaf.number] if isinstance(leaf, _Place) else leaf, nest
        )

    nodes = []
    for layer, args, kwargs, outputs, made in calls:
        for number, known, mask in made:
            tensors[number] = KerasTensor(*known)
            tensors[number]._keras_mask = mask
        nodes.append(Node(layer, tuple(filled(args)), filled(kwargs), filled(outputs)))
    return Wired(filled(ends), nodes)
