"""Softmax, dropout, embedding and top-k hits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distgrad.core.composite import CompositeError, otherwise, takes_composites
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import is_floating
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops import random
from distgrad.ops.arithmetic import multiply
from distgrad.ops.exponential import exp
from distgrad.ops.indexing import gather
from distgrad.ops.logic import select
from distgrad.ops.reduce import sum as sum_over
from distgrad.ops.shape import concat, static


@primitive(kinds="f")
def softmax_along(xp, x, *, axis):
    """``exp(x) / sum(exp(x))`` over one axis."""
    if not x.size:
        return xp.zeros_like(x)
    e = x - xp.max(x, axis=axis, keepdims=True)
    xp.exp(e, out=e)
    e /= xp.sum(e, axis=axis, keepdims=True)
    return e


@softmax_along.vjp("x")
def _(g, out, axis):
    return bind(softmax_grad, g, out, axis=axis)


@primitive(kinds="f")
def softmax_grad(xp, g, y, *, axis):
    """The cotangent ``g`` through a softmax of value ``y``."""
    weighted = xp.multiply(g, y)
    return weighted - xp.multiply(y, xp.sum(weighted, axis=axis, keepdims=True))


@softmax_grad.vjp("g")
def _(g, y, axis):
    return bind(softmax_grad, g, y, axis=axis)


@softmax_grad.vjp("y")
def _(g, args, axis):
    before, y = args
    along = bind(sum_over, before * y, axis=(axis,), keepdims=True)
    return g * (before - along) - before * bind(sum_over, g * y, axis=(axis,), keepdims=True)


@softmax_grad.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), rng.uniform(0.1, 0.9, (3, 4)), axis=1)
    yield sample(rng.normal(size=(2, 3, 4)), rng.uniform(0.1, 0.9, (2, 3, 4)), axis=1)
    yield sample(rng.normal(size=(0, 3)), rng.normal(size=(0, 3)), axis=1)


@primitive(kinds="f")
def log_softmax_along(xp, x, *, axis):
    """Logarithm of the softmax over one axis, without overflow."""
    if not x.size:
        return xp.zeros_like(x)
    shifted = x - xp.max(x, axis=axis, keepdims=True)
    shifted -= xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))
    return shifted


@log_softmax_along.vjp("x")
def _(g, out, axis):
    return g - exp(out) * bind(sum_over, g, axis=(axis,), keepdims=True)


for _of_axis in (softmax_along, log_softmax_along):

    @_of_axis.samples
    def _(rng):
        yield sample(rng.normal(size=(3, 4)), axis=1)
        yield sample(rng.normal(size=(2, 3, 4)), axis=1)
        yield sample(rng.normal(size=3), axis=0)
        yield sample(rng.normal(size=(0, 3)), axis=1)


def one_axis_of(name: str, x: Tensor, axis: int | None) -> int:
    """``axis`` (the last for None) counted from the first; InvalidArgumentError out of range."""
    ndim = x._data.ndim
    at = -1 if axis is None else int(axis)
    if not -ndim <= at < ndim:
        raise InvalidArgumentError(
            f"{name}: axis {at} is out of range for a tensor of shape {x.shape}"
        )
    return at % ndim


def softmax(logits: Any, axis: int | None = None, name: str | None = None) -> Tensor:
    """``exp(x) / sum(exp(x))`` over ``axis``, the last by default.

    Raises InvalidArgumentError for integers or an axis out of range.
    """
    try:
        x = as_tensor(logits)
    except CompositeError:
        return otherwise(softmax, (logits, axis), {})
    return softmax_along(x, axis=one_axis_of("softmax", x, axis))


def log_softmax(logits: Any, axis: int | None = None, name: str | None = None) -> Tensor:
    """Logarithm of the softmax over ``axis``, the last by default.

    Raises InvalidArgumentError for integers or an axis out of range.
    """
    x = as_tensor(logits)
    return log_softmax_along(x, axis=one_axis_of("log_softmax", x, axis))


@takes_composites
def dropout(
    x: Any, rate: float, noise_shape: Any = None, seed: Any = None, name: str | None = None
) -> Tensor:
    """Zeroes a fraction ``rate`` of the elements and scales the rest by ``1 / (1 - rate)``.

    ``noise_shape`` is a shape that broadcasts to that of ``x``: an axis of 1 is kept or dropped
    whole. Raises ValueError for a rate outside [0, 1) or for integers.
    """

    def sampler(shape: Any, dtype: Any) -> Tensor:
        return random.uniform(shape, dtype=dtype, seed=seed)

    return general_dropout(x, rate, sampler, noise_shape)


def general_dropout(
    x: Any,
    rate: float,
    uniform_sampler: Callable[..., Any],
    noise_shape: Any = None,
    name: str | None = None,
) -> Tensor:
    """``dropout`` by the uniform numbers that ``uniform_sampler(shape=..., dtype=...)`` gives.

    Raises ValueError for a rate outside [0, 1), another rank of ``noise_shape``, and what are no
    floats.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: rate must lie in [0, 1), not {rate}")
    tensor = as_tensor(x)
    if not is_floating(tensor._data.dtype):
        raise ValueError(f"dropout takes floats, not {tensor.dtype.name}")
    if rate == 0:
        return tensor
    shape = tensor._data.shape
    if noise_shape is not None:
        given = noise_shape if isinstance(noise_shape, Tensor) else list(noise_shape)
        wanted = [None if n is None else int(n) for n in given]
        if len(wanted) != len(shape):
            raise ValueError(f"dropout: noise_shape {wanted} for a tensor of shape {shape}")
        shape = static([s if n is None else n for s, n in zip(shape, wanted, strict=True)])
    return dropped(tensor, as_tensor(uniform_sampler(shape=shape, dtype=tensor.dtype)), rate)


