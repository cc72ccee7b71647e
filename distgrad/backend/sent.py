"""Arrays of the host that lie on a device as well, before a step asks for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

ALIGN = 256  # bytes between arrays that are sent together, as CUDA aligns its own


def padded(nbytes: int) -> int:
    """What an array takes up among those that are sent together."""
    return -(-nbytes // ALIGN) * ALIGN


@dataclass(slots=True)
class Picked:
    """Some rows of an array of a device, before anybody has put them together there.

    They are those at the places from ``start`` to ``stop`` of an order of all rows, int64, or of
    the rows as they lie.
    """

    source: Any
    order: Any | None
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.source.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        found: np.dtype = self.source.dtype
        return found

    def __len__(self) -> int:
        return self.stop - self.start

    def together(self) -> Any:
        """The rows as an array of the device."""
        rows = slice(self.start, self.stop)
        if self.order is None:
            return self.source[rows]
        return self.source.take(self.order[rows], axis=0)

    def __getitem__(self, rows: slice) -> Picked:
        start, stop, _ = rows.indices(len(self))
        return Picked(self.source, self.order, self.start + start, self.start + max(start, stop))


class Sent:
    """An array of the host, or what makes it, and the same ``there``, for one step alone.

    What lies there may be `Picked`, which is put together when it is asked for.
    """

    __slots__ = ("_host", "_there")

    def __init__(self, host: np.ndarray | Callable[[], np.ndarray], there: Any) -> None:
        self._host, self._there = host, there

    @property
    def shape(self) -> tuple[int, ...]:
        return self._there.shape

    @property
    def dtype(self) -> np.dtype:
        return self._there.dtype

    @property
    def picked(self) -> Picked | None:
        """Its rows, where nobody has put them together yet."""
        return self._there if type(self._there) is Picked else None

    @property
    def there(self) -> Any:
        if type(self._there) is Picked:
            self._there = self._there.together()
        return self._there

    def own(self) -> Any:
        """What lies there, in memory that nobody fills with another step's."""
        return self.there if type(self._there) is Picked else self._there.copy()

    @property
    def host(self) -> np.ndarray:
        if not isinstance(self._host, np.ndarray):
            self._host = self._host()
        return self._host

    def get(self) -> np.ndarray:
        """The array of the host: nobody waits for a device."""
        return self.host

    def __getitem__(self, rows: slice) -> Sent:
        return Sent(lambda: self.host[rows], self._there[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.host, dtype=dtype, copy=copy)
