"""Model: a layer made of layers, with a training loop."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Any

import numpy as np

from distgrad.core import recording, tree
from distgrad.core.texts import dtype_of
from distgrad.core.user_line import warn
from distgrad.core.variable import Variable
from distgrad.keras import losses, metrics, registry
from distgrad.keras.layers.arguments import refuse_numbers
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.calling import in_mode, quiet
from distgrad.keras.layers.masking import masked
from distgrad.keras.layers.operation import Operation
from distgrad.keras.layers.shaping import shapes_of
from distgrad.keras.layers.symbolic import KerasTensor
from distgrad.keras.layers.tracking import count_up
from distgrad.keras.models.graph import Graph
from distgrad.keras.models.trainer import Trainer


class Model(Trainer):
    """A layer with a training loop.

    Subclasses define ``call``. ``Model(inputs, outputs)`` computes what lies between two nests of
    KerasTensors (``keras.Input``). Raises ValueError where they are not connected.
    """

    supports_masking = True
    takes_texts = True
    takes_kinds = ("ragged", "sparse")
    _not_in_config = (*Trainer._not_in_config, "inputs", "outputs")

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls is Model and (args or "inputs" in kwargs):
            from distgrad.keras.models.functional import Functional

            return object.__new__(Functional)
        return super().__new__(cls, *args, **kwargs)

    def __init__(self, inputs: Any = None, outputs: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._remat_mode = None  # its layers see to it themselves
        if registry.is_ours(type(self).call):  # its layers are told, and carry masks, anyway
            self._takes_training, self._mask_for = False, {}
        self._layer_graph: Graph | None = None
        self._form_of_one: tuple[type | None, type | None] = (
            None,
            None,
        )  # forms of ends of one tensor
        self._build_dtypes_dict: Any = None
        self._compiled_with: dict[str, Any] = {}
        if inputs is None and outputs is None:
            return
        if inputs is None or outputs is None:
            raise ValueError("a functional model needs both inputs and outputs")
        self._form_of_one = _alone(inputs), _alone(outputs)
        self._layer_graph = Graph(_as_given(inputs), _as_given(outputs))
        self._graph_operations = self._layer_graph.operations
        name_layers(sorted(self._graph_operations, key=lambda layer: layer._creation_number))
        self.casts_inputs = False  # its inputs have dtypes of their own
        self.built = True
        self._name_weights()
        for layer in self._graph_operations:  # they were there before this model
            layer._name_weights()

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if "_kept_step" in state:
            state["_kept_step"] = None, None  # a copy makes its own
        if "_kept_passes" in state:
            state["_kept_passes"] = None, None
        if "_last_look" in state:
            state["_last_look"] = None
        return state

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Runs the layers between inputs and outputs; a subclass has its own.

        ``mask`` is for inputs that carry none.
        """
        if self._layer_graph is None:
            return super().call(inputs)
        if training is None and mask is None:
            return self._layer_graph.run(inputs)
        with in_mode(training):
            return self._layer_graph.run(masked(inputs, mask))

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """The KerasTensors that the model makes of these KerasTensors."""
        if len(args) == 1 and not kwargs and self._told_by_layers():
            with contextlib.suppress(ValueError), quiet(self):  # which trying it out will explain
                if (found := self._told_inputs(args[0])) is not None:
                    return found
        return super().compute_output_spec(*args, **kwargs)

    def _told_by_layers(self) -> bool:
        return self._layer_graph is not None and type(self).call is Model.call

    def _told_inputs(self, inputs: Any) -> Any:
        return self._layer_graph.told(inputs)  # type: ignore[union-attr]

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """None: the layers of a model have given its outputs their masks."""
        return None

    @property
    def layers(self) -> list[Layer]:
        """The layers right below; without operations on KerasTensors."""
        return self._listed_layers()

    @layers.setter
    def layers(self, value: Any) -> None:
        raise AttributeError(
            f"`layers` of {self.name!r} tells which layers there are, and cannot be set: give the "
            "attribute another name, such as `blocks`; a Sequential has `add()` and `pop()`"
        )

    def _listed_layers(self) -> list[Layer]:
        if self._layer_graph is not None:
            return [layer for layer in self._graph_operations if not isinstance(layer, Operation)]
        return [layer for _, layer in self._layers_directly_below()]

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of that name or at that index. Raises ValueError where there is none."""
        found = self.layers
        if index is not None and -len(found) <= index < len(found):
            return found[index]
        for layer in (*found, *self.__dict__.get("_graph_operations", ())):
            if name is not None and layer.name == name:
                return layer
        names = ", ".join(layer.name for layer in found)
        raise ValueError(f"no layer {name if index is None else index!r}; there are {names}")

    # Inputs and outputs, of models that know them

    def _graph_ends(self) -> tuple[Any, Any]:
        if self._layer_graph is not None:
            return self._layer_graph.inputs, self._layer_graph.outputs
        raise AttributeError(
            f"{self.name!r} is not made of inputs and outputs; it has none to show"
        )

    def _in_form(self, end: int) -> Any:
        nest, kind = tree.copied(self._graph_ends()[end]), self._form_of_one[end]
        return nest if kind is None else kind([nest])

    @property
    def inputs(self) -> list[KerasTensor]:
        """The KerasTensors that go in."""
        return tree.flatten(self._graph_ends()[0])

    @property
    def outputs(self) -> list[KerasTensor]:
        """The KerasTensors that come out."""
        return tree.flatten(self._graph_ends()[1])

    @property
    def input(self) -> Any:
        """The inputs, in the nest in which they were given."""
        return self._in_form(0)

    @property
    def output(self) -> Any:
        """The outputs, in the nest in which they were given."""
        return self._in_form(1)

    @property
    def input_shape(self) -> Any:
        """The shapes of the inputs, None for unknown sizes."""
        return tree.map_structure(lambda tensor: tensor.shape, self._graph_ends()[0])

    @property
    def output_shape(self) -> Any:
        """The shapes of the outputs, None for unknown sizes."""
        return tree.map_structure(lambda tensor: tensor.shape, self._graph_ends()[1])

    @property
    def input_names(self) -> list[str]:
        return [tensor.name for tensor in self.inputs]

    @property
    def output_names(self) -> list[str]:
        return [tensor.node.layer.name for tensor in self.outputs]  # type: ignore[union-attr]

    # Weights

    def build(self, input_shape: Any) -> None:
        """Makes all weights for inputs of this shape (None for an unknown batch size).

        A ``build`` of a subclass makes weights of its own; those of its layers come at the first
        call, and ``super().build`` has nothing to do in it.
        """
        if self.built or self._builds_itself():
            return
        with recording.paused(), quiet(self):
            self(_zeros(input_shape, self.compute_dtype))

    def build_like(self, input_shape: Any, dtypes: Any = None) -> None:
        """``build`` for inputs of these shapes, in a nest, and of these dtypes.

        A ``build`` of a subclass comes first, and is all where it has built the layers, too.
        """
        if dtypes is None or self._builds_itself():
            self.build(input_shape)
            if not self._builds_itself() or all(each.built for each in self._layers_below()):
                return
        with recording.paused(), quiet(self):
            self(_zeros(input_shape, dtypes or self.compute_dtype))

    def _builds_itself(self) -> bool:
        return type(self).build is not Model.build

    def _build_for(self, args: tuple, kwargs: Mapping[str, Any]) -> None:
        """The layers of a model make their weights when it calls them; it remembers on what."""
        if self._builds_itself():
            super()._build_for(args, kwargs)
        if len(args) == 1 and not kwargs:
            refuse_numbers(self, args[0])
            self._build_shapes_dict = shapes_of(args[0])
            self._build_dtypes_dict = tree.map_structure(lambda x: dtype_of(x).name, args[0])

    def variable_paths(self) -> dict[str, Variable]:
        """Every variable, the non-trainable ones too, under its path within this model."""
        return {path: variable for path, variable, _ in self._all_weights()}

    def summary(
        self,
        line_length: int | None = None,
        positions: Sequence[float] | None = None,
        print_fn: Callable[[str], Any] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Sequence[str] | None = None,
    ) -> None:
        """Prints a table of the layers, their output shapes and sizes, or hands it to print_fn.

        ``layer_range`` has the names of the first and the last layer to show.
        """
        from distgrad.keras.models.summary import summary

        options = (expand_nested, show_trainable, layer_range)
        text = summary(self, line_length, positions, *options)
        (print_fn or print)(text)

    # Saving

    def save(
        self,
        filepath: Any,
        overwrite: bool = True,
        zipped: bool | None = None,
        include_optimizer: bool = True,
        save_format: str | None = None,
    ) -> None:
        """Writes architecture, weights and the optimizer's state into a ``.keras`` or ``.h5`` file.

        ``include_optimizer`` is for ``.h5``. The format is what the ending says, whatever
        ``save_format`` is, of which a warning tells. Raises ValueError for another ending and for
        ``zipped=False``, FileExistsError where it may not be overwritten, NotImplementedError where
        a layer cannot be described by its config, MissingExtraError for ``.h5`` without h5py.
        """
        from distgrad.keras.models import saving

        saving.save_model(self, filepath, overwrite, zipped, include_optimizer, save_format)

    def save_weights(
        self, filepath: Any, overwrite: bool = True, max_shard_size: float | None = None
    ) -> None:
        """Writes the weights into a ``.weights.h5`` file (as Keras 3 does) or ``.safetensors``.

        With ``max_shard_size``, in GiB, into several of the first kind, and a ``.weights.json``
        that lists them. Raises ValueError for another ending, and a weight that is larger than
        that; MissingExtraError without h5py, but for ``.safetensors``.
        """
        from distgrad.keras.models import saving

        saving.save_weights(self, filepath, overwrite, max_shard_size)

    def load_weights(
        self, filepath: Any, skip_mismatch: bool = False, by_name: bool | None = None
    ) -> None:
        """Reads what ``save_weights`` has written, here or in Keras 3, or Keras's older ``.h5``.

        Raises FileNotFoundError, and ValueError where the weights are those of another
        architecture; nothing is changed then. ``skip_mismatch`` leaves the layers that have no
        weights of their shapes in the file as they are, each with a warning. ``by_name``, for
        older ``.h5`` alone, fills the layers whose names are in the file, and leaves the others.
        """
        from distgrad.keras.models import saving

        saving.load_weights(self, filepath, skip_mismatch, by_name)

    def get_state_tree(self, value_format: str = "backend_tensor") -> dict[str, Any]:
        """Values by kind (``trainable_variables``, ...), nested under the parts of their paths.

        Tensors, or arrays with ``value_format="numpy_array"``. Raises ValueError for a path that
        two variables have.
        """
        from distgrad.keras.models.state_tree import state_tree

        return state_tree(self, value_format)

    def set_state_tree(self, state_tree: Mapping[str, Any]) -> None:
        """Assigns what ``get_state_tree`` gave, of this model or of one like it in Keras.

        Values of variables that are not there are left out. Raises ValueError for other kinds.
        """
        from distgrad.keras.models.state_tree import set_state_tree

        set_state_tree(self, state_tree)

    def export(
        self,
        filepath: Any,
        format: str = "onnx",
        verbose: Any = None,
        input_signature: Any = None,
        opset_version: int | None = None,
    ) -> None:
        """Writes what the model computes at inference into an ONNX file, for batches of any size.

        The file is run beside ``predict`` first, and the largest difference printed unless
        ``verbose`` is False. ``input_signature`` states shapes and dtypes (KerasTensors, arrays)
        where the model does not know them or leaves more than the batch open. Computes in float32
        what the model does in 16 bits. Raises ValueError for another format or opset, ExportError
        (a ValueError) for what ONNX cannot express, MissingExtraError without the extra ``onnx``.
        """
        from distgrad.export import model as exporting

        exporting.export(self, filepath, format, verbose, input_signature, opset_version)

    def get_compile_config(self) -> dict[str, Any]:
        """What ``compile`` was called with, as plain values."""
        names = ("loss", "loss_weights", "metrics", "weighted_metrics")
        config = {name: registry.plain(self._compiled_with.get(name)) for name in names}
        return {"optimizer": registry.serialize(self.optimizer), **config}

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        """``compile`` with what ``get_compile_config`` gave, here or in Keras 3.

        A ``compile`` of the model's own, which may take anything, is not called; a warning says so.
        """
        if not registry.is_ours(type(self).compile):
            warn(
                f"{type(self).__name__} defines its own compile(), which is not called as the "
                "model is loaded: call it, or define get_compile_config() and "
                "compile_from_config(config), too"
            )
            return
        names = ("optimizer", "loss", "loss_weights", "metrics", "weighted_metrics")
        given = {name: _without_options_off(config.get(name)) for name in names}
        self.compile(**{**given, "loss": _losses(given["loss"])})

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; of a functional model, its layers and their calls, where
        the class takes inputs and outputs as ``Model`` does, or ``*args`` and ``**kwargs``."""
        if self._layer_graph is not None and takes_ends(type(self)):
            from distgrad.keras.models.functional import graph_config

            return graph_config(self)
        return super().get_config()

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Any:
        """A model of this config; ``custom_objects`` are the user's own classes in it, by name."""
        if {"layers", "input_layers", "output_layers"} <= set(config) and takes_ends(cls):
            from distgrad.keras.models.functional import Functional, graph_from_config

            with registry.custom_object_scope(custom_objects):
                return graph_from_config(Functional if cls is Model else cls, config)
        with registry.custom_object_scope(custom_objects or {}):
            return super().from_config(config)

    def to_json(self, **kwargs: Any) -> str:
        """Architecture and class as JSON text, for ``model_from_json``."""
        return json.dumps(registry.serialize(self), **kwargs)


