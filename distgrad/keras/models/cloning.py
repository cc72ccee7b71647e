"""New models of the layers that another one has, by their configs."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

from distgrad.core import tree
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.core import Lambda
from distgrad.keras.layers.input import InputLayer, input_like
from distgrad.keras.layers.operation import NamedOperation
from distgrad.keras.layers.reviving import deserialize
from distgrad.keras.layers.symbolic import KerasTensor
from distgrad.keras.models.functional import Functional
from distgrad.keras.models.model import Model, takes_ends
from distgrad.keras.models.sequential import Sequential

Make = Callable[[Any], Any]


def clone_model(
    model: Model,
    input_tensors: Any = None,
    clone_function: Callable[[Layer], Layer] | None = None,
    call_function: Callable[..., Any] | None = None,
    recursive: bool = False,
) -> Model:
    """A model with new layers of the same configs and initial weights, compiled as ``model`` is.

    ``input_tensors`` are the KerasTensors that it begins with. ``clone_function(layer)`` gives the
    layer in place of one, by default a new one of its config; ``call_function(layer, *args,
    **kwargs)`` calls it in a functional model; ``recursive`` clones the models within likewise.
    Raises ValueError where a subclassed model (any of these) or a Sequential (call_function)
    cannot do so, and for inputs that are no KerasTensors or nested otherwise than the model's.
    """
    functional = model._layer_graph is not None
    if not (functional or isinstance(model, Sequential)):
        if clone_function or call_function or input_tensors is not None:
            raise ValueError(
                f"{type(model).__name__} calls its layers itself: clone_function, call_function "
                "and input_tensors are for Sequential and functional models"
            )
        return _compiled(type(model).from_config(model.get_config()), model)
    if call_function is not None and not functional:
        raise ValueError("call_function is for functional models: a Sequential calls its layers")
    made: dict[int, Any] = {}  # a layer that is there twice is cloned once

    def make(layer: Any) -> Any:
        if id(layer) not in made:
            inner = (
                isinstance(layer, Sequential) or getattr(layer, "_layer_graph", None) is not None
            )
            if recursive and inner:
                call = None if isinstance(layer, Sequential) else call_function
                made[id(layer)] = clone_model(layer, None, clone_function, call, True)
            elif clone_function is None and type(layer) in _PLAIN:
                made[id(layer)] = clone_model(layer)
            elif isinstance(layer, NamedOperation):
                made[id(layer)] = NamedOperation.from_entry(layer.entry())
            else:
                made[id(layer)] = (clone_function or _of_its_config)(layer)
        return made[id(layer)]

    if not functional:
        return _compiled(_sequential(model, _inputs(input_tensors), make), model)
    return _compiled(_functional(model, _inputs(input_tensors), make, call_function), model)


_PLAIN = (Functional, Sequential)


def _of_its_config(layer: Layer) -> Layer:
    config = layer.get_config()
    if isinstance(layer, Lambda):  # of whose functions a config holds the names alone
        functions = {"function": layer.function, "mask": layer.mask}
        config.update({name: each for name, each in functions.items() if callable(each)})
    return type(layer).from_config(config)


def _inputs(tensors: Any) -> Any:
    for each in tree.flatten(tensors):
        if each is not None and not isinstance(each, KerasTensor):
            raise ValueError(f"input_tensors must be KerasTensors, of keras.Input, not {each!r}")
    return tensors


def _like(tensor: KerasTensor) -> KerasTensor:
    """A new input of the same name."""
    name = getattr(tensor.node and tensor.node.layer, "_given_name", None)
    made = input_like(tensor, name)
    if name is None:
        made.node.layer.name = tensor.name  # type: ignore[union-attr]
    return made


def _sequential(model: Any, inputs: Any, make: Make) -> Model:
    if isinstance(inputs, (list, tuple)):
        if len(inputs) != 1:
            raise ValueError(f"a Sequential has one input: input_tensors holds {len(inputs)}")
        (inputs,) = inputs
    if inputs is None and model._stacked_tensors:
        inputs = _like(model._stacked_tensors[0])
    elif inputs is not None and not isinstance(inputs.node.layer, InputLayer):
        inputs = input_like(inputs)
    layers = [make(layer) for layer in model._stacked_layers if not isinstance(layer, InputLayer)]
    begin = [] if inputs is None else [inputs]
    settings = {"name": model.name, "trainable": model.trainable}
    return type(model)([*begin, *layers], **settings, dtype=model.dtype_policy.name)


def _functional(model: Any, inputs: Any, make: Make, call: Callable[..., Any] | None) -> Model:
    graph = model._layer_graph
    inputs = tree.map_structure(_like, graph.inputs) if inputs is None else inputs
    try:
        tree.assert_same_structure(inputs, graph.inputs, check_types=False)
    except (ValueError, TypeError) as error:
        raise ValueError(f"input_tensors must be nested as the model's inputs: {error}") from None
    values = {id(s): new for s, new in zip(graph.sources, tree.flatten(inputs), strict=True)}

    def fill(leaf: Any) -> Any:
        return values[id(leaf)] if isinstance(leaf, KerasTensor) else leaf

    for node in graph.nodes:
        args = tree.map_structure(fill, list(node.args))
        kwargs = tree.map_structure(fill, node.kwargs)
        layer = make(node.layer)
        outputs = layer(*args, **kwargs) if call is None else call(layer, *args, **kwargs)
        old, new = tree.flatten(node.outputs), tree.flatten(outputs)
        values.update(zip(map(id, old), new, strict=True))
    ends = inputs, tree.map_structure(fill, graph.outputs)
    cls = type(model) if takes_ends(type(model)) else Functional
    clone = cls(*ends, name=model.name)
    if not model.trainable:
        clone.trainable = False
    return clone


def _compiled(clone: Any, model: Any) -> Any:
    """The clone, compiled with an optimizer of its own and what else ``model`` was given."""
    if model.optimizer is None or clone.optimizer is not None:
        return clone
    optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
    settings = copy.deepcopy(model._compiled_with)
    eager, jit = model.run_eagerly, model.jit_compile
    clone.compile(optimizer, **settings, run_eagerly=eager, jit_compile=jit, auto_scale_loss=False)
    return clone


def model_from_json(json_string: str, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The model that ``to_json`` has described, with initial weights."""
    return deserialize(json.loads(json_string), custom_objects)
