"""Streams and events of a GPU that there is not: work is put off as long as it may be.

What is given to the null stream of a device is done at once, unless it must wait for something;
what is given to any other stream is done when somebody waits for it. Whoever forgets to wait reads
old values.
"""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np

from distgrad.testing import fake_graphs, standin

Task = Callable[[], bool]  # does its work, if it can; whether it is done

_LIMIT = 30.0  # seconds after which a wait of the host is no wait but a hang
_numbers = count(1 << 20, 64)

# One lock for all devices; whoever changes what another may wait for notifies.
world = threading.Condition(threading.RLock())


class CUDARuntimeError(RuntimeError):
    """As ``cupy.cuda.runtime.CUDARuntimeError``."""


class _Here(threading.local):
    """What CUDA and CuPy keep for each thread."""

    def __init__(self) -> None:
        self.device = 0
        self.streams: dict[int, Stream] = {}


here = _Here()
devices = 2  # how many there are


class Device:
    """One of the GPUs that there are not; the thread's own without a number."""

    def __init__(self, number: int | None = None) -> None:
        self.id = here.device if number is None else number

    @property
    def compute_capability(self) -> str:
        return "90"

    @property
    def pci_bus_id(self) -> str:
        return f"0000:{self.id:02x}:00.0"

    def use(self) -> None:
        if self.id >= devices:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        here.device = self.id


