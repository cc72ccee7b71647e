"""What functions of ``keras.ops`` do of ragged tensors: what TensorFlow's do of the same.

Loaded by the first function that is given one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from distgrad.core.composite import Composite, of_composites, of_family
from distgrad.core.dispatch import as_tensor
from distgrad.keras.backend import epsilon as small
from distgrad.keras.ops import arranging, core, numeric, reduction, shaping
from distgrad.keras.ops.promotion import counted, floated
from distgrad.ops import layout, reduce, scan, shape, statistics
from distgrad.ops.arithmetic import square
from distgrad.ops.casting import cast, stop_gradient
from distgrad.ops.clipping import maximum
from distgrad.ops.exponential import exp, log
from distgrad.ops.indexing import gather
from distgrad.ops.logic import is_finite, where
from distgrad.ops.nn import softmax
from distgrad.ops.powers import rsqrt, sqrt
from distgrad.ragged.elementwise import elementwise

# (In the package these names are those of rooms.)
nn, linalg = (importlib.import_module(f"distgrad.keras.ops.{name}") for name in ("nn", "linalg"))

of_family("distgrad.keras.ops.elementwise")(elementwise)
_OF_VALUES = {
    core: "saturate_cast stop_gradient",
    nn: "celu elu gelu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu log_sigmoid relu "
    "relu6 selu sigmoid silu soft_shrink softplus softsign sparse_plus sparse_sigmoid squareplus "
    "tanh_shrink threshold",
    numeric: "angle bitwise_invert bitwise_left_shift bitwise_right_shift cbrt deg2rad erfc fabs "
    "fmax fmin fmod gcd heaviside hypot i0 isneginf isposinf isreal lcm ldexp left_shift "
    "logaddexp2 nextafter polar rad2deg right_shift signbit sinc trunc",
    shaping: "copy full_like where",
}
for _module, _names in _OF_VALUES.items():
    for _name in _names.split():
        _function = getattr(_module, _name)
        of_composites(_function)(partial(elementwise, _function))


# Along axes


def _with(x: Any, of_numbers: Callable[[Any], Any]) -> Any:
    """The ragged tensor with numbers in the dtype that Keras has for them."""
    return x.with_flat_values(of_numbers(x.flat_values))


def _reduction(
    of_tensorflow: Callable[..., Any], of_numbers: Callable[[Any], Any] = as_tensor
) -> Callable[..., Any]:
    """That of TensorFlow, of numbers in the dtype that Keras has for it."""

    def reduced(
        x: Any, axis: Any = None, keepdims: bool = False, *more: Any, **options: Any
    ) -> Any:
        for value in (*more, *options.values()):
            _refuse(value)
        return of_tensorflow(_with(x, of_numbers), axis, keepdims)

    return reduced


def _refuse(option: Any) -> None:
    if option is not None:
        raise ValueError(f"the option {option!r} is not for ragged tensors: leave it out")


def _std(x: Any, axis: Any, keepdims: bool) -> Any:
    return sqrt(statistics.reduce_variance(x, axis, keepdims))


def _logsumexp(x: Any, axis: Any, keepdims: bool) -> Any:
    largest = stop_gradient(reduce.reduce_max(x, axis, True))
    largest = where(is_finite(largest), largest, 0.0)
    total = log(reduce.reduce_sum(exp(x - largest), axis, True)) + largest
    return total if keepdims else reduce.reduce_sum(total, axis)  # the one that there is


of_composites(reduction.sum)(_reduction(reduce.reduce_sum, reduction.summed))
of_composites(reduction.prod)(_reduction(reduce.reduce_prod, reduction.summed))
_mean = of_composites(reduction.mean)(_reduction(reduce.reduce_mean, floated))
_var = of_composites(reduction.var)(_reduction(statistics.reduce_variance, floated))
of_composites(reduction.std)(_reduction(_std, floated))
of_composites(reduction.logsumexp)(_reduction(_logsumexp, floated))
for _name in ("max", "min", "any", "all"):
    of_composites(getattr(reduction, _name))(_reduction(getattr(reduce, f"reduce_{_name}")))
of_composites(reduction.amax)(_reduction(reduce.reduce_max))
of_composites(reduction.amin)(_reduction(reduce.reduce_min))


@of_composites(reduction.average)
def _(x: Any, axis: Any = None, weights: Any = None) -> Any:
    _refuse(weights)
    return _mean(x, axis)


@of_composites(nn.moments)
def _(x: Any, axes: Any, keepdims: bool = False, synchronized: bool = False) -> Any:
    return _mean(x, axes, keepdims), _var(x, axes, keepdims)


@of_composites(linalg.norm)
def _(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    if ord is not None and (ord != 2 or not isinstance(axis, int)):
        raise ValueError(f"the norm of ragged rows is the root of their squares, not ord={ord!r}")
    return sqrt(reduce.reduce_sum(square(_with(x, floated)), axis, keepdims))


@of_composites(nn.normalize)
def _(x: Any, axis: Any = -1, order: Any = 2, epsilon: float | None = None) -> Any:
    if order != 2:
        raise ValueError(f"ragged rows are normalized by their norm of order 2, not {order!r}")
    x, least = _with(x, floated), small() if epsilon is None else epsilon
    return x * rsqrt(maximum(reduce.reduce_sum(square(x), axis, True), least**2))


@of_composites(nn.softmax)
def _(x: Any, axis: Any = -1) -> Any:
    return softmax(_with(x, floated), axis)


@of_composites(nn.rms_normalization)
def _(x: Any, scale: Any = None, axis: Any = -1, epsilon: float | None = None) -> Any:
    x, least = _with(x, floated), small() if epsilon is None else epsilon
    y = x * rsqrt(reduce.reduce_mean(square(x), axis, True) + least)
    return y if scale is None else y * cast(scale, y.dtype)


@of_composites(nn.layer_normalization)
def _(
    x: Any, gamma: Any = None, beta: Any = None, axis: Any = -1, epsilon: float | None = None
) -> Any:
    if gamma is not None or beta is not None:
        return _of_inner(nn.layer_normalization, x, axis, gamma=gamma, beta=beta, epsilon=epsilon)
    x = _with(x, floated)
    x = x - reduce.reduce_mean(x, axis, True)
    least = small() if epsilon is None else epsilon
    return x * rsqrt(reduce.reduce_mean(square(x), axis, True) + least)


@of_composites(nn.batch_normalization)
def _(x: Any, mean: Any, variance: Any, axis: int, *more: Any, **options: Any) -> Any:
    run = partial(nn.batch_normalization, mean=mean, variance=variance)
    names = ("offset", "scale", "epsilon")
    return _of_inner(run, x, axis, **dict(zip(names, more, strict=False)), **options)


def _of_inner(function: Callable[..., Any], x: Any, axis: Any, **options: Any) -> Any:
    """That of the innermost values. Raises ValueError where rows along ``axis`` may differ."""
    rank, inner = len(x.shape), len(x.flat_values.shape) - 1
    from_end = axis - rank if isinstance(axis, int) and axis >= 0 else axis
    if not isinstance(from_end, int) or not -inner <= from_end:
        raise ValueError(f"axis={axis!r} is none along which all rows have one length: to_tensor()")
    return x.with_flat_values(function(x.flat_values, axis=from_end, **options))


def _running(function: Callable[..., Any], along: Callable[..., Any] | None) -> None:
    @of_composites(function)
    def _(x: Any, axis: int | None = None, dtype: Any = None) -> Any:
        if axis is None or along is None:
            if axis is not None:
                raise ValueError(f"{function.__name__} of ragged rows is that of all: axis=None")
            return function(x.flat_values, None, dtype)
        return along(_with(x, counted) if dtype is None else cast(x, dtype), axis)


_running(reduction.cumsum, scan.cumsum)
_running(reduction.cumprod, None)


# Places


@of_composites(core.convert_to_tensor, shaping.array)
def _(x: Any, dtype: Any = None, sparse: Any = None, ragged: Any = None) -> Any:
    return x if dtype is None else cast(x, dtype)


@of_composites(shaping.size)
def _(x: Any) -> Any:
    return shaping.size(x.flat_values)


@of_composites(shaping.expand_dims)
def _(x: Any, axis: Any) -> Any:
    return shape.expand_dims(x, axis)


@of_composites(shaping.concatenate)
def _(xs: Any, axis: int = 0) -> Any:
    return shape.concat(xs, axis)


@of_composites(shaping.stack)
def _(x: Any, axis: int = 0) -> Any:
    return shape.stack(x, axis)


@of_composites(shaping.vstack)
def _(xs: Any) -> Any:
    return shape.concat(xs, 0)


@of_composites(shaping.hstack)
def _(xs: Any) -> Any:
    return shape.concat(xs, 1)


@of_composites(shaping.tile)
def _(x: Any, repeats: Any) -> Any:
    return layout.tile(x, repeats)


@of_composites(shaping.flip)
def _(x: Any, axis: Any = None) -> Any:
    return layout.reverse(x, range(len(x.shape)) if axis is None else axis)


@of_composites(arranging.fliplr)
def _(x: Any) -> Any:
    return layout.reverse(x, 1)


@of_composites(arranging.flipud)
def _(x: Any) -> Any:
    return layout.reverse(x, 0)


@of_composites(shaping.take)
def _(x: Any, indices: Any, axis: int | None = None) -> Any:
    if not isinstance(x, Composite) and axis in (None, 0):
        return indices.with_flat_values(shaping.take(x, indices.flat_values, axis))
    if axis != 0:
        raise ValueError(f"what is taken of ragged rows, or by them, lies along axis 0, not {axis}")
    return gather(x, indices)


@of_composites(nn.one_hot)
def _(x: Any, num_classes: int, axis: int = -1, dtype: Any = None, sparse: bool = False) -> Any:
    if axis not in (-1, len(x.shape)):
        raise ValueError(f"the classes of ragged rows lie along a last axis, not {axis}")
    return x.with_flat_values(nn.one_hot(x.flat_values, num_classes, -1, dtype))


@of_composites(nn.multi_hot)
def _(
    inputs: Any,
    num_classes: int | None = None,
    axis: int = -1,
    dtype: Any = None,
    sparse: bool = False,
) -> Any:
    if len(inputs.shape) != 2:
        raise ValueError(f"multi_hot takes ragged rows of numbers, not of shape {inputs.shape}")
    filled = cast(inputs, "int32").to_tensor(-1)  # with a number that is none
    return nn.multi_hot(filled, num_classes, axis, dtype)
