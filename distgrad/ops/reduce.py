"""Reductions over axes, and the one place where broadcasting is undone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.elementwise import cast, equal, exp, log, select
from distgrad.ops.shape import broadcast_to, reshape_to


def axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """``axis`` (None, an int, or several) as sorted non-negative ints.

    Raises InvalidArgumentError for an axis outside the rank or given twice.
    """
    if axis is None:
        return tuple(range(ndim))
    given = np.atleast_1d(np.asarray(axis))
    if given.size and given.dtype.kind not in "iu":
        raise TypeError(f"axis must be an int or several, not {axis!r}")
    result = []
    for a in given.ravel().tolist():
        if not -ndim <= a < ndim:
            raise InvalidArgumentError(f"axis {a} is out of range for a tensor of rank {ndim}")
        result.append(a % ndim)
    if len(set(result)) != len(result):
        raise InvalidArgumentError(f"axis {axis!r} names a dimension twice")
    return tuple(sorted(result))


def kept(shape: Sequence[int], axis: tuple[int, ...]) -> tuple[int, ...]:
    """``shape`` with 1 at the reduced axes."""
    return tuple(1 if i in axis else n for i, n in enumerate(shape))


def _spread(g: Tensor, shape: tuple, axis: tuple[int, ...]) -> Tensor:
    """A cotangent of a reduction, laid out over the reduced shape again."""
    return bind(broadcast_to, bind(reshape_to, g, shape=kept(shape, axis)), shape=shape)


def _reduced(primitive: Any, x: Any, axis: Any, keepdims: bool) -> Tensor:
    tensor = as_tensor(x)
    return primitive(tensor, axis=axes(axis, tensor._data.ndim), keepdims=bool(keepdims))


@primitive(kinds="iufc")
def sum(xp, x, *, axis, keepdims):
    """Sum over ``axis`` (a tuple)."""
    return xp.sum(x, axis=axis, keepdims=keepdims, dtype=x.dtype)


@sum.vjp("x")
def _(g, x_shape, axis):
    return _spread(g, x_shape, axis)


@sum.samples
def _(rng):
    for axis, keepdims in [((0, 1), False), ((1,), False), ((0,), True), ((), False)]:
        yield sample(rng.normal(size=(3, 4)), axis=axis, keepdims=keepdims)


def reduce_sum(x: Any, axis: Any = None, keepdims: bool = False, name: Any = None) -> Tensor:
    """Sum of the elements over ``axis`` (all by default); 0 for an empty tensor."""
    return _reduced(sum, x, axis, keepdims)


@primitive(kinds="iufc")
def mean(xp, x, *, axis, keepdims):
    """Mean over ``axis`` (a tuple); truncated for integers, nan for an empty tensor."""
    count = x.dtype.type(np.prod([x.shape[i] for i in axis], dtype=np.int64))
    total = xp.sum(x, axis=axis, keepdims=keepdims, dtype=x.dtype)
    return (total / count).astype(x.dtype)


@mean.vjp("x")
def _(g, x_shape, axis):
    count = int(np.prod([x_shape[i] for i in axis], dtype=np.int64))
    return _spread(g / count, x_shape, axis)


@mean.samples
def _(rng):
    for axis, keepdims in [((0, 1), False), ((1,), False), ((0,), True)]:
        yield sample(rng.normal(size=(3, 4)), axis=axis, keepdims=keepdims)


def reduce_mean(x: Any, axis: Any = None, keepdims: bool = False, name: Any = None) -> Tensor:
    """Mean of the elements over ``axis`` (all by default); truncated for integer tensors."""
    return _reduced(mean, x, axis, keepdims)


def _extremum(name: str, empty: str) -> Any:
    def kernel(xp, x, *, axis, keepdims):
        return getattr(xp, name)(x, axis=axis, keepdims=keepdims, initial=_bound(x.dtype, empty))

    kernel.__name__ = name
    kernel.__doc__ = f"The {name}imum over ``axis`` (a tuple); ties share the gradient equally."
    made = primitive(kinds="iuf")(kernel)

    @made.vjp("x")
    def _(g, out, x, axis):
        shape = tuple(x._data.shape)
        mask = cast(equal(x, _spread(out, shape, axis)), x._data.dtype)
        share = bind(sum, mask, axis=axis, keepdims=True)
        return bind(reshape_to, g, shape=kept(shape, axis)) / share * mask

    @made.samples
    def _(rng):
        for axis, keepdims in [((0, 1), False), ((1,), False), ((0,), True)]:
            yield sample(rng.permutation(12).reshape(3, 4) / 4.0, axis=axis, keepdims=keepdims)

    return made


def _bound(dtype: np.dtype, which: str) -> Any:
    if dtype.kind == "f":
        return dtype.type(-np.inf if which == "low" else np.inf)
    limits = np.iinfo(dtype)
    return limits.min if which == "low" else limits.max


max = _extremum("max", "low")
min = _extremum("min", "high")


def reduce_max(x: Any, axis: Any = None, keepdims: bool = False, name: Any = None) -> Tensor:
    """Largest element over ``axis`` (all by default); -inf for an empty float tensor."""
    return _reduced(max, x, axis, keepdims)


def reduce_min(x: Any, axis: Any = None, keepdims: bool = False, name: Any = None) -> Tensor:
    """Smallest element over ``axis`` (all by default); inf for an empty float tensor."""
    return _reduced(min, x, axis, keepdims)


@primitive(kinds="iufc")
def sum_to(xp, x, *, shape):
    """``x`` summed down to ``shape``, which broadcasts to its own: undoes a broadcast."""
    lead = x.ndim - len(shape)
    axis = tuple(range(lead)) + tuple(
        i + lead for i, n in enumerate(shape) if n == 1 and x.shape[i + lead] != 1
    )
    return xp.sum(x, axis=axis, dtype=x.dtype).reshape(shape)


@sum_to.vjp("x")
def _(g, x_shape):
    return bind(broadcast_to, g, shape=x_shape)


@sum_to.samples
def _(rng):
    yield sample(rng.normal(size=(2, 3, 4)), shape=(4,))
    yield sample(rng.normal(size=(2, 3, 4)), shape=(3, 1))
    yield sample(rng.normal(size=(3, 1)), shape=(1, 1))
    yield sample(rng.normal(size=(3, 4)), shape=())


@primitive(vjp=None)
def argmax_along(xp, x, *, axis):
    """Index of the first largest element along ``axis``, int64."""
    return xp.argmax(x, axis=axis).astype(np.int64)


@argmax_along.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), axis=1)


@primitive(vjp=None)
def argmin_along(xp, x, *, axis):
    """Index of the first smallest element along ``axis``, int64."""
    return xp.argmin(x, axis=axis).astype(np.int64)


@argmin_along.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), axis=0)


def argmax(input: Any, axis: int = 0, output_type: Any = np.int64, name: Any = None) -> Tensor:
    """Index of the first largest element along ``axis``."""
    tensor = as_tensor(input)
    (axis,) = axes(0 if axis is None else axis, tensor._data.ndim)
    return cast(argmax_along(tensor, axis=axis), output_type)


def argmin(input: Any, axis: int = 0, output_type: Any = np.int64, name: Any = None) -> Tensor:
    """Index of the first smallest element along ``axis``."""
    tensor = as_tensor(input)
    (axis,) = axes(0 if axis is None else axis, tensor._data.ndim)
    return cast(argmin_along(tensor, axis=axis), output_type)


def reduce_logsumexp(x: Any, axis: Any = None, keepdims: bool = False, name: Any = None) -> Tensor:
    """``log(sum(exp(x)))`` over ``axis`` without overflow."""
    tensor = as_tensor(x)
    over = axes(axis, tensor._data.ndim)
    peak = bind(max, tensor, axis=over, keepdims=True)
    peak = select(equal(peak - peak, 0), peak, 0)  # an infinite peak would make nan of inf - inf
    total = log(bind(sum, exp(tensor - peak), axis=over, keepdims=True)) + peak
    if keepdims:
        return total
    shape = tuple(n for i, n in enumerate(tensor._data.shape) if i not in over)
    return bind(reshape_to, total, shape=shape)


def norm(
    tensor: Any, ord: Any = "euclidean", axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """The Euclidean norm over ``axis`` (all by default); its gradient at zero is nan."""
    from distgrad.ops.elementwise import abs, sqrt

    if ord not in ("euclidean", 2):
        raise ValueError(f"norm of order {ord!r} is not known; use 'euclidean'")
    x = as_tensor(tensor)
    return sqrt(reduce_sum(abs(x) * abs(x), axis, keepdims))
