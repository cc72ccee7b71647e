"""Activation functions by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from distgrad.core import recording
from distgrad.core.dispatch import as_tensor
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.keras import registry
from distgrad.ops import activations as ops
from distgrad.ops import exponential as exponentials
from distgrad.ops import nn
from distgrad.ops.activations import gelu as gelu
from distgrad.ops.activations import hard_sigmoid as hard_sigmoid
from distgrad.ops.activations import hard_silu as hard_silu
from distgrad.ops.activations import mish as mish
from distgrad.ops.activations import relu6 as relu6
from distgrad.ops.activations import selu as selu
from distgrad.ops.activations import silu as silu
from distgrad.ops.activations import softsign as softsign
from distgrad.ops.biased import biased as in_one
from distgrad.ops.clipping import clip, maximum, minimum
from distgrad.ops.exponential import log_sigmoid as log_sigmoid
from distgrad.ops.exponential import softplus as softplus
from distgrad.ops.logic import greater, select
from distgrad.ops.nn import log_softmax as log_softmax
from distgrad.ops.trigonometric import tanh as tanh

swish = silu
hard_swish = hard_silu


def linear(x: Any) -> Any:
    """The input itself."""
    return x


def exponential(x: Any) -> Tensor:
    """``exp(x)``."""
    return exponentials.exp(x)


def relu(
    x: Any, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0
) -> Tensor:
    """``max(x, 0)``; with a slope below ``threshold``, an upper bound, or another threshold."""
    x = as_tensor(x)
    if not (negative_slope or threshold or max_value is not None):
        return ops.relu(x)
    above = select(greater(x, threshold), x, 0.0) if threshold else ops.relu(x)
    if max_value is not None:
        above = clip(above, 0.0, float(max_value))
    return above - negative_slope * ops.relu(threshold - x) if negative_slope else above


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Tensor:
    """``x`` where positive, else ``negative_slope * x``."""
    return ops.leaky_relu(x, negative_slope)


def elu(x: Any, alpha: float = 1.0) -> Tensor:
    """``x`` where positive, else ``alpha * (exp(x) - 1)``."""
    return ops.exponential_unit(x, alpha=alpha)


def celu(x: Any, alpha: float = 1.0) -> Tensor:
    """``x`` where positive, else ``alpha * (exp(x / alpha) - 1)``."""
    x = as_tensor(x)
    return maximum(x, 0.0) + alpha * exponentials.expm1(minimum(x, 0.0) / alpha)


def hard_tanh(x: Any) -> Tensor:
    """``x`` clipped to [-1, 1]."""
    return clip(as_tensor(x), -1.0, 1.0)


# The probabilities that these two give remember their logits: a loss goes back to them, exact
# where the activation saturates.


def softmax(x: Any, axis: int = -1) -> Tensor:
    """Softmax over ``axis``; over the last one, it remembers its input for the losses."""
    logits = as_tensor(x)
    out = nn.softmax(logits, axis)
    if axis in (-1, logits._data.ndim - 1):
        out._logits = ("softmax", logits)
    return out


def sigmoid(x: Any) -> Tensor:
    """Logistic function; remembers its input for the losses."""
    logits = as_tensor(x)
    out = exponentials.sigmoid(logits)
    out._logits = ("sigmoid", logits)
    return out


def logits_of(probabilities: Tensor, activation: str) -> Tensor | None:
    """The input of the activation of that name that gave ``probabilities``; None if none did."""
    name, logits = getattr(probabilities, "_logits", None) or (None, None)
    return logits if name == activation else None


_IN_ONE = ((relu, "relu"), (tanh, "tanh"), (gelu, "gelu_exact"))


def biased(x: Tensor, bias: Any, activation: Callable[..., Any]) -> Tensor:
    """``activation(x + bias)``, in an eager step as one operation where there is one.

    ``bias`` has the shape of the last axis; None is no bias.
    """
    if bias is None:
        return activation(x)
    b = as_tensor(bias)
    # (Not of bfloat16, whose sum is rounded before the activation; so it is in a captured step.)
    if not recording.in_parts() and b._data.dtype == x._data.dtype and b._data.dtype.kind == "f":
        for known, name in _IN_ONE:
            if activation is known:
                return bind(in_one, x, b, activation=name)
    return activation(x + b)


_KNOWN: dict[str, Callable[..., Any]] = {
    fn.__name__: fn
    for fn in (
        celu,
        elu,
        exponential,
        gelu,
        hard_sigmoid,
        hard_silu,
        hard_tanh,
        leaky_relu,
        linear,
        log_sigmoid,
        log_softmax,
        mish,
        relu,
        relu6,
        selu,
        sigmoid,
        silu,
        softmax,
        softplus,
        softsign,
        tanh,
    )
} | {"swish": swish, "hard_swish": hard_swish}


def get(identifier: Any) -> Callable[..., Any]:
    """The activation for None, a name or a callable. Raises ValueError for an unknown name."""
    if identifier is None:
        return linear
    if callable(identifier):
        return identifier
    return registry.lookup("activation", identifier, _KNOWN)


def serialize(activation: Callable[..., Any]) -> Any:
    """The name of an activation, or the config of a layer that serves as one."""
    return registry.serialize(activation)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The activation of that name. Raises ValueError for an unknown one."""
    return registry.deserialize("activation", config, _KNOWN, custom_objects)
