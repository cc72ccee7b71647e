"""Large arrays of a batch as tensors without a copy, for as long as a shard runs."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from distgrad.core import dispatch
from distgrad.core.dtypes import is_number
from distgrad.core.tensor import Tensor

_SMALLEST = 1 << 16  # bytes: below that a copy costs less


class Lender:
    """Lends arrays as a variable lends its buffer: who still looks into one later gets a copy."""

    _value_ref = None  # of a variable: its whole value

    def __init__(self) -> None:
        self._loans: list[weakref.ref[Tensor]] = []

    def tensors(self, arrays: tuple) -> tuple:
        """The large arrays of a tuple as tensors, the rest as it is."""
        return tuple([self._tensor(a) if type(a) is np.ndarray else a for a in arrays])

    def _tensor(self, array: np.ndarray) -> Any:
        small = array.nbytes < _SMALLEST or not is_number(array.dtype)
        if small or dispatch.current() is not dispatch.numpy_backend:
            return array
        tensor = Tensor(array)
        self._lend(tensor)
        return tensor

    def _lend(self, tensor: Tensor) -> None:
        tensor._lender = self
        self._loans.append(weakref.ref(tensor))

    def _write_part(self, part: Any, value: Any) -> Any:
        raise AttributeError("assign works on a Variable or on a slice of one; this is neither")

    def recall(self) -> None:
        """Gives all that are left a copy."""
        for loan in self._loans:
            tensor = loan()
            if tensor is not None:
                tensor._data = tensor._data.copy()
                tensor._lender = None
        self._loans.clear()
