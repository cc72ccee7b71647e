"""Rounding, and division that rounds. Only remainders have a gradient."""

from __future__ import annotations

from typing import Any

from distgrad.core.composite import takes_composites
from distgrad.core.dispatch import as_tensor
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.arithmetic import negative


@primitive(vjp=None, kinds="f", expr="floor(x)")
def floor(xp, x):
    """The largest whole number that is not above ``x``; no gradient."""
    return xp.floor(x)


@primitive(vjp=None, kinds="f", expr="ceil(x)")
def ceil(xp, x):
    """The smallest whole number that is not below ``x``; no gradient."""
    return xp.ceil(x)


@primitive(vjp=None, kinds="f", expr="rint(x)")
def rint(xp, x):
    """The nearest whole number, the even one of two; no gradient."""
    return xp.rint(x)


for _rounding in (floor, ceil, rint):

    @_rounding.samples
    def _(rng):
        yield sample(3 * rng.normal(size=(3, 4)))
        yield sample(rng.integers(-6, 6, (3, 4)) / 2.0)


@takes_composites
def round(x: Any, name: str | None = None) -> Tensor:
    """The nearest whole number, the even one of two; no gradient. Integers stay as they are."""
    tensor = as_tensor(x)
    return tensor if tensor._data.dtype.kind in "iu" else rint(tensor)


def _integers(xp: Any, x: Any, y: Any) -> bool:
    """Whether the operands are integers; a zero divisor among these raises ValueError."""
    dtype = x.dtype if hasattr(x, "dtype") else y.dtype
    if dtype.kind == "f":
        return False
    if xp.any(xp.equal(y, 0)).item():
        raise ValueError("integer division by zero")
    return True


@primitive(vjp=None, kinds="iuf")
def floordiv(xp, x, y):
    """``floor(x / y)``; raises InvalidArgumentError for an integer divided by zero. No gradient."""
    return xp.floor_divide(x, y) if _integers(xp, x, y) else xp.floor(xp.divide(x, y))


@floordiv.samples
def _(rng):
    yield sample(3 * rng.normal(size=(3, 4)), rng.normal(size=4))
    yield sample(rng.integers(-9, 9, (3, 4)), rng.integers(1, 4, 4))
    yield sample(7.0, rng.normal(size=4))


@primitive(vjp=None, kinds="iuf")
def truncatediv(xp, x, y):
    """``x / y`` rounded towards zero; InvalidArgumentError for an integer divided by zero."""
    if _integers(xp, x, y):
        return xp.floor_divide(xp.subtract(x, xp.fmod(x, y)), y)
    return xp.trunc(xp.divide(x, y))


@truncatediv.samples
def _(rng):
    yield sample(3 * rng.normal(size=(3, 4)), rng.normal(size=4))
    yield sample(rng.integers(-9, 9, (3, 4)), rng.integers(1, 4, 4))


def _apart(rng: Any) -> tuple[Any, Any]:
    """Floats whose quotient is not near a whole number: there a remainder jumps."""
    y = rng.uniform(0.5, 1.5, 4) * rng.choice([-1.0, 1.0], 4)
    return (rng.integers(-3, 3, (3, 4)) + rng.uniform(0.2, 0.8, (3, 4))) * y, y


@primitive(kinds="iuf")
def floormod(xp, x, y):
    """Remainder of ``floordiv``, with the sign of ``y``.

    Raises InvalidArgumentError for an integer divided by zero.
    """
    if _integers(xp, x, y):
        return xp.remainder(x, y)
    rest = xp.fmod(x, y)  # exact; CuPy's remainder is x less a rounded product
    return xp.where((rest != 0) & ((rest < 0) != (y < 0)), rest + y, rest)


@floormod.vjp("x")
def _(g):
    return g


@floormod.vjp("y")
def _(g, x, y):
    return negative(g * bind(floordiv, x, y))


@floormod.samples
def _(rng):
    yield sample(*_apart(rng))
    yield sample(_apart(rng)[0], 10.0)


@primitive(kinds="iuf")
def truncatemod(xp, x, y):
    """Remainder of ``truncatediv``, with the sign of ``x``.

    Raises InvalidArgumentError for an integer divided by zero.
    """
    _integers(xp, x, y)
    return xp.fmod(x, y)


@truncatemod.vjp("x")
def _(g):
    return g


@truncatemod.vjp("y")
def _(g, x, y):
    return negative(g * bind(truncatediv, x, y))


@truncatemod.samples
def _(rng):
    yield sample(*_apart(rng))


mod = floormod
