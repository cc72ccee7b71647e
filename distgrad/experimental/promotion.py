"""NumPy's dtypes for arguments of ``tf.experimental.numpy``: which they have, where they meet.

Python's numbers, and lists of them, are weak beside an array; alone they are int64, float64 or
complex128, as in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import DType, as_dtype
from distgrad.core.tensor import Operand, Tensor
from distgrad.ops.casting import cast
from distgrad.ops.shape import stack

prefer_float32 = False  # what ``experimental_enable_numpy_behavior`` was last told


def default_float() -> np.dtype:
    """The dtype of Python's floats where there is no other."""
    return np.dtype(np.float32 if prefer_float32 else np.float64)


def dtype_of(dtype: Any) -> np.dtype:
    """The dtype for a name, a type or a DType; ``float`` and ``int`` are those of NumPy."""
    if dtype is float:
        return default_float()
    return np.dtype(np.int64) if dtype is int else as_dtype(dtype).numpy_dtype


def _kinds(value: Any) -> Iterator[Any]:
    """What NumPy's rules look at: the dtypes of arrays, and Python's numbers."""
    kind = type(value)
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _kinds(part)
    elif isinstance(value, DType):
        yield value.numpy_dtype
    elif kind in (int, float, complex):
        yield kind(0)  # of Python's numbers the kind alone counts
    elif value is not None:
        found = getattr(value, "dtype", None)
        yield dtype_of(value if isinstance(value, (str, type, np.dtype)) else found or kind)


def meeting(*values: Any) -> np.dtype:
    """Where the dtypes of these meet by NumPy's rules. Raises TypeError for what has none."""
    kinds = list(_kinds(values))
    if not kinds:
        return default_float()
    found = np.result_type(*kinds)
    arrays = [kind for kind in kinds if isinstance(kind, np.dtype) and kind.kind != "b"]
    if prefer_float32 and not arrays:
        found = {"f": np.dtype(np.float32), "c": np.dtype(np.complex64)}.get(found.kind, found)
    return found


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The dtype in which arrays, numbers and dtypes meet by NumPy's rules."""
    return as_dtype(meeting(*arrays_and_dtypes))


def tensor(value: Any, dtype: Any = None) -> Tensor:
    """``value`` as a tensor of a dtype; without one, of that which NumPy gives it."""
    wanted = meeting(value) if dtype is None else dtype_of(dtype)
    if isinstance(value, Operand):
        return cast(value, wanted)
    if isinstance(value, (list, tuple)) and any(isinstance(v, Operand) for v in _leaves(value)):
        return stack([tensor(part, wanted) for part in value])
    return as_tensor(np.asarray(value).astype(wanted))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def together(*values: Any) -> list[Tensor]:
    """``values`` as tensors of the dtype in which they meet."""
    dtype = meeting(*values)
    return [tensor(value, dtype) for value in values]


def floats(*values: Any) -> list[Tensor]:
    """``together``, with integers and bools as floats: float32 for those of 8 and 16 bits."""
    dtype = meeting(*values)
    if dtype.kind in "biu":
        short = dtype.kind != "b" and dtype.itemsize <= 2
        dtype = np.dtype(np.float32) if short else default_float()
    return [tensor(value, dtype) for value in values]


def named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, which converts its arguments so, under the name that NumPy has it."""
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"NumPy's ``{name}``, on tensors."
    return function
