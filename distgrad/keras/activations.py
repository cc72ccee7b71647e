"""Activation functions by name; called on KerasTensors they are operations of a model."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from distgrad.core import recording
from distgrad.core.composite import CompositeError, values_of
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import NoValueError
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.keras import registry
from distgrad.ops import activations as ops
from distgrad.ops import exponential as exponentials
from distgrad.ops import nn, shape
from distgrad.ops.activations import gelu as gelu
from distgrad.ops.activations import hard_sigmoid as hard_sigmoid
from distgrad.ops.activations import hard_silu as hard_silu
from distgrad.ops.activations import relu6 as relu6
from distgrad.ops.activations import selu as selu
from distgrad.ops.activations import softsign as softsign
from distgrad.ops.biased import biased as in_one
from distgrad.ops.casting import cast
from distgrad.ops.clipping import clip, maximum, minimum
from distgrad.ops.dense import dense as layer_in_one
from distgrad.ops.exponential import log_sigmoid as log_sigmoid
from distgrad.ops.exponential import softplus as softplus
from distgrad.ops.layout import beside
from distgrad.ops.linalg import matmul
from distgrad.ops.logic import greater, less, select
from distgrad.ops.powers import sqrt
from distgrad.ops.reduce import reduce_sum
from distgrad.ops.scan import cumsum
from distgrad.ops.sorting import sort
from distgrad.ops.statistics import reduce_logsumexp
from distgrad.ops.trigonometric import tanh as tanh


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


def log_softmax(x: Any, axis: Any = -1) -> Tensor:
    """The logarithm of ``softmax``."""
    tensor = as_tensor(x)
    if isinstance(axis, int):
        return nn.log_softmax(tensor, axis)
    return tensor - reduce_logsumexp(tensor, axis, keepdims=True)


def mish(x: Any) -> Tensor:
    """``x * tanh(softplus(x))``."""
    return ops.mish(x)


def silu(x: Any) -> Tensor:
    """``x * sigmoid(x)``."""
    return ops.silu(x)


def tanh_shrink(x: Any) -> Tensor:
    """``x - tanh(x)``."""
    x = as_tensor(x)
    return x - tanh(x)


def hard_shrink(x: Any, threshold: float = 0.5) -> Tensor:
    """``x`` where its absolute value is above ``threshold``, else 0."""
    x = as_tensor(x)
    return select(greater(abs(x), threshold), x, 0.0)


def soft_shrink(x: Any, threshold: float = 0.5) -> Tensor:
    """``x`` moved by ``threshold`` towards 0, and 0 where it would pass it."""
    x = as_tensor(x)
    below = select(less(x, -threshold), x + threshold, 0.0)
    return select(greater(x, threshold), x - threshold, below)


def threshold(x: Any, threshold: float, default_value: float) -> Tensor:
    """``x`` where it is above ``threshold``, else ``default_value``."""
    x = as_tensor(x)
    return select(greater(x, threshold), x, default_value)


def squareplus(x: Any, b: float = 4) -> Tensor:
    """``(x + sqrt(x**2 + b)) / 2``: a smooth ``relu``."""
    x = as_tensor(x)
    return (x + sqrt(x * x + b)) / 2


def sparse_plus(x: Any) -> Tensor:
    """0 up to -1, ``x`` from 1 on, and ``(x + 1)**2 / 4`` between."""
    x = as_tensor(x)
    return select(greater(x, -1.0), select(less(x, 1.0), 0.25 * (x + 1.0) ** 2, x), 0.0)


def sparse_sigmoid(x: Any) -> Tensor:
    """0 up to -1, 1 from 1 on, and ``(x + 1) / 2`` between."""
    x = as_tensor(x)
    return select(greater(x, -1.0), select(less(x, 1.0), 0.5 * (x + 1.0), 1.0), 0.0)


def glu(x: Any, axis: int = -1) -> Tensor:
    """The first half of ``x`` along ``axis`` times the sigmoid of the second."""
    first, second = shape.split(as_tensor(x), 2, axis)
    return first * exponentials.sigmoid(second)


def sparsemax(x: Any, axis: int = -1) -> Tensor:
    """The nearest probabilities to ``x`` over ``axis``: many are 0. Source: Martins et al. 2016."""
    x = as_tensor(x)
    ordered = sort(x, axis, "DESCENDING")
    counts = [1] * x._data.ndim
    counts[axis] = x._data.shape[axis]
    numbers = np.arange(1, counts[axis] + 1, dtype=x._data.dtype).reshape(counts)
    kept = greater(1.0 + beside(x, numbers) * ordered, cumsum(ordered, axis))
    total = reduce_sum(select(kept, ordered, 0.0), axis, keepdims=True)
    size = reduce_sum(cast(kept, x._data.dtype), axis, keepdims=True)
    return ops.relu(x - (total - 1.0) / size)


# The probabilities that these two give remember their logits: a loss goes back to them, exact
# where the activation saturates.


def probabilities(x: Tensor, axis: Any = -1) -> Tensor:
    """``exp(x)`` divided by its sum over ``axis``: an int, several, or None for all."""
    return nn.softmax(x, axis) if isinstance(axis, int) else exponentials.exp(log_softmax(x, axis))


def softmax(x: Any, axis: Any = -1) -> Tensor:
    """``probabilities`` over ``axis``; over the last one, it remembers its input for the losses."""
    logits = as_tensor(x)
    out = probabilities(logits, axis)
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
    name, logits = probabilities._logits or (None, None)
    return logits if name == activation else None


def _for_models(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as it is; on KerasTensors, the operation that Keras makes of its call."""
    operation = {"exponential": "exp", "relu": "re_lu"}.get(function.__name__, function.__name__)

    @functools.wraps(function)
    def call(x: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return function(x, *args, **kwargs)
        except CompositeError:
            return _of_ragged(function, x, *args, **kwargs)
        except NoValueError:
            from distgrad.keras.layers.operation import called

        bound = inspect.signature(function).bind(x, *args, **kwargs)
        bound.apply_defaults()  # which are not always those of keras.ops
        _, *settings = bound.arguments.items()
        return called(operation, (x,), {n: v for n, v in settings if n != "name"})

    call.__module__, call.__qualname__ = __name__, call.__name__  # where pickles look for it
    first, *others = inspect.signature(function).parameters.values()
    shown = [first.replace(name="x"), *(p for p in others if p.name != "name")]
    call.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return call


def _of_ragged(function: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> Any:
    """What it gives of ragged rows. Raises ValueError where it needs them to be of one length."""
    name, values = function.__name__, values_of(x)
    if name == "softmax":
        return nn.softmax(x, *args, **kwargs)
    if name in ("log_softmax", "sparsemax", "glu") and len(values.shape) == 1:
        raise ValueError(
            f"{name} makes its rows of whole ones, a {type(x).__name__} has rows of any lengths "
            "there: give it to_tensor(), with zeros that a mask leaves out"
        )
    return x.with_flat_values(function(values, *args, **kwargs))


_FOR_MODELS = """
celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu log_sigmoid
log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus
sparse_sigmoid sparsemax squareplus tanh tanh_shrink threshold
"""

for _name in _FOR_MODELS.split():
    globals()[_name] = _for_models(globals()[_name])
swish = silu
hard_swish = hard_silu

# Those that are one operation with a bias, and with a product as well; "" is none. By their ids,
# since a user's own function may have no hash.
_IN_ONE = {id(relu): "relu", id(tanh): "tanh", id(gelu): "gelu_exact"}
_LAYER_IN_ONE = {id(linear): "", id(None): "", id(relu): "relu", id(tanh): "tanh"}


def goes_with_bias(activation: Any) -> bool:
    """Whether it is one operation with a bias: such a one keeps nothing but what others keep."""
    return id(activation) in _IN_ONE or id(activation) in _LAYER_IN_ONE


def dense(x: Tensor, kernel: Tensor, bias: Any, activation: Callable[..., Any] | None) -> Tensor:
    """``biased(x @ kernel, bias, activation)`` of matrices, in an eager step as one operation."""
    if bias is not None and not recording.in_parts():
        b, dtype = as_tensor(bias), x._data.dtype
        if dtype.kind == "f" and kernel._data.dtype == dtype == b._data.dtype:
            name = _LAYER_IN_ONE.get(id(activation))
            if name is not None:
                return bind(layer_in_one, x, kernel, b, activation=name)
            if id(activation) not in _IN_ONE:
                return activation(bind(layer_in_one, x, kernel, b, activation=""))  # type: ignore[misc]
    return biased(matmul(x, kernel), bias, activation)


def biased(x: Tensor, bias: Any, activation: Callable[..., Any] | None) -> Tensor:
    """``activation(x + bias)``, in an eager step as one operation where there is one.

    ``bias`` has the shape of the last axis; None is no bias, and no activation either: scripts take
    the softmax off a trained model by ``layer.activation = None``.
    """
    if activation is None:
        activation = linear
    if bias is None:
        return activation(x)
    b = as_tensor(bias)
    # (Not of bfloat16, whose sum is rounded before the activation; so it is in a captured step.)
    if not recording.in_parts() and b._data.dtype == x._data.dtype and b._data.dtype.kind == "f":
        name = _IN_ONE.get(id(activation))
        if name is not None:
            return bind(in_one, x, b, activation=name)
    return activation(x + b)


_KNOWN: dict[str, Callable[..., Any]] = {
    fn.__name__: fn
    for fn in (
        celu,
        elu,
        exponential,
        gelu,
        glu,
        hard_shrink,
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
        soft_shrink,
        softmax,
        softplus,
        softsign,
        sparse_plus,
        sparse_sigmoid,
        sparsemax,
        squareplus,
        tanh,
        tanh_shrink,
        threshold,
    )
} | {"swish": swish, "hard_swish": hard_swish}


def get(identifier: Any) -> Callable[..., Any]:
    """The activation for None, a name, a config or a callable.

    Raises ValueError for an unknown name.
    """
    if identifier is None:
        return linear
    if isinstance(identifier, Mapping):
        return deserialize(identifier)
    if callable(identifier):
        return identifier
    return registry.lookup("activation", identifier, _KNOWN)


def serialize(activation: Callable[..., Any]) -> Any:
    """The name of an activation, or the config of a layer that serves as one."""
    return registry.serialize(activation)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The activation of that name. Raises ValueError for an unknown one."""
    return registry.deserialize("activation", config, _KNOWN, custom_objects)
