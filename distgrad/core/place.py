"""Where something that counts for itself stands, as checkpoints keep it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.core.dtypes import DType, as_dtype


class Place:
    """Whole numbers that no variable holds: how far an iterator or a random stream has come.

    Checkpoints treat it as a variable: an int64 vector that is read and assigned.
    """

    def __init__(
        self, read: Callable[[], Sequence[int]], write: Callable[[list[int]], None]
    ) -> None:
        self._read, self._write = read, write

    @property
    def shape(self) -> tuple[int, ...]:
        return self.numpy().shape

    @property
    def dtype(self) -> DType:
        return as_dtype(np.int64)

    def numpy(self) -> np.ndarray:
        # Words of 64 bits are unsigned where they are drawn from, and kept with a sign.
        return np.array([int(n) & 2**64 - 1 for n in self._read()], np.uint64).view(np.int64)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype)

    def assign(self, value: Any) -> None:
        self._write([int(number) for number in np.asarray(value)])
