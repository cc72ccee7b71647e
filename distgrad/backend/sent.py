"""Arrays of the host whose copies for a device were sent ahead of their use."""

from __future__ import annotations

from typing import Any

import numpy as np

ALIGN = 256  # bytes between arrays that are sent together, as CUDA aligns its own


def padded(nbytes: int) -> int:
    """What an array takes up among those that are sent together."""
    return -(-nbytes // ALIGN) * ALIGN


class Sent:
    """An array of the host, and its copy ``there``, which is good for one step alone."""

    __slots__ = ("dtype", "host", "shape", "there")

    def __init__(self, host: np.ndarray, there: Any) -> None:
        self.host, self.there = host, there
        self.shape, self.dtype = host.shape, host.dtype

    def get(self) -> np.ndarray:
        """The array of the host: nobody waits for a device."""
        return self.host

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.host, dtype=dtype, copy=copy)
