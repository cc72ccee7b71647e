"""Which dtype arguments of several dtypes meet in: Keras's rules, where distgrad's ops take one.

Python numbers are weak: an int or float takes the dtype of the tensor beside it, if that is of its
kind or a wider one. Integers beside floats become those floats; 64-bit integers do not widen them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype
from distgrad.core.tensor import Tensor
from distgrad.keras.backend import floatx
from distgrad.ops.casting import cast

# For each dtype those right above it; "int" and "float" stand for Python's numbers.
_ABOVE = {
    "bool": ("int",),
    "int": ("uint8", "int8", "complex64"),
    "uint8": ("int16", "uint16"),
    "uint16": ("int32", "uint32"),
    "uint32": ("int64", "uint64"),
    "uint64": ("float",),
    "int8": ("int16",),
    "int16": ("int32",),
    "int32": ("int64",),
    "int64": ("float",),
    "float": ("bfloat16", "float16"),
    "bfloat16": ("float32",),
    "float16": ("float32",),
    "float32": ("float64", "complex64"),
    "float64": ("complex128",),
    "complex64": ("complex128",),
    "complex128": (),
}


@functools.cache
def _upwards(name: str) -> frozenset[str]:
    return frozenset({name}).union(*map(_upwards, _ABOVE[name]))


@functools.cache
def _meeting(names: frozenset[str]) -> str:
    """The lowest dtype that lies above all of these."""
    common = frozenset.intersection(*map(_upwards, names))
    return next(name for name in common if common <= _upwards(name))


def result_type(*dtypes: Any) -> str:
    """The name of the dtype in which these meet; Python's ``int`` and ``float`` are weak.

    Raises TypeError for what is not a dtype.
    """
    names = [d.__name__ if d is int or d is float else as_dtype(d).name for d in dtypes]
    met = _meeting(frozenset(names))
    if met in ("int", "float"):
        met = floatx() if met == "float" else "int" + floatx()[-2:]
    return {"uint64": "uint32", "complex128": "complex64"}.get(met, met) if len(names) > 1 else met


def _type_of(value: Any) -> Any:
    return type(value) if type(value) in (bool, int, float) else value.dtype


def _floats_alike(values: Sequence[Any]) -> bool:
    """Whether these are a tensor of floats, others of its dtype and Python numbers: there is
    nothing to do then."""
    first = values[0]
    if type(first) is not Tensor or (dtype := first._data.dtype).kind != "f":
        return False
    for value in values[1:]:
        kind = type(value)
        if value._data.dtype is not dtype if kind is Tensor else kind not in (float, int):
            return False
    return True


def promoted(*values: Any, also: Any = None) -> list[Any]:
    """``values`` as tensors of the dtype in which they (and ``also``, a dtype) meet.

    Python numbers stay what they are beside a tensor.
    """
    if (also is None or also is float) and _floats_alike(values):
        return list(values)
    given = [v if type(v) in (bool, int, float) else as_tensor(v) for v in values]
    types = [_type_of(v) for v in given] + ([] if also is None else [also])
    dtype = result_type(*types)
    if not any(isinstance(v, Tensor) for v in given):
        return [cast(v, dtype) for v in given]
    return [cast(v, dtype) if isinstance(v, Tensor) else v for v in given]


def tensors(*values: Any, also: Any = None) -> list[Tensor]:
    """``promoted``, with Python numbers as tensors, too."""
    found = promoted(*values, also=also)
    if all(type(v) is Tensor for v in found):
        return found
    dtype = next(v.dtype for v in found if isinstance(v, Tensor))
    return [v if isinstance(v, Tensor) else as_tensor(v, like=dtype.numpy_dtype) for v in found]


def floated(x: Any) -> Tensor:
    """``x`` as a tensor of floats (or complex numbers): integers become ``floatx``."""
    if type(x) is Tensor and x._data.dtype.kind == "f":
        return x
    return tensors(x, also=float)[0]


def counted(x: Any) -> Tensor:
    """``x`` as a tensor of numbers: bools become int32."""
    tensor = x if type(x) is Tensor else as_tensor(x)
    return cast(tensor, "int32") if tensor._data.dtype.kind == "b" else tensor
