"""CUDA graphs of a GPU that there is not: calls are noted, and made at each launch.

What CuPy and CUDA refuse while a stream is captured is refused: a wait for the device, copies from
and to the host, CuPy's own cuBLAS, and memory that others use as soon as the capture has ended.

A capture may fork: another stream that waits for an event of it is captured, too. What lies on that
one is done as late as it may be in one launch, and as early in the next: whoever forgets to wait,
or uses memory again too soon, has wrong numbers in one of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from distgrad.core.dtypes import is_floating
from distgrad.testing import standin

# Calls of libraries that CuPy refuses to make, or that wait for the device, during a capture.
_CUBLAS = frozenset(("dot", "einsum", "matmul", "tensordot", "__matmul__", "__rmatmul__"))
_WAITING = frozenset(("argsort", "argwhere", "nonzero", "sort", "unique"))


class Mark:
    """An event among what is noted: where a stream was when it was recorded."""

    def __init__(self, lane: Lane) -> None:
        self.lane, self.position = lane, len(lane)


class _Wait(NamedTuple):
    """A note: what follows waits for a mark."""

    mark: Mark


Lane = list[Callable[[], object] | _Wait]  # what one of the streams of a capture does


class Capture(threading.local):
    """What a thread notes while one of its streams is captured, and those that have joined it."""

    lanes: dict[Any, Lane] | None = None
    stream: Any = None  # the one where it began
    here: Callable[[], Any]  # the current stream of the thread
    allocator: Callable[[int], Any] | None = None  # the one in force, None for the common pool
    workspaces: dict[int, Any]  # of cuBLAS, and the stream that uses each of them

    @property
    def notes(self) -> Lane | None:
        """Those of the current stream; None where nothing is captured."""
        if self.lanes is None:
            return None
        if self.here() not in self.lanes:
            raise RuntimeError("cudaErrorStreamCaptureImplicit: this stream is not captured")
        return self.lanes[self.here()]

    def begin(self, stream: Any) -> None:
        if self.lanes is not None:
            raise RuntimeError("cudaErrorIllegalState: a capture goes on")
        self.lanes, self.stream, self.workspaces = {stream: []}, stream, {}

    def end(self, stream: Any) -> Graph:
        if self.stream is not stream or self.lanes is None:
            raise RuntimeError("cudaErrorIllegalState: the stream is not capturing")
        (own, *others), self.lanes, self.stream = self.lanes.values(), None, None
        waited = [note.mark for note in own if isinstance(note, _Wait)]
        for lane in others:
            if not any(mark.lane is lane and mark.position == len(lane) for mark in waited):
                raise RuntimeError("cudaErrorStreamCaptureUnjoined: a stream was not waited for")
        return Graph([own, *others])

    def marked(self, stream: Any) -> Mark | None:
        """A mark where a captured stream is now."""
        lanes = self.lanes or {}
        return Mark(lanes[stream]) if stream in lanes else None

    def waits(self, stream: Any, mark: Mark) -> None:
        """A stream waits for a mark, and is captured from now on."""
        if self.lanes is None:
            raise RuntimeError("cudaErrorCapturedEvent: an event of a capture that has ended")
        self.lanes.setdefault(stream, []).append(_Wait(mark))

    def noted(self, work: Callable[[], object]) -> bool:
        """Notes work on the elements of existing arrays; False where nothing is captured."""
        notes = self.notes
        if notes is None:
            return False
        notes.append(work)
        return True

    def made(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        """What ``fn`` gives: views as they are; new arrays, without a value until the launch."""
        notes = self.notes
        assert notes is not None
        with np.errstate(all="ignore"):
            found = fn(*args, **kwargs)
        if found is None:  # it has written to an argument, and must do so at the launch
            notes.append(lambda: fn(*args, **kwargs))
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

        notes.append(again)
        return type(found)(places) if several else places[0]

    def _place(self, part: Any, arrays: list[np.ndarray]) -> Any:
        if not isinstance(part, (np.ndarray, np.generic)):
            return part
        if isinstance(part, np.ndarray) and any(np.may_share_memory(part, a) for a in arrays):
            return part
        self.allocates()
        return np.full_like(part, np.nan if is_floating(part.dtype) else 0)

    def uses(self, workspace: int) -> None:
        """Raises AssertionError where two streams of a capture have one workspace."""
        if self.lanes is not None:
            stream = self.workspaces.setdefault(workspace, self.here())
            assert stream is self.here(), "products that run at a time would share a workspace"

    def refuse(self, what: str) -> None:
        if self.lanes is not None:
            raise RuntimeError(f"the current stream is capturing, so {what} are disallowed")

    def by_name(self, name: str) -> None:
        if self.lanes is not None and (name in _CUBLAS or name.startswith("linalg.")):
            raise NotImplementedError("calling cuBLAS API during stream capture is unsupported")
        if name in _WAITING:
            self.refuse("synchronous API calls")

    def allocates(self) -> None:
        if self.lanes is not None and self.allocator is None:
            raise RuntimeError("a graph would keep memory of the pool that others use")


capture = Capture()


class Graph:
    """As ``cupy.cuda.Graph``."""

    def __init__(self, lanes: list[Lane]) -> None:
        self.lanes = lanes  # the first is where the capture began
        self._late = False

    def launch(self, stream: Any = None) -> None:
        """Makes the calls, in the order of the current stream."""
        if capture.lanes is not None or stream is not None:
            raise RuntimeError("a graph is launched on the current stream, outside of captures")
        self._late = not self._late
        standin.order.later(lambda late=self._late: self._run(late))  # type: ignore[misc]

    def _run(self, late: bool) -> None:
        """One call after the other: of a stream that has joined the first one late, or early."""
        done = [0] * len(self.lanes)
        numbers = range(len(self.lanes)) if late else range(len(self.lanes))[::-1]

        def ready(number: int) -> bool:
            if done[number] == len(self.lanes[number]):
                return False
            note = self.lanes[number][done[number]]
            if not isinstance(note, _Wait):
                return True
            place = next(i for i, lane in enumerate(self.lanes) if lane is note.mark.lane)
            return done[place] >= note.mark.position

        while (number := next(filter(ready, numbers), None)) is not None:
            note = self.lanes[number][done[number]]
            if not isinstance(note, _Wait):
                note()
            done[number] += 1
        assert done == list(map(len, self.lanes)), "streams of a graph wait for each other"
