"""A module ``cupy.cuda.nccl`` without GPUs: the threads of one process exchange for real.

It has NCCL's rules: calls of a group go together, both sides name the same count and type, and who
waits for a rank that never comes waits until the communicator is aborted. Sums are taken from the
last rank to the first: nobody may count on an order.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from distgrad.core.dtypes import as_dtype
from distgrad.testing import fake_streams as streams

_TYPES: dict[str, tuple[int, np.dtype]] = {
    "NCCL_INT8": (0, np.dtype(np.int8)),
    "NCCL_UINT8": (1, np.dtype(np.uint8)),
    "NCCL_UINT32": (3, np.dtype(np.uint32)),
    "NCCL_UINT64": (5, np.dtype(np.uint64)),
    "NCCL_INT32": (2, np.dtype(np.int32)),
    "NCCL_INT64": (4, np.dtype(np.int64)),
    "NCCL_FLOAT32": (7, np.dtype(np.float32)),
    "NCCL_FLOAT64": (8, np.dtype(np.float64)),
    "NCCL_FLOAT16": (6, np.dtype(np.float16)),
    "NCCL_BFLOAT16": (9, as_dtype("bfloat16").numpy_dtype),
}
_DTYPES: dict[int, np.dtype] = dict(_TYPES.values())
_SUM, _PROD, _MAX, _MIN = range(4)
_REDUCTIONS = {_SUM: np.add, _PROD: np.multiply, _MAX: np.maximum, _MIN: np.minimum}
_STATUS = {4: "NCCL_ERROR_INVALID_ARGUMENT", 5: "NCCL_ERROR_INVALID_USAGE"}
_INIT_LIMIT = 60.0


class NcclError(RuntimeError):
    """As ``cupy.cuda.nccl.NcclError``."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"{_STATUS[status]}: (run with NCCL_DEBUG=WARN for details)")


class _Operation:
    """What one rank has asked for, until it is done."""

    def __init__(self, comm: NcclCommunicator, act: Callable[[_Operation], None]) -> None:
        self.comm, self.act = comm, act
        self.buffer: Any = None
        self.posted = self.done = False


