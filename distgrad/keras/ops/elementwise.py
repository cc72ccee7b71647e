"""Functions of ``keras.ops`` that work element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import limits
from distgrad.core.primitive import bind_one
from distgrad.core.tensor import Tensor
from distgrad.keras.ops.promotion import counted, floated, promoted, tensors
from distgrad.ops import (
    arithmetic,
    clipping,
    division,
    exponential,
    logic,
    powers,
    rounding,
    special,
    trigonometric,
)
from distgrad.ops import complex as complexes
from distgrad.ops.casting import cast

# One argument, of which integers become floats first


def _of_floats(name: str, function: Callable[[Any], Tensor], what: str) -> Callable[[Any], Tensor]:
    def apply(x: Any) -> Tensor:
        return function(floated(x))

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"{what}, element by element; integers become floats."
    return apply


sqrt = _of_floats("sqrt", powers.sqrt, "Square root")
rsqrt = _of_floats("rsqrt", powers.rsqrt, "``1 / sqrt(x)``")
exp = _of_floats("exp", exponential.exp, "e to the power x")
exp2 = _of_floats("exp2", lambda x: powers.power(2.0, x), "2 to the power x")
expm1 = _of_floats("expm1", exponential.expm1, "``exp(x) - 1``")
log = _of_floats("log", exponential.log, "Natural logarithm")
log1p = _of_floats("log1p", exponential.log1p, "``log(1 + x)``")
log2 = _of_floats("log2", lambda x: exponential.log(x) / math.log(2), "Logarithm to base 2")
log10 = _of_floats("log10", lambda x: exponential.log(x) / math.log(10), "Logarithm to base 10")
sin = _of_floats("sin", trigonometric.sin, "Sine")
cos = _of_floats("cos", trigonometric.cos, "Cosine")
tan = _of_floats("tan", trigonometric.tan, "Tangent")
sinh = _of_floats("sinh", trigonometric.sinh, "Hyperbolic sine")
cosh = _of_floats("cosh", trigonometric.cosh, "Hyperbolic cosine")
tanh = _of_floats("tanh", trigonometric.tanh, "Hyperbolic tangent")
arcsin = _of_floats("arcsin", trigonometric.asin, "Inverse sine")
arccos = _of_floats("arccos", trigonometric.acos, "Inverse cosine")
arctan = _of_floats("arctan", trigonometric.atan, "Inverse tangent")
arcsinh = _of_floats("arcsinh", trigonometric.asinh, "Inverse hyperbolic sine")
arccosh = _of_floats("arccosh", trigonometric.acosh, "Inverse hyperbolic cosine")
arctanh = _of_floats("arctanh", trigonometric.atanh, "Inverse hyperbolic tangent")
floor = _of_floats("floor", rounding.floor, "The largest whole number not above x")
ceil = _of_floats("ceil", rounding.ceil, "The smallest whole number not below x")
reciprocal = _of_floats("reciprocal", division.reciprocal, "``1 / x``")
erf = _of_floats("erf", special.erf, "Error function")
erfinv = _of_floats("erfinv", special.erfinv, "Inverse of the error function")
isnan = _of_floats("isnan", logic.is_nan, "Whether x is nan")
isinf = _of_floats("isinf", logic.is_inf, "Whether x is infinite")
isfinite = _of_floats("isfinite", logic.is_finite, "Whether x is neither nan nor infinite")


# One argument, whose dtype stays


def negative(x: Any) -> Tensor:
    """``-x``."""
    if type(x) is Tensor and x._data.dtype.kind == "f":
        return bind_one(arithmetic.negative, x)
    return arithmetic.negative(x)


def abs(x: Any) -> Tensor:
    """The absolute value; bools stay as they are."""
    tensor = x if type(x) is Tensor else as_tensor(x)
    return tensor if tensor._data.dtype.kind == "b" else arithmetic.abs(tensor)


absolute = abs


def square(x: Any) -> Tensor:
    """``x * x``; of bools int32."""
    return arithmetic.square(counted(x))


def sign(x: Any) -> Tensor:
    """-1, 0 or 1."""
    return arithmetic.sign(counted(x))


def round(x: Any, decimals: int = 0) -> Tensor:
    """The nearest number of so many decimals, the even one of two; no gradient."""
    tensor = counted(x)
    whole = tensor._data.dtype.kind in "iu"
    if not decimals or (whole and decimals > 0):
        return rounding.round(tensor)
    factor = 10.0**decimals
    if whole:
        return cast(rounding.rint(cast(tensor, "float64") * factor) / factor, tensor.dtype)
    return rounding.rint(tensor * factor) / factor


def clip(x: Any, x_min: Any, x_max: Any) -> Tensor:
    """``x`` with what lies outside of ``[x_min, x_max]`` moved to the nearer end."""
    return clipping.clip(*promoted(counted(x), x_min, x_max))


def nan_to_num(x: Any, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Tensor:
    """``x`` with other numbers for nan and infinities: by default 0 and the largest ones."""
    tensor = as_tensor(x)
    if tensor._data.dtype.kind in "iub":
        return tensor
    ends = limits(tensor.dtype.numpy_dtype)
    high = float(ends.max) if posinf is None else posinf
    low = float(ends.min) if neginf is None else neginf
    result = logic.select(logic.is_nan(tensor), nan, tensor)
    result = logic.select(logic.equal(tensor, math.inf), high, result)
    return logic.select(logic.equal(tensor, -math.inf), low, result)


def real(x: Any) -> Tensor:
    """The real part."""
    return x if type(x) is Tensor and x._data.dtype.kind == "f" else complexes.real(x)


def imag(x: Any) -> Tensor:
    """The imaginary part; of real numbers 0."""
    return complexes.imag(x)


def conjugate(x: Any) -> Tensor:
    """The complex conjugate."""
    return x if type(x) is Tensor and x._data.dtype.kind == "f" else complexes.conj(x)


conj = conjugate


# Two arguments, which meet in one dtype


def add(x1: Any, x2: Any) -> Tensor:
    """``x1 + x2``."""
    return arithmetic.add(*promoted(x1, x2))


def subtract(x1: Any, x2: Any) -> Tensor:
    """``x1 - x2``."""
    return arithmetic.subtract(*promoted(x1, x2))


def multiply(x1: Any, x2: Any) -> Tensor:
    """``x1 * x2``."""
    return arithmetic.multiply(*promoted(x1, x2))


def divide(x1: Any, x2: Any) -> Tensor:
    """``x1 / x2``, in floats."""
    return division.divide(*promoted(x1, x2, also=float))


true_divide = divide


def divide_no_nan(x1: Any, x2: Any) -> Tensor:
    """``x1 / x2`` in floats; 0 where ``x2`` is 0."""
    return division.divide_no_nan(*promoted(x1, x2, also=float))


def floor_divide(x1: Any, x2: Any) -> Tensor:
    """``floor(x1 / x2)``; no gradient."""
    return rounding.floordiv(*promoted(x1, x2))


def mod(x1: Any, x2: Any) -> Tensor:
    """What ``floor_divide`` leaves, with the sign of ``x2``."""
    return rounding.floormod(*promoted(x1, x2))


def power(x1: Any, x2: Any) -> Tensor:
    """``x1`` to the power ``x2``; raises InvalidArgumentError for negative powers of integers."""
    return powers.pow(*promoted(x1, x2))


def maximum(x1: Any, x2: Any) -> Tensor:
    """The larger of the two."""
    return clipping.maximum(*promoted(x1, x2))


def minimum(x1: Any, x2: Any) -> Tensor:
    """The smaller of the two."""
    return clipping.minimum(*promoted(x1, x2))


def arctan2(x1: Any, x2: Any) -> Tensor:
    """The angle of the point ``(x2, x1)``."""
    return trigonometric.atan2(*promoted(x1, x2, also=float))


def logaddexp(x1: Any, x2: Any) -> Tensor:
    """``log(exp(x1) + exp(x2))`` without overflow."""
    a, b = tensors(x1, x2, also=float)
    return clipping.maximum(a, b) + exponential.log1p(exponential.exp(-arithmetic.abs(a - b)))


# Comparisons and logic


def equal(x1: Any, x2: Any) -> Tensor:
    """Whether ``x1 == x2``."""
    return logic.equal(*promoted(x1, x2))


def not_equal(x1: Any, x2: Any) -> Tensor:
    """Whether ``x1 != x2``."""
    return logic.not_equal(*promoted(x1, x2))


def greater(x1: Any, x2: Any) -> Tensor:
    """Whether ``x1 > x2``."""
    return logic.greater(*promoted(x1, x2))


def greater_equal(x1: Any, x2: Any) -> Tensor:
    """Whether ``x1 >= x2``."""
    return logic.greater_equal(*promoted(x1, x2))


def less(x1: Any, x2: Any) -> Tensor:
    """Whether ``x1 < x2``."""
    return logic.less(*promoted(x1, x2))


def less_equal(x1: Any, x2: Any) -> Tensor:
    """Whether ``x1 <= x2``."""
    return logic.less_equal(*promoted(x1, x2))


def isclose(
    x1: Any, x2: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """Whether ``|x1 - x2| <= atol + rtol * |x2|``, or both are the same infinity."""
    a, b = tensors(x1, x2, also=float)
    near = logic.less_equal(arithmetic.abs(a - b), atol + rtol * arithmetic.abs(b))
    result = logic.logical_or(logic.equal(a, b), logic.logical_and(near, logic.is_finite(b)))
    if equal_nan:
        result = logic.logical_or(result, logic.logical_and(logic.is_nan(a), logic.is_nan(b)))
    return result


def logical_and(x1: Any, x2: Any) -> Tensor:
    """Whether both hold (are not 0)."""
    return logic.logical_and(cast(x1, np.bool_), cast(x2, np.bool_))


def logical_or(x1: Any, x2: Any) -> Tensor:
    """Whether one of them holds (is not 0)."""
    return logic.logical_or(cast(x1, np.bool_), cast(x2, np.bool_))


def logical_xor(x1: Any, x2: Any) -> Tensor:
    """Whether exactly one of them holds (is not 0)."""
    return logic.logical_xor(cast(x1, np.bool_), cast(x2, np.bool_))


def logical_not(x: Any) -> Tensor:
    """Whether ``x`` does not hold (is 0)."""
    return logic.logical_not(cast(x, np.bool_))


def bitwise_and(x: Any, y: Any) -> Tensor:
    """The bits that both integers have."""
    return logic.bitwise_and(*promoted(x, y))


def bitwise_or(x: Any, y: Any) -> Tensor:
    """The bits that one of the integers has."""
    return logic.bitwise_or(*promoted(x, y))


def bitwise_xor(x: Any, y: Any) -> Tensor:
    """The bits that exactly one of the integers has."""
    return logic.bitwise_xor(*promoted(x, y))


def bitwise_not(x: Any) -> Tensor:
    """Every bit of an integer flipped."""
    if type(x) is Tensor and x._data.dtype.kind in "iu":
        return bind_one(logic.invert, x)
    return logic.invert(x)
