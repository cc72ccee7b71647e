"""Tensors from values, and what a tensor says of itself."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype
from distgrad.core.primitive import bind
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.ops.elementwise import identity
from distgrad.ops.shape import broadcast_to, static
from distgrad.ops.shape import fill as fill_p


def constant(value: Any, dtype: Any = None, shape: Any = None, name: str | None = None) -> Tensor:
    """``value`` (numbers, nests of them, arrays) as a tensor.

    Python floats become float32 and ints int32 (int64 where they do not fit); arrays keep their
    dtype. Raises TypeError for a value that ``dtype`` cannot hold, ValueError for None, objects and
    ragged nests.
    """
    tensor = as_tensor(value, dtype)
    if shape is None:
        return tensor
    wanted = static(shape)
    if tensor._data.size == 1:
        return bind(broadcast_to, Tensor(tensor._data.reshape(())), shape=wanted)
    if tensor._data.size != int(np.prod(wanted)):
        raise TypeError(f"{tensor._data.size} values do not fill shape {wanted}")
    return Tensor(tensor._data.reshape(wanted))


def convert_to_tensor(value: Any, dtype: Any = None, name: str | None = None) -> Tensor:
    """``value`` as a tensor; a tensor of that dtype is returned as it is.

    Raises ValueError for a tensor of another dtype.
    """
    tensor = as_tensor(value, dtype)
    return identity(tensor) if isinstance(value, Variable) else tensor


def is_tensor(x: Any) -> bool:
    """Whether ``x`` is a tensor or a variable."""
    return isinstance(x, (Tensor, Variable))


def fill(dims: Any, value: Any, name: str | None = None) -> Tensor:
    """A tensor of shape ``dims`` with ``value`` everywhere."""
    scalar = as_tensor(value)
    return bind(broadcast_to, scalar, shape=static(dims))


def zeros(shape: Any, dtype: Any = np.float32, name: str | None = None) -> Tensor:
    """Zeros of ``shape``."""
    return bind(fill_p, 0, shape=static(shape), dtype=as_dtype(dtype).numpy_dtype)


def ones(shape: Any, dtype: Any = np.float32, name: str | None = None) -> Tensor:
    """Ones of ``shape``."""
    return bind(fill_p, 1, shape=static(shape), dtype=as_dtype(dtype).numpy_dtype)


def eye(num_rows: int, num_columns: int | None = None, dtype: Any = np.float32) -> Tensor:
    """Ones on the diagonal, zeros elsewhere."""
    return Tensor(np.eye(num_rows, num_columns, dtype=as_dtype(dtype).numpy_dtype))


def range(start: Any, limit: Any = None, delta: Any = 1, dtype: Any = None) -> Tensor:
    """Numbers from ``start`` (0 by default) up to, but not with, ``limit``."""
    if limit is None:
        start, limit = 0, start
    values = [v.numpy() if is_tensor(v) else v for v in (start, limit, delta)]
    if dtype is None:
        dtype = np.result_type(*(as_tensor(v)._data for v in values))
    return Tensor(np.arange(*values, dtype=as_dtype(dtype).numpy_dtype))


def shape(input: Any, out_type: Any = np.int32, name: str | None = None) -> Tensor:
    """The shape as an int32 tensor."""
    dims = builtins.list(as_tensor(input)._data.shape)
    return Tensor(np.array(dims, dtype=as_dtype(out_type).numpy_dtype))


def size(input: Any, out_type: Any = np.int32, name: str | None = None) -> Tensor:
    """The number of elements as an int32 tensor."""
    return Tensor(np.array(as_tensor(input)._data.size, dtype=as_dtype(out_type).numpy_dtype))


def rank(input: Any, name: str | None = None) -> Tensor:
    """The number of axes as an int32 tensor."""
    return Tensor(np.array(as_tensor(input)._data.ndim, dtype=np.int32))
