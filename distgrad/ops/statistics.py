"""Variances, norms and clipping, and other reductions made of the reduction primitives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.composite import takes_composites
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import kind_of
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, registry
from distgrad.core.tensor import Operand, Tensor
from distgrad.ops import reduce
from distgrad.ops.arithmetic import abs, square
from distgrad.ops.casting import cast, zeros_like
from distgrad.ops.clipping import maximum, minimum
from distgrad.ops.exponential import exp, log
from distgrad.ops.logic import equal, greater, not_equal, select
from distgrad.ops.powers import power, sqrt
from distgrad.ops.reduce import axes, reduce_max, reduce_mean, reduce_sum
from distgrad.ops.shape import one_axis, permute, reshape_to, squeeze


def _of_kind(name: str, x: Any, kinds: str) -> Tensor:
    tensor = as_tensor(x)
    if kind_of(tensor._data.dtype) not in kinds:
        raise InvalidArgumentError(f"{name} does not take {tensor.dtype.name} tensors; use cast")
    return tensor


def squared(x: Tensor) -> Tensor:
    """The square of the modulus."""
    return square(abs(x)) if x._data.dtype.kind == "c" else square(x)


@takes_composites
def reduce_variance(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """Variance over ``axis`` (all by default), divided by the number of elements.

    Raises InvalidArgumentError for integers.
    """
    x = _of_kind("reduce_variance", input_tensor, "fc")
    return reduce_mean(squared(x - reduce_mean(x, axis, True)), axis, keepdims)


def reduce_std(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """Standard deviation over ``axis`` (all by default); its gradient at constants is nan.

    Raises InvalidArgumentError for integers.
    """
    return sqrt(reduce_variance(input_tensor, axis, keepdims))


def moments(
    x: Any, axes: Any, shift: Any = None, keepdims: bool = False, name: str | None = None
) -> tuple[Tensor, Tensor]:
    """Mean and variance of ``x`` over ``axes``; ``shift`` is not used.

    Both are differentiable to any order, where TensorFlow leaves the gradient of the mean out of
    the second derivative of the variance. Those of float16, whose sums soon leave its range, are
    computed in float32. Raises InvalidArgumentError for integers.
    """
    x = _of_kind("moments", x, "fc")
    if x._data.dtype == np.float16:
        mean, variance = moments(cast(x, np.float32), axes, None, keepdims)
        return cast(mean, np.float16), cast(variance, np.float16)
    mean = reduce_mean(x, axes, True)
    variance = reduce_mean(squared(x - mean), axes, keepdims)
    return (mean if keepdims else squeeze(mean, axes)), variance


def reduce_logsumexp(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """``log(sum(exp(x)))`` over ``axis`` without overflow; -inf for an empty tensor."""
    x = _of_kind("reduce_logsumexp", input_tensor, "f")
    over = axes(axis, x._data.ndim)
    peak = bind(reduce.max, x, axis=over, keepdims=True)
    # A shift by a constant; an infinite peak would make nan of inf - inf.
    peak = bind(registry["stop_gradient"], select(equal(peak - peak, 0), peak, 0))
    total = log(bind(reduce.sum, exp(x - peak), axis=over, keepdims=True)) + peak
    return squeeze(total, over) if over and not keepdims else total


def reduce_euclidean_norm(
    input_tensor: Any, axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """Root of the sum of squares over ``axis`` (all by default), in the dtype of the input.

    Integers' sums wrap, and their root is cut to an integer. The gradient at zero is nan.
    """
    x = _of_kind("reduce_euclidean_norm", input_tensor, "iufc")
    total = reduce_sum(squared(x), axis, keepdims)
    return cast(sqrt(total if x._data.dtype.kind in "fc" else cast(total, np.float64)), x.dtype)


def count_nonzero(
    input: Any,
    axis: Any = None,
    keepdims: bool | None = None,
    dtype: Any = np.int64,
    name: str | None = None,
) -> Tensor:
    """The number of elements over ``axis`` (all by default) that are not 0; no gradient."""
    x = as_tensor(input)
    hits = x if x._data.dtype.kind == "b" else not_equal(x, 0)
    return reduce_sum(cast(hits, dtype), axis, bool(keepdims))


# Norms


def zero_fraction(value: Any, name: str | None = None) -> Tensor:
    """The share of elements that are 0, float32; no gradient. nan for none."""
    tensor = as_tensor(value)
    return reduce_mean(cast(equal(tensor, zeros_like(tensor)), np.float32))


def norm(
    tensor: Any, ord: Any = "euclidean", axis: Any = None, keepdims: bool = False, name: Any = None
) -> Tensor:
    """The norm of vectors along ``axis``, of matrices over a pair of axes, or of everything.

    The Euclidean norm of complex numbers is a complex number as well.

    ``ord`` is "euclidean", 1, 2, inf or another positive power; for matrices "euclidean", "fro",
    1 (columns), 2 (largest singular value) or inf (rows). The gradient of the Euclidean norm at
    zero is nan. Raises ValueError for another order.
    """
    x = _of_kind("norm", tensor, "fc")
    if isinstance(axis, (tuple, list)):
        if len(axis) == 2:
            first, second = (one_axis("norm", a, x._data.ndim) for a in axis)
            return _matrix_norm(x, ord, first, second, keepdims)
        if len(axis) != 1:
            raise ValueError(f"norm: axis is None, an int or a pair, not {axis!r}")
        axis = axis[0]
    if ord in ("euclidean", 2):
        return cast(sqrt(reduce_sum(squared(x), axis, keepdims)), x.dtype)
    if isinstance(ord, str) or not np.isreal(ord) or not ord > 0:
        raise ValueError(f"norm: {ord!r} is not an order of vectors; use 'euclidean', 1, 2 or inf")
    if ord == 1:
        return reduce_sum(abs(x), axis, keepdims)
    if ord == np.inf:
        return reduce_max(abs(x), axis, keepdims)
    return power(reduce_sum(power(abs(x), float(ord)), axis, keepdims), 1 / ord)


def normalize(
    tensor: Any, ord: Any = "euclidean", axis: Any = None, name: str | None = None
) -> tuple[Tensor, Tensor]:
    """``tensor`` divided by its norm over ``axis``, and that norm with axes of size 1."""
    x = as_tensor(tensor)
    length = norm(x, ord, axis, keepdims=True)
    return x / length, length


def _matrix_norm(x: Tensor, ord: Any, first: int, second: int, keepdims: bool) -> Tensor:
    pair = (first, second)
    if ord in ("euclidean", "fro"):
        return cast(sqrt(reduce_sum(squared(x), pair, keepdims)), x.dtype)
    if ord == 1:
        result = reduce_max(reduce_sum(abs(x), first, True), second, True)
    elif ord == np.inf:
        result = reduce_max(reduce_sum(abs(x), second, True), first, True)
    elif ord == 2:
        from distgrad.ops.decompositions import svd

        ndim = x._data.ndim
        rest = tuple(i for i in range(ndim) if i not in pair)
        values = svd(bind(permute, x, perm=(*rest, *pair)), compute_uv=False)
        shape = tuple(1 if i in pair else n for i, n in enumerate(x._data.shape))
        result = bind(reshape_to, reduce_max(values, -1), shape=shape)
    else:
        raise ValueError(
            f"norm: {ord!r} is not an order of matrices; use 'euclidean', 'fro', 1, 2 or inf"
        )
    return result if keepdims else squeeze(result, pair)


def clip_by_norm(t: Any, clip_norm: Any, axes: Any = None, name: str | None = None) -> Tensor:
    """``t`` scaled down so that its Euclidean norm over ``axes`` is at most ``clip_norm``.

    A ``clip_norm`` under 0 counts as 0.
    """
    x = _of_kind("clip_by_norm", t, "f")
    if isinstance(clip_norm, Operand):
        clip_norm = maximum(cast(clip_norm, x.dtype), 0)
    elif np.ndim(clip_norm) == 0 and clip_norm < 0:
        clip_norm = 0.0
    total = reduce_sum(square(x), axes, True)
    positive = greater(total, 0)
    # Safe inside and out: the root of 0 would put nan into the gradient.
    length = select(positive, sqrt(select(positive, total, 1)), total)
    return x * clip_norm / maximum(length, clip_norm)


def _check_list(t_list: Any) -> None:
    if not isinstance(t_list, Sequence):
        raise TypeError(f"a global norm is that of a list of tensors, not of {t_list!r}")


def global_norm(t_list: Sequence[Any], name: str | None = None) -> Tensor:
    """The Euclidean norm of all tensors of a list together; None among them is left out.

    Repeated rows of IndexedSlices are added first, unlike in TensorFlow. It is 0 for no tensors.
    Raises TypeError for anything but a sequence.
    """
    _check_list(t_list)
    squares = [reduce_sum(square(as_tensor(t))) for t in t_list if t is not None]
    total = squares[0] if squares else as_tensor(np.float32(0))
    for value in squares[1:]:
        total = total + value
    return sqrt(total)


def clip_by_global_norm(
    t_list: Sequence[Any], clip_norm: Any, use_norm: Any = None, name: str | None = None
) -> tuple[list[Tensor | None], Tensor]:
    """All tensors scaled by one factor, so that their global norm is at most ``clip_norm``.

    Returns the tensors (None stays None) and the norm, which is ``use_norm`` if that is given. A
    norm that is not finite makes everything nan. Raises TypeError for anything but a sequence.
    """
    _check_list(t_list)
    length = global_norm(t_list) if use_norm is None else as_tensor(use_norm)
    scale = clip_norm * minimum(1 / length, 1 / as_tensor(clip_norm, like=length._data.dtype))
    scale = scale + (length - length)  # nan where the norm is infinite
    return [None if t is None else as_tensor(t) * scale for t in t_list], length
