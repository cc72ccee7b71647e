"""Dense, Flatten, Dropout and the input's shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.keras import activations, initializers
from distgrad.keras.layers.base import Layer
from distgrad.ops import nn
from distgrad.ops.linalg import matmul
from distgrad.ops.shape import reshape


class InputLayer(Layer):
    """States the shape of one sample; a Sequential that starts with it is built at once."""

    def __init__(self, shape: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(input_shape=shape, **kwargs)

    def call(self, x: Tensor) -> Tensor:
        return x


class Flatten(Layer):
    """All axes but the first as one: (n, a, b) becomes (n, a * b)."""

    def call(self, x: Tensor) -> Tensor:
        size = 1
        for n in x.shape[1:]:
            size *= n
        return reshape(x, (x.shape[0], size))


class Dense(Layer):
    """``activation(x @ kernel + bias)`` over the last axis.

    Raises ValueError for units that are not a positive int, an unknown activation or initializer,
    an input of rank 1, or one whose last axis is not the one the kernel was made for.
    """

    def __init__(
        self,
        units: int,
        activation: str | Callable[..., Any] | None = None,
        use_bias: bool = True,
        kernel_initializer: str | Callable[..., Any] = "glorot_uniform",
        bias_initializer: str | Callable[..., Any] = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(units, int) or isinstance(units, bool) or units <= 0:
            raise ValueError(f"units must be a positive int, not {units!r}")
        self.units = units
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        _check_rank(self, input_shape)
        size = input_shape[-1]
        if size is None:
            raise ValueError(f"{self.name!r}: the last axis of {input_shape} must be known")
        self.kernel = self.add_weight((size, self.units), self.kernel_initializer, name="kernel")
        self.bias = (
            self.add_weight((self.units,), self.bias_initializer, name="bias")
            if self.use_bias
            else None
        )

    def call(self, x: Tensor) -> Tensor:
        shape = x._data.shape
        _check_rank(self, shape)
        if shape[-1] != self.kernel.shape[0]:
            raise ValueError(
                f"{self.name!r} expects {self.kernel.shape[0]} features in the last axis, got an "
                f"input of shape {shape}"
            )
        if len(shape) > 2:  # one matrix product over all leading axes
            rows = matmul(reshape(x, (-1, shape[-1])), self.kernel)
            y = reshape(rows, (*shape[:-1], self.units))
        else:
            y = matmul(x, self.kernel)
        if self.bias is not None:
            y = y + self.bias
        return self.activation(y)


def _check_rank(layer: Layer, shape: tuple[int | None, ...]) -> None:
    if len(shape) < 2:
        raise ValueError(f"{layer.name!r} takes inputs of rank 2 or more, not of shape {shape}")


class Dropout(Layer):
    """Zeroes a fraction of its input in training and scales the rest; identity otherwise.

    Raises ValueError for a rate outside [0, 1].
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
            raise ValueError(f"rate must lie between 0 and 1, not {rate!r}")
        self.rate = rate
        self.seed = seed

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        if not training or self.rate == 0:
            return x
        if self.rate == 1:
            return x * 0.0
        return nn.dropout(x, self.rate, seed=self.seed)
