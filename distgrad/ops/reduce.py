"""Reductions over axes, and the one place where broadcasting is undone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from distgrad.core.composite import CompositeError, otherwise
from distgrad.core.dispatch import as_tensor, truths
from distgrad.core.dtypes import is_floating
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import cast
from distgrad.ops.complex import conj
from distgrad.ops.logic import equal
from distgrad.ops.scan import cumprod_along
from distgrad.ops.shape import axes as axes  # the public home of this helper is here
from distgrad.ops.shape import broadcast_to, one_axis, permute, reshape_to


def kept(shape: Sequence[int], axis: tuple[int, ...]) -> tuple[int, ...]:
    """``shape`` with 1 at the reduced axes."""
    return tuple(1 if i in axis else n for i, n in enumerate(shape))


def reduced_size(shape: Sequence[int], axis: tuple[int, ...]) -> int:
    """How many elements are reduced to one."""
    return math.prod([shape[i] for i in axis])


def runs_of(axis: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Axes, which ascend, as runs of neighbours."""
    starts = [i for i, a in enumerate(axis) if not i or a != axis[i - 1] + 1]
    return [axis[i:j] for i, j in pairwise([*starts, len(axis)])]


def _spread(g: Tensor, shape: tuple, axis: tuple[int, ...]) -> Tensor:
    """A cotangent of a reduction, laid out over the reduced shape again."""
    if g._data.ndim:  # a scalar broadcasts as it is
        g = bind(reshape_to, g, shape=kept(shape, axis))
    return bind(broadcast_to, g, shape=shape)


def _reduced(primitive: Any, x: Any, axis: Any, keepdims: bool) -> Tensor:
    try:
        tensor = as_tensor(x)
    except CompositeError:
        return otherwise(primitive, (x, axis, keepdims), {})
    over = axes(axis, tensor._data.ndim)
    if tensor._data.dtype.kind not in primitive.kinds:
        return primitive(tensor, axis=over, keepdims=bool(keepdims))  # raises, and says why
    return bind(primitive, tensor, axis=over, keepdims=bool(keepdims))


def _ways() -> list[tuple[tuple[int, ...], bool]]:
    """Axes and keepdims for the samples."""
    return [((0, 1), False), ((1,), False), ((0,), True), ((), False)]


# Sum and mean. Kernels call the arrays' own methods: NumPy's functions take twice as long to get
# to them.


@primitive(kinds="iufc")
def sum(xp, x, *, axis, keepdims):
    """Sum over ``axis`` (a tuple)."""
    return x.sum(axis=axis, keepdims=keepdims, dtype=x.dtype)


@sum.vjp("x")
def _(g, x_shape, axis):
    return _spread(g, x_shape, axis)


@sum.samples
def _(rng):
    for axis, keepdims in _ways():
        yield sample(rng.normal(size=(3, 4)), axis=axis, keepdims=keepdims)
    yield sample(rng.normal(size=()), axis=(), keepdims=False)
    yield sample(rng.normal(size=(0, 2)), axis=(0,), keepdims=False)


