"""Functions of ``tf.experimental.numpy`` that work element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.experimental.promotion import (
    default_float,
    floats,
    meeting,
    named,
    tensor,
    together,
)
from distgrad.keras import ops
from distgrad.ops import arithmetic, division, logic, powers, rounding
from distgrad.ops.casting import cast
from distgrad.ops.constants import constant

# Functions of floats, which integers become.
_OF_FLOATS = """arccos arccosh arcsin arcsinh arctan arctanh cbrt ceil cos cosh deg2rad exp exp2
expm1 floor isfinite isinf isnan isneginf isposinf log log10 log1p log2 rad2deg reciprocal sin sinc
sinh sqrt tan tanh"""
_OF_ANY = {
    "abs": arithmetic.abs,
    "conj": ops.conj,
    "imag": ops.imag,
    "isreal": ops.isreal,
    "negative": arithmetic.negative,
    "positive": lambda x: x,
    "real": ops.real,
    "sign": arithmetic.sign,
    "signbit": ops.signbit,
    "square": arithmetic.square,
}
_PAIRS = {
    "add": (arithmetic.add, logic.logical_or),
    "bitwise_and": (logic.bitwise_and, logic.logical_and),
    "bitwise_or": (logic.bitwise_or, logic.logical_or),
    "bitwise_xor": (logic.bitwise_xor, logic.logical_xor),
    "equal": (logic.equal,),
    "floor_divide": (rounding.floordiv,),
    "gcd": (ops.gcd,),
    "greater": (logic.greater,),
    "greater_equal": (logic.greater_equal,),
    "lcm": (ops.lcm,),
    "less": (logic.less,),
    "less_equal": (logic.less_equal,),
    "minimum": (ops.minimum, logic.logical_and),
    "mod": (rounding.floormod,),
    "multiply": (arithmetic.multiply, logic.logical_and),
    "not_equal": (logic.not_equal,),
    "power": (powers.pow,),
    "subtract": (arithmetic.subtract,),
}
_PAIRS_OF_FLOATS = {
    "arctan2": (ops.arctan2,),
    "heaviside": (ops.heaviside,),
    "hypot": (ops.hypot,),
    "logaddexp": (ops.logaddexp,),
    "logaddexp2": (ops.logaddexp2,),
    "nextafter": (ops.nextafter,),
    "true_divide": (division.divide_exact,),
}


def _of_one(convert: Callable[..., list[Tensor]], function: Any) -> Callable[..., Tensor]:
    return lambda x: function(*convert(x))


def _of_two(
    convert: Callable[..., list[Tensor]], function: Any, of_bools: Any = None
) -> Callable[..., Tensor]:
    def call(x1: Any, x2: Any) -> Tensor:
        first, second = convert(x1, x2)
        masks = of_bools is not None and first.dtype.is_bool
        return (of_bools if masks else function)(first, second)

    return call


for _name in _OF_FLOATS.split():
    globals()[_name] = named(_name, _of_one(floats, getattr(ops, _name)))
for _name, _function in _OF_ANY.items():
    globals()[_name] = named(_name, _of_one(together, _function))
for _name, _functions in _PAIRS.items():
    globals()[_name] = named(_name, _of_two(together, *_functions))
for _name, _functions in _PAIRS_OF_FLOATS.items():
    globals()[_name] = named(_name, _of_two(floats, *_functions))
_maximum = _of_two(together, ops.maximum, logic.logical_or)
_ALIASES = {
    "absolute": "abs",
    "conjugate": "conj",
    "divide": "true_divide",
    "fabs": "abs",
    "remainder": "mod",
    "round": "around",
}
__all__ = [*_OF_FLOATS.split(), *_OF_ANY, *_PAIRS, *_PAIRS_OF_FLOATS, *_ALIASES]
__all__ += [
    "allclose",
    "angle",
    "around",
    "array_equal",
    "bitwise_not",
    "clip",
    "divmod",
    "fix",
    "float_power",
    "isclose",
    "iscomplex",
    "iscomplexobj",
    "isrealobj",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "maximum",
    "polyval",
]


def angle(z: Any, deg: bool = False) -> Tensor:
    """The angles of complex numbers, in radians, or in degrees."""
    (z,) = floats(z)
    found = ops.arctan2(ops.imag(z), ops.real(z))
    return found * (180 / math.pi if deg else 1)


def maximum(x1: Any, x2: Any) -> Tensor:
    """NumPy's ``maximum``, on tensors; that of a tensor and 0 has the slope of ``relu``."""
    if type(x2) in (int, float) and x2 == 0 and isinstance(x1, Tensor) and not x1.dtype.is_bool:
        return ops.relu(x1)
    return _maximum(x1, x2)


