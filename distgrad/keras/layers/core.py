"""The layers that most models have, and the checks of arguments that all layers share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor
from distgrad.keras import (
    activations,
    constraints,
    initializers,
    registry,
    regularizers,
    settings,
)
from distgrad.keras.layers import shaping
from distgrad.keras.layers.adapting import Adapted, Table
from distgrad.keras.layers.base import Layer, Weight
from distgrad.ops.casting import cast
from distgrad.ops.linalg import matmul
from distgrad.ops.logic import not_equal, select
from distgrad.ops.reduce import reduce_any
from distgrad.ops.shape import reshape
from distgrad.sparse.products import sparse_dense_matmul

_GETTERS: dict[str, Callable[[Any], Any]] = {
    "activation": activations.get,
    "initializer": initializers.get,
    "regularizer": regularizers.get,
    "constraint": constraints.get,
}


def set_options(layer: Layer, **options: Any) -> None:
    """Each option as an attribute of that name: the object that a name or a config means.

    What it is follows from the last word of its name, as in ``kernel_initializer``.
    """
    for name, value in options.items():
        setattr(layer, name, _GETTERS[name.rpartition("_")[2]](value))


def own_weight(layer: Layer, name: str, shape: tuple[int, ...], options: str = "") -> Weight:
    """A weight with the layer's initializer, regularizer and constraint for it.

    They are the attributes that begin with ``options``, the weight's name by default.
    """
    initializer, regularizer, constraint = (
        getattr(layer, f"{options or name}_{kind}")
        for kind in ("initializer", "regularizer", "constraint")
    )
    return layer.add_weight(
        shape, initializer, name=name, regularizer=regularizer, constraint=constraint
    )


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """``value``, an int of ``least`` or more, NumPy's too. Raises ValueError otherwise."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        what = "a positive int" if least == 1 else f"an int of {least} or more"
        raise ValueError(f"{name} must be {what}, not {value!r}")
    return int(value)


def whole_numbers(name: str, value: Any, count: int, least: int = 1) -> tuple[int, ...]:
    """One int for each of ``count`` axes, from one for all or a list. Raises ValueError."""
    if isinstance(value, (int, np.integer)):
        return (whole_number(name, value, least),) * count
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != count:
        raise ValueError(f"{name} must be an int or {count} of them, not {value!r}")
    return tuple(whole_number(name, each, least) for each in value)


def fraction(name: str, value: Any, below_one: bool = False) -> float:
    """``value`` if it is a number from 0 to 1. Raises ValueError otherwise."""
    if (
        not isinstance(value, (int, float, np.floating))
        or not 0 <= value <= 1
        or (below_one and value == 1)
    ):
        limits = "0 and 1, 1 not included" if below_one else "0 and 1"
        raise ValueError(f"{name} must lie between {limits}, not {value!r}")
    return value if isinstance(value, int) else float(value)


def one_of(name: str, value: Any, *known: str) -> str:
    """``value`` if it is one of the texts that are known. Raises ValueError otherwise."""
    if value not in known:
        raise ValueError(f"{name} must be {' or '.join(map(repr, known))}, not {value!r}")
    return value


def data_format_of(value: str | None) -> str:
    """Where the channels stand, by default as `keras.config` says. ValueError for another text."""
    chosen = value or settings.image_data_format
    return one_of("data_format", chosen, "channels_last", "channels_first")


def check_rank(layer: Layer, shape: Sequence[int | None], rank: int) -> None:
    """Raises ValueError for inputs of another rank."""
    if len(shape) != rank:
        raise ValueError(f"{layer.name!r} takes inputs of rank {rank}, not of shape {tuple(shape)}")


def known_size(layer: Layer, shape: Sequence[int | None], axis: int) -> int:
    """The size of an axis that weights depend on. Raises ValueError where it is None."""
    size = shape[axis]
    if size is None:
        raise ValueError(f"{layer.name!r}: axis {axis} of {tuple(shape)} must be known")
    return size


class Identity(Layer):
    """Gives its input."""

    supports_masking = True
    takes_texts = True
    takes_kinds = ("ragged", "sparse")

    def call(self, x: Any) -> Any:
        return x