class _Meeting:
    """The ranks of one unique id."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.devices: dict[int, int] = {}
        self.broken = ""
        self.sends: dict[tuple[int, int], deque[_Operation]] = defaultdict(deque)
        self.receives: dict[tuple[int, int], deque[_Operation]] = defaultdict(deque)
        self.collectives: dict[int, dict[int, tuple]] = defaultdict(dict)

    def pair(self, way: tuple[int, int]) -> None:
        sends, receives = self.sends[way], self.receives[way]
        while sends and receives:
            sent, taken = sends.popleft(), receives.popleft()
            if sent.buffer.size != taken.buffer.size or sent.buffer.dtype != taken.buffer.dtype:
                self.broken = f"{sent.buffer.size} were sent where {taken.buffer.size} were wanted"
                return
            taken.buffer[...] = sent.buffer
            sent.done = taken.done = True

    def collect(self, number: int, rank: int, kind: tuple, operation: _Operation, do: Any) -> None:
        """Runs a collective, the ``number``-th of each rank, once all ranks have come to it."""
        entries = self.collectives[number]
        entries[rank] = kind, operation, do
        if len({kind for kind, _, _ in entries.values()}) > 1:
            self.broken = f"ranks differ: {[kind for kind, _, _ in entries.values()]}"
        elif len(entries) == self.size:
            ordered = [entries[r][1] for r in range(self.size)]
            do([operation.buffer for operation in ordered])
            for each in ordered:
                each.done = True
            del self.collectives[number]


_meetings: dict[bytes, _Meeting] = {}


class _Group(threading.local):
    depth = 0

    def __init__(self) -> None:
        self.calls: list[tuple[_Operation, streams.Stream]] = []


_group = _Group()


class NcclCommunicator:
    """As ``cupy.cuda.nccl.NcclCommunicator``."""

    def __init__(self, ndev: int, commId: bytes, rank: int, config: None = None) -> None:
        if type(commId) is not bytes or len(commId) != 128 or not 0 <= rank < ndev:
            raise TypeError("NcclCommunicator(ndev, id of 128 bytes, rank)")
        self.rank, self.device, self._alive = rank, streams.here.device, True
        self._collectives = 0
        end = time.monotonic() + _INIT_LIMIT
        with streams.world:
            self._meeting = meeting = _meetings.setdefault(commId, _Meeting(ndev))
            meeting.devices[rank] = self.device
            streams.world.notify_all()
            while len(meeting.devices) < ndev:  # for ever, as far as NCCL is concerned
                if time.monotonic() > end:
                    raise TimeoutError("a test has left a rank waiting")
                streams.world.wait(0.05)
        if len(set(meeting.devices.values())) < ndev:
            raise NcclError(5)  # Duplicate GPU detected

    def send(self, sendbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        def act(operation: _Operation) -> None:
            way = self.rank, peer
            self._meeting.sends[way].append(operation)
            self._meeting.pair(way)

        self._ask(act, sendbuf, count, datatype, stream, peer)

    def recv(self, recvbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        def act(operation: _Operation) -> None:
            way = peer, self.rank
            self._meeting.receives[way].append(operation)
            self._meeting.pair(way)

        self._ask(act, recvbuf, count, datatype, stream, peer)

    def allReduce(
        self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, stream: int
    ) -> None:
        def do(buffers: list) -> None:
            total = _reduced(op, [given for given, _ in buffers])
            for _, taken in buffers:
                taken[...] = total

        self._collective("allReduce", (op,), do, sendbuf, recvbuf, count, count, datatype, stream)

    def reduce(
        self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, root: int, stream: int
    ) -> None:
        def do(buffers: list) -> None:
            buffers[root][1][...] = _reduced(op, [given for given, _ in buffers])

        self._collective("reduce", (op, root), do, sendbuf, recvbuf, count, count, datatype, stream)

    def reduceScatter(
        self, sendbuf: int, recvbuf: int, recvcount: int, datatype: int, op: int, stream: int
    ) -> None:
        whole = recvcount * self._meeting.size

        def do(buffers: list) -> None:
            total = _reduced(op, [given for given, _ in buffers])
            for rank, (_, taken) in enumerate(buffers):
                taken[...] = total[rank * recvcount : (rank + 1) * recvcount]

        self._collective(
            "reduceScatter", (op,), do, sendbuf, recvbuf, whole, recvcount, datatype, stream
        )

    def allGather(self, sendbuf: int, recvbuf: int, count: int, datatype: int, stream: int) -> None:
        whole = count * self._meeting.size

        def do(buffers: list) -> None:
            parts = np.concatenate([given for given, _ in buffers])
            for _, taken in buffers:
                taken[...] = parts

        self._collective("allGather", (), do, sendbuf, recvbuf, count, whole, datatype, stream)

    def broadcast(
        self, sendbuff: int, recvbuff: int, count: int, datatype: int, root: int, stream: int
    ) -> None:
        def do(buffers: list) -> None:
            values = buffers[root][0].copy()
            for _, taken in buffers:
                taken[...] = values

        self._collective(
            "broadcast", (root,), do, sendbuff, recvbuff, count, count, datatype, stream
        )

    def check_async_error(self) -> None:
        if not self._alive:
            raise NcclError(4)
        if self._meeting.broken:
            raise NcclError(5)

    def abort(self) -> None:
        with streams.world:
            self._alive = False
            streams.world.notify_all()

    def destroy(self) -> None:
        self.abort()

    def _collective(
        self,
        name: str,
        more: tuple,
        do: Callable[[list], None],
        given: int,
        taken: int,
        count: int,
        taken_count: int,
        datatype: int,
        stream: int,
    ) -> None:
        number, self._collectives = self._collectives, self._collectives + 1
        kind = name, count, datatype, *more
        dtype = self._dtype(datatype)
        source = streams.memory(given, count, dtype)
        target = streams.memory(taken, taken_count, dtype)

        def act(operation: _Operation) -> None:
            operation.buffer = source, target
            self._meeting.collect(number, self.rank, kind, operation, do)

        self._put(_Operation(self, act), stream)

    def _ask(
        self,
        act: Callable[[_Operation], None],
        buffer: int,
        count: int,
        datatype: int,
        stream: int,
        peer: int,
    ) -> None:
        if not 0 <= peer < self._meeting.size or peer == self.rank:
            raise NcclError(4)
        operation = _Operation(self, act)
        operation.buffer = streams.memory(buffer, count, self._dtype(datatype))
        self._put(operation, stream)

    def _dtype(self, datatype: int) -> np.dtype:
        if datatype not in _DTYPES:
            raise NcclError(4)
        return _DTYPES[datatype]

    def _put(self, operation: _Operation, stream: int) -> None:
        if not self._alive:
            raise NcclError(4)
        if self.device != streams.here.device:
            raise NcclError(5)
        _group.calls.append((operation, streams.stream_at(stream)))
        if not _group.depth:
            _launch()


def _reduced(op: int, arrays: list[np.ndarray]) -> np.ndarray:
    total = arrays[-1].copy()
    for array in reversed(arrays[:-1]):
        total = _REDUCTIONS[op](total, array)
    return total


def _launch() -> None:
    """Puts the calls of a group on their streams, where they wait for each other."""
    calls, _group.calls = _group.calls, []
    for stream in dict.fromkeys(stream for _, stream in calls):
        stream.add(partial(_run, [operation for operation, on in calls if on is stream]))


def _run(operations: list[_Operation]) -> bool:
    for operation in operations:
        if not operation.posted:
            operation.posted = True
            operation.act(operation)
            streams.world.notify_all()
    return all(operation.done or not operation.comm._alive for operation in operations)


def group_start() -> None:
    _group.depth += 1


def group_end() -> None:
    if not _group.depth:
        raise NcclError(5)
    _group.depth -= 1
    if not _group.depth:
        _launch()


def module() -> ModuleType:
    """The module."""
    made = ModuleType("cupy.cuda.nccl")
    found: dict[str, Any] = {name: code for name, (code, _) in _TYPES.items()}
    found |= {"NCCL_SUM": _SUM, "NCCL_PROD": _PROD, "NCCL_MAX": _MAX, "NCCL_MIN": _MIN}
    found |= {"available": True, "NcclError": NcclError, "NcclCommunicator": NcclCommunicator}
    found |= {"groupStart": group_start, "groupEnd": group_end}
    found |= {"get_unique_id": lambda: os.urandom(128), "get_version": lambda: 22903}
    vars(made).update(found)
    return made
