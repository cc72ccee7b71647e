"""Layer: a callable that makes its weights at the first call and knows all weights below it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.keras import initializers
from distgrad.keras.registry import snake_case
from distgrad.ops.casting import cast


class Weight(Variable):
    """A layer's variable: ``name`` is short, ``path`` says where in the model it lies."""

    path: str = ""

    @property
    def name(self) -> str:
        return self._name


class Layer:
    """Base of all layers and models.

    Subclasses define ``call(self, x)``, with ``training=False`` among its arguments if it matters,
    and may define ``build(self, input_shape)`` to make weights with ``add_weight``. Layers and
    variables assigned to attributes, also in lists, tuples and dicts, are tracked.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        input_shape: tuple[int, ...] | None = None,
    ) -> None:
        self._given_name = name
        self.name = name or snake_case(type(self).__name__)
        self.dtype = as_dtype("float32" if dtype is None else dtype).name
        self.trainable = trainable
        self.built = False
        self._own_weights: list[Weight] = []
        self._input_shape = None if input_shape is None else tuple(input_shape)
        takes = inspect.signature(self.call).parameters
        self._takes_training = "training" in takes

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "build" in cls.__dict__:
            cls.build = _marked_built(cls.build)  # type: ignore[method-assign]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weights for inputs of this shape; the base class has none."""

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Computes the outputs; every layer defines it."""
        raise ValueError(f"layer {self.name!r} ({type(self).__name__}) does not define call()")

    def __call__(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        inputs = tuple(self._convert(a) for a in args)
        if self._takes_training:
            kwargs["training"] = bool(training)
        if self.built:
            return self.call(*inputs, **kwargs)
        self._before_call(inputs)
        outputs = self.call(*inputs, **kwargs)
        self.built = True
        self._name_weights()
        return outputs

    def _before_call(self, inputs: tuple) -> None:
        """Makes the weights, at the first call."""
        if inputs:
            self.build(tuple(getattr(inputs[0], "shape", ())))

    def _convert(self, value: Any) -> Any:
        """Arrays and tensors of numbers in the layer's dtype; lists of tensors one by one."""
        if isinstance(value, (list, tuple)):
            if not all(isinstance(v, (Tensor, Variable, np.ndarray)) for v in value):
                raise ValueError(
                    f"layer {self.name!r} takes tensors or arrays, not a Python list of numbers; "
                    "wrap it in distgrad.constant"
                )
            return type(value)(self._convert(v) for v in value)
        if isinstance(value, (Tensor, Variable, np.ndarray)):
            tensor = as_tensor(value)
            return cast(tensor, self.dtype) if tensor._data.dtype.kind in "fiub" else tensor
        return value

    def add_weight(
        self,
        shape: tuple[int, ...] = (),
        initializer: Any = "glorot_uniform",
        dtype: Any = None,
        trainable: bool = True,
        name: str | None = None,
    ) -> Weight:
        """Makes a weight of this layer."""
        make = initializers.get(initializer)
        wanted = as_dtype(dtype or self.dtype).numpy_dtype
        value = make(tuple(shape), dtype=wanted)
        weight = Weight(value, trainable=trainable, name=name or "variable", dtype=wanted)
        self._own_weights.append(weight)
        return weight

    # What lies below: found in the attributes, in the order of their assignment.

    def _children(self) -> Iterator[tuple[str, Layer]]:
        seen: set[int] = set()
        for attribute, value in self.__dict__.items():
            for layer in _layers_in(value):
                if id(layer) not in seen:
                    seen.add(id(layer))
                    yield attribute, layer

    def _tracked_weights(self) -> Iterator[Variable]:
        seen: set[int] = set()
        for value in (self._own_weights, *self.__dict__.values()):
            for item in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(item, Variable) and id(item) not in seen:
                    seen.add(id(item))
                    yield item

    def _paths(self, prefix: str = "") -> Iterator[tuple[str, Variable, bool]]:
        """(path, variable, trainable) of every weight below, names made unique level by level."""
        taken: dict[str, int] = {}
        for weight in self._tracked_weights():
            name = weight._name
            yield prefix + _unique(name, taken), weight, weight.trainable and self.trainable
        for _, layer in self._children():
            for path, weight, trainable in layer._paths(prefix + _unique(layer.name, taken) + "/"):
                yield path, weight, trainable and self.trainable

    def _weights(self) -> Iterator[tuple[str, Variable, bool]]:
        seen: set[int] = set()
        for path, weight, trainable in self._paths():
            if id(weight) not in seen:
                seen.add(id(weight))
                yield path, weight, trainable

    def _name_weights(self) -> None:
        for path, weight, _ in self._weights():
            if isinstance(weight, Weight):
                weight.path = f"{self.name}/{path}"

    @property
    def weights(self) -> list[Variable]:
        """All weights: the trainable ones first."""
        return self.trainable_variables + self.non_trainable_variables

    variables = weights

    @property
    def trainable_variables(self) -> list[Variable]:
        return [weight for _, weight, trainable in self._weights() if trainable]

    @property
    def non_trainable_variables(self) -> list[Variable]:
        return [weight for _, weight, trainable in self._weights() if not trainable]

    trainable_weights = trainable_variables
    non_trainable_weights = non_trainable_variables

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all weights, as arrays."""
        return [np.asarray(weight.numpy()) for weight in self.weights]

    def set_weights(self, weights: list[Any]) -> None:
        """Assigns all weights. Raises ValueError where their number or shapes differ."""
        own = self.weights
        if len(weights) != len(own):
            raise ValueError(f"{self.name!r} has {len(own)} weights, {len(weights)} were given")
        for weight, value in zip(own, weights, strict=True):
            if np.shape(value) != tuple(weight.shape):
                raise ValueError(
                    f"{weight.name!r} has shape {weight.shape}, a value of shape "
                    f"{np.shape(value)} was given"
                )
        for weight, value in zip(own, weights, strict=True):
            weight.assign(value)

    def count_params(self) -> int:
        """Number of scalars in all weights. Raises ValueError before the layer is built."""
        if not self.built:
            raise ValueError(f"{self.name!r} has no weights yet: call it or build it first")
        return sum(weight.shape.num_elements() for weight in self.weights)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"


def _marked_built(build: Callable[..., None]) -> Callable[..., None]:
    """``build`` of a subclass, after which the layer is built: users call it themselves, too."""

    @functools.wraps(build)
    def marked(self: Layer, input_shape: Any) -> None:
        build(self, input_shape)
        self.built = True
        self._name_weights()

    return marked


def _layers_in(value: Any) -> Iterator[Layer]:
    if isinstance(value, Layer):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _layers_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _layers_in(item)


def _unique(name: str, taken: dict[str, int]) -> str:
    count = taken.get(name, 0)
    taken[name] = count + 1
    return f"{name}_{count}" if count else name