def takes_ends(cls: type) -> bool:
    """Whether a class can be made of inputs and outputs, as Keras tells it."""
    init = cls.__init__  # type: ignore[misc]
    kinds = {parameter.kind for parameter in inspect.signature(init).parameters.values()}
    return init is Model.__init__ or {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD} <= kinds


def _without_options_off(config: Any) -> Any:
    """A config of Keras without the options that are None, and functions as their names.

    What a user has registered, or put in scope, stands for its name, unless one here has it.
    """
    if isinstance(config, Mapping):
        if config.get("class_name") == "function":
            return _without_options_off(config["config"])
        names = ("module", "class_name", "registered_name")  # of a class, which they stand for
        return {
            n: v if n in names else _without_options_off(v)
            for n, v in config.items()
            if v is not None
        }
    if isinstance(config, str):
        known = {"accuracy", *losses._FUNCTIONS, *losses._KNOWN, *metrics._KNOWN}
        return registry.custom_objects(known).get(config, config)
    return [_without_options_off(v) for v in config] if isinstance(config, list) else config


def _losses(spec: Any) -> Any:
    """Losses in place of their configs, in a nest by output."""
    if isinstance(spec, Mapping) and "class_name" in spec:
        return losses.deserialize(spec)
    if isinstance(spec, Mapping):
        return {name: _losses(each) for name, each in spec.items()}
    return [_losses(each) for each in spec] if isinstance(spec, list) else spec


