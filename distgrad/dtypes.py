"""``tf.dtypes``."""

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from distgrad.core.dtypes import (
    DType,
    as_dtype,
    complex64,
    complex128,
    double,
    float16,
    float32,
    float64,
    half,
    int8,
    int16,
    int32,
    int64,
    string,
    uint8,
    uint16,
    uint32,
    uint64,
)
from distgrad.core.dtypes import bool_ as bool
from distgrad.core.later import absent as _absent
from distgrad.ops.casting import cast
from distgrad.ops.clipping import saturate_cast
from distgrad.ops.complex import complex

__all__ = [name for name in dir() if not name.startswith("_")]

if _TYPE_CHECKING:
    from distgrad.core.dtypes import bfloat16 as bfloat16


def __getattr__(name: str) -> _Any:
    if name == "bfloat16":  # and ml_dtypes with it
        return as_dtype(name)
    return _absent(__name__)(name)
