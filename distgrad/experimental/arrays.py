"""Functions of ``tf.experimental.numpy`` that make arrays, or put their elements elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.shapes import TensorShape
from distgrad.core.tensor import Operand, Tensor
from distgrad.experimental.promotion import (
    default_float,
    dtype_of,
    meeting,
    named,
    tensor,
    together,
)
from distgrad.keras import ops
from distgrad.ops.casting import cast

# What keeps the dtype of its one array; further arguments are passed on.
_OF_ONE = """broadcast_to diag diagflat diagonal diff expand_dims flip fliplr flipud moveaxis ravel
roll rot90 squeeze swapaxes tile transpose tril triu vander"""
_OF_NUMBERS = "arange geomspace linspace logspace tri"  # of which NumPy makes an array
_OF_SEQUENCES = "dstack hstack vstack"
_OF_PARTS = "dsplit hsplit split vsplit"
__all__ = [*_OF_ONE.split(), *_OF_NUMBERS.split(), *_OF_SEQUENCES.split(), *_OF_PARTS.split()]
__all__ += [
    "append",
    "argsort",
    "array",
    "asanyarray",
    "asarray",
    "ascontiguousarray",
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "broadcast_arrays",
    "compress",
    "concatenate",
    "copy",
    "diag_indices",
    "empty",
    "empty_like",
    "eye",
    "flatten",
    "full",
    "full_like",
    "identity",
    "isscalar",
    "ix_",
    "meshgrid",
    "ndim",
    "nonzero",
    "ones",
    "ones_like",
    "pad",
    "repeat",
    "reshape",
    "select",
    "shape",
    "size",
    "sort",
    "stack",
    "take",
    "take_along_axis",
    "where",
    "zeros",
    "zeros_like",
]


def _of_one(function: Any) -> Any:
    return lambda a, *args, **kwargs: function(tensor(a), *args, **kwargs)


def _of_sequence(function: Any) -> Any:
    return lambda tup: function(together(*tup))


def _of_numbers(function: Any) -> Any:
    def make(*args: Any, **kwargs: Any) -> Any:
        dtype = kwargs.get("dtype")
        if dtype is not None:
            kwargs["dtype"] = dtype_of(dtype)
        made = function(*map(_plain, args), **{key: _plain(value) for key, value in kwargs.items()})
        if isinstance(made, tuple):  # linspace, with its step
            return tuple(tensor(part) for part in made)
        floating = made.dtype == np.float64 and dtype is None
        return tensor(made, default_float() if floating else None)

    return make


def _plain(value: Any) -> Any:
    return value.numpy() if isinstance(value, Operand) else value  # type: ignore[attr-defined]


for _name in _OF_ONE.split():
    globals()[_name] = named(_name, _of_one(getattr(ops, _name)))
for _name in _OF_PARTS.split():
    globals()[_name] = named(_name, _of_one(getattr(ops, _name)))
for _name in _OF_SEQUENCES.split():
    globals()[_name] = named(_name, _of_sequence(getattr(ops, _name)))
for _name in _OF_NUMBERS.split():
    globals()[_name] = named(_name, _of_numbers(getattr(np, _name)))


# Made


def array(val: Any, dtype: Any = None, copy: bool = True, ndmin: int = 0) -> Tensor:
    """``val`` as a tensor, with axes of one element in front up to ``ndmin`` axes."""
    made = tensor(val, dtype)
    return ops.reshape(made, (1,) * max(ndmin - made.ndim, 0) + tuple(made.shape))


def asarray(a: Any, dtype: Any = None) -> Tensor:
    """``a`` as a tensor: a list of floats is float64, of ints int64."""
    return tensor(a, dtype)


asanyarray = asarray


def ascontiguousarray(a: Any, dtype: Any = None) -> Tensor:
    """``a`` as a tensor of one axis or more."""
    return array(a, dtype, ndmin=1)


def copy(a: Any) -> Tensor:
    """``a`` as a tensor, which never changes."""
    return tensor(a)


def full(shape: Any, fill_value: Any, dtype: Any = None) -> Tensor:
    """``fill_value``, which is broadcast, in a shape."""
    return ops.broadcast_to(tensor(fill_value, dtype), _sizes(shape))


def _sizes(shape: Any) -> list[int]:
    return [int(size) for size in np.atleast_1d(np.asarray(shape, np.int64))]


def zeros(shape: Any, dtype: Any = float) -> Tensor:
    """Zeros of a shape."""
    return full(shape, 0, dtype)


empty = zeros


def ones(shape: Any, dtype: Any = float) -> Tensor:
    """Ones of a shape."""
    return full(shape, 1, dtype)


def full_like(
    a: Any,
    fill_value: Any,
    dtype: Any = None,
    order: str = "K",
    subok: bool = True,
    shape: Any = None,
) -> Tensor:
    """``full`` of the shape and dtype of ``a``, or of others; two settings are NumPy's alone."""
    like = tensor(a)
    return full(like.shape if shape is None else shape, fill_value, dtype or like.dtype)


