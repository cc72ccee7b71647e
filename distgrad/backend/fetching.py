"""What lies in one array of a device, brought to the host again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


class Fetcher:
    """Copies an array of bytes to the host while the host goes on.

    A copy has pinned memory and an event, which are used again when it has been read: what is read
    is good until the next copy begins. ``look`` makes of the memory what is given to the reader,
    once.
    """

    def __init__(self, cupy: Any, array: Any, look: Callable[[np.ndarray], Any]) -> None:
        self.cuda, self.array, self.look = cupy.cuda, array, look
        self.idle: list[_Copy] = []

    def __call__(self) -> Callable[[], Any]:
        """Begins a copy on the current stream; the function given waits for it."""
        copy = self.idle.pop() if self.idle else _Copy(self)
        copy.begin()
        return copy.read


class _Copy:
    """Memory for a copy on its way."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._cuda, self._idle, array = fetcher.cuda, fetcher.idle, fetcher.array
        place = self._cuda.alloc_pinned_memory(max(array.nbytes, 1))
        kind = self._cuda.runtime.memcpyDeviceToHost
        self._copied = place.ptr, array.data.ptr, array.nbytes, kind
        self._event = self._cuda.Event(disable_timing=True)
        self._found = fetcher.look(np.frombuffer(place, np.uint8, array.nbytes))

    def begin(self) -> None:
        stream = self._cuda.get_current_stream()
        self._cuda.runtime.memcpyAsync(*self._copied, stream.ptr)
        stream.record(self._event)

    def read(self) -> Any:
        self._event.synchronize()
        self._idle.append(self)
        return self._found