def fix(x: Any) -> Tensor:
    """``x`` rounded towards zero."""
    (x,) = floats(x)
    return ops.where(x < 0, ops.ceil(x), ops.floor(x))


def float_power(x1: Any, x2: Any) -> Tensor:
    """A power in float64, or in complex numbers where there are some."""
    dtype = meeting(x1, x2, default_float())
    return powers.pow(tensor(x1, dtype), tensor(x2, dtype))


def divmod(x1: Any, x2: Any) -> tuple[Tensor, Tensor]:
    """``floor_divide`` and ``mod``."""
    x, y = together(x1, x2)
    return rounding.floordiv(x, y), rounding.floormod(x, y)


def around(a: Any, decimals: int = 0) -> Tensor:
    """``a`` rounded to so many decimals, half to even; integers stay integers."""
    a = tensor(a)
    if not a.dtype.is_integer:
        return ops.round(a, decimals)
    return cast(ops.round(cast(a, default_float()), decimals), a.dtype)


def clip(a: Any, a_min: Any, a_max: Any) -> Tensor:
    """``a`` between two bounds; None for no bound."""
    made, *bounds = together(a, *(bound for bound in (a_min, a_max) if bound is not None))
    if a_min is not None:
        made = ops.maximum(made, bounds[0])
    return made if a_max is None else ops.minimum(made, bounds[-1])


def _truth(x: Any) -> Tensor:
    return cast(tensor(x), bool)


def logical_and(x1: Any, x2: Any) -> Tensor:
    """Where both are true: not 0."""
    return logic.logical_and(_truth(x1), _truth(x2))


def logical_or(x1: Any, x2: Any) -> Tensor:
    """Where one is true, or both are."""
    return logic.logical_or(_truth(x1), _truth(x2))


def logical_xor(x1: Any, x2: Any) -> Tensor:
    """Where one is true, and not the other."""
    return logic.logical_xor(_truth(x1), _truth(x2))


def logical_not(x: Any) -> Tensor:
    """Where it is not true."""
    return logic.logical_not(_truth(x))


def bitwise_not(x: Any) -> Tensor:
    """The bits of integers turned round."""
    x = tensor(x)
    return logic.logical_not(x) if x.dtype.is_bool else logic.invert(x)


def iscomplex(x: Any) -> Tensor:
    """Where the imaginary part is not 0."""
    x = tensor(x)
    return ops.imag(x) != 0 if x.dtype.is_complex else ops.zeros(x.shape, bool)


def iscomplexobj(x: Any) -> bool:
    """Whether the dtype is one of complex numbers."""
    return meeting(x).kind == "c"


def isrealobj(x: Any) -> bool:
    """Whether the dtype is none of complex numbers."""
    return not iscomplexobj(x)


def isclose(
    a: Any, b: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> Tensor:
    """Where two arrays are nearly equal."""
    a, b = floats(a, b)
    return ops.isclose(a, b, rtol, atol, equal_nan)


def allclose(
    a: Any, b: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> Tensor:
    """Whether two arrays are nearly equal everywhere."""
    return ops.all(isclose(a, b, rtol, atol, equal_nan))


def array_equal(a1: Any, a2: Any) -> Tensor:
    """Whether two arrays have one shape, and the same values."""
    x, y = together(a1, a2)
    return ops.all(logic.equal(x, y)) if x.shape == y.shape else constant(False)


def polyval(p: Any, x: Any) -> Tensor:
    """The values at ``x`` of the polynomial with the coefficients ``p``, the highest first."""
    p, x = together(p, x)
    value = arithmetic.multiply(x, 0)
    for coefficient in ops.unstack(p):
        value = value * x + coefficient
    return value


for _alias, _name in _ALIASES.items():
    globals()[_alias] = globals()[_name]
