"""What operations for dense tensors do of sparse ones, where they take them as in TensorFlow."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.composite import of_composites
from distgrad.core.dispatch import as_tensor
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Tensor
from distgrad.ops import arithmetic, bessel, casting, constants, powers, special, trigonometric

# Of a number by itself, and 0 of 0.
_UNARY = (
    *(arithmetic.abs, arithmetic.negative, arithmetic.sign, arithmetic.square, powers.sqrt),
    *(trigonometric.sin, trigonometric.tan, trigonometric.asin, trigonometric.atan),
    *(trigonometric.asinh, trigonometric.atanh, trigonometric.tanh, special.erf),
    *(bessel.bessel_i0e, bessel.bessel_i1e, casting.identity, casting.stop_gradient),
)


def _of_values(op: Callable[..., Any], x: SparseTensor, *args: Any, **kwargs: Any) -> SparseTensor:
    return x.with_values(op(x.values, *args, **kwargs))


for _op in _UNARY:
    of_composites(_op, kind="sparse")(functools.partial(_of_values, _op))


@of_composites(constants.shape, kind="sparse")
def _(input: SparseTensor, out_type: Any = None, name: str | None = None) -> Tensor:
    return as_tensor(np.array(input.shape), dtype=out_type or "int32")


@of_composites(constants.size, kind="sparse")
def _(input: SparseTensor, out_type: Any = None, name: str | None = None) -> Tensor:
    return as_tensor(math.prod(input.shape), dtype=out_type or "int32")


@of_composites(constants.rank, kind="sparse")
def _(input: SparseTensor, name: str | None = None) -> Tensor:
    return as_tensor(len(input.shape), dtype="int32")