class Dense(Adapted):
    """``activation(x @ kernel + bias)`` over the last axis.

    Raises ValueError for units that are not a positive int, an unknown activation or initializer,
    an input of rank 1, or one whose last axis is not the one the kernel was made for.
    """

    one_tensor = True
    supports_masking = True
    takes_kinds = ("sparse",)
    activation: Callable[..., Any]
    adapted = "kernel"
    kernel = Table()
    _fixed: ClassVar = {"quantization_config": None}

    def __init__(
        self,
        units: int,
        activation: str | Callable[..., Any] | None = None,
        use_bias: bool = True,
        kernel_initializer: str | Callable[..., Any] = "glorot_uniform",
        bias_initializer: str | Callable[..., Any] = "zeros",
        kernel_regularizer: str | Callable[..., Any] | None = None,
        bias_regularizer: str | Callable[..., Any] | None = None,
        *,
        kernel_constraint: str | Callable[..., Any] | None = None,
        bias_constraint: str | Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = whole_number("units", units)
        self.use_bias = use_bias
        set_options(
            self,
            activation=activation,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        _check_matrix(self, input_shape)
        size = known_size(self, input_shape, -1)
        self.kernel = own_weight(self, "kernel", (size, self.units))
        self.bias = own_weight(self, "bias", (self.units,)) if self.use_bias else None
        self._adapt()

    def _told_shape(self, shape: Any) -> Any:
        if len(shape) < 2 or shape[-1] is None or not shaping.keeps_shape(self.activation):
            return None
        known = not self.built or shape[-1] == self.kernel.shape[0]
        return (*shape[:-1], self.units) if known else None

    def call(self, x: Any) -> Tensor:
        kernel = as_tensor(self.kernel)
        sparse = isinstance(x, SparseTensor)
        shape, size = tuple(x.shape) if sparse else x._data.shape, kernel._data.shape[0]
        if len(shape) != 2:
            _check_matrix(self, shape)
        if shape[-1] != size:
            raise ValueError(
                f"{self.name!r} expects {size} features in the last axis, got an input of shape "
                f"{shape}"
            )
        if sparse:
            product = sparse_dense_matmul(x, kernel)
            return activations.biased(product, self.bias, self.activation)
        if len(shape) == 2:
            return activations.dense(x, kernel, self.bias, self.activation)
        rows = matmul(reshape(x, (-1, shape[-1])), kernel)  # one product over all leading axes
        return activations.biased(
            reshape(rows, (*shape[:-1], self.units)), self.bias, self.activation
        )


def _check_matrix(layer: Layer, shape: tuple[int | None, ...]) -> None:
    if len(shape) < 2:
        raise ValueError(f"{layer.name!r} takes inputs of rank 2 or more, not of shape {shape}")


class Masking(Layer):
    """Masks the steps whose features all equal ``mask_value``, and makes them zeros.

    ``[batch, time, features]``; the layers after it that know masks pass over those steps.
    """

    supports_masking = True

    def __init__(self, mask_value: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mask_value = mask_value

    def compute_mask(self, inputs: Any, mask: Any = None) -> Tensor:
        return reduce_any(self._differs(inputs), axis=-1)

    def call(self, x: Tensor) -> Tensor:
        return select(reduce_any(self._differs(x), axis=-1, keepdims=True), x, 0)

    def _differs(self, x: Any) -> Tensor:
        x = as_tensor(x)
        return not_equal(x if x.dtype.is_floating else cast(x, np.float32), self.mask_value)


class Lambda(Layer):
    """A function as a layer: ``function(inputs, **arguments)``.

    It is given ``mask`` and ``training`` if it takes them. ``mask`` is the mask of the output or
    ``fn(inputs, mask)``. A config holds the name of the function alone: a layer is made of it for
    the activations and for functions that are registered; a class of your own has no such limit.
    """

    takes_texts = True
    takes_kinds = ("ragged", "sparse")

    def __init__(
        self,
        function: Callable[..., Any],
        output_shape: Any = None,
        mask: Any = None,
        arguments: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not callable(function):
            raise ValueError(
                f"a Lambda is made of a function, not of {function!r}; a layer that is saved and "
                "loaded again is a class of your own with call()"
            )
        self.function = function
        self.output_shape = output_shape
        self.mask = mask
        self.arguments = dict(arguments or {})
        self.supports_masking = mask is not None
        self._taken = tuple(inspect.signature(function).parameters)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Lambda:
        """The layer of a config. Raises ValueError unless it names an activation, or what
        ``custom_objects`` or ``keras.saving.register_keras_serializable`` know."""
        function = config["function"]
        if isinstance(function, str):
            try:
                function = activations.get(function)
            except ValueError:
                raise ValueError(
                    f"Could not locate function {function!r} of the Lambda {config.get('name')!r}, "
                    "of which a config holds the name alone: decorate it with "
                    "keras.saving.register_keras_serializable(), name it in custom_objects, or "
                    "write a class with call() in place of the Lambda"
                ) from None
        given = config.get("arguments") or {}
        arguments = {name: registry.revived(value) for name, value in given.items()}
        return super().from_config({**config, "function": function, "arguments": arguments})

    def get_config(self) -> dict[str, Any]:
        """The arguments, tensors and arrays among those of the function as Keras has them."""
        return {**super().get_config(), "arguments": registry.entry(self.arguments)}

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return self.mask(inputs, mask) if callable(self.mask) else self.mask

    def call(self, x: Any, training: bool = False, mask: Any = None) -> Any:
        known = {"training": training, "mask": mask}
        wanted = {name: known[name] for name in known if name in self._taken}
        return self.function(x, **self.arguments, **wanted)
