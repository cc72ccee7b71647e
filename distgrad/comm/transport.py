"""What a transport is: bytes between pairs of ranks, with a deadline on every wait.

The communicator's algorithms need only five verbs: ``isend`` and ``irecv`` post a transfer,
``wait`` completes any number of them together (so that an exchange in which everyone sends to
everyone cannot deadlock), ``abort`` ends the whole world and ``close`` ends this rank's part.
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple, NoReturn

import numpy as np

from distgrad.comm.additions import Addition, run_additions
from distgrad.core.errors import PeerLostError

Buffer = np.ndarray
Check = Callable[[int, bytes], object]  # of a peer's header

_NOTICES = 6  # a warning comes after a sixth of the time that a wait may take,
_SHORTEST_NOTICE = 2.0  # and never before these seconds
_STOPPED = 2.0  # seconds between two looks of a process that runs are less

ENDED = "it has ended, and every rank must make the same number of collective calls"


class Deadline:
    """The time limit of one operation: which one it is, since when, and how long it may take.

    Args:
        operation: name for the error message, such as ``"allreduce"``.
        seconds: time from now until the operation is given up.
    """

    def __init__(self, operation: str, seconds: float) -> None:
        self.operation = operation
        self.seconds = seconds
        self._start = self._looked = time.monotonic()
        self._said = False

    def left(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._start + self.seconds - time.monotonic())

    def look(self, rank: int, peers: Callable[[], set[int]]) -> None:
        """For a wait that takes long: warns of it once, and raises when the time is over.

        Ranks that wait for the same peers leave the word to the lowest of them. Time in which this
        process was stopped itself, with ctrl-Z say, is not waiting: its peers may have been, too.
        """
        now = time.monotonic()
        if now - self._looked > _STOPPED:
            self._start += now - self._looked
        self._looked = now
        waited = now - self._start
        notice = self.seconds if self._said else max(_SHORTEST_NOTICE, self.seconds / _NOTICES)
        if waited < min(notice, self.seconds) or not (missing := peers()):
            return
        if waited >= self.seconds:
            self.expire(rank, missing)
        self._said = True
        if missing.issuperset(range(rank)):
            print(
                f"warning: rank {rank} has waited {waited:.1f} s for {name_ranks(missing)} in "
                f"{self.operation} (limit {self.seconds:g} s): frozen, or slower than the others.",
                file=sys.stderr,
                flush=True,
            )

    def expire(self, rank: int, peers: Iterable[int]) -> NoReturn:
        """Raises the PeerLostError that names this rank, the peers waited for and the operation."""
        waited = time.monotonic() - self._start
        raise PeerLostError(
            f"rank {rank} waited {waited:.1f} s for {name_ranks(peers)} in {self.operation} "
            f"(limit {self.seconds:g} s): dead, frozen, or busy elsewhere. "
            "If it was only busy, allow it more time by DISTGRAD_TIMEOUT."
        )


class Request:
    """One posted transfer; it keeps its buffer alive. Transports add what they need to it."""

    def __init__(self, peer: int, buffer: Buffer) -> None:
        self.peer = peer
        self.buffer = buffer


Prepared = Callable[[bytes, Check, Deadline], None]  # an exchange of certain arrays


class Arrays(NamedTuple):
    """What an exchange works on.

    ``sums``, each of arrays of one size and dtype, are done behind it: the incoming arrays are then
    scratch memory for them, and hold nothing of use afterwards.
    """

    outgoing: Mapping[int, Sequence[Buffer]]
    incoming: Mapping[int, Sequence[Buffer]]
    sums: Sequence[Sequence[Addition]] = ()


class Rounds(NamedTuple):
    """How arrays are reduced: ``nbytes`` at a time, those of ``most`` bytes at most (None: all)."""

    nbytes: int
    most: int | None = None


class Transport(ABC):
    """Moves contiguous arrays as bytes between ranks.

    Transfers between one pair of ranks arrive in the order in which they were posted, and a
    receive names exactly the number of bytes that the peer sends. An array without bytes is never
    sent. A buffer belongs to the transport from the post to the end of the ``wait``. One thread at
    a time uses a transport.
    """

    rank: int
    world_size: int
    rounds: Rounds | None = None  # None: arrays are best reduced whole; the same on every rank

    @abstractmethod
    def isend(self, dest: int, buffer: Buffer) -> Request:
        """Posts a send and returns at once, whether or not the peer is ready."""

    @abstractmethod
    def irecv(self, source: int, buffer: Buffer) -> Request:
        """Posts a receive into ``buffer`` and returns at once."""

    @abstractmethod
    def wait(self, requests: Sequence[Request], deadline: Deadline) -> None:
        """Completes all ``requests``, or raises PeerLostError by the deadline at the latest."""

    @abstractmethod
    def abort(self, code: int, reason: str) -> None:
        """Ends every rank of the world now: processes exit with ``code``, threads raise."""

    @abstractmethod
    def close(self, reason: str = "") -> None:
        """Ends this rank's part at once, without waiting for anyone; further calls do nothing.

        A peer that still waits for this rank raises as soon as the transport can tell. With a
        reason (this rank has failed) every wait of every peer raises, if the transport can tell.
        """

    def look(self, deadline: Deadline) -> None:  # noqa: B027 - some learn of it in no other way
        """Raises PeerLostError if a peer is known to have failed; waits for nothing."""

    def exchange(
        self,
        header: bytes,
        make: Callable[[], Arrays],
        check: Check,
        deadline: Deadline,
        *,
        key: Hashable = None,
        in_step: bool = False,
    ) -> None:
        """Sends ``header`` and arrays to each peer while receiving the same from each peer.

        ``make`` says which arrays, and what is added up then; ``key`` is the same for the same
        memory, sizes and sums, which a transport may remember. ``check`` is called with each peer's
        header, of the same length, before its arrays are received, unless it is known to be the
        same; with ``in_step`` it may be called behind them: one wait instead of two.
        """
        outgoing, incoming, sums = make()
        requests = self.post(header, outgoing)
        headers = [self.irecv(peer, np.empty(len(header), np.uint8)) for peer in incoming]
        if not in_step:
            self.wait(headers, deadline)
            for request in headers:
                check(request.peer, request.buffer.tobytes())
        for peer, arrays in incoming.items():
            requests += [self.irecv(peer, array) for array in arrays if array.size]
        if in_step:
            requests += headers
        self.wait(requests, deadline)
        if in_step:
            for request in headers:
                check(request.peer, request.buffer.tobytes())
        for additions in sums:
            run_additions(additions)

    def prepare(self, header_bytes: int, arrays: Arrays) -> Prepared:
        """``exchange`` for arrays that come again and again, without what is the same each time."""

        def exchange(header: bytes, check: Check, deadline: Deadline) -> None:
            self.exchange(header, lambda: arrays, check, deadline)

        return exchange

    def post(self, header: bytes, outgoing: Mapping[int, Sequence[Buffer]]) -> list[Request]:
        """Posts ``header`` and arrays to each peer; the requests that must be waited for."""
        first = np.frombuffer(header, np.uint8)
        requests = []
        for peer, arrays in outgoing.items():
            requests.append(self.isend(peer, first))
            requests += [self.isend(peer, array) for array in arrays if array.size]
        return requests

    def send(self, dest: int, buffer: Buffer, deadline: Deadline) -> None:
        """Sends one buffer and waits for it."""
        self.wait([self.isend(dest, buffer)], deadline)

    def recv(self, source: int, buffer: Buffer, deadline: Deadline) -> None:
        """Receives one buffer and waits for it."""
        self.wait([self.irecv(source, buffer)], deadline)


def as_bytes(buffer: Buffer) -> np.ndarray:
    """The memory of a C-contiguous array as a flat uint8 view."""
    return buffer.reshape(-1).view(np.uint8)


def name_ranks(ranks: Iterable[int]) -> str:
    """``rank 3`` or ``ranks 1, 2``, for messages."""
    listed = sorted(set(ranks))
    return ("rank " if len(listed) == 1 else "ranks ") + ", ".join(map(str, listed))
