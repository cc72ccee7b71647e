"""Graph: the nodes between a model's inputs and outputs, in an order in which they can run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from distgrad.core import tree
from distgrad.core.composite import Composite
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import string
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.texts import as_texts
from distgrad.keras.layers.base import Layer, carry_mask
from distgrad.keras.layers.input import InputLayer, input_like
from distgrad.keras.layers.symbolic import KerasTensor, Node
from distgrad.keras.models.wired import Wired
from distgrad.ops.casting import cast
from distgrad.ops.shape import expand_dims, squeeze
from distgrad.sparse.making import to_dense


class Graph:
    """What computes ``outputs`` from ``inputs``, both nests of KerasTensors.

    ``nodes`` come in the order of their making, ``operations`` (layers and operators, each once)
    from the earliest on, in the order of Keras 3. For an input that a layer has made there is an
    InputLayer among them, whose output ``stand_ins`` has by the id of that input. Raises ValueError
    where an output needs an input that is not among ``inputs``, or something is not a KerasTensor.
    """

    def __init__(self, inputs: Any, outputs: Any) -> None:
        self.inputs, self.outputs = tree.copied((inputs, outputs))
        self.sources: list[KerasTensor] = tree.flatten(inputs)
        for leaf in (*self.sources, *tree.flatten(outputs)):
            if not isinstance(leaf, KerasTensor) or leaf.node is None:
                raise ValueError(
                    f"a model is made of KerasTensors, from keras.Input on; {leaf!r} is none"
                )
        self._given = {id(source) for source in self.sources}
        if len(self._given) < len(self.sources):
            names = ", ".join(source.name for source in self.sources)
            raise ValueError(f"an input of a model is there twice: the inputs are {names}")
        found, self._seen_at = self._walk(tree.flatten(outputs))
        self.nodes = sorted(
            (node for node in found if not isinstance(node.layer, InputLayer)),
            key=lambda node: node.number,
        )
        self.stand_ins: dict[int, KerasTensor] = {}
        self.depths = self._depths(found)
        self.operations = self._in_order()
        self._steps = [_Step(node) for node in self.nodes]

    def __reduce__(self) -> tuple[Callable[[Wired], Graph], tuple]:
        return _connected, (Wired((self.inputs, self.outputs), self.nodes),)

    def _walk(self, outputs: list[KerasTensor]) -> tuple[list[Node], dict[int, int]]:
        """The nodes that the outputs need, inputs first, and when each layer was first met, or each
        input that a layer has made."""
        found: list[Node] = []
        finished: set[int] = set()
        seen_at: dict[int, int] = {}
        # Depth first, without recursion: a node is met, then finished after those it needs.
        waiting = [(tensor, False) for tensor in reversed(outputs)]
        while waiting:
            tensor, met = waiting.pop()
            node = tensor.node
            assert node is not None
            if met:
                if node.number not in finished:
                    finished.add(node.number)
                    found.append(node)
                continue
            is_source = id(tensor) in self._given
            if is_source and not isinstance(node.layer, InputLayer):
                seen_at.setdefault(id(tensor), len(seen_at))
                continue
            if node.number in finished:
                continue
            if isinstance(node.layer, InputLayer) and not is_source:
                raise ValueError(
                    f"the graph is disconnected: an output needs the input {node.layer.name!r}, "
                    f"{tensor!r}, which is not among the model's inputs"
                )
            seen_at.setdefault(id(node.layer), len(seen_at))
            waiting.append((tensor, True))
            waiting += [(needed, False) for needed in reversed(node.needed)]
        return found, seen_at

    def _depths(self, found: list[Node]) -> dict[int, int]:
        """How many layers lie between a layer (by its id) and the outputs, at most."""
        of_node: dict[int, int] = {}
        of_layer: dict[int, int] = {}
        inside = {node.number for node in found}
        for node in reversed(found):
            depth = max(of_node.get(node.number, 0), of_layer.get(id(node.layer), 0))
            of_node[node.number] = of_layer[id(node.layer)] = depth
            for tensor in node.needed:
                needed = tensor.node
                assert needed is not None
                if needed.number in inside:
                    of_node[needed.number] = max(depth + 1, of_node.get(needed.number, 0))
        self._layers = {id(node.layer): node.layer for node in found}
        for source in self.sources:
            assert source.node is not None
            layer = source.node.layer
            depth = 0
            if not isinstance(layer, InputLayer):
                takers = [node for node in found if any(t is source for t in node.needed)]
                depth = max((of_node[node.number] + 1 for node in takers), default=0)
                stand_in = input_like(source)
                self.stand_ins[id(source)] = stand_in
                layer = stand_in.node.layer  # type: ignore[union-attr]
            if id(layer) not in self._layers:
                self._layers[id(layer)] = layer
                of_layer[id(layer)] = depth
                self._seen_at[id(layer)] = self._seen_at.get(id(source), -1)
        return of_layer

    def _in_order(self) -> list[Layer]:
        order = sorted(self._layers, key=lambda key: (-self.depths[key], self._seen_at[key]))
        return [self._layers[key] for key in order]

    def run(self, inputs: Any) -> Any:
        """The outputs for these inputs: a nest like that of the inputs, or a dict by name."""
        values: dict[int, Any] = {}
        for source, value in zip(self.sources, self._arranged(inputs), strict=True):
            values[id(source)] = fitted(source, value)
        for step in self._steps:
            step(values)
        if isinstance(self.outputs, KerasTensor):
            return values[id(self.outputs)]
        return tree.map_structure(lambda tensor: values[id(tensor)], self.outputs)

    def told(self, inputs: Any) -> Any:
        """KerasTensors like the outputs for inputs like these; None where they do not fit as they
        are."""
        given = tree.flatten(inputs)
        if tree.sort(inputs) == "mapping" or len(given) != len(self.sources):
            return None
        values: dict[int, Any] = {}
        for source, tensor in zip(self.sources, given, strict=True):
            if not isinstance(tensor, KerasTensor) or not _fits(tensor.shape, source.shape):
                return None
            made = values[id(source)] = tensor.alike(tensor.shape, source.dtype)
            made.sparse = tensor.sparse and source.sparse
        fill = _filler(values)
        for node in self.nodes:
            kwargs = tree.map_structure(fill, node.kwargs)
            if not node.layer._takes_training:
                kwargs.pop("training", None)
            args = tree.map_structure(fill, list(node.args))
            outputs = tree.flatten(node.layer.compute_output_spec(*args, **kwargs))
            values.update(zip(map(id, tree.flatten(node.outputs)), outputs, strict=True))
        return tree.map_structure(lambda tensor: values[id(tensor)], self.outputs)

    def again(self, inputs: Any) -> Any:
        """The outputs where the layers are called once more, on other KerasTensors."""
        values: dict[int, Any] = dict(
            zip(map(id, self.sources), self._arranged(inputs), strict=True)
        )
        fill = _filler(values)
        for node in self.nodes:
            args = tree.map_structure(fill, list(node.args))
            outputs = node.layer(*args, **tree.map_structure(fill, node.kwargs))
            made = zip(map(id, tree.flatten(node.outputs)), tree.flatten(outputs), strict=True)
            values.update(made)
        return tree.map_structure(lambda tensor: values[id(tensor)], self.outputs)

    def _arranged(self, inputs: Any) -> list[Any]:
        if tree.sort(inputs) == "mapping":
            struct = self.inputs
            names = list(struct) if isinstance(struct, Mapping) else [s.name for s in self.sources]
            missing = [name for name in names if name not in inputs]
            if missing:
                raise ValueError(
                    f"the model needs inputs named {', '.join(map(str, names))}; "
                    f"{', '.join(map(str, missing))} is missing"
                )
            if isinstance(struct, Mapping):
                return tree.flatten({name: inputs[name] for name in names})
            return [inputs[name] for name in names]
        leaves = tree.flatten(inputs)
        if len(leaves) != len(self.sources):
            raise ValueError(
                f"the model takes {len(self.sources)} inputs, {len(leaves)} were given"
            )
        if isinstance(self.inputs, Mapping) and list(self.inputs) != tree.keys(self.inputs):
            raise ValueError(
                f"the inputs of the model have names, in no order: give a dict with the keys "
                f"{', '.join(map(str, self.inputs))}, not a {type(inputs).__name__}"
            )
        return leaves


def _connected(wired: Wired) -> Graph:
    return Graph(*wired.ends)


class _Step:
    """One node, ready to run on the values of the tensors by id."""

    def __init__(self, node: Node) -> None:
        self.layer = node.layer
        self.args, self.kwargs = node.args, node.kwargs
        first = node.args[0] if node.args else None
        alone = len(node.args) == 1 and isinstance(first, KerasTensor) and not node.kwargs
        self.only = id(first) if alone else None
        outputs = node.outputs
        self.out = id(outputs) if isinstance(outputs, KerasTensor) else None
        self.outs = [id(tensor) for tensor in tree.flatten(outputs)]

    def __call__(self, values: dict[int, Any]) -> None:
        if self.only is not None:
            result = self.layer(values[self.only])
        else:
            fill = _filler(values)
            result = self.layer(
                *tree.map_structure(fill, list(self.args)), **tree.map_structure(fill, self.kwargs)
            )
        if self.out is not None:
            values[self.out] = result
        else:
            values.update(zip(self.outs, tree.flatten(result), strict=True))


def _filler(values: Mapping[int, Any]) -> Callable[[Any], Any]:
    return lambda leaf: values[id(leaf)] if isinstance(leaf, KerasTensor) else leaf


def _fits(shape: tuple, wanted: tuple) -> bool:
    pairs = zip(shape, wanted, strict=False)
    return len(shape) == len(wanted) and all(b is None or a == b for a, b in pairs)


def _fitted_rows(source: KerasTensor, rows: Composite) -> Any:
    """A ragged tensor in the dtype of the input. Raises ValueError where it does not fit."""
    if not source.ragged or len(rows.shape) != len(source.shape):
        raise ValueError(
            f"{source!r} is an input of the model, a {type(rows).__name__} of shape {rows.shape} "
            "was given: give Input(ragged=True) as many axes, or the model rows.to_tensor()"
        )
    return rows if rows.dtype == source.dtype else cast(rows, source.dtype)


def _fitted_sparse(source: KerasTensor, value: SparseTensor) -> Any:
    """A sparse tensor in the dtype of the input, dense unless that is sparse. Raises ValueError."""
    if source.ragged:
        raise ValueError(
            f"{source!r} is an input of the model, a SparseTensor of shape {value.shape} was "
            "given: give Input(sparse=True), or the model a RaggedTensor"
        )
    _check_shape(source, tuple(value.shape), tuple(value.shape))
    found = value if value.dtype == source.dtype else cast(value, source.dtype)
    return found if source.sparse else to_dense(found)


def _check_shape(source: KerasTensor, shape: tuple, given: tuple) -> None:
    """Raises ValueError unless a value is of the shape of the input; the batch is of any size."""
    wanted = source.shape
    if len(shape) != len(wanted) or any(
        [b is not None and a != b for a, b in zip(shape[1:], wanted[1:], strict=True)]
    ):
        raise ValueError(
            f"the input {source.name!r} of the model has shape {wanted}, a value of shape {given} "
            "was given"
        )


def fitted(source: KerasTensor, value: Any) -> Any:
    """A value in the dtype of the input, a last axis of 1 added or taken away where that fits.

    None for an optional input that is left out. The batch may be of any size, also where the input
    states one. Raises ValueError where it does not fit.
    """
    if value is None:
        if getattr(source.node and source.node.layer, "optional", False):
            return None
        raise ValueError(f"the input {source.name!r} is None, and not optional: give a tensor")
    if isinstance(value, SparseTensor):
        return _fitted_sparse(source, value)
    if isinstance(value, Composite):
        return _fitted_rows(source, value)
    of_texts = source.dtype is string
    tensor: Any = as_texts(value) if of_texts else as_tensor(value)
    found, wanted = tensor.shape if of_texts else tensor._data.shape, source.shape
    if len(found) == len(wanted) - 1 and wanted[-1] == 1:
        tensor = tensor[..., None] if of_texts else expand_dims(tensor, -1)
    elif len(found) == len(wanted) + 1 and found[-1] == 1:
        tensor = tensor[..., 0] if of_texts else squeeze(tensor, -1)
    shape = tensor.shape if of_texts else tensor._data.shape
    _check_shape(source, shape, found)
    if of_texts or tensor._data.dtype == source.dtype.numpy_dtype:
        return tensor
    return carry_mask(tensor, cast(tensor, np.dtype(source.dtype.numpy_dtype)))
