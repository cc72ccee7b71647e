"""Texts: arrays of the host, which layers that make numbers of them take as they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dtypes import DType, as_dtype, string


def holds_texts(array: np.ndarray) -> bool:
    """Whether it is an array of str, of bytes, or of objects that are nothing else."""
    if array.dtype.kind == "O":
        return all(isinstance(value, (str, bytes)) for value in array.flat)
    return array.dtype.kind in "SU"


def dtype_of(value: Any) -> DType:
    """That of an array or a tensor; ``string`` for texts."""
    of_texts = isinstance(value, np.ndarray) and holds_texts(value)
    return string if of_texts else as_dtype(value.dtype)


def as_texts(value: Any) -> np.ndarray:
    """An array of str, from lists, arrays of str, of bytes (UTF-8) or of objects."""
    array = np.asarray(value)
    if array.dtype.kind == "U":
        return array
    if array.dtype.kind == "O":
        flat = [v.decode() if isinstance(v, bytes) else v for v in array.ravel()]
        if all(isinstance(v, str) for v in flat):
            return np.array(flat, dtype=str).reshape(array.shape)
        missing = sum(v is None or v != v for v in flat)
        if missing and all(isinstance(v, str) or v is None or v != v for v in flat):
            raise ValueError(f"{missing} of {len(flat)} texts are missing: fill them, with '' say")
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8")
    raise ValueError(f"an array of texts is needed, not one of {array.dtype}: {value!r}")
