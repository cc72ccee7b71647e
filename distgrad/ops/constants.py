"""Tensors from values, and what a tensor says of itself."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from distgrad.core.composite import Composite, takes_composites
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype, string
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.indexed_slices import IndexedSlices
from distgrad.core.primitive import bind
from distgrad.core.reading import Reading
from distgrad.core.tensor import Tensor
from distgrad.core.texts import all_texts, as_strings, holds_texts
from distgrad.core.variable import Variable
from distgrad.ops.casting import cast, identity
from distgrad.ops.shape import as_peers, broadcast_to, expand_dims, one_axis, static
from distgrad.ops.shape import fill as fill_p


def constant(value: Any, dtype: Any = None, shape: Any = None, name: str | None = None) -> Tensor:
    """``value`` (numbers, nests of them, arrays) as a tensor; texts as an array of them.

    Python floats become float32 and ints int32 (int64 where they do not fit); arrays keep their
    dtype. Raises TypeError for a value that ``dtype`` cannot hold, ValueError for None, objects and
    ragged nests.
    """
    tensor = _tensor_or_texts(value, dtype)
    if shape is None:
        return tensor
    wanted = static(shape)
    if type(tensor) is not Tensor:  # texts
        if tensor.size == 1:
            return np.broadcast_to(tensor, wanted, subok=True)  # type: ignore[return-value]
        return tensor.reshape(wanted)
    if tensor._data.size == 1:
        return bind(broadcast_to, Tensor(tensor._data.reshape(())), shape=wanted)
    if tensor._data.size != int(np.prod(wanted)):
        raise TypeError(f"{tensor._data.size} values do not fill shape {wanted}")
    return Tensor(tensor._data.reshape(wanted))


def convert_to_tensor(
    value: Any, dtype: Any = None, dtype_hint: Any = None, name: str | None = None
) -> Tensor:
    """``value`` as a tensor, texts as an array; a tensor of that dtype is returned as it is.

    ``dtype_hint`` is the dtype of what is no tensor yet, where no ``dtype`` is demanded and its
    values go into it. Raises ValueError for a tensor of another dtype.
    """
    if dtype is None and dtype_hint is not None and not is_tensor(value):
        try:
            return as_tensor(value, dtype_hint)
        except (TypeError, ValueError):  # it stays what it is
            pass
    tensor = _tensor_or_texts(value, dtype)
    return identity(tensor) if isinstance(value, Variable) else tensor


def _tensor_or_texts(value: Any, dtype: Any) -> Any:
    try:
        return as_tensor(value, dtype)
    except (TypeError, ValueError):
        array = value if isinstance(value, np.ndarray) else np.asarray(value, object)
        if dtype not in (None, str, string) or not holds_texts(array):
            raise
        return as_strings(array)


def is_tensor(x: Any) -> bool:
    """Whether ``x`` is a tensor, also a ragged or sparse one, a variable or IndexedSlices."""
    return isinstance(x, (Tensor, Variable, Reading, IndexedSlices, Composite))


def fill(dims: Any, value: Any, name: str | None = None) -> Tensor:
    """A tensor of shape ``dims`` with ``value`` everywhere; of a text an array."""
    scalar = _tensor_or_texts(value, None)
    if type(scalar) is not Tensor:
        return np.broadcast_to(scalar, static(dims), subok=True)  # type: ignore[return-value]
    return bind(broadcast_to, scalar, shape=static(dims))


def zeros(shape: Any, dtype: Any = np.float32, name: str | None = None) -> Tensor:
    """Zeros of ``shape``; of dtype string an array of empty texts."""
    if dtype is string or dtype is str:
        return as_strings(np.zeros(static(shape), str))  # type: ignore[return-value]
    return bind(fill_p, 0, shape=static(shape), dtype=as_dtype(dtype).numpy_dtype)


def ones(shape: Any, dtype: Any = np.float32, name: str | None = None) -> Tensor:
    """Ones of ``shape``."""
    return bind(fill_p, 1, shape=static(shape), dtype=as_dtype(dtype).numpy_dtype)


def eye(
    num_rows: int,
    num_columns: int | None = None,
    batch_shape: Any = None,
    dtype: Any = np.float32,
    name: str | None = None,
) -> Tensor:
    """Ones on the diagonal, zeros elsewhere, once for each element of ``batch_shape``.

    Raises InvalidArgumentError for negative sizes.
    """
    rows = operator.index(num_rows)
    columns = rows if num_columns is None else operator.index(num_columns)
    if rows < 0 or columns < 0:
        raise InvalidArgumentError(f"eye: a matrix cannot be {rows} by {columns}")
    matrix = Tensor(np.eye(rows, columns, dtype=as_dtype(dtype).numpy_dtype))
    batch = () if batch_shape is None else static(batch_shape)
    return bind(broadcast_to, matrix, shape=(*batch, rows, columns)) if batch else matrix


# In TensorFlow's order: the last of the dtypes of start, limit and delta.
_RANGE_ORDER = ("int32", "int64", "float16", "bfloat16", "float32", "float64")


def range(
    start: Any, limit: Any = None, delta: Any = 1, dtype: Any = None, name: str | None = "range"
) -> Tensor:
    """Numbers from ``start`` (0 by default) up to, but not with, ``limit``; no gradient.

    int32 for Python ints, float32 as soon as a Python float is among them. Raises
    InvalidArgumentError for a delta of 0, or one that leads away from the limit.
    """
    if limit is None:
        start, limit = 0, start
    tensors = [as_tensor(v) for v in (start, limit, delta)]
    names = [t.dtype.name for t in tensors]
    if dtype is None:
        dtype = max(names, key=lambda n: _RANGE_ORDER.index(n) if n in _RANGE_ORDER else -1)
    first, last, step = (_number(t) for t in tensors)
    if not step or (last - first) * step < 0:
        raise InvalidArgumentError(f"range: steps of {step} do not lead from {first} to {last}")
    return Tensor(np.arange(first, last, step).astype(as_dtype(dtype).numpy_dtype))


def _number(x: Tensor) -> Any:
    if x._data.ndim:
        raise InvalidArgumentError(f"range takes scalars, not a tensor of shape {x.shape}")
    return x._host().item()


def linspace(start: Any, stop: Any, num: int, name: str | None = None, axis: int = 0) -> Tensor:
    """``num`` values in equal steps from ``start`` to ``stop``, both with them, along a new axis.

    ``start`` and ``stop`` are broadcast to each other and have a gradient; integers give float64.
    Raises InvalidArgumentError for shapes that do not broadcast or a negative number.
    """
    count = operator.index(num)
    if count < 0:
        raise InvalidArgumentError(f"linspace: num must be at least 0, not {count}")
    first, last = as_peers("linspace", [start, stop])
    if first.dtype.is_integer:
        first, last = cast(first, np.float64), cast(last, np.float64)
    try:
        common = np.broadcast_shapes(first._data.shape, last._data.shape)
    except ValueError:
        raise InvalidArgumentError(
            f"linspace: shapes {first.shape} and {last.shape} do not broadcast"
        ) from None
    first, last = (bind(broadcast_to, v, shape=common) for v in (first, last))
    axis = one_axis("linspace", axis, len(common) + 1)
    dtype, line = first._data.dtype, [1] * (len(common) + 1)
    line[axis] = count
    part = (np.arange(count) / max(count - 1, 1)).astype(dtype).reshape(line)
    first, last = expand_dims(first, axis), expand_dims(last, axis)
    # Weighted so that both ends come out exactly.
    return first * Tensor(1 - part) + last * Tensor(part)


def identity_n(input: Any, name: str | None = None) -> list[Tensor]:
    """The same values as tensors of their own."""
    return [identity(x) for x in input]


@takes_composites
def shape(input: Any, out_type: Any = None, name: str | None = None) -> Tensor:
    """The shape as an int32 tensor; of texts, too."""
    out_type = np.int32 if out_type is None else out_type
    return Tensor(np.array(_shape(input), dtype=as_dtype(out_type).numpy_dtype))


@takes_composites
def size(input: Any, out_type: Any = None, name: str | None = None) -> Tensor:
    """The number of elements as an int32 tensor; of texts, too."""
    out_type = np.int32 if out_type is None else out_type
    return Tensor(np.array(math.prod(_shape(input)), dtype=as_dtype(out_type).numpy_dtype))


@takes_composites
def rank(input: Any, name: str | None = None) -> Tensor:
    """The number of axes as an int32 tensor; of texts, too."""
    return Tensor(np.array(len(_shape(input)), dtype=np.int32))


def _shape(value: Any) -> tuple[int, ...]:
    return np.shape(value) if all_texts(value) else as_tensor(value)._data.shape
