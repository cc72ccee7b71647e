"""Activation functions by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.keras.registry import lookup
from distgrad.ops import elementwise, nn

relu = elementwise.relu
tanh = elementwise.tanh
exponential = elementwise.exp


def linear(x: Any) -> Any:
    """The input itself."""
    return x


def _with_logits(fn: Callable[..., Tensor], x: Any) -> Tensor:
    logits = as_tensor(x)
    out = fn(logits)
    out._logits = logits  # a loss goes back to them, exact where the activation saturates
    return out


def softmax(x: Any, axis: int = -1) -> Tensor:
    """Softmax over ``axis``; remembers its input for the losses."""
    return _with_logits(nn.softmax, x) if axis == -1 else nn.softmax(x, axis=axis)


def sigmoid(x: Any) -> Tensor:
    """Logistic function; remembers its input for the losses."""
    return _with_logits(elementwise.sigmoid, x)


_KNOWN: dict[str, Callable[..., Any]] = {
    "linear": linear,
    "relu": relu,
    "tanh": tanh,
    "exponential": exponential,
    "softmax": softmax,
    "sigmoid": sigmoid,
}


def get(identifier: Any) -> Callable[..., Any]:
    """The activation for None, a name or a callable. Raises ValueError for an unknown name."""
    if identifier is None:
        return linear
    if callable(identifier):
        return identifier
    return lookup("activation", identifier, _KNOWN)


def serialize(activation: Callable[..., Any]) -> str:
    """The name of an activation."""
    return getattr(activation, "__name__", str(activation))