def reduce_sum(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """Sum of the elements over ``axis`` (all by default); 0 for an empty tensor."""
    return _reduced(sum, input_tensor, axis, keepdims)


@primitive(kinds="iufc")
def mean(xp, x, *, axis, keepdims):
    """Mean over ``axis`` (a tuple); truncated for integers. Of nothing: nan, or the integer 0."""
    # Few integers add up beyond the range of a small dtype.
    wide = {"i": np.int64, "u": np.uint64}.get(x.dtype.kind, x.dtype)
    total = x.sum(axis=axis, keepdims=keepdims, dtype=wide)
    count = reduced_size(x.shape, axis)
    if x.dtype.kind in "iu":
        count = count or 1
    return (total / count).astype(x.dtype)


@mean.vjp("x")
def _(g, x_shape, axis):
    return _spread(g / reduced_size(x_shape, axis), x_shape, axis)


@mean.samples
def _(rng):
    for axis, keepdims in _ways():
        yield sample(rng.normal(size=(3, 4)), axis=axis, keepdims=keepdims)


def reduce_mean(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """Mean of the elements over ``axis`` (all by default); truncated for integer tensors."""
    return _reduced(mean, input_tensor, axis, keepdims)


@primitive(kinds="iufc")
def sum_to(xp, x, *, shape, out=None):
    """``x`` summed down to ``shape``, which broadcasts to its own: undoes a broadcast."""
    lead = x.ndim - len(shape)
    axis = tuple(range(lead)) + tuple(
        i + lead for i, n in enumerate(shape) if n == 1 and x.shape[i + lead] != 1
    )
    if out is not None:
        x.sum(
            axis=axis,
            dtype=x.dtype,
            out=out.reshape([n for i, n in enumerate(x.shape) if i not in axis]),
        )
        return out
    return x.sum(axis=axis, dtype=x.dtype).reshape(shape)


@sum_to.vjp("x")
def _(g, x_shape):
    return bind(broadcast_to, g, shape=x_shape)


@sum_to.samples
def _(rng):
    yield sample(rng.normal(size=(2, 3, 4)), shape=(4,))
    yield sample(rng.normal(size=(2, 3, 4)), shape=(3, 1))
    yield sample(rng.normal(size=(3, 1)), shape=(1, 1))
    yield sample(rng.normal(size=(3, 4)), shape=())


# Extrema


def _extremum(name: str, empty: str) -> Any:
    def kernel(xp, x, *, axis, keepdims):
        if reduced_size(x.shape, axis):
            return getattr(x, name)(axis=axis, keepdims=keepdims)
        shape = [n for i, n in enumerate(x.shape) if i not in axis]
        return xp.full(
            kept(x.shape, axis) if keepdims else shape, bound(x.dtype, empty), dtype=x.dtype
        )

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
        for axis, keepdims in _ways():
            yield sample(rng.permutation(12).reshape(3, 4) / 4.0, axis=axis, keepdims=keepdims)

    return made


def bound(dtype: np.dtype, which: str) -> Any:
    """The "low" or "high" end of a dtype: an infinity for floats."""
    if is_floating(dtype):
        return dtype.type(-np.inf if which == "low" else np.inf)
    limits = np.iinfo(dtype)
    return limits.min if which == "low" else limits.max


max = _extremum("max", "low")
min = _extremum("min", "high")


def reduce_max(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """Largest element over ``axis`` (all by default); -inf for an empty float tensor."""
    return _reduced(max, input_tensor, axis, keepdims)


def reduce_min(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """Smallest element over ``axis`` (all by default); inf for an empty float tensor."""
    return _reduced(min, input_tensor, axis, keepdims)


# Product


@primitive(kinds="iufc")
def prod(xp, x, *, axis, keepdims):
    """Product over ``axis`` (a tuple)."""
    return x.prod(axis=axis, keepdims=keepdims, dtype=x.dtype)


@prod.vjp("x")
def _(g, x, axis):
    # The product of all the others, as what stands before times what stands after: right with
    # any number of zeros, where TensorFlow's second derivative is not.
    shape = tuple(x._data.shape)
    rest = tuple(i for i in range(len(shape)) if i not in axis)
    order = rest + axis
    moved = bind(permute, x, perm=order)
    rows = tuple(shape[i] for i in rest)
    flat = bind(reshape_to, moved, shape=(*rows, reduced_size(shape, axis)))
    last = len(rows)
    before = bind(cumprod_along, flat, axis=last, exclusive=True, reverse=False)
    after = bind(cumprod_along, flat, axis=last, exclusive=True, reverse=True)
    others = bind(reshape_to, before * after, shape=tuple(shape[i] for i in order))
    back = tuple(int(i) for i in np.argsort(order))
    return bind(reshape_to, g, shape=kept(shape, axis)) * conj(bind(permute, others, perm=back))


@prod.samples
def _(rng):
    for axis, keepdims in _ways():
        yield sample(rng.normal(size=(3, 4)), axis=axis, keepdims=keepdims)
    for zeros in (1, 2, 3):
        x = rng.normal(size=(2, 4))
        x[0, :zeros] = 0
        yield sample(x, axis=(1,), keepdims=False)
    yield sample(rng.normal(size=(2, 3, 2)), axis=(0, 2), keepdims=False)
    yield sample(rng.normal(size=(0, 2)), axis=(0,), keepdims=False)


def reduce_prod(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """Product of the elements over ``axis`` (all by default); 1 for an empty tensor."""
    return _reduced(prod, input_tensor, axis, keepdims)


# Logic


def _logical(name: str, doc: str) -> Any:
    def kernel(xp, x, *, axis, keepdims):
        return getattr(x, name)(axis=axis, keepdims=keepdims)

    kernel.__name__, kernel.__doc__ = f"{name}_true", doc
    made = primitive(kinds="b", vjp=None)(kernel)

    @made.samples
    def _(rng):
        for axis, keepdims in _ways():
            yield sample(rng.uniform(size=(3, 4)) > 0.3, axis=axis, keepdims=keepdims)

    return made


any_true = _logical("any", "Whether any bool over ``axis`` (a tuple) is true.")
all_true = _logical("all", "Whether all bools over ``axis`` (a tuple) are true.")


def reduce_any(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """Whether any of the bools over ``axis`` (all by default) is true; False for none."""
    return _reduced(any_true, truths(input_tensor), axis, keepdims)


def reduce_all(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """Whether all of the bools over ``axis`` (all by default) are true; True for none."""
    return _reduced(all_true, truths(input_tensor), axis, keepdims)


# Positions of extrema


def _position(name: str, doc: str) -> Any:
    def kernel(xp, x, *, axis):
        return getattr(xp, name)(x, axis=axis).astype(np.int64, copy=False)

    kernel.__name__, kernel.__doc__ = f"{name}_along", doc
    made = primitive(vjp=None)(kernel)

    @made.samples
    def _(rng):
        for axis in (0, 1):
            yield sample(rng.normal(size=(3, 4)), axis=axis)

    return made


argmax_along = _position("argmax", "Index of the first largest element along ``axis``, int64.")
argmin_along = _position("argmin", "Index of the first smallest element along ``axis``, int64.")


def argmax(
    input: Any, axis: Any = None, output_type: Any = np.int64, name: str | None = None
) -> Tensor:
    """Index of the first largest element along ``axis`` (0 by default); no gradient.

    Raises InvalidArgumentError for an axis that is empty or outside the rank.
    """
    return _index_of("argmax", argmax_along, input, axis, output_type)


def argmin(
    input: Any, axis: Any = None, output_type: Any = np.int64, name: str | None = None
) -> Tensor:
    """Index of the first smallest element along ``axis`` (0 by default); no gradient.

    Raises InvalidArgumentError for an axis that is empty or outside the rank.
    """
    return _index_of("argmin", argmin_along, input, axis, output_type)


def _index_of(name: str, primitive: Any, input: Any, axis: Any, output_type: Any) -> Tensor:
    tensor = as_tensor(input)
    axis = one_axis(name, 0 if axis is None else axis, tensor._data.ndim)
    if not tensor._data.shape[axis]:
        raise InvalidArgumentError(f"{name}: axis {axis} of shape {tensor.shape} is empty")
    return cast(bind(primitive, tensor, axis=axis), output_type)
