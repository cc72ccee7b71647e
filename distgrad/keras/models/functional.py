"""Functional: a model of inputs and outputs, and its config in the words of Keras 3."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.core import tree
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.keras import registry
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.input import InputLayer
from distgrad.keras.layers.operation import NamedOperation
from distgrad.keras.layers.symbolic import KerasTensor, revive
from distgrad.keras.models.model import Model


class Functional(Model):
    """What ``Model(inputs, outputs)`` makes."""

    _keras_module = "keras.src.models.functional"

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Any:
        """A model with these layers and calls, with initial weights of its own."""
        with registry.custom_object_scope(custom_objects or {}):
            return graph_from_config(cls, config)


def graph_config(model: Model) -> dict[str, Any]:
    """The layers of a functional model and how they are called."""
    graph = model._layer_graph
    assert graph is not None
    calls: dict[int, list[Any]] = {}
    for node in graph.nodes:
        calls.setdefault(id(node.layer), []).append(node)

    def place(tensor: KerasTensor) -> list[Any]:
        tensor = graph.stand_ins.get(id(tensor), tensor)
        node = tensor.node
        assert node is not None
        known = calls.get(id(node.layer), [node])
        return [node.layer.name, known.index(node), tensor.index]

    def end(tensor: KerasTensor) -> list[Any]:
        name, call, index = place(tensor)
        inner = isinstance(tensor.node.layer, Functional)  # type: ignore[union-attr]
        return [name, call + inner, index]  # Keras counts their own inputs as a call, here only

    def entry(layer: Layer) -> dict[str, Any]:
        config = layer.entry() if isinstance(layer, NamedOperation) else registry.serialize(layer)
        inbound = [
            {"args": _written(list(node.args), place), "kwargs": _written(node.kwargs, place)}
            for node in calls.get(id(layer), [])
        ]
        return {**config, "name": layer.name, "inbound_nodes": inbound}

    return {
        "name": model.name,
        "trainable": model.trainable,
        "layers": [entry(layer) for layer in graph.operations],
        "input_layers": tree.map_structure(place, graph.inputs),
        "output_layers": tree.map_structure(end, graph.outputs),
    }


def graph_from_config(cls: type, config: Mapping[str, Any]) -> Any:
    """A functional model from ``graph_config``, here, of Keras 3 or of Keras 2.

    Raises ValueError where a call needs a layer that is not there, or itself.
    """
    layers: dict[str, Layer] = {}
    made: dict[str, list[list[KerasTensor]]] = {}  # of each layer: the outputs of its calls
    for each in config["layers"]:
        layer = layers[each["name"]] = revive(each, surely=True)
        layer._given_name = layer.name = each["name"]
        made[each["name"]] = [[layer.output]] if isinstance(layer, InputLayer) else []
    models = {name: 1 for name, layer in layers.items() if isinstance(layer, Functional)}
    waiting = [
        (each["name"], _of_keras_3(node, models))
        for each in config["layers"]
        for node in each["inbound_nodes"]
    ]

    def tensor(place: Sequence[Any]) -> KerasTensor:
        name, call, index = place
        if name not in made:
            raise ValueError(f"the config is not one of a model: there is no layer {name!r}")
        return made[name][call][index]

    while waiting:
        later: list[tuple[str, Any]] = []
        for name, node in waiting:
            blocked = any(
                name == other for other, _ in later
            )  # the calls of a layer keep their order
            try:
                args, kwargs = (_read(node[key], tensor) for key in ("args", "kwargs"))
            except IndexError:
                blocked = True
            if blocked:
                later.append((name, node))
                continue
            if isinstance(layers[name], NamedOperation):  # JSON has a list for x[:, 0]'s tuple
                args = [tuple(a) if isinstance(a, list) else a for a in args]
            kwargs = {key: value for key, value in kwargs.items() if value is not None}
            made[name].append(tree.flatten(layers[name](*args, **kwargs)))
        if len(later) == len(waiting):
            raise ValueError(f"the config is not one of a model: {later[0][0]!r} needs itself")
        waiting = later

    def nest(places: Any, first: Mapping[str, int]) -> Any:
        if isinstance(places, Mapping):
            return {key: nest(place, first) for key, place in places.items()}
        if len(places) == 3 and isinstance(places[0], str):
            name, call, index = places
            return tensor([name, call - first.get(name, 0), index])
        ends = [nest(place, first) for place in places]
        return tuple(ends) if isinstance(places, tuple) else ends

    # Outputs count the calls of a model within this one from 1 on; once they did from 0 on, here.
    first = dict(models)
    for name, call in _calls(config["output_layers"]):
        if call == 0:
            first.pop(name, None)

    own = set(config) - {"layers", "input_layers", "output_layers"}  # of a user's class
    wanted = ("name", "trainable", "dtype") if registry.is_ours(cls) else own
    settings = {n: v for n, v in config.items() if n in wanted}
    inputs, outputs = config["input_layers"], config["output_layers"]
    return cls(nest(inputs, {}), nest(outputs, first), **settings)


def _of_keras_3(node: Any, first: Mapping[str, int]) -> Any:
    """The arguments of a call; Keras 2 lists ``[name, call, index, kwargs]`` of each tensor.

    There the calls of the models in ``first`` are counted from 1 on.
    """
    if not isinstance(node, list):
        return node
    tensors = [
        {
            "class_name": "__keras_tensor__",
            "config": {"keras_history": [name, call - first.get(name, 0), index]},
        }
        for name, call, index, *_ in node
    ]
    kwargs = node[-1][3] if node and len(node[-1]) > 3 else {}
    return {"args": tensors if len(tensors) == 1 else [tensors], "kwargs": kwargs}


def _calls(places: Any) -> Iterator[tuple[str, int]]:
    """Names of layers and numbers of their calls, from a nest of ``[name, call, index]``."""
    if isinstance(places, Mapping):
        places = list(places.values())
    elif len(places) == 3 and isinstance(places[0], str):
        yield places[0], places[1]
        return
    for place in places:
        yield from _calls(place)


def _written(value: Any, place: Callable[[KerasTensor], list[Any]]) -> Any:
    """An argument of a call as JSON can hold it."""
    if isinstance(value, KerasTensor):
        config = {
            "shape": list(value.shape),
            "dtype": value.dtype.name,
            "keras_history": place(value),
        }
        return {"class_name": "__keras_tensor__", "config": config}
    if isinstance(value, (list, tuple)):
        return [_written(item, place) for item in value]
    if isinstance(value, Mapping):
        return {key: _written(item, place) for key, item in value.items()}
    if isinstance(value, slice) or value is Ellipsis:
        return registry.entry(value)
    if isinstance(value, (Tensor, Variable, np.ndarray)):
        array = np.asarray(value)
        return registry.of_values("__numpy__", array) if array.ndim else array.tolist()
    return registry.plain(value)


def _read(value: Any, tensor: Callable[[Sequence[Any]], KerasTensor]) -> Any:
    """What ``_written`` has made into JSON."""
    if isinstance(value, (list, tuple)):
        return [_read(item, tensor) for item in value]
    if not isinstance(value, Mapping):
        return value
    kind, config = value.get("class_name"), value.get("config", {})
    if kind == "__keras_tensor__":
        return tensor(config["keras_history"])
    if kind == "__tuple__":
        return tuple(_read(item, tensor) for item in config["value"])
    if kind in registry.VALUES:  # tensors are arrays here
        return registry.VALUES["__numpy__" if kind == "__tensor__" else kind](config)
    return {key: _read(item, tensor) for key, item in value.items()}
