"""A world of threads in this process: real collectives, real deadlines, no launcher.

``run_world(4, fn)`` calls ``fn(communicator)`` in four threads and returns the four results.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import numpy as np

from distgrad.comm.communicator import DEFAULT_TIMEOUT, Communicator
from distgrad.comm.transport import Buffer, Deadline, Request, Transport, as_bytes
from distgrad.core.errors import PeerLostError

Result = TypeVar("Result")

_CLOSED = "it closed its channels"


class _ThreadRequest(Request):
    done = False


class ThreadHub:
    """Where the threads of one world meet: what each pair has posted, and who has left."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.changed = threading.Condition()
        self.left: dict[int, str] = {}
        self.aborted = False
        self._posted: dict[tuple[str, int, int], deque[_ThreadRequest]] = defaultdict(deque)

    def post(self, kind: str, source: int, dest: int, request: _ThreadRequest) -> None:
        """Pairs a send with a receive in order; like a large MPI message, neither ends alone."""
        other = "recv" if kind == "send" else "send"
        with self.changed:
            waiting = self._posted[other, source, dest]
            if not waiting:
                self._posted[kind, source, dest].append(request)
                return
            partner = waiting.popleft()
            sent, taken = (request, partner) if kind == "send" else (partner, request)
            if sent.buffer.nbytes != taken.buffer.nbytes:
                raise PeerLostError(
                    f"rank {source} sent {sent.buffer.nbytes} bytes where rank {dest} expects "
                    f"{taken.buffer.nbytes}."
                )
            np.copyto(as_bytes(taken.buffer), as_bytes(sent.buffer))
            request.done = partner.done = True
            self.changed.notify_all()

    def leave(self, rank: int, reason: str, *, abort: bool = False) -> None:
        """Makes every wait for ``rank`` raise; with ``abort`` every wait of anyone."""
        with self.changed:
            self.left.setdefault(rank, reason)
            self.aborted = self.aborted or abort
            self.changed.notify_all()


class ThreadTransport(Transport):
    """One thread's place at a hub."""

    def __init__(self, hub: ThreadHub, rank: int) -> None:
        self.rank = rank
        self.world_size = hub.world_size
        self._hub = hub

    def isend(self, dest: int, buffer: Buffer) -> Request:
        request = _ThreadRequest(dest, buffer)
        self._hub.post("send", self.rank, dest, request)
        return request

    def irecv(self, source: int, buffer: Buffer) -> Request:
        request = _ThreadRequest(source, buffer)
        self._hub.post("recv", source, self.rank, request)
        return request

    def wait(self, requests: Sequence[Request], deadline: Deadline) -> None:
        hub = self._hub
        posted = cast("Sequence[_ThreadRequest]", requests)
        with hub.changed:
            while pending := {request.peer for request in posted if not request.done}:
                # The first to leave is the one to name: the others left because of it.
                gone = [r for r in hub.left if hub.aborted or r in pending]
                if gone:
                    raise PeerLostError(
                        f"rank {self.rank} lost rank {gone[0]} in {deadline.operation}: "
                        f"{hub.left[gone[0]]}."
                    )
                if not hub.changed.wait(deadline.left()) and deadline.left() == 0.0:
                    deadline.expire(self.rank, pending)

    def look(self, deadline: Deadline) -> None:
        with self._hub.changed:
            gone = {r: why for r, why in self._hub.left.items() if why != _CLOSED}
            if gone:
                rank, why = next(iter(gone.items()))
                raise PeerLostError(
                    f"rank {self.rank} lost rank {rank} in {deadline.operation}: {why}."
                )

    def abort(self, code: int, reason: str) -> None:
        self._hub.leave(self.rank, f"{reason} (abort with code {code})", abort=True)

    def close(self, reason: str = "") -> None:
        self._hub.leave(self.rank, reason.rstrip(".") or _CLOSED)


def run_world(
    world_size: int,
    fn: Callable[[Communicator], Result],
    *,
    time_limit: float = 30.0,
    timeout: float = DEFAULT_TIMEOUT,
) -> list[Result]:
    """Calls ``fn(communicator)`` in ``world_size`` threads and returns the results by rank.

    Args:
        world_size: number of threads; one thread gets ``Communicator(None)``.
        fn: what each rank does.
        time_limit: seconds until the world is given up.
        timeout: seconds that one collective may take.

    Raises:
        TimeoutError: some threads were not done in time; the message names their ranks.
        Exception: the first error that any rank raised.
    """
    hub = ThreadHub(world_size)
    results: dict[int, Result] = {}
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        transport = ThreadTransport(hub, rank) if world_size > 1 else None
        communicator = Communicator(transport, timeout=timeout)
        try:
            results[rank] = fn(communicator)
        except BaseException as error:
            errors.append(error)
            communicator.abort(1, f"{type(error).__name__}: {error}")
        else:
            communicator.close()

    threads = {
        rank: threading.Thread(target=run, args=(rank,), name=f"rank {rank}", daemon=True)
        for rank in range(world_size)
    }
    for thread in threads.values():
        thread.start()
    end = time.monotonic() + time_limit
    for thread in threads.values():
        thread.join(max(0.0, end - time.monotonic()))
    stuck = [rank for rank, thread in threads.items() if thread.is_alive()]
    if errors:
        raise errors[0]
    if stuck:
        hub.leave(stuck[0], "the time limit of the world has passed", abort=True)
        raise TimeoutError(f"ranks {stuck} of {world_size} were not done in {time_limit:g} s.")
    return [results[rank] for rank in range(world_size)]
