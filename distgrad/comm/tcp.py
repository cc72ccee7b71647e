"""The TCP transport: one connection for each pair of ranks, polled by one thread.

Between two processes of one host messages go through memory that they share, where the system
lets them; the connection then only wakes who sleeps. The last message of a rank says why it goes:
whoever waits for anything then raises at once, and names the rank that failed first.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NoReturn, cast

import numpy as np

from distgrad.comm import rendezvous, ring_calls
from distgrad.comm.additions import run_additions
from distgrad.comm.channel import (
    DIED,
    POLLRDHUP,
    Channel,
    ChannelRequest,
    Gone,
)
from distgrad.comm.shared_channel import SharedChannel
from distgrad.comm.shared_memory import yield_core
from distgrad.comm.socket_channel import SocketChannel
from distgrad.comm.tcp_setup import Shared, agree_on_rounds, share, tune
from distgrad.comm.transport import (
    ENDED,
    Arrays,
    Buffer,
    Check,
    Deadline,
    Prepared,
    Request,
    Rounds,
    Transport,
)
from distgrad.core.errors import PeerLostError, UsageError

_SPINS = 20  # looks at the sockets before the core is given up
_SHARED_SPINS = 1000  # the same where memory is shared: a look costs a hundredth of a wake-up
_REMEMBERED = 2048  # exchanges whose tables are kept
_NAP = 0.1  # seconds of sleep after which shared memory is looked at, whoever should have told


class TCPTransport(Transport):
    """The connections of one rank to all others. Made by ``connect``.

    Args:
        rank: who we are.
        world_size: number of ranks.
        connections: an open connection to every other rank.
        shared: memory shared with peers on this host, as far as there is any.
        rounds: what ``Transport`` says of them.
        at_abort: also ends all ranks, where somebody else has started them.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        connections: Mapping[int, socket.socket],
        shared: Mapping[int, Shared] | None = None,
        rounds: Rounds | None = None,
        at_abort: Callable[[int, str], None] | None = None,
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self.rounds = rounds
        self._at_abort = at_abort
        self._closed = False
        self._poll = select.poll()
        shared = shared or {}
        self._channels: dict[int, Channel] = {
            p: SharedChannel(p, c, *shared[p]) if p in shared else SocketChannel(p, c)
            for p, c in connections.items()
        }
        self._sharing = bool(shared)
        self._scratch = ring_calls.Scratch()
        self._quick: dict[Hashable, ring_calls.RingExchange | None] = {}
        self._spins = _SHARED_SPINS if shared else _SPINS
        self._by_file = {c.connection.fileno(): c for c in self._channels.values()}
        for channel in self._channels.values():
            channel.connection.setblocking(False)
            channel.events = POLLRDHUP
            self._poll.register(channel.connection, channel.events)

    def isend(self, dest: int, buffer: Buffer) -> Request:
        request = ChannelRequest(dest, buffer)
        self._channel(dest).post(request)
        return request

    def irecv(self, source: int, buffer: Buffer) -> Request:
        request = ChannelRequest(source, buffer)
        self._channel(source).expected.append(request)
        return request

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
        if not self._sharing:
            super().exchange(header, make, check, deadline, in_step=in_step)
            return
        try:
            quick = self._quick[key]
        except KeyError:
            quick = self._prepare(len(header), make())
            if key is not None:
                if len(self._quick) >= _REMEMBERED:
                    self._quick.clear()
                self._quick[key] = quick
        self._run(quick, header, make, check, deadline)

    def prepare(self, header_bytes: int, arrays: Arrays) -> Prepared:
        if not self._sharing:
            return super().prepare(header_bytes, arrays)
        quick = self._prepare(header_bytes, arrays)

        def exchange(header: bytes, check: Check, deadline: Deadline) -> None:
            self._run(quick, header, lambda: arrays, check, deadline)

        return exchange

    def _prepare(self, header_bytes: int, arrays: Arrays) -> ring_calls.RingExchange | None:
        channels = list(self._channels.values())
        return ring_calls.prepare(channels, arrays, header_bytes, self._scratch)

    def _run(
        self,
        quick: ring_calls.RingExchange | None,
        header: bytes,
        make: Callable[[], Arrays],
        check: Check,
        deadline: Deadline,
    ) -> None:
        """An exchange by machine code, where there is any; Python does what that leaves."""
        if quick is None or self._closed:
            outgoing, incoming, sums = make()
        else:
            unsent, late, done = quick(header)
            if done:
                return
            outgoing, incoming, sums = make()
            outgoing = {peer: outgoing[peer] for peer in unsent}
            incoming = {peer: incoming[peer] for peer in late}
        if outgoing or incoming:
            self._exchange(header, outgoing, incoming, check, deadline)
        for additions in sums:
            run_additions(additions)

    def _exchange(
        self,
        header: bytes,
        outgoing: Mapping[int, Sequence[Buffer]],
        incoming: Mapping[int, Sequence[Buffer]],
        check: Check,
        deadline: Deadline,
    ) -> None:
        """What comes soon through shared memory is taken at once, without requests."""
        requests = self.post(header, outgoing)
        late = []
        for peer, arrays in incoming.items():
            first = self._receive_now(peer, np.empty(len(header), np.uint8), deadline)
            if not first.done:
                late.append(first)
                continue
            check(peer, first.buffer.tobytes())
            found = [self._receive_now(peer, array, deadline) for array in arrays if array.size]
            requests += [request for request in found if not request.done]
        if late:
            self.wait(late, deadline)
        for request in late:
            check(request.peer, request.buffer.tobytes())
            requests += [self.irecv(request.peer, a) for a in incoming[request.peer] if a.size]
        if requests:
            self.wait(requests, deadline)

    def post(self, header: bytes, outgoing: Mapping[int, Sequence[Buffer]]) -> list[Request]:
        requests = []
        for peer, arrays in outgoing.items():
            channel = self._channel(peer)
            if isinstance(channel, SharedChannel) and channel.send_now(header, arrays):
                continue
            requests += super().post(header, {peer: arrays})
        return requests

    def _receive_now(self, peer: int, buffer: Buffer, deadline: Deadline) -> ChannelRequest:
        channel = self._channel(peer)
        if not isinstance(channel, SharedChannel):
            request = ChannelRequest(peer, buffer)
            channel.expected.append(request)
            return request
        try:
            return channel.receive_now(buffer, self._spins)
        except Gone as gone:
            self._lost(channel, str(gone), deadline)

    def wait(self, requests: Sequence[Request], deadline: Deadline) -> None:
        pending = cast("Sequence[ChannelRequest]", requests)
        channels = list(self._channels.values())
        spins = 0
        while True:
            moved = False
            for channel in channels:
                if channel.wants_to_send or channel.wants_to_receive:
                    moved = self._move(channel, deadline) or moved
            pending = [request for request in pending if not request.done]
            if not pending:
                return
            spins = 0 if moved else spins + 1
            if spins < self._spins:
                yield_core()
                continue
            self._sleep(channels, pending, deadline)

    def look(self, deadline: Deadline) -> None:
        if self._closed:
            raise PeerLostError(f"rank {self.rank}: this transport is closed.")
        for file, events in self._poll.poll(0):
            if events & (POLLRDHUP | select.POLLHUP | select.POLLERR):
                self._look(self._by_file[file], DIED, deadline, wanted=False)

    def abort(self, code: int, reason: str) -> None:
        # The other processes hear of it in their next wait; a supervisor ends those that compute.
        self.close(reason or f"aborted with code {code}")
        if self._at_abort is not None:
            self._at_abort(code, reason)

    def close(self, reason: str = "") -> None:
        if self._closed:
            return
        self._closed = True
        for channel in self._channels.values():
            channel.leave(reason)

    def _channel(self, peer: int) -> Channel:
        if self._closed:
            raise PeerLostError(f"rank {self.rank}: this transport is closed.")
        return self._channels[peer]

    def _move(self, channel: Channel, deadline: Deadline) -> bool:
        """Whether anything was sent or received. Raises PeerLostError."""
        moved = False
        try:
            if channel.wants_to_send:
                moved = channel.push()
            if channel.wants_to_receive:
                moved = channel.pull() or moved
        except (Gone, OSError) as error:
            self._failed(channel, error, deadline)
        return moved

    def _failed(self, channel: Channel, error: Gone | OSError, deadline: Deadline) -> None:
        """Raises, unless the peer is still there after all."""
        if isinstance(error, Gone):
            said = channel.farewell
            self._lost(channel, str(error) if said is None else said or ENDED, deadline)
        self._look(channel, f"its connection failed ({error})", deadline, wanted=True)

    def _sleep(
        self, channels: Sequence[Channel], pending: Sequence[Request], deadline: Deadline
    ) -> None:
        """Waits until a socket can go on, or a peer has gone; until the deadline at most."""
        for request in pending:
            channel = self._channels[request.peer]
            if channel.farewell is not None:  # all that it has sent is here: it went unwanted then
                self._lost(channel, channel.farewell or ENDED, deadline)
        for channel in channels:
            if channel.farewell is None and channel.events != channel.wanted_events:
                channel.events = channel.wanted_events
                self._poll.modify(channel.connection, channel.events)
        quiet = all([channel.doze(True) for channel in channels])
        ready = self._poll.poll(1000 * min(deadline.left(), _NAP) if quiet else 0)
        for channel in channels:
            channel.doze(False)
        deadline.look(self.rank, lambda: {request.peer for request in pending})
        for file, events in ready:
            channel = self._by_file[file]
            if events & (POLLRDHUP | select.POLLHUP | select.POLLERR):
                if channel.wants_to_receive:
                    self._move(channel, deadline)  # what it has sent before comes first
                waiting = {request.peer for request in pending if not request.done}  # type: ignore[attr-defined]
                self._look(channel, DIED, deadline, wanted=channel.peer in waiting)

    def _look(self, channel: Channel, silent: str, deadline: Deadline, *, wanted: bool) -> None:
        """Raises if a peer has gone with an error, or while it is waited for."""
        try:
            farewell = channel.last_words()
        except OSError:
            return
        if farewell is None:
            self._lost(channel, silent, deadline)
        elif farewell or wanted:
            self._lost(channel, farewell or ENDED, deadline)
        else:
            self._poll.unregister(channel.connection)

    def _lost(self, channel: Channel, reason: str, deadline: Deadline) -> NoReturn:
        raise PeerLostError(
            f"rank {self.rank} lost rank {channel.peer} in {deadline.operation}: "
            f"{reason.rstrip('.')}."
        ) from None


