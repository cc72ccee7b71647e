"""Activations as layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.core.composite import Composite
from distgrad.core.dispatch import as_tensor
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor
from distgrad.core.user_line import warn
from distgrad.keras import activations
from distgrad.keras.layers import shaping
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.core import known_size, own_weight, set_options
from distgrad.keras.registry import is_ours
from distgrad.ops.activations import relu
from distgrad.ops.casting import cast
from distgrad.ops.logic import select
from distgrad.ops.nn import softmax
from distgrad.sparse.making import to_dense


class Activation(Layer):
    """An activation, by its name or as a function. Raises ValueError for an unknown name."""

    supports_masking = True
    takes_kinds = ("ragged", "sparse")
    activation: Callable[..., Any]

    def __init__(self, activation: str | Callable[..., Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        set_options(self, activation=activation)

    def _told_shape(self, shape: Any) -> Any:
        return shape if len(shape) > 1 and shaping.keeps_shape(self.activation) else None

    def call(self, x: Any) -> Any:
        if isinstance(x, SparseTensor) and is_ours(self.activation):
            return self._of_sparse(x)
        return self.activation(x)

    def _of_sparse(self, x: SparseTensor) -> Any:
        """Sparse where 0 stays 0, else dense."""
        zero = np.zeros(1, x.dtype.numpy_dtype)
        alone = self.activation.__name__ not in _OF_ROWS
        if alone and not self.activation(as_tensor(zero)).numpy().any():
            return x.with_values(self.activation(x.values))
        return self.activation(to_dense(x))


_OF_ROWS = frozenset(("softmax", "log_softmax", "sparsemax", "glu"))


def _not_negative(name: str, value: Any) -> Any:
    if not isinstance(value, (int, float)) or value < 0:
        raise ValueError(f"{name} must be a number of 0 or more, not {value!r}")
    return value


class ReLU(Layer):
    """``x`` from ``threshold`` to ``max_value``; below, ``negative_slope * (x - threshold)``.

    Raises ValueError for a negative number.
    """

    of_each_value = True
    supports_masking = True

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_value = None if max_value is None else _not_negative("max_value", max_value)
        self.negative_slope = _not_negative("negative_slope", negative_slope)
        self.threshold = _not_negative("threshold", threshold)

    def _told_shape(self, shape: Any) -> Any:
        return shape

    def call(self, x: Tensor) -> Tensor:
        return activations.relu(x, self.negative_slope, self.max_value, self.threshold)


class LeakyReLU(Layer):
    """``x`` where positive, else ``negative_slope * x``. Raises ValueError for a negative one."""

    of_each_value = True
    supports_masking = True

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any) -> None:
        if "alpha" in kwargs:
            warn("alpha is called negative_slope")
            negative_slope = kwargs.pop("alpha")
        super().__init__(**kwargs)
        self.negative_slope = _not_negative("negative_slope", negative_slope)

    def _told_shape(self, shape: Any) -> Any:
        return shape

    def call(self, x: Tensor) -> Tensor:
        return activations.leaky_relu(x, self.negative_slope)


class ThresholdedReLU(Layer):
    """``x`` where it is above ``theta``, else 0. Raises ValueError for a negative ``theta``."""

    of_each_value = True
    supports_masking = True

    def __init__(self, theta: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.theta = _not_negative("theta", theta)

    def _told_shape(self, shape: Any) -> Any:
        return shape

    def call(self, x: Tensor) -> Tensor:
        return activations.threshold(x, self.theta, 0.0)


class PReLU(Layer):
    """``x`` where positive, else ``alpha * x``, with an ``alpha`` learned for each element.

    The elements along ``shared_axes`` (counted from 1) share theirs. Source: He et al., "Delving
    Deep into Rectifiers".
    """

    supports_masking = True
    takes_kinds = ("ragged",)

    def __init__(
        self,
        alpha_initializer: str | Callable[..., Any] = "zeros",
        alpha_regularizer: str | Callable[..., Any] | None = None,
        alpha_constraint: str | Callable[..., Any] | None = None,
        shared_axes: int | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        set_options(
            self,
            alpha_initializer=alpha_initializer,
            alpha_regularizer=alpha_regularizer,
            alpha_constraint=alpha_constraint,
        )
        self.shared_axes = [shared_axes] if isinstance(shared_axes, int) else shared_axes

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shared = self.shared_axes or ()
        axes = range(1, len(input_shape))
        shape = tuple(1 if i in shared else known_size(self, input_shape, i) for i in axes)
        self.alpha = own_weight(self, "alpha", shape)

    def call(self, x: Any) -> Any:
        return relu(x) - self.alpha * relu(-x)


class ELU(Layer):
    """``x`` where positive, else ``alpha * (exp(x) - 1)``."""

    of_each_value = True
    supports_masking = True

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = alpha

    def _told_shape(self, shape: Any) -> Any:
        return shape

    def call(self, x: Tensor) -> Tensor:
        return activations.elu(x, self.alpha)


class Softmax(Layer):
    """``exp(x) / sum(exp(x))`` over ``axis``, or over several axes together.

    ``mask``, a bool tensor that broadcasts to ``x``, leaves elements out: their outputs are 0.
    Raises ValueError for one that does not.
    """

    supports_masking = True
    takes_kinds = ("ragged",)

    def __init__(self, axis: int | Sequence[int] = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, x: Any, mask: Any = None) -> Any:
        if isinstance(x, Composite):
            return self._of_rows(x, mask)
        if mask is not None:
            mask = cast(as_tensor(mask), bool)
            if not _broadcasts(mask._data.shape, x._data.shape):
                raise ValueError(
                    f"{self.name!r}: a mask of shape {mask.shape} does not broadcast to inputs of "
                    f"shape {x.shape}"
                )
            # Keras's number for "never": finite, and within float16's range there.
            x = select(mask, x, -3e4 if x._data.dtype == np.float16 else -1e9)
        axes = [self.axis] if isinstance(self.axis, int) else list(self.axis)
        y = activations.softmax(x, axes[0] if len(axes) == 1 else axes)
        return y if mask is None else select(mask, y, 0)

    def _of_rows(self, x: Composite, mask: Any) -> Any:
        """That of ragged rows, which need no mask. Raises ValueError for one, or several axes."""
        if mask is not None or not isinstance(self.axis, int):
            raise ValueError(
                f"{self.name!r} takes a {type(x).__name__} along one axis, without a mask: give it "
                "to_tensor()"
            )
        return softmax(x, self.axis)


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(n in (1, wide) for n, wide in pairs)
