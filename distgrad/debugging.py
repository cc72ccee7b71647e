"""``tf.debugging``: checks of values, shapes and dtypes that raise where they do not hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor, match_dtypes
from distgrad.core.dtypes import as_dtype
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Operand, Tensor
from distgrad.ops.casting import identity

__all__ = [
    "Assert",
    "assert_all_finite",
    "assert_equal",
    "assert_greater",
    "assert_greater_equal",
    "assert_integer",
    "assert_less",
    "assert_less_equal",
    "assert_near",
    "assert_negative",
    "assert_non_negative",
    "assert_non_positive",
    "assert_none_equal",
    "assert_positive",
    "assert_rank",
    "assert_rank_at_least",
    "assert_rank_in",
    "assert_scalar",
    "assert_shapes",
    "assert_type",
    "check_numerics",
    "is_numeric_tensor",
]


def Assert(
    condition: Any, data: Any, summarize: int | None = None, name: str | None = None
) -> None:
    """Raises InvalidArgumentError with ``data`` unless all of ``condition`` holds."""
    if not np.all(as_tensor(condition)._host()):
        raise InvalidArgumentError(f"assertion failed: {data}")


def _pairs(name: str, symbol: str, holds: Callable[[Any, Any], Any]) -> Callable[..., None]:
    def check(
        x: Any,
        y: Any,
        message: str | None = None,
        summarize: int | None = None,
        name: str | None = None,
    ) -> None:
        a, b = (np.asarray(v) for v in match_dtypes(check.__name__, (x, y)))
        try:
            true = np.asarray(holds(a, b))
        except ValueError:
            raise InvalidArgumentError(
                f"{_lead(message)}shapes {a.shape} and {b.shape} do not match"
            ) from None
        if not true.all():
            first = tuple(int(i) for i in np.argwhere(~true)[0])
            wide = np.broadcast_arrays(a, b)
            raise InvalidArgumentError(
                f"{_lead(message)}x {symbol} y does not hold at {(~true).sum()} of {true.size} "
                f"elements, first at {first}: x is {wide[0][first]}, y is {wide[1][first]}"
            )

    check.__name__ = check.__qualname__ = name
    check.__doc__ = f"Raises InvalidArgumentError unless ``x {symbol} y`` holds elementwise."
    return check


assert_equal = _pairs("assert_equal", "==", lambda x, y: np.equal(x, y))
assert_none_equal = _pairs("assert_none_equal", "!=", lambda x, y: np.not_equal(x, y))
assert_less = _pairs("assert_less", "<", lambda x, y: np.less(x, y))
assert_less_equal = _pairs("assert_less_equal", "<=", lambda x, y: np.less_equal(x, y))
assert_greater = _pairs("assert_greater", ">", lambda x, y: np.greater(x, y))
assert_greater_equal = _pairs("assert_greater_equal", ">=", lambda x, y: np.greater_equal(x, y))


def assert_near(
    x: Any,
    y: Any,
    rtol: Any = None,
    atol: Any = None,
    message: str | None = None,
    summarize: int | None = None,
    name: str | None = None,
) -> None:
    """Raises InvalidArgumentError unless ``|x - y| <= atol + rtol * |y|``; both are 10 eps."""
    a, b = (np.asarray(v) for v in match_dtypes("assert_near", (x, y)))
    eps = 10 * float(np.finfo(np.result_type(a, b)).eps)
    limit = (eps if atol is None else float(atol)) + (
        eps if rtol is None else float(rtol)
    ) * np.abs(b)
    assert_less_equal(np.abs(a - b), limit.astype(a.dtype), _lead(message) + "|x - y| is x here")


def _signs(name: str, symbol: str, holds: Callable[[Any], Any]) -> Callable[..., None]:
    def check(
        x: Any, message: str | None = None, summarize: int | None = None, name: str | None = None
    ) -> None:
        values = as_tensor(x)._host()
        if not holds(values).all():
            worst = values[~holds(values)][0]
            raise InvalidArgumentError(f"{_lead(message)}x {symbol} does not hold for {worst}")

    check.__name__ = check.__qualname__ = name
    check.__doc__ = f"Raises InvalidArgumentError unless ``x {symbol}`` holds elementwise."
    return check


assert_positive = _signs("assert_positive", "> 0", lambda x: np.asarray(x > 0))
assert_negative = _signs("assert_negative", "< 0", lambda x: np.asarray(x < 0))
assert_non_negative = _signs("assert_non_negative", ">= 0", lambda x: np.asarray(x >= 0))
assert_non_positive = _signs("assert_non_positive", "<= 0", lambda x: np.asarray(x <= 0))


def check_numerics(tensor: Any, message: str, name: str | None = None) -> Tensor:
    """``tensor`` itself. Raises InvalidArgumentError where it holds a nan or an infinity."""
    value = as_tensor(tensor)
    host = value._host()
    bad = [w for w, f in (("NaN", np.isnan), ("Inf", np.isinf)) if host.size and f(host).any()]
    if bad:
        raise InvalidArgumentError(f"{message} : Tensor had {' and '.join(bad)} values")
    return identity(value)


def assert_all_finite(x: Any, message: str, name: str | None = None) -> Tensor:
    """``x`` itself. Raises InvalidArgumentError where it holds a nan or an infinity."""
    return check_numerics(x, message)


def assert_rank(x: Any, rank: int, message: str | None = None, name: str | None = None) -> None:
    """Raises InvalidArgumentError (a ValueError) unless ``x`` has ``rank`` axes."""
    assert_rank_in(x, (rank,), message)


def assert_rank_at_least(
    x: Any, rank: int, message: str | None = None, name: str | None = None
) -> None:
    """Raises InvalidArgumentError (a ValueError) unless ``x`` has ``rank`` axes or more."""
    shape = as_tensor(x).shape
    if len(shape) < int(rank):
        raise InvalidArgumentError(f"{_lead(message)}shape {shape} has rank below {rank}")


def assert_rank_in(x: Any, ranks: Any, message: str | None = None, name: str | None = None) -> None:
    """Raises InvalidArgumentError (a ValueError) unless the rank of ``x`` is one of ``ranks``."""
    shape = as_tensor(x).shape
    wanted = [int(rank) for rank in ranks]
    if len(shape) not in wanted:
        raise InvalidArgumentError(f"{_lead(message)}shape {shape} is not of rank {wanted}")


def assert_scalar(tensor: Any, message: str | None = None, name: str | None = None) -> Tensor:
    """``tensor`` itself. Raises InvalidArgumentError (a ValueError) unless it is a scalar."""
    assert_rank_in(tensor, (0,), message)
    return as_tensor(tensor)


def assert_shapes(
    shapes: Any,
    data: Any = None,
    summarize: int | None = None,
    message: str | None = None,
    name: str | None = None,
) -> None:
    """Checks pairs of a tensor and its shape, in which a text stands for one size everywhere.

    A shape is a tuple of ints, texts and None (any size). Raises InvalidArgumentError where
    one does not hold.
    """
    sizes: dict[str, int] = {}
    for tensor, wanted in shapes.items() if isinstance(shapes, dict) else shapes:
        shape = as_tensor(tensor).shape
        dims = (wanted,) if isinstance(wanted, (int, str)) else tuple(wanted)
        fits = len(dims) == len(shape)
        for dim, size in zip(dims, shape, strict=False):
            expected = sizes.setdefault(dim, size) if isinstance(dim, str) else dim
            fits = fits and expected in (None, size)
        if not fits:
            raise InvalidArgumentError(
                f"{_lead(message)}shape {shape} is not {wanted} with {sizes or 'no symbols'}"
            )


def assert_type(
    tensor: Any, tf_type: Any, message: str | None = None, name: str | None = None
) -> None:
    """Raises TypeError unless ``tensor`` has dtype ``tf_type``."""
    if as_tensor(tensor).dtype != as_dtype(tf_type):
        raise TypeError(
            f"{_lead(message)}dtype is {as_tensor(tensor).dtype.name}, not {as_dtype(tf_type).name}"
        )


def assert_integer(x: Any, message: str | None = None, name: str | None = None) -> None:
    """Raises TypeError unless ``x`` has an integer dtype."""
    if not as_tensor(x).dtype.is_integer:
        raise TypeError(f"{_lead(message)}dtype is {as_tensor(x).dtype.name}, not an integer")


def is_numeric_tensor(tensor: Any) -> bool:
    """Whether this is a tensor or variable of numbers (bool is not)."""
    return isinstance(tensor, Operand) and not as_tensor(tensor).dtype.is_bool


def _lead(message: str | None) -> str:
    return f"{message} " if message else ""