def connect(
    rank: int,
    world_size: int,
    address: str,
    token: str,
    *,
    interface: str | None = None,
    timeout: float = 60.0,
    share_memory: bool = True,
    at_abort: Callable[[int, str], None] | None = None,
) -> TCPTransport:
    """Joins the world of ``world_size`` ranks that meets at ``address``.

    Args:
        rank: this process's number, unique in ``range(world_size)``.
        world_size: number of ranks, the same everywhere.
        address: ``host:port`` of the job's ``rendezvous.Rendezvous``.
        token: the secret of that Rendezvous.
        interface: the network by which peers reach this process: a name such as ``eth0``, or an
            address of this host; None takes the one that leads to ``address``.
        timeout: seconds until everyone must be connected.
        share_memory: whether ranks of one host send their messages through shared memory.
        at_abort: called with code and reason when this rank aborts the world.

    Raises:
        UsageError: the token is refused, or there is no such interface.
        PeerLostError: some rank did not come; the message names it.
    """
    if not 0 <= rank < world_size:
        raise UsageError(f"rank {rank} is not one of {world_size} ranks.")
    end = time.monotonic() + timeout
    meeting = rendezvous.knock(address, token, rank, end)
    with meeting:
        host = meeting.getsockname()[0]
        if interface is not None:
            host = rendezvous.interface_address(interface)
        gate = rendezvous.Gate(host, 0, token)
        with contextlib.closing(gate):
            addresses = rendezvous.meet(meeting, rank, world_size, gate.address, end)
            connections: dict[int, socket.socket] = {}
            try:
                for peer in range(rank):
                    connections[peer] = rendezvous.knock(addresses[peer], token, rank, end)
                while len(connections) < world_size - 1:
                    guest = gate.accept(end - time.monotonic())
                    if guest is None:
                        missing = set(range(world_size)) - {rank, *connections}
                        raise PeerLostError(
                            f"rank {rank} at {gate.address} was not reached by "
                            f"{rendezvous.name_ranks(missing)} within {timeout:g} s."
                        )
                    connections[guest[0]] = guest[1]
                for connection in connections.values():
                    tune(connection, timeout)
                shared = share(connections, rank, end) if share_memory else {}
                rounds = agree_on_rounds(connections, shared, end) if share_memory else None
            except BaseException:
                for connection in connections.values():
                    connection.close()
                raise
    return TCPTransport(rank, world_size, connections, shared, rounds, at_abort)
