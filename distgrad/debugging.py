"""``tf.debugging``: checks of values, shapes and dtypes that raise where they do not hold."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core import recording
from distgrad.core.composite import takes_composites
from distgrad.core.dispatch import as_tensor, match_dtypes
from distgrad.core.dtypes import DType, as_dtype, float32, kind_of, limits
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.texts import all_texts, as_strings
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
    "assert_proper_iterable",
    "assert_rank",
    "assert_rank_at_least",
    "assert_rank_in",
    "assert_same_float_dtype",
    "assert_scalar",
    "assert_shapes",
    "assert_type",
    "check_numerics",
    "disable_check_numerics",
    "disable_traceback_filtering",
    "enable_check_numerics",
    "enable_traceback_filtering",
    "is_numeric_tensor",
    "is_traceback_filtering_enabled",
    "set_log_device_placement",
]


def _again(check: Callable[..., None]) -> Callable[..., None]:
    """``check``, which a captured function makes again at each replay."""

    @functools.wraps(check)
    def outer(*args: Any, **kwargs: Any) -> None:
        recording.check(check, *args, **kwargs)

    return outer


@_again
def Assert(
    condition: Any, data: Any, summarize: int | None = None, name: str | None = None
) -> None:
    """Raises InvalidArgumentError with ``data`` unless all of ``condition`` holds.

    Every element counts; of a list, TensorFlow asks in eager mode only whether it is empty.
    """
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
        if all_texts(x) and all_texts(y):
            a, b = (np.asarray(as_strings(v)) for v in (x, y))
        else:
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
    return _again(check)


assert_equal = _pairs("assert_equal", "==", lambda x, y: np.equal(x, y))
assert_none_equal = _pairs("assert_none_equal", "!=", lambda x, y: np.not_equal(x, y))
assert_less = _pairs("assert_less", "<", lambda x, y: np.less(x, y))
assert_less_equal = _pairs("assert_less_equal", "<=", lambda x, y: np.less_equal(x, y))
assert_greater = _pairs("assert_greater", ">", lambda x, y: np.greater(x, y))
assert_greater_equal = _pairs("assert_greater_equal", ">=", lambda x, y: np.greater_equal(x, y))


@_again
def assert_near(
    x: Any,
    y: Any,
    rtol: Any = None,
    atol: Any = None,
    message: str | None = None,
    summarize: int | None = None,
    name: str | None = None,
) -> None:
    """Raises InvalidArgumentError unless ``|x - y| <= atol + rtol * |y|``; both are 10 eps.

    Raises ValueError for integers, which are to be compared by ``assert_equal``.
    """
    a, b = (np.asarray(v) for v in match_dtypes("assert_near", (x, y)))
    if kind_of(a.dtype) not in "fc":
        raise ValueError(f"assert_near takes floats, not {a.dtype}; use assert_equal")
    eps = 10 * float(limits(np.result_type(a, b)).eps)
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
    return _again(check)


assert_positive = _signs("assert_positive", "> 0", lambda x: np.asarray(x > 0))
assert_negative = _signs("assert_negative", "< 0", lambda x: np.asarray(x < 0))
assert_non_negative = _signs("assert_non_negative", ">= 0", lambda x: np.asarray(x >= 0))
assert_non_positive = _signs("assert_non_positive", "<= 0", lambda x: np.asarray(x <= 0))


@takes_composites
def check_numerics(tensor: Any, message: str, name: str | None = None) -> Tensor:
    """``tensor`` itself. Raises InvalidArgumentError where it holds a nan or an infinity."""
    value = as_tensor(tensor)
    recording.check(_check_finite, value, message)
    return identity(value)


def _check_finite(value: Tensor, message: str) -> None:
    bad = _not_finite(value)
    if bad:
        raise InvalidArgumentError(f"{message} : Tensor had {bad} values")


def _not_finite(value: Tensor) -> str:
    """The kinds of values in a tensor that are not finite, "" where all are."""
    host = value._host()
    if kind_of(host.dtype) not in "fc" or np.isfinite(host).all():
        return ""
    kinds = {"NaN": np.isnan(host), "Inf": np.isinf(host)}
    return " and ".join(kind for kind, where in kinds.items() if where.any())


class _NumericsCheck:
    """A recorder that raises as soon as an operation gives a nan or an infinity."""

    def record(self, primitive: Any, args: tuple, params: dict, out: Any) -> None:
        for i, value in enumerate(out if isinstance(out, tuple) else (out,)):
            bad = _not_finite(value)
            if bad:
                given = ", ".join(map(_described, args))
                raise InvalidArgumentError(
                    f"{primitive.name} gave {bad} values in output {i} of shape {value.shape}; "
                    f"its inputs: {given}"
                )

    def read_variable(self, variable: Any, value: Tensor) -> None:
        """Only what operations give is looked at."""


def _described(arg: Any) -> str:
    if not isinstance(arg, Tensor):
        return repr(arg)
    bad = _not_finite(arg)
    return f"{arg.dtype.name}{list(arg.shape)}" + (f" with {bad}" if bad else "")


_checks = _NumericsCheck()


def enable_check_numerics(stack_height_limit: int = 30, path_length_limit: int = 50) -> None:
    """From here on each operation of this thread raises where it gives a nan or an infinity.

    Forward and backward passes alike: InvalidArgumentError names the operation and its inputs.
    Values that were not finite before they met an operation, as in a constant, pass.
    """
    if _checks not in recording.stack():
        recording.push(_checks)


def disable_check_numerics() -> None:
    """Ends what ``enable_check_numerics`` began in this thread."""
    recording.remove(_checks)


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
    if len(shape) < operator.index(rank):
        raise InvalidArgumentError(f"{_lead(message)}shape {shape} has rank below {rank}")


def assert_rank_in(x: Any, ranks: Any, message: str | None = None, name: str | None = None) -> None:
    """Raises InvalidArgumentError (a ValueError) unless the rank of ``x`` is one of ``ranks``."""
    shape = as_tensor(x).shape
    wanted = [operator.index(rank) for rank in ranks]
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
    """Checks pairs of a tensor and its shape, in which a symbol stands for one size everywhere.

    A shape is a sequence of ints, symbols (any text), and None or "." for any size; a text is one
    of single letters. ``...`` or "*" in front stands for any axes. Raises InvalidArgumentError (a
    ValueError) where one does not hold.
    """
    sizes: dict[str, int] = {}
    for tensor, wanted in shapes.items() if isinstance(shapes, dict) else shapes:
        shape = as_tensor(tensor).shape
        dims = (wanted,) if isinstance(wanted, int) else tuple(wanted)
        open_front = dims[:1] in ((...,), ("*",))
        dims = dims[1:] if open_front else dims
        if ... in dims or "*" in dims:
            raise ValueError(
                f"{_lead(message)}'...' stands in front of a shape, not as in {wanted}"
            )
        fits = len(dims) <= len(shape) if open_front else len(dims) == len(shape)
        for dim, size in zip(reversed(dims), reversed(shape), strict=False):
            expected = sizes.setdefault(dim, size) if isinstance(dim, str) else dim
            fits = fits and (dim == "." or expected in (None, size))
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


def assert_proper_iterable(values: Any) -> None:
    """Raises TypeError unless ``values`` is a collection; text, arrays and tensors are none."""
    if isinstance(values, (str, bytes, np.ndarray, Operand)) or not hasattr(values, "__iter__"):
        raise TypeError(f"{values!r} is not a proper iterable; use a list")


def assert_same_float_dtype(tensors: Any = None, dtype: Any = None) -> DType:
    """The one floating dtype of ``tensors`` and ``dtype``, float32 where neither says.

    Raises ValueError where they differ or are not floating.
    """
    found = [as_tensor(t).dtype for t in tensors or ()]
    wanted = as_dtype(dtype) if dtype is not None else (found or [float32])[0]
    if not wanted.is_floating:
        raise ValueError(f"a floating dtype is needed, not {wanted.name}")
    for i, other in enumerate(found):
        if other != wanted:
            raise ValueError(f"tensor {i} is {other.name}, not {wanted.name}")
    return wanted


def is_numeric_tensor(tensor: Any) -> bool:
    """Whether this is a tensor or variable of numbers (bool is not)."""
    return isinstance(tensor, Operand) and not as_tensor(tensor).dtype.is_bool


def _lead(message: str | None) -> str:
    return f"{message} " if message else ""


def disable_traceback_filtering() -> None:
    """Does nothing: tracebacks are whole."""


def enable_traceback_filtering() -> None:
    """Does nothing: tracebacks are whole."""


def is_traceback_filtering_enabled() -> bool:
    """No."""
    return False


def set_log_device_placement(enabled: bool) -> None:
    """Does nothing: an operation runs where its tensors lie."""
