"""The memory of captured programs on a GPU, and what is copied there from the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.compile.cuda_plan import Plan
from distgrad.compile.steps import Buffer, View

_ALIGN = 256  # bytes between what is copied from the host


class Memory:
    """What frames that do not run at a time share: memory, and a stream to capture on."""

    def __init__(self, cupy: Any, plan: Plan) -> None:
        self.block = cupy.cuda.alloc(max(plan.nbytes, 1))
        self.mail = Mail(cupy, [*plan.inputs, *plan.slots])
        # What kernels over CuPy allocate while they are captured stays theirs: nothing else may
        # lie there when the graph is launched.
        self.pool = cupy.cuda.MemoryPool()
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.warm = False  # whether all kernels are loaded, and the pool has what they need


class Mail:
    """What is copied to the device before a launch: inputs and slots, side by side."""

    def __init__(self, cupy: Any, views: Sequence[View]) -> None:
        self._cupy = cupy
        self._homes: dict[Buffer, int] = {}
        size = 0
        for view in views:
            self._homes[view.buffer] = size
            size += -(-max(view.buffer.nbytes, 1) // _ALIGN) * _ALIGN
        self._device = cupy.cuda.alloc(max(size, 1))
        self._pinned = cupy.cuda.alloc_pinned_memory(max(size, 1))
        self._host = np.frombuffer(self._pinned, np.uint8, max(size, 1))
        self._host[:] = 0
        self._arrays: dict[View, np.ndarray] = {}
        self._waiting: list[tuple[int, int]] = []  # first and last byte of what is to be sent
        self._sent: Any = None

    def place(self, buffer: Buffer) -> Any:
        """Where the buffer lies on the device."""
        return self._device + self._homes[buffer]

    def on_host(self, view: View) -> np.ndarray:
        if view not in self._arrays:
            start = self._homes[view.buffer]
            self._arrays[view] = view.of(self._host[start : start + max(view.buffer.nbytes, 1)])
        return self._arrays[view]

    def start(self) -> None:
        """Waits until what was sent by the run before has been read."""
        self._waiting.clear()
        if self._sent is not None:
            self._sent.synchronize()

    def put(self, view: View, array: Any) -> None:
        """Takes an input: from the host at the next ``send``, from the device at once."""
        if view.buffer.nbytes and isinstance(array, np.ndarray):
            np.copyto(self.on_host(view), array)
            self.drawn(view)
        elif view.buffer.nbytes:
            cupy = self._cupy
            target = cupy.ndarray(view.shape, view.dtype, self.place(view.buffer))
            target[...] = array

    def drawn(self, view: View) -> None:
        start = self._homes[view.buffer]
        self._waiting.append((start, start + view.buffer.nbytes))

    def send(self) -> None:
        """Copies what waits, on the current stream; neighbours go together."""
        runs: list[list[int]] = []
        for start, stop in sorted(self._waiting):
            if runs and start - runs[-1][1] < _ALIGN:
                runs[-1][1] = stop
            else:
                runs.append([start, stop])
        self._waiting.clear()
        if not runs:
            return
        runtime, stream = self._cupy.cuda.runtime, self._cupy.cuda.get_current_stream()
        for start, stop in runs:
            to, source = self._device.ptr + start, self._pinned.ptr + start
            kind = runtime.memcpyHostToDevice
            runtime.memcpyAsync(to, source, stop - start, kind, stream.ptr)
        self._sent = stream.record(self._sent)