def zeros_like(a: Any, dtype: Any = None) -> Tensor:
    """Zeros of the shape and dtype of ``a``."""
    return full_like(a, 0, dtype)


empty_like = zeros_like


def ones_like(a: Any, dtype: Any = None) -> Tensor:
    """Ones of the shape and dtype of ``a``."""
    return full_like(a, 1, dtype)


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = float) -> Tensor:
    """Ones on a diagonal, zeros elsewhere."""
    return tensor(np.eye(N, M, k, dtype_of(dtype)))


def identity(n: int, dtype: Any = float) -> Tensor:
    """``eye`` of ``n`` rows."""
    return eye(n, dtype=dtype)


# Asked


def shape(a: Any) -> TensorShape:
    """The shape."""
    return tensor(a).shape


def ndim(a: Any) -> int:
    """The number of axes."""
    return tensor(a).ndim


def size(x: Any, axis: int | None = None) -> int:
    """The number of elements, or that along an axis."""
    sizes = tensor(x).shape
    return int(np.prod(sizes, dtype=np.int64)) if axis is None else sizes[axis]


def isscalar(num: Any) -> bool:
    """Whether it is a number, or an array without axes."""
    return ndim(num) == 0


# Put elsewhere


def reshape(a: Any, newshape: Any, order: str = "C") -> Tensor:
    """The elements in another shape, by rows; by columns for the ``order`` "F"."""
    a, sizes = tensor(a), _sizes(newshape)
    if np.ndim(newshape) == 0:
        sizes = [int(newshape)]
    if order != "F":
        return ops.reshape(a, sizes)
    return ops.transpose(ops.reshape(ops.transpose(a), sizes[::-1]))


def flatten(a: Any, order: str = "C") -> Tensor:
    """The elements in one axis."""
    return reshape(a, -1, order)


def _at_least(axes: int, arrays: Sequence[Any]) -> Any:
    made = []
    for each in map(tensor, arrays):
        if axes == 3 and each.ndim == 2:
            each = each[..., None]
        elif axes == 3 and each.ndim == 1:
            each = each[None, :, None]
        made.append(array(each, ndmin=axes))
    return made[0] if len(made) == 1 else made


def atleast_1d(*arys: Any) -> Any:
    """Arrays with one axis at least."""
    return _at_least(1, arys)


def atleast_2d(*arys: Any) -> Any:
    """Arrays with two axes at least."""
    return _at_least(2, arys)


def atleast_3d(*arys: Any) -> Any:
    """Arrays with three axes at least."""
    return _at_least(3, arys)


def broadcast_arrays(*args: Any, **kwargs: Any) -> list[Tensor]:
    """Arrays in one shape, each with its dtype."""
    made = [tensor(each) for each in args]
    wanted = np.broadcast_shapes(*(each.shape for each in made))
    return [ops.broadcast_to(each, wanted) for each in made]


def stack(arrays: Any, axis: int = 0) -> Tensor:
    """Arrays along a new axis."""
    return ops.stack(together(*arrays), axis)


