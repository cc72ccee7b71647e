"""The memory of captured programs on a GPU, and what is copied there before a launch."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from distgrad.backend.sent import ALIGN, Picked, Sent, padded
from distgrad.compile.cuda.plan import Plan
from distgrad.compile.steps import Buffer, View

_KEPT = 64  # sets of copies

Copy = tuple[int, int, int]  # the addresses it goes to and comes from, bytes


class Memory:
    """What frames that do not run at a time share: memory, and a stream to capture on."""

    def __init__(self, backend: Any, plan: Plan) -> None:
        cupy = backend.xp
        self.block = cupy.cuda.alloc(max(plan.nbytes, 1))
        self.counters = cupy.zeros(max(plan.counted, 1), "uint8").data
        # What kernels over CuPy allocate while they are captured stays theirs: nothing else may
        # lie there when the graph is launched.
        self.pool = cupy.cuda.MemoryPool()
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.beside = cupy.cuda.Stream(non_blocking=True)  # for leaves
        # Kinds of frames whose kernels are loaded, and for which the pool has what they need.
        self.warm: set[Hashable] = set()
        self._backend, self._plan = backend, plan
        self._mails: dict[int, Mail] = {}

    def mail(self, count: int) -> Mail:
        """What brings the inputs of ``count`` runs of the program."""
        if count not in self._mails:
            self._mails[count] = Mail(self._backend, self._plan, count)
        return self._mails[count]


class Mail:
    """What is copied to the device before a launch: inputs and slots of some runs, side by side.

    Numbers come first, which mostly stay what they are. Arrays follow, one run after the other, as
    a feeder lays them: those of a batch that was sent ahead are one copy then. So are random keys,
    the last, or all of it where the batch comes from the host. Rows that nobody has put together
    yet go straight to their places, all of them by one launch.
    """

    def __init__(self, backend: Any, plan: Plan, count: int) -> None:
        cupy = self._cupy = backend.xp
        self._kernels = backend.rows
        self.arrays = cupy.ndarray
        self.rows = [Row(self) for _ in range(count)]
        arrays = [view for view in plan.inputs if view.shape]
        numbers = [view for view in plan.inputs if not view.shape]
        size = 0
        for views in (numbers, arrays, plan.slots):
            for row in self.rows:
                for view in views:
                    row.homes[view.buffer] = size
                    size += padded(view.buffer.nbytes)
        self.device = cupy.cuda.alloc(max(size, 1))
        self._home = self.device.ptr
        self._pinned = cupy.cuda.alloc_pinned_memory(max(size, 1))
        self.host = np.frombuffer(self._pinned, np.uint8, max(size, 1))
        self.host[:] = 0
        self._posted: list[Copy] = []  # from pinned memory
        self._moved: list[Copy] = []  # from elsewhere on the device
        self._picked: list[tuple[int, Picked]] = []  # rows of it, and the addresses they go to
        self._joined: dict[tuple[Copy, ...], list[Copy]] = {}
        self._sent: Any = None  # an event
        self._under_way = False  # to that event

    def start(self) -> None:
        """Waits until what was sent by the run before has been read."""
        waiting = self._posted, self._moved, self._picked
        if any(waiting):  # of a run that has failed: it may not lie on the device
            for each in waiting:
                each.clear()
            for row in self.rows:
                row.forget()
        if self._under_way:
            self._sent.synchronize()
            self._under_way = False

    def post(self, start: int, nbytes: int) -> None:
        """Bytes of the host are to be sent to their place."""
        self._posted.append((self._home + start, self._pinned.ptr + start, nbytes))

    def move(self, start: int, source: int, nbytes: int) -> None:
        """Bytes of the device are to be copied to a place of ours."""
        self._moved.append((self._home + start, source, nbytes))

    def pick(self, start: int, rows: Picked) -> None:
        """Rows of arrays of the device are to be put together at a place of ours."""
        self._picked.append((self._home + start, rows))

    def send(self) -> None:
        """Copies what waits, on the current stream; neighbours go together."""
        while self._picked:
            order = self._picked[0][1].order
            self._kernels.pick([(at, rows) for at, rows in self._picked if rows.order is order])
            self._picked = [(at, rows) for at, rows in self._picked if rows.order is not order]
        if not (self._posted or self._moved):
            return
        runtime, stream = self._cupy.cuda.runtime, self._cupy.cuda.get_current_stream()
        for copies, kind in (
            (self._moved, runtime.memcpyDeviceToDevice),
            (self._posted, runtime.memcpyHostToDevice),
        ):
            if copies:
                for place, source, nbytes in self._together(copies):
                    runtime.memcpyAsync(place, source, nbytes, kind, stream.ptr)
        if self._posted:
            self._sent = stream.record(self._sent)
            self._under_way = True
        self._moved.clear()
        self._posted.clear()

    def _together(self, copies: list[Copy]) -> list[Copy]:
        """``_joined``, of copies that come again at every run."""
        key = tuple(copies)
        known = self._joined.get(key)
        if known is None:
            if len(self._joined) >= _KEPT:
                self._joined.clear()
            known = self._joined[key] = _joined(copies)
        return known


class Row:
    """The part of the mail that belongs to one run."""

    def __init__(self, mail: Mail) -> None:
        self.homes: dict[Buffer, int] = {}
        self._mail = mail
        self._arrays: dict[View, np.ndarray] = {}
        self._numbers: dict[Buffer, bytes] = {}  # what lies on the device

    def forget(self) -> None:
        self._numbers.clear()

    def place(self, buffer: Buffer) -> Any:
        """Where the buffer lies on the device."""
        return self._mail.device + self.homes[buffer]

    def on_host(self, view: View) -> np.ndarray:
        if view not in self._arrays:
            start = self.homes[view.buffer]
            memory = self._mail.host[start : start + max(view.buffer.nbytes, 1)]
            self._arrays[view] = view.of(memory)
        return self._arrays[view]

    def put(self, view: View, array: Any) -> None:
        """Takes an input: what lies on no device, or was sent ahead, at the next ``send``."""
        buffer = view.buffer
        if not buffer.nbytes:
            return
        picked = array.picked if type(array) is Sent else None
        if picked is not None and picked.dtype == view.dtype and picked.shape == view.shape:
            self._mail.pick(self.homes[buffer], picked)
            self._numbers.pop(buffer, None)
            return
        there = array.there if type(array) is Sent else array
        if type(there) is self._mail.arrays and _is_as(view, there):
            self._mail.move(self.homes[buffer], there.data.ptr, buffer.nbytes)
            self._numbers.pop(buffer, None)
        elif isinstance(array, np.ndarray):
            if not view.shape and self._is_there(buffer, array):
                return
            np.copyto(self.on_host(view), array)
            self.drawn(view)
        else:
            target = self._mail.arrays(view.shape, view.dtype, self.place(buffer))
            target[...] = there
            self._numbers.pop(buffer, None)

    def _is_there(self, buffer: Buffer, number: np.ndarray) -> bool:
        """Whether it is what was sent before, as the weight of a shard mostly is; notes it."""
        given = number.tobytes()
        known = self._numbers.get(buffer)
        self._numbers[buffer] = given
        return known == given

    def drawn(self, view: View) -> None:
        """The value that lies on the host is to be sent."""
        self._mail.post(self.homes[view.buffer], view.buffer.nbytes)


def _is_as(view: View, there: Any) -> bool:
    """Whether the bytes of an array of the device are those of an input."""
    like = there.dtype == view.dtype and there.shape == view.shape
    return like and there.flags.c_contiguous


def _joined(copies: Iterable[Copy]) -> list[Copy]:
    """The same with one for those that follow each other here and there, but for the padding."""
    found: list[Copy] = []
    for start, source, nbytes in sorted(copies):
        if found:
            first, origin, length = found[-1]
            ahead = start - first
            if ahead == source - origin and 0 <= ahead - length < ALIGN:
                found[-1] = first, origin, ahead + nbytes
                continue
        found.append((start, source, nbytes))
    return found
