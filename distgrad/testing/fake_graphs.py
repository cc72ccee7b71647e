"""CUDA graphs of a GPU that there is not: calls are noted, and made at each launch.

What CuPy and CUDA refuse while a stream is captured is refused: a wait for the device, copies from
and to the host, CuPy's own cuBLAS, and memory that others use as soon as the capture has ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.dtypes import is_floating
from distgrad.testing import standin

# Calls of libraries that CuPy refuses to make, or that wait for the device, during a capture.
_CUBLAS = frozenset(("dot", "einsum", "matmul", "tensordot", "__matmul__", "__rmatmul__"))
_WAITING = frozenset(("argsort", "argwhere", "nonzero", "sort", "unique"))


class Capture(threading.local):
    """What a thread notes while one of its streams is captured."""

    notes: list[Callable[[], object]] | None = None
    stream: Any = None
    allocator: Callable[[int], Any] | None = None  # the one in force, None for the common pool

    def begin(self, stream: Any) -> None:
        if self.notes is not None:
            raise RuntimeError("cudaErrorIllegalState: a capture goes on")
        self.notes, self.stream = [], stream

    def end(self, stream: Any) -> Graph:
        if self.stream is not stream or self.notes is None:
            raise RuntimeError("cudaErrorIllegalState: the stream is not capturing")
        notes, self.notes, self.stream = self.notes, None, None
        return Graph(notes)

    def noted(self, work: Callable[[], object]) -> bool:
        """Notes work on the elements of existing arrays; False where nothing is captured."""
        if self.notes is None:
            return False
        self.notes.append(work)
        return True

    def made(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        """What ``fn`` gives: views as they are; new arrays, without a value until the launch."""
        assert self.notes is not None
        with np.errstate(all="ignore"):
            found = fn(*args, **kwargs)
        if found is None:  # it has written to an argument, and must do so at the launch
            self.notes.append(lambda: fn(*args, **kwargs))
            return None
        given = (*args, *kwargs.values(), getattr(fn, "__self__", None))
        arrays = [a for a in given if isinstance(a, np.ndarray)]
        several = isinstance(found, (tuple, list))
        parts = list(found) if several else [found]
        places = [self._place(part, arrays) for part in parts]
        if all(place is part for place, part in zip(places, parts, strict=True)):
            return found

        def again() -> None:
            done = fn(*args, **kwargs)
            for place, part in zip(places, done if several else [done], strict=True):
                np.copyto(place, part)

        self.notes.append(again)
        return type(found)(places) if several else places[0]

    def _place(self, part: Any, arrays: list[np.ndarray]) -> Any:
        if not isinstance(part, (np.ndarray, np.generic)):
            return part
        if isinstance(part, np.ndarray) and any(np.may_share_memory(part, a) for a in arrays):
            return part
        self.allocates()
        return np.full_like(part, np.nan if is_floating(part.dtype) else 0)

    def refuse(self, what: str) -> None:
        if self.notes is not None:
            raise RuntimeError(f"the current stream is capturing, so {what} are disallowed")

    def by_name(self, name: str) -> None:
        if self.notes is not None and (name in _CUBLAS or name.startswith("linalg.")):
            raise NotImplementedError("calling cuBLAS API during stream capture is unsupported")
        if name in _WAITING:
            self.refuse("synchronous API calls")

    def allocates(self) -> None:
        if self.notes is not None and self.allocator is None:
            raise RuntimeError("a graph would keep memory of the pool that others use")


capture = Capture()


class Graph:
    """As ``cupy.cuda.Graph``."""

    def __init__(self, notes: list[Callable[[], object]]) -> None:
        self._notes = notes

    def launch(self, stream: Any = None) -> None:
        """Makes the calls, in the order of the current stream."""
        if capture.notes is not None or stream is not None:
            raise RuntimeError("a graph is launched on the current stream, outside of captures")

        def work() -> None:
            for call in self._notes:
                call()

        standin.order.later(work)
