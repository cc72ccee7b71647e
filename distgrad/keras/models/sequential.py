"""Sequential: layers one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distgrad.core.composite import Composite
from distgrad.core.dtypes import kind_of, string
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor
from distgrad.core.texts import dtype_of
from distgrad.keras import registry
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.calling import in_mode, quiet
from distgrad.keras.layers.input import Input, InputLayer, input_like
from distgrad.keras.layers.masking import carry_mask, masked
from distgrad.keras.layers.symbolic import KerasTensor, revive
from distgrad.keras.models.graph import fitted
from distgrad.keras.models.model import Model, name_layers
from distgrad.keras.models.wired import Wired
from distgrad.ops.casting import cast


class Sequential(Model):
    """Layers one after the other.

    A first layer that knows its input's shape builds the model at once, else the first call does.
    Raises ValueError for something that is not a layer.
    """

    def __init__(self, layers: Sequence[Layer] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._stacked_layers: list[Layer] = []
        self._stacked_tensors: list[KerasTensor] = []  # the input, and what each layer makes of it
        for layer in layers or ():
            self.add(layer)

    def __getstate__(self) -> dict[str, Any]:
        nodes = [tensor.node for tensor in self._stacked_tensors[1:] if tensor.node is not None]
        return {**super().__getstate__(), "_stacked_tensors": Wired(self._stacked_tensors, nodes)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "_stacked_tensors": list(state["_stacked_tensors"].ends)})

    def add(self, layer: Any, rebuild: bool = True) -> None:
        """Puts a layer at the end. Raises ValueError where its name is taken or it is none."""
        if isinstance(layer, KerasTensor) and isinstance(
            layer.node and layer.node.layer, InputLayer
        ):
            layer = layer.node.layer  # type: ignore[union-attr]
        if not isinstance(layer, Layer):
            raise ValueError(f"{layer!r} is not a layer")
        if isinstance(layer, InputLayer) and self._stacked_layers:
            raise ValueError(f"{self.name!r} has layers already: an input can only come first")
        name_layers(_once([*self._stacked_layers, layer]))
        self._stacked_layers.append(layer)
        if self._stacked_tensors:
            self._extend_graph([layer])
        else:
            self.built = False
            first = self._stacked_layers[0]
            if isinstance(first, InputLayer):
                self._start_with(first.output)
            elif first._input_shape is not None:
                self._start_with(Input(first._input_shape))
            elif isinstance(first, Model) and first.built and _has_one_input(first):
                source = first.inputs[0]
                self._start_with(input_like(source))

    def pop(self, rebuild: bool = True) -> Layer:
        """Takes the last layer away and returns it. Raises ValueError where there is none."""
        if not self._stacked_layers:
            raise ValueError("there is no layer to take away")
        layer = self._stacked_layers.pop()
        if self._stacked_tensors:
            self._stacked_tensors.pop()
        if not self._stacked_layers:
            self._stacked_tensors.clear()
            self.built = False
        return layer

    def _start_with(self, source: KerasTensor) -> None:
        """Calls the layers one after the other on a KerasTensor: this makes their weights."""
        self._stacked_tensors = [source]
        self._extend_graph(
            [layer for layer in self._stacked_layers if not isinstance(layer, InputLayer)]
        )

    def _extend_graph(self, layers: Sequence[Layer]) -> None:
        tensors = list(self._stacked_tensors)
        self._stacked_tensors = []  # a layer that cannot take this input leaves nothing half-done
        for layer in layers:
            try:
                tensors.append(layer(tensors[-1]))
            except NotImplementedError:  # of its output's shape: the first call builds the layers
                return
        self._stacked_tensors = tensors
        self.built = any(not isinstance(layer, InputLayer) for layer in self._stacked_layers)
        self._name_weights()

    def build(self, input_shape: Any = None) -> None:
        """Makes all weights for inputs of this shape (None for an unknown batch size).

        Without a shape nothing is made where no layer states one: the first call does. Raises
        ValueError for another one than that of the first layer.
        """
        if self.built or self._stacked_tensors:
            known = self._stacked_tensors[0].shape[1:] if self._stacked_tensors else None
            if known is not None and input_shape is not None and known != tuple(input_shape)[1:]:
                raise ValueError(
                    f"{self.name!r} is built for samples of shape {known}, not of "
                    f"{tuple(input_shape)[1:]}"
                )
            return
        if input_shape is not None:
            with quiet(self):
                self._start_with(Input(batch_shape=(None, *tuple(input_shape)[1:])))

    def _finish_building(self) -> None:
        if self._stacked_tensors or all(layer.built for layer in self.layers):
            super()._finish_building()

    def _build_for(self, args: tuple, kwargs: Mapping[str, Any]) -> None:
        given: Any = _alone(args[0]) if len(args) == 1 else None
        shape = tuple(getattr(given, "shape", ()))
        if not shape or self._stacked_tensors or not self._stacked_layers:
            return  # what it is called on is not one tensor: the layers see to it
        dtype = dtype_of(given)
        # Numbers of one byte (images, masks) become floats at once, which hold them exactly;
        # wider whole numbers may be indices.
        floats = kind_of(dtype.numpy_dtype) == "f" or dtype.size == 1
        # What is sparse becomes dense, as in Keras, where no Input says that it may stay.
        ragged = isinstance(given, Composite) and given.kind == "ragged"
        kind = None if floats else dtype
        self._start_with(Input(batch_shape=(None, *shape[1:]), dtype=kind, ragged=ragged))

    def _told_by_layers(self) -> bool:
        return bool(self._stacked_layers) and type(self).call is Sequential.call

    def _told_inputs(self, inputs: Any) -> Any:
        if not isinstance(inputs, KerasTensor):
            return None
        if not self._stacked_tensors:
            self._build_once((inputs,), {})
        source = self._stacked_tensors[0]
        if len(inputs.shape) != len(source.shape):
            return None
        cast = source.dtype.is_floating and not inputs.dtype.is_floating
        x = inputs.alike(inputs.shape, source.dtype if cast else inputs.dtype)
        x.sparse = inputs.sparse and source.sparse
        for layer in self.layers:
            x = layer.compute_output_spec(x)
        return x

    def _listed_layers(self) -> list[Layer]:
        return [layer for layer in self._stacked_layers if not isinstance(layer, InputLayer)]

    def _graph_ends(self) -> tuple[Any, Any]:
        if not self._stacked_tensors:
            raise AttributeError(f"{self.name!r} has no inputs before it is built or called")
        return self._stacked_tensors[0], self._stacked_tensors[-1]

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Runs the layers one after the other; ``mask`` is for an input that carries none."""
        x = inputs if mask is None else masked(inputs, mask)
        if not self._stacked_layers:
            raise ValueError(f"{self.name!r} has no layers: add some before it is called")
        if self._stacked_tensors:
            x = _alone(x)
            if isinstance(x, (list, tuple)):
                raise ValueError(f"{self.name!r} takes one input, {len(x)} were given")
        source = self._stacked_tensors[0] if self._stacked_tensors else None
        if source is not None and (source.dtype is string or isinstance(x, SparseTensor)):
            x = fitted(source, x)
        elif source is not None and isinstance(x, Tensor):  # as in a functional model
            if len(x._data.shape) != len(source.shape):
                x = fitted(source, x)
            if source.dtype.is_floating and not x.dtype.is_floating:
                x = carry_mask(x, cast(x, source.dtype))
        if training is None:
            return self._run_stack(x)
        with in_mode(training):
            return self._run_stack(x)

    def _run_stack(self, x: Any) -> Any:
        for layer in self._stacked_layers:
            x = layer(x)
        return x

    def get_config(self) -> dict[str, Any]:
        """Name, dtype and the layers; the shape of the input where it is known."""
        config = {"name": self.name, "trainable": self.trainable, "dtype": self.dtype_policy.name}
        stack = list(self._stacked_layers)
        if self._stacked_tensors and not isinstance(stack[0], InputLayer):
            stack.insert(0, self._stacked_tensors[0].node.layer)  # type: ignore[union-attr]
        config["layers"] = [registry.serialize(layer) for layer in stack]
        if self._stacked_tensors:
            config["build_input_shape"] = list(self._stacked_tensors[0].shape)
        return config

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Any:
        """A model of these layers, with initial weights of its own."""
        settings = {n: v for n, v in config.items() if n in ("name", "trainable", "dtype")}
        with registry.custom_object_scope(custom_objects or {}):
            layers = [revive(layer, surely=True) for layer in config["layers"]]
        model = cls(layers, **settings)
        if config.get("build_input_shape") and not model.built:
            model.build(config["build_input_shape"])
        return model


def _alone(x: Any) -> Any:
    """What a list, tuple or dict of one tensor holds; anything else as it is."""
    if isinstance(x, dict):
        x = list(x.values())
    return x[0] if isinstance(x, (list, tuple)) and len(x) == 1 else x


def _has_one_input(model: Model) -> bool:
    shape = getattr(model, "input_shape", None)  # one that knows none has no such attribute
    return isinstance(shape, tuple) and len(model.inputs) == 1


def _once(layers: Sequence[Layer]) -> list[Layer]:
    return list({id(layer): layer for layer in layers}.values())
