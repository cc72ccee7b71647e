"""What functions of ``keras.ops`` do of sparse tensors: what Keras's do on TensorFlow.

Loaded by the first function that is given one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from distgrad.core.composite import of_composites, values_of
from distgrad.core.dispatch import as_tensor
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.keras.ops import core, elementwise, numeric, reduction, shaping
from distgrad.keras.ops.linalg import matmul
from distgrad.keras.ops.promotion import promoted
from distgrad.ops.casting import stop_gradient
from distgrad.sparse import mixed, moving, reducing

# Of a number by itself: 0 stays 0 in these, ...
_KEEP_ZERO = (
    *("abs", "negative", "sign", "square", "sqrt", "sin", "tan", "sinh", "tanh", "arcsin"),
    *("arctan", "arcsinh", "arctanh", "expm1", "log1p", "floor", "ceil", "round", "real", "imag"),
    "conj",
)
# ... and becomes something else in these.
_FILL = (
    *("arccos", "arccosh", "cos", "cosh", "exp", "exp2", "isfinite", "log", "log10", "log2"),
    "reciprocal",
)


def _of_values(op: Callable[..., Any], x: SparseTensor, *args: Any, **kwargs: Any) -> SparseTensor:
    return x.with_values(op(x.values, *args, **kwargs))


def _of_dense(op: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    named = {name: mixed.densified(value) for name, value in kwargs.items()}
    return op(*map(mixed.densified, args), **named)


for _op in (
    *[getattr(elementwise, name) for name in _KEEP_ZERO],
    *(numeric.fabs, numeric.signbit, shaping.copy, reduction.digitize),
):
    of_composites(_op, kind="sparse")(functools.partial(_of_values, _op))
for _op in (*[getattr(elementwise, name) for name in _FILL], shaping.take):
    of_composites(_op, kind="sparse")(functools.partial(_of_dense, _op))


def _of_two(op: Callable[..., Any], also: Any, x1: Any, x2: Any) -> Any:
    """An operation of both in the dtype in which they meet."""
    values = promoted(values_of(x1), values_of(x2), also=also)
    pairs = zip((x1, x2), values, strict=True)
    return op(*[x.with_values(v) if isinstance(x, SparseTensor) else v for x, v in pairs])


for _name in ("add", "subtract", "multiply", "maximum", "minimum"):
    of_composites(getattr(elementwise, _name), kind="sparse")(
        functools.partial(_of_two, getattr(mixed, _name), None)
    )
of_composites(elementwise.divide, kind="sparse")(functools.partial(_of_two, mixed.divide, float))
of_composites(matmul, kind="sparse")(functools.partial(_of_two, mixed.matmul, None))


@of_composites(core.stop_gradient, kind="sparse")
def _(variable: SparseTensor) -> SparseTensor:
    return variable.with_values(stop_gradient(variable.values))


@of_composites(reduction.sum, kind="sparse")
def _(x: SparseTensor, axis: Any = None, keepdims: bool = False) -> Any:
    counted = x.with_values(reduction.summed(x.values))
    return reducing.reduce_sum(counted, axis, keepdims, output_is_sparse=True)


@of_composites(shaping.reshape, kind="sparse")
def _(x: SparseTensor, newshape: Any) -> SparseTensor:
    return moving.reshape(x, newshape)


@of_composites(shaping.transpose, kind="sparse")
def _(x: SparseTensor, axes: Any = None) -> SparseTensor:
    return moving.transpose(x, axes)


@of_composites(shaping.squeeze, kind="sparse")
def _(x: SparseTensor, axis: Any = None) -> SparseTensor:
    return mixed.squeeze(x, axis)


@of_composites(shaping.expand_dims, kind="sparse")
def _(x: SparseTensor, axis: int | Sequence[int]) -> SparseTensor:
    axes = [axis] if isinstance(axis, int) else list(axis)
    rank = len(x.shape) + len(axes)
    return functools.reduce(moving.expand_dims, sorted(each % rank for each in axes), x)


@of_composites(shaping.concatenate, kind="sparse")
def _(xs: Sequence[Any], axis: int = 0) -> Any:
    values = promoted(*map(values_of, xs))
    alike = [
        x.with_values(v) if isinstance(x, SparseTensor) else v
        for x, v in zip(xs, values, strict=True)
    ]
    return mixed.concat(alike, axis)


@of_composites(shaping.size, kind="sparse")
def _(x: SparseTensor) -> Any:
    return as_tensor(math.prod(x.shape), dtype="int32")