def concatenate(arys: Any, axis: int = 0) -> Tensor:
    """Arrays one after the other along an axis."""
    return ops.concatenate(together(*arys), axis)


def append(arr: Any, values: Any, axis: int | None = None) -> Tensor:
    """One array after the other, both flat where no axis is given."""
    return ops.append(*together(arr, values), axis)


def meshgrid(*xi: Any, indexing: str = "xy") -> list[Tensor]:
    """The coordinates of a grid."""
    return ops.meshgrid(*map(tensor, xi), indexing=indexing)


def repeat(a: Any, repeats: Any, axis: int | None = None) -> Tensor:
    """Each element so many times."""
    return ops.repeat(tensor(a), repeats, axis)


def pad(array: Any, pad_width: Any, mode: str, **kwargs: Any) -> Tensor:
    """The array with more elements around it: constants, or its own, "reflect" or "symmetric"."""
    return ops.pad(tensor(array), pad_width, mode, **kwargs)


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    """``x`` where the condition is true, ``y`` elsewhere; without them where that is."""
    if x is None and y is None:
        return nonzero(condition)
    return ops.where(cast(tensor(condition), bool), *together(x, y))


def select(condlist: Any, choicelist: Any, default: Any = 0) -> Tensor:
    """Of each choice the elements where its condition is the first that is true."""
    *choices, default = together(*choicelist, default)
    for condition, choice in zip(reversed(condlist), reversed(choices), strict=True):
        default = ops.where(cast(tensor(condition), bool), choice, default)
    return default


def nonzero(a: Any) -> list[Tensor]:
    """Where elements are not 0: int64 for each axis."""
    return [cast(each, "int64") for each in ops.nonzero(array(a, ndmin=1))]


def take(
    a: Any, indices: Any, axis: int | None = None, out: None = None, mode: str = "clip"
) -> Tensor:
    """Elements by their numbers, those outside cut off, or counted round for the mode "wrap".

    ``out`` is None: tensors are never written to. Raises ValueError for another mode.
    """
    if mode not in ("clip", "wrap"):
        raise ValueError(f'mode is "clip" or "wrap", not {mode!r}')
    a = tensor(a)
    count = size(a, axis)
    wanted = np.asarray(_plain(indices))
    places = wanted % count if mode == "wrap" else np.clip(wanted, 0, count - 1)
    return ops.take(a, places, axis)


def take_along_axis(arr: Any, indices: Any, axis: int | None) -> Tensor:
    """Elements by numbers that lie in an array of the same axes."""
    return ops.take_along_axis(tensor(arr), tensor(indices), axis)


def compress(condition: Any, a: Any, axis: int | None = None) -> Tensor:
    """The parts where the condition is true."""
    places = np.flatnonzero(np.asarray(_plain(condition)))
    return ops.take(tensor(a), places, axis)


def sort(a: Any, axis: int | None = -1, kind: str = "quicksort", order: None = None) -> Tensor:
    """The elements in order; ``kind`` changes nothing, ``order`` is None."""
    return ops.sort(tensor(a), axis)


def argsort(a: Any, axis: int | None = -1, kind: str = "quicksort", order: None = None) -> Tensor:
    """Where the elements in order come from: int64; ``kind`` changes nothing, ``order`` is None."""
    return cast(ops.argsort(array(a, ndmin=1), axis), "int64")


def diag_indices(n: int, ndim: int = 2) -> tuple[Tensor, ...]:
    """Where the diagonal is of an array with ``n`` elements along each axis."""
    return (tensor(np.arange(n, dtype=np.int32)),) * ndim


def ix_(*args: Any) -> list[Tensor]:
    """Vectors of numbers that index a grid together."""
    made = []
    for axis, each in enumerate(map(tensor, args)):
        if meeting(each).kind == "b":
            each = nonzero(each)[0]
        sizes = [1] * len(args)
        sizes[axis] = -1
        made.append(ops.reshape(each, sizes))
    return made