class Stream:
    """As ``cupy.cuda.Stream``; those that wait for the null stream do not exist."""

    known: dict[int, Stream] = {}  # noqa: RUF012 - by their pointers

    def __init__(
        self,
        null: bool = False,
        ptds: bool = False,
        non_blocking: bool = False,
        priority: int = 0,
    ) -> None:
        if null or ptds or not non_blocking:
            raise NotImplementedError("the stand-in has streams with non_blocking=True alone")
        self._make(next(_numbers))

    def _make(self, pointer: int) -> None:
        self.ptr = pointer
        self.device_id = here.device
        self._tasks: deque[Task] = deque()
        self._advancing = False
        self._lazy = pointer != 0
        if self._lazy:
            self.known[pointer] = self

    def __enter__(self) -> Stream:
        if self._lazy and self.device_id != here.device:
            raise CUDARuntimeError("cudaErrorInvalidResourceHandle: a stream of another device")
        self._before = get_current_stream()
        here.streams[here.device] = self
        return self

    def __exit__(self, *exc: object) -> None:
        here.streams[here.device] = self._before

    def begin_capture(self, mode: int | None = None) -> None:
        if not self._lazy:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        fake_graphs.capture.begin(self)

    def end_capture(self) -> fake_graphs.Graph:
        return fake_graphs.capture.end(self)

    def is_capturing(self) -> bool:
        return fake_graphs.capture.stream is self

    def record(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        ticket = event.ticket
        if isinstance(ticket, fake_graphs.Mark):
            fake_graphs.capture.waits(self, ticket)
        else:
            self.add(lambda: ticket is None or ticket.done())

    @property
    def done(self) -> bool:
        with world:
            self.advance()
            return not self._tasks

    def synchronize(self) -> None:
        fake_graphs.capture.refuse("synchronous API calls")
        _until(lambda: self.done)

    def add(self, task: Task) -> None:
        """Puts a task behind the others."""
        with world:
            self._tasks.append(task)
            if not self._lazy:
                self.advance()

    def advance(self) -> None:
        """Does what can be done by now."""
        with world:
            if self._advancing:  # two streams wait for each other's earlier work
                return
            self._advancing = True
            try:
                while self._tasks and self._tasks[0]():
                    self._tasks.popleft()
                    world.notify_all()
            finally:
                self._advancing = False


class _Ticket:
    """One record of an event."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.passed = stream, False

    def reach(self) -> bool:
        self.passed = True
        return True

    def done(self) -> bool:
        if not self.passed:
            self.stream.advance()
        return self.passed


class Event:
    """As ``cupy.cuda.Event``."""

    def __init__(
        self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ) -> None:
        self.ticket: _Ticket | fake_graphs.Mark | None = None

    def record(self, stream: Stream | None = None) -> None:
        if stream is None:
            raise TypeError("CuPy would record on the null stream: name the stream")
        mark = fake_graphs.capture.marked(stream)
        if mark is not None:
            self.ticket = mark
            return
        fake_graphs.capture.refuse("events that others wait for")
        ticket = self.ticket = _Ticket(stream)
        stream.add(ticket.reach)

    @property
    def done(self) -> bool:
        if isinstance(self.ticket, fake_graphs.Mark):
            raise CUDARuntimeError("cudaErrorCapturedEvent: nobody can wait for it")
        with world:
            return self.ticket is None or self.ticket.done()

    def synchronize(self) -> None:
        fake_graphs.capture.refuse("synchronous API calls")
        _until(lambda: self.done)


_null: dict[int, Stream] = {}


def get_current_stream(device_id: int = -1) -> Stream:
    """As ``cupy.cuda.get_current_stream``."""
    device = here.device if device_id == -1 else device_id
    if device not in here.streams:
        with world:
            if device not in _null:
                made = _null[device] = Stream.__new__(Stream)
                made._make(0)
                made.device_id = device
        here.streams[device] = _null[device]
    return here.streams[device]


fake_graphs.Capture.here = staticmethod(get_current_stream)


def stream_at(pointer: Any) -> Stream:
    """The stream with a pointer, on the thread's device. Raises CUDARuntimeError."""
    if type(pointer) is not int:
        raise TypeError("a stream is given by its pointer, an int")
    found = _null_of_here() if pointer == 0 else Stream.known.get(pointer)
    if found is None or found.device_id != here.device:
        raise CUDARuntimeError("cudaErrorInvalidResourceHandle: no stream of this device")
    return found


def _null_of_here() -> Stream:
    before = here.streams.pop(here.device, None)
    found = get_current_stream()
    if before is not None:
        here.streams[here.device] = before
    return found


def reset() -> None:
    """Forgets every stream."""
    _null.clear()
    Stream.known.clear()
    here.streams.clear()
    here.device = 0


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _LIMIT
    with world:
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("the host waits for a device that will never be done")
            world.wait(0.002)


class Streams(standin.Order):
    """Work in the order of the calling thread's current stream."""

    @property
    def noting(self) -> bool:  # type: ignore[override]
        return fake_graphs.capture.lanes is not None

    def wait(self) -> None:
        get_current_stream().synchronize()

    def later(self, work: Callable[[], object]) -> None:
        def task() -> bool:
            work()
            return True

        if not fake_graphs.capture.noted(work):
            get_current_stream().add(task)

    def made(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        if self.noting:
            return fake_graphs.capture.made(fn, *args, **kwargs)
        return super().made(fn, *args, **kwargs)

    def host(self, what: str) -> None:
        fake_graphs.capture.refuse(what)
        self.wait()

    def copies(self) -> None:
        fake_graphs.capture.refuse("H2D transfers")

    def by_name(self, name: str) -> None:
        fake_graphs.capture.by_name(name)

    def allocates(self) -> None:
        fake_graphs.capture.allocates()


# Memory


class Pointer(standin.Address):
    """Where an array lies; who asks for it may hand it to another library."""

    lent: dict[int, _Lent] = {}  # noqa: RUF012 - what lies at an address
    _kept = 1 << 14

    def __init__(self, array: np.ndarray) -> None:
        super().__init__(_address(array), array)
        with world:
            self.lent.pop(self.ptr, None)
            self.lent[self.ptr] = _Lent(array)
            while len(self.lent) > self._kept:
                del self.lent[next(iter(self.lent))]


class _Lent:
    """An array that may be found by its address as long as somebody else keeps its memory."""

    def __init__(self, array: np.ndarray) -> None:
        owner = array if array.base is None else array.base
        self._array: np.ndarray | None = array
        if type(owner) is np.ndarray and owner.base is None:
            self._array, self._owner = None, weakref.ref(owner)
            self._layout = array.shape, array.dtype, array.strides
            self._offset = _address(array) - _address(owner)

    def array(self) -> np.ndarray:
        """It, or a view like it. Raises LookupError where its memory is no more."""
        if self._array is not None:  # of memory that NumPy does not know
            return self._array
        owner = self._owner()
        if owner is None:
            raise LookupError("the memory at this address has been given back")
        shape, dtype, strides = self._layout
        flat = owner.ravel(order="K").view(np.uint8)
        return np.ndarray(shape, dtype, flat, self._offset, strides)


def _address(array: np.ndarray) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def memory(pointer: Any, size: int, dtype: np.dtype) -> np.ndarray:
    """``size`` elements at an address that was asked for. Raises what a GPU would not say."""
    if type(pointer) is not int or type(size) is not int:
        raise TypeError("a buffer is given by its address and its number of elements")
    array = Pointer.lent[pointer].array()
    if array.dtype != dtype or not array.flags.c_contiguous or array.size < size:
        raise ValueError(
            f"{size} {dtype} are wanted where {array.size} {array.dtype} lie with strides "
            f"{array.strides}"
        )
    return array.reshape(-1)[:size]


def held(pointer: int) -> np.ndarray | None:
    """What lies at an address, if it was asked for: work that waits on a stream must keep it."""
    lent = Pointer.lent.get(pointer)
    return None if lent is None else lent.array()


class MemoryPool:
    """As ``cupy.cuda.MemoryPool``; what its memory holds is anything."""

    def malloc(self, nbytes: int) -> standin.Address:
        memory = np.full(nbytes + 256, 0xA5, np.uint8)
        start = _address(memory)
        with world:  # what lay here before is forgotten
            for at in [at for at in Pointer.lent if start <= at < start + memory.nbytes]:
                del Pointer.lent[at]
        return standin.Address(start + -start % 256, memory)


def alloc(nbytes: int) -> standin.Address:
    """As ``cupy.cuda.alloc``: memory of the allocator in force."""
    fake_graphs.capture.allocates()
    return (fake_graphs.capture.allocator or MemoryPool().malloc)(nbytes)


@contextmanager
def using_allocator(allocator: Callable[[int], Any] | None = None) -> Iterator[None]:
    """As ``cupy.cuda.using_allocator``."""
    before = fake_graphs.capture.allocator
    fake_graphs.capture.allocator = allocator
    try:
        yield
    finally:
        fake_graphs.capture.allocator = before


class PinnedMemory(np.ndarray):
    """As ``cupy.cuda.PinnedMemoryPointer``: a buffer with an address."""

    def __new__(cls, nbytes: int) -> PinnedMemory:
        fake_graphs.capture.refuse("H2D transfers")
        return np.full(nbytes, 0xA5, np.uint8).view(cls)

    @property
    def ptr(self) -> int:
        return self.__array_interface__["data"][0]


def memcpy_async(to: int, source: int, size: int, kind: int, stream: int) -> None:
    """Copies bytes when its turn comes; a graph would copy from the same place for ever."""
    fake_graphs.capture.refuse("copies by address")
    assert kind in (1, 2, 3)

    def copy() -> bool:
        ctypes.memmove(to, source, size)
        return True

    stream_at(stream).add(copy)


_pinned: dict[int, int] = {}


def empty_pinned(shape: Any, dtype: Any = float, order: str = "C") -> np.ndarray:
    """As ``cupyx.empty_pinned``."""
    made = np.empty(shape, dtype, order=order)  # type: ignore[call-overload]
    at = made.__array_interface__["data"][0]
    _pinned[at] = at + made.nbytes
    return made


def set_array(self: standin.Array, value: np.ndarray, stream: Stream | None = None) -> None:
    """As ``cupy.ndarray.set``; from pinned memory it is a copy that takes its time."""
    if not isinstance(value, np.ndarray) or not self._data.flags.c_contiguous:
        raise TypeError("set takes an array of NumPy, into a contiguous one")
    if value.dtype != self.dtype or value.shape != self.shape or not value.flags.c_contiguous:
        raise ValueError(f"{value.shape} {value.dtype} do not fit {self.shape} {self.dtype}")
    at = value.__array_interface__["data"][0]
    pinned = any(start <= at < stop for start, stop in list(_pinned.items()))
    source = value if pinned else value.copy()

    def copy() -> bool:
        self._data[...] = source
        return True

    (get_current_stream() if stream is None else stream).add(copy)