def stateless_dropout(
    x: Any,
    rate: float,
    seed: Any,
    rng_alg: Any = None,
    noise_shape: Any = None,
    name: str | None = None,
) -> Tensor:
    """``dropout`` that depends on the two ints of ``seed`` alone; ``rng_alg`` changes nothing."""

    def sampler(shape: Any, dtype: Any) -> Tensor:
        return random.stateless_uniform(shape, seed, dtype=dtype)

    return general_dropout(x, rate, sampler, noise_shape)


def dropped(tensor: Tensor, noise: Tensor, rate: float) -> Tensor:
    """``tensor / (1 - rate)`` where ``noise`` is at least ``rate``, else 0; they broadcast."""
    kept, scale = noise >= rate, 1 / (1 - rate)
    if kept._data.shape != tensor._data.shape:
        return select(kept, multiply(tensor, scale), 0)
    return bind(scaled_where, tensor, kept, scale=scale)


@primitive(
    expr="where(condition, x * scale, 0.0)", match=("x",), constant=("condition",), kinds="f"
)
def scaled_where(xp, x, condition, *, scale):
    """``x * scale`` where ``condition`` (bool) holds, else 0."""
    return xp.where(condition, xp.multiply(x, scale), 0)


@scaled_where.vjp("x")
def _(g, condition, scale):
    return bind(scaled_where, g, condition, scale=scale)


@scaled_where.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), rng.random((3, 4)) < 0.5, scale=1.25)


def embedding_lookup(
    params: Any, ids: Any, max_norm: float | None = None, name: str | None = None
) -> Tensor:
    """Rows of ``params`` at integer ``ids``; the gradient of a variable is IndexedSlices.

    A list or tuple holds parts of the table, one after another, of as many rows each. Rows whose
    Euclidean norm is above ``max_norm`` are scaled down to it. Raises InvalidArgumentError for an
    id outside the rows, ValueError for no parts.
    """
    from distgrad.ops.statistics import clip_by_norm

    if isinstance(params, (list, tuple)):
        if not params:
            raise ValueError("embedding_lookup needs a table, or at least one part of it")
        params = params[0] if len(params) == 1 else concat(params, 0)
    rows = gather(params, ids)
    if max_norm is None:
        return rows
    first = as_tensor(ids)._data.ndim
    return clip_by_norm(rows, max_norm, axes=list(range(first, rows._data.ndim)))


@primitive(vjp=None, match=())
def is_class(xp, labels, *, classes):
    """Whether a label, along a last axis of size 1, is each of the class numbers: bool."""
    return labels == xp.arange(classes)


@is_class.samples
def _(rng):
    yield sample(rng.integers(0, 5, (4, 1)), classes=5)


@primitive(vjp=None, match=("predictions",), kinds="f")
def among_largest(xp, predictions, targets, *, k):
    """Whether fewer than ``k`` predictions of a row are larger than that of its target."""
    classes = predictions.shape[-1]
    known = (targets >= 0) & (targets < classes)
    at = xp.where(known, targets, 0)[:, None]
    target = xp.take_along_axis(predictions, at, axis=1)
    larger = xp.sum(predictions > target, axis=1)
    return known & (larger < k) & xp.all(xp.isfinite(predictions), axis=1)


@among_largest.samples
def _(rng):
    yield sample(rng.normal(size=(4, 5)), rng.integers(0, 5, 4), k=2)


def in_top_k(targets: Any, predictions: Any, k: int, name: str | None = None) -> Tensor:
    """Whether the target class of each row is among its ``k`` largest predictions, bool.

    Classes that tie at the border are all inside. False for a target out of range, or a row with
    inf or nan. Raises InvalidArgumentError for shapes other than ``[n]`` and ``[n, classes]``.
    """
    classes, scores = as_tensor(targets), as_tensor(predictions)
    if scores._data.ndim != 2 or classes._data.shape != scores._data.shape[:1]:
        raise InvalidArgumentError(
            f"in_top_k takes targets [n] and predictions [n, classes], not shapes {classes.shape} "
            f"and {scores.shape}"
        )
    if classes._data.dtype.kind not in "iu":
        raise InvalidArgumentError(f"in_top_k: targets are integers, not {classes.dtype.name}")
    return among_largest(scores, classes, k=int(k))
