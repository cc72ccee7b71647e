"""Arrays of the host that lie on a device as well, before a step asks for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

ALIGN = 256  # bytes between arrays that are sent together, as CUDA aligns its own


def padded(nbytes: int) -> int:
    """What an array takes up among those that are sent together."""
    return -(-nbytes // ALIGN) * ALIGN


class Sent:
    """An array of the host, or what makes it, and the same ``there``, for one step alone."""

    __slots__ = ("_host", "there")

    def __init__(self, host: np.ndarray | Callable[[], np.ndarray], there: Any) -> None:
        self._host, self.there = host, there

    @property
    def shape(self) -> tuple[int, ...]:
        return self.there.shape

    @property
    def dtype(self) -> np.dtype:
        return self.there.dtype

    @property
    def host(self) -> np.ndarray:
        if not isinstance(self._host, np.ndarray):
            self._host = self._host()
        return self._host

    def get(self) -> np.ndarray:
        """The array of the host: nobody waits for a device."""
        return self.host

    def __getitem__(self, rows: slice) -> Sent:
        return Sent(lambda: self.host[rows], self.there[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.host, dtype=dtype, copy=copy)