def name_layers(layers: Sequence[Layer]) -> None:
    """``count_up`` for the layers of a model.

    Raises ValueError where two of them were given the same name.
    """
    given = [layer._given_name for layer in layers if layer._given_name is not None]
    for name in given:
        if given.count(name) > 1:
            raise ValueError(f"two layers are named {name!r}; names must differ in a model")
    count_up(layers)


def _alone(nest: Any) -> type | None:
    """list or tuple, where a KerasTensor is alone in one."""
    alone = type(nest) in (list, tuple) and len(nest) == 1 and isinstance(nest[0], KerasTensor)
    return type(nest) if alone else None


def _as_given(nest: Any) -> Any:
    """A list of one KerasTensor is that tensor, as in Keras, which shows the list all the same."""
    return nest if _alone(nest) is None else nest[0]


def _zeros(shape: Any, dtype: Any) -> Any:
    """Zeros of a shape with None for the batch, or of a nest of shapes (and of dtypes).

    Of dtype "string" they are texts of a word.
    """
    if isinstance(shape, Mapping):
        own = dtype if isinstance(dtype, Mapping) else dict.fromkeys(shape, dtype)
        return {name: _zeros(each, own[name]) for name, each in shape.items()}
    if any(isinstance(each, (tuple, list)) for each in shape):
        kinds = dtype if isinstance(dtype, (tuple, list)) else [dtype] * len(shape)
        return type(shape)([_zeros(*each) for each in zip(shape, kinds, strict=True)])
    sizes = [1 if n is None else n for n in shape]
    return np.full(sizes, "a") if dtype == "string" else np.zeros(sizes, dtype)
