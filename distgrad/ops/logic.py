"""Comparisons, logic and selection. Only the values selected have a gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from distgrad.core.composite import takes_composites
from distgrad.core.dispatch import as_tensor
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.core.texts import as_bytes, as_strings, is_text

# Comparisons


def _comparison(name: str, symbol: str, doc: str, kinds: str | None) -> Any:
    def kernel(xp, x, y):
        return getattr(xp, name)(x, y)

    kernel.__name__, kernel.__doc__ = name, doc
    made = primitive(expr=f"x {symbol} y", vjp=None, kinds=kinds)(kernel)

    @made.samples
    def _(rng):
        yield sample(rng.normal(size=(3, 4)), rng.normal(size=4))
        yield sample(rng.normal(size=(3, 4)), 0.0)

    return made


def _of_texts(compare: Callable[..., Any], x: Any, y: Any) -> Tensor:
    x, y = as_strings(x), as_strings(y)
    if type(x) is not type(y):  # one is no text
        x, y = as_bytes(x), as_bytes(y)
    return as_tensor(compare(np.asarray(x), np.asarray(y)))


equal = _comparison("equal", "==", "Elementwise equality, bool.", None)
not_equal = _comparison("not_equal", "!=", "Elementwise inequality, bool.", None)
equal.of_texts = partial(_of_texts, np.equal)
not_equal.of_texts = partial(_of_texts, np.not_equal)
less = _comparison("less", "<", "Elementwise ``x < y``, bool.", "iuf")
less_equal = _comparison("less_equal", "<=", "Elementwise ``x <= y``, bool.", "iuf")
greater = _comparison("greater", ">", "Elementwise ``x > y``, bool.", "iuf")
greater_equal = _comparison("greater_equal", ">=", "Elementwise ``x >= y``, bool.", "iuf")


def _awkward_floats(rng: Any) -> Any:
    x = rng.normal(size=(3, 4))
    x[0, :3] = np.nan, np.inf, -np.inf
    return x


@primitive(vjp=None, kinds="f", expr="x != x")
def is_nan(xp, x):
    """Which elements are nan, bool."""
    return xp.isnan(x)


@primitive(vjp=None, kinds="f")
def is_inf(xp, x):
    """Which elements are infinite, bool."""
    return xp.isinf(x)


@primitive(vjp=None, kinds="f")
def is_finite(xp, x):
    """Which elements are neither infinite nor nan, bool."""
    return xp.isfinite(x)


for _test in (is_nan, is_inf, is_finite):

    @_test.samples
    def _(rng):
        yield sample(_awkward_floats(rng))


# Logic of bool tensors, and of the bits of integers


def _bools(rng: Any, *shape: int) -> Any:
    return rng.uniform(size=shape) > 0.5


def _of_bools(name: str, doc: str) -> Any:
    def kernel(xp, x, y):
        return getattr(xp, name)(x, y)

    kernel.__name__, kernel.__doc__ = name, doc
    made = primitive(vjp=None, kinds="b")(kernel)

    @made.samples
    def _(rng):
        yield sample(_bools(rng, 3, 4), _bools(rng, 4))
        yield sample(_bools(rng, 3, 4), True)

    return made


logical_and = _of_bools("logical_and", "Elementwise ``x and y`` of bool tensors.")
logical_or = _of_bools("logical_or", "Elementwise ``x or y`` of bool tensors.")
logical_xor = _of_bools("logical_xor", "Where exactly one of two bool tensors holds.")


@primitive(vjp=None, kinds="b")
def logical_not(xp, x):
    """Elementwise ``not x`` of a bool tensor."""
    return xp.logical_not(x)


@logical_not.samples
def _(rng):
    yield sample(_bools(rng, 3, 4))


def _of_bits(name: str, doc: str) -> Any:
    def kernel(xp, x, y):
        return getattr(xp, name)(x, y)

    kernel.__name__, kernel.__doc__ = name, doc
    made = primitive(vjp=None, kinds="iu")(kernel)

    @made.samples
    def _(rng):
        yield sample(rng.integers(-9, 9, (3, 4)), rng.integers(-9, 9, 4))
        yield sample(rng.integers(-9, 9, (3, 4)), 5)

    return made


bitwise_and = _of_bits("bitwise_and", "Elementwise and of the bits of integers.")
bitwise_or = _of_bits("bitwise_or", "Elementwise or of the bits of integers.")
bitwise_xor = _of_bits("bitwise_xor", "Elementwise exclusive or of the bits of integers.")


@primitive(vjp=None, kinds="iu")
def invert(xp, x):
    """Every bit of an integer flipped."""
    return xp.invert(x)


@invert.samples
def _(rng):
    yield sample(rng.integers(-9, 9, (3, 4)))


# Selection


@primitive(expr="where(condition, x, y)", match=("x", "y"), constant=("condition",))
def select(xp, condition, x, y):
    """``x`` where ``condition`` (bool) holds, else ``y``, with broadcasting."""
    return xp.where(condition, x, y)


@select.vjp("x")
def _(g, condition):
    return bind(select, condition, g, 0.0)


@select.vjp("y")
def _(g, condition):
    return bind(select, condition, 0.0, g)


@select.samples
def _(rng):
    yield sample(_bools(rng, 3, 4), rng.normal(size=(3, 4)), rng.normal(size=4))
    yield sample(_bools(rng, 3, 4), rng.normal(size=(3, 4)), 0.0)
    yield sample(_bools(rng, 4), 1.5, rng.normal(size=(3, 1)))


@takes_composites
def where(condition: Any, x: Any = None, y: Any = None, name: str | None = None) -> Tensor:
    """``x`` where ``condition`` (bool) holds, else ``y``, with broadcasting; of texts an array.

    Without x and y: the int64 positions that hold (are not zero), of shape (count, rank). Raises
    InvalidArgumentError for a condition that is not bool, or for x and y of different dtypes;
    ValueError where only one of them is given.
    """
    tensor = as_tensor(condition)
    if x is None and y is None:
        return bind(nonzero, tensor)
    if x is None or y is None:
        raise ValueError("where needs both x and y, or neither")
    if tensor._data.dtype.kind != "b":
        raise InvalidArgumentError(
            f"where: the condition must be a bool tensor, not {tensor.dtype.name}; compare it first"
        )
    if type(x) is Tensor and type(y) is Tensor and x._data.dtype is y._data.dtype:
        return bind(select, tensor, x, y)  # nothing to convert
    if is_text(x) or is_text(y):
        chosen = np.where(tensor.numpy(), as_strings(x), as_strings(y))
        return as_strings(chosen)  # type: ignore[return-value]
    return select(tensor, x, y)


@primitive(vjp=None, varies=True)
def nonzero(xp, x):
    """Positions of the true elements, int64 of shape (count, rank)."""
    return xp.argwhere(x).astype(np.int64)


@nonzero.samples
def _(rng):
    yield sample(_bools(rng, 3, 4))
