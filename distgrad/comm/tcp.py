"""The TCP transport: one connection for each pair of ranks, polled by one thread.

On the wire a message is a word (what it is, and how many bytes) and the bytes. A large message
between two processes of one host is only announced, and the receiver copies it out of the sender's
memory, where the system lets it. The last message of a rank says why it goes: whoever waits
for anything then raises at once, and names the rank that failed first.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import cast

from distgrad.comm import rendezvous
from distgrad.comm.shared_memory import Card, PeerMemory, allow_family
from distgrad.comm.transport import Buffer, Deadline, Request, Transport, as_bytes
from distgrad.core.errors import PeerLostError, UsageError

# The highest byte of the first word tells what follows.
_DATA, _LENT, _TAKEN, _FAREWELL = range(4)
_WORD = struct.Struct("<Q")
_LENDING = struct.Struct("<QQ")  # the word, and the address in the sender's memory
_LENGTH = (1 << 56) - 1

_LEND_BYTES = 512 * 1024  # from here on, announcing and copying is faster than sending
_DIRECT_BYTES = 16 * 1024  # a shorter rest of a message arrives through the staging memory
_STAGING_BYTES = 64 * 1024
_GATHER = 16  # pieces in one system call
_SPINS = 20  # looks at the sockets before the core is given up
_REASON_BYTES = 1000

_CLOSED = "it closed its channels"
_DIED = "its connection ended without a word: the process has died"

_POLLRDHUP = getattr(select, "POLLRDHUP", 0)  # the peer says no more, though data may be left


class _TCPRequest(Request):
    done = False


class _Gone(Exception):
    """The peer of a channel says no more; the text says why."""


class _Channel:
    """The connection to one peer: what waits to be sent, what is expected, what has arrived."""

    def __init__(self, peer: int, connection: socket.socket, memory: PeerMemory | None) -> None:
        self.peer = peer
        self.connection = connection
        self.memory = memory
        self.expected: deque[_TCPRequest] = deque()
        self.lent: deque[_TCPRequest] = deque()
        self.farewell: str | None = None  # empty: it has left in peace
        self.events = 0  # those that the poll object knows of
        # Pieces to send; a request is done with its last piece. ``True``: a message begins here.
        self._outbox: deque[tuple[memoryview, _TCPRequest | None, bool]] = deque()
        self._filling: _TCPRequest | None = None
        self._target = memoryview(b"")  # what is still empty of it
        self._staging = bytearray(_STAGING_BYTES)
        self._start = self._end = 0

    @property
    def wants_to_send(self) -> bool:
        return bool(self._outbox)

    @property
    def wants_to_receive(self) -> bool:
        return bool(self.expected or self.lent or self._filling is not None)

    def post(self, request: _TCPRequest) -> None:
        data = as_bytes(request.buffer)
        if self.memory is not None and data.size >= _LEND_BYTES:
            word = _LENT << 56 | data.size
            announced = _LENDING.pack(word, data.ctypes.data)
            self._outbox.append((memoryview(announced), None, True))
            self.lent.append(request)
            return
        word_bytes = _WORD.pack(_DATA << 56 | data.size)
        self._outbox.append((memoryview(word_bytes), None, True))
        self._outbox.append((data.data, request, False))

    def push(self) -> None:
        """Sends as much as the connection takes. Raises OSError."""
        outbox = self._outbox
        while outbox:
            pieces = [piece for piece, _, _ in outbox] if len(outbox) <= _GATHER else None
            if pieces is None:
                pieces = [outbox[i][0] for i in range(_GATHER)]
            try:
                sent = self.connection.sendmsg(pieces)
            except (BlockingIOError, InterruptedError):
                return
            while outbox:
                piece, request, _ = outbox[0]
                if sent < len(piece):
                    if sent:
                        outbox[0] = piece[sent:], request, False
                    break
                sent -= len(piece)
                outbox.popleft()
                if request is not None:
                    request.done = True

    def pull(self) -> None:
        """Takes what has arrived, as far as it is expected. Raises _Gone or OSError."""
        while self.wants_to_receive:
            if self._filling is not None:
                if not self._fill():
                    return
                continue
            word = self._peek(_WORD.size)
            if word is None:
                return
            kind, length = self._unpack(word)
            if kind == _TAKEN:
                self._start += _WORD.size
                self.lent.popleft().done = True
            elif kind == _FAREWELL:
                text = self._peek(_WORD.size + length)
                if text is None:
                    return
                self.farewell = text[_WORD.size :].decode(errors="replace")
                raise _Gone(self.farewell)
            elif not self.expected or not self._begin(kind, length):
                return

    def last_words(self) -> str | None:
        """Why the peer has gone, behind any data nobody waits for; None: it has died silently.

        Raises BlockingIOError if it is still there after all.
        """
        if self.farewell is not None:
            return self.farewell
        with contextlib.suppress(ConnectionError):
            while self._more(grow=True):
                pass
        place = self._start + len(self._target)
        while place + _WORD.size <= self._end:
            kind, length = self._unpack(self._staging[place : place + _WORD.size])
            place += _WORD.size
            if kind == _FAREWELL:
                text = bytes(self._staging[place : place + length])
                self.farewell = text.decode(errors="replace")
                return self.farewell
            place += {_DATA: length, _LENT: 8}.get(kind, 0)
        return None

    def leave(self, reason: str) -> None:
        """Says why, if a message may begin here, and nothing more from then on."""
        with contextlib.suppress(OSError, _Gone):
            self.push()
        if not self._outbox or self._outbox[0][2]:
            text = reason.encode()[:_REASON_BYTES]
            with contextlib.suppress(OSError):
                self.connection.send(_WORD.pack(_FAREWELL << 56 | len(text)) + text)
        self._outbox.clear()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
        # Unread data would turn the end of this process into a reset, which loses the farewell.
        with contextlib.suppress(OSError):
            while self.connection.recv_into(self._staging):
                pass

    def _has_left(self) -> bool:
        now = select.poll()
        now.register(self.connection, _POLLRDHUP)
        return bool(now.poll(0))

    def _begin(self, kind: int, length: int) -> bool:
        """Starts on the next message; False: its address has not arrived yet."""
        announced = self._peek(_LENDING.size) if kind == _LENT else b""
        if announced is None:
            return False
        request = self.expected.popleft()
        if length != request.buffer.nbytes:
            raise _Gone(f"it sends {length} bytes where {request.buffer.nbytes} are expected")
        view = as_bytes(request.buffer).data
        if kind == _DATA:
            self._start += _WORD.size
            self._filling, self._target = request, view
            return True
        assert self.memory is not None
        address = _LENDING.unpack(announced)[1]
        self._start += _LENDING.size
        self.memory.read(address, view)
        if self._has_left():  # it may have used its memory for something else meanwhile
            raise _Gone(self.last_words() or "its connection ended in the middle of a message")
        # The request is done once the sender is told that it has its memory back.
        self._outbox.append((memoryview(_WORD.pack(_TAKEN << 56)), request, True))
        self.push()
        return True

    def _fill(self) -> bool:
        """Goes on with the message that is arriving; False when nothing more is there."""
        target = self._target
        have = self._end - self._start
        if have or len(target) < _DIRECT_BYTES:
            if not have and not self._more():
                return False
            count = min(self._end - self._start, len(target))
            target[:count] = memoryview(self._staging)[self._start : self._start + count]
            self._start += count
        else:
            try:
                count = self.connection.recv_into(target)
            except (BlockingIOError, InterruptedError):
                return False
            if not count:
                raise _Gone("its connection ended in the middle of a message")
        self._target = target[count:]
        if not self._target:
            assert self._filling is not None
            self._filling.done = True
            self._filling = None
        return True

    def _peek(self, count: int) -> bytes | None:
        """The next ``count`` bytes, still unread; None if they are not all there."""
        while self._end - self._start < count:
            if not self._more():
                return None
        return bytes(memoryview(self._staging)[self._start : self._start + count])

    def _more(self, grow: bool = False) -> bool:
        """Reads into the staging memory; False at the end (or, without ``grow``, if none comes)."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == len(self._staging):
            if not grow:
                self._staging[: self._end - self._start] = self._staging[self._start : self._end]
                self._start, self._end = 0, self._end - self._start
            else:
                self._staging = self._staging + bytes(len(self._staging))
        try:
            count = self.connection.recv_into(memoryview(self._staging)[self._end :])
        except (BlockingIOError, InterruptedError):
            if grow:
                raise
            return False
        self._end += count
        if not count and not grow:
            raise _Gone(_DIED)
        return count > 0

    @staticmethod
    def _unpack(word: bytes | bytearray) -> tuple[int, int]:
        value: int = _WORD.unpack_from(word)[0]
        return value >> 56, value & _LENGTH


class TCPTransport(Transport):
    """The connections of one rank to all others. Made by ``connect``.

    Args:
        rank: who we are.
        world_size: number of ranks.
        connections: an open connection to every other rank.
        memories: the memory of peers on this host, as far as it can be read.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        connections: Mapping[int, socket.socket],
        memories: Mapping[int, PeerMemory] | None = None,
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self._closed = False
        self._poll = select.poll()
        memories = memories or {}
        self._channels = {p: _Channel(p, c, memories.get(p)) for p, c in connections.items()}
        self._by_file = {c.connection.fileno(): c for c in self._channels.values()}
        for channel in self._channels.values():
            channel.connection.setblocking(False)
            channel.events = _POLLRDHUP
            self._poll.register(channel.connection, channel.events)

    def isend(self, dest: int, buffer: Buffer) -> Request:
        request = _TCPRequest(dest, buffer)
        self._channel(dest).post(request)
        return request

    def irecv(self, source: int, buffer: Buffer) -> Request:
        request = _TCPRequest(source, buffer)
        self._channel(source).expected.append(request)
        return request

    def wait(self, requests: Sequence[Request], deadline: Deadline) -> None:
        pending = cast("Sequence[_TCPRequest]", requests)
        channels = list(self._channels.values())
        spins = 0
        while True:
            for channel in channels:
                if channel.wants_to_send or channel.wants_to_receive:
                    self._move(channel, deadline)
            pending = [request for request in pending if not request.done]
            if not pending:
                return
            spins += 1
            if spins < _SPINS:
                os.sched_yield()
                continue
            self._sleep(channels, pending, deadline)

    def abort(self, code: int, reason: str) -> None:
        # The other processes hear of it in their next wait; a supervisor ends those that compute.
        self.close(reason or f"aborted with code {code}")

    def close(self, reason: str = "") -> None:
        if self._closed:
            return
        self._closed = True
        for channel in self._channels.values():
            channel.leave(reason)

    def _channel(self, peer: int) -> _Channel:
        if self._closed:
            raise PeerLostError(f"rank {self.rank}: this transport is closed.")
        return self._channels[peer]

    def _move(self, channel: _Channel, deadline: Deadline) -> None:
        try:
            if channel.wants_to_send:
                channel.push()
            if channel.wants_to_receive:
                channel.pull()
        except _Gone as gone:
            said = channel.farewell
            self._lost(channel, str(gone) if said is None else said or _CLOSED, deadline)
        except OSError as error:
            self._look(channel, f"its connection failed ({error})", deadline, wanted=True)

    def _sleep(
        self, channels: Sequence[_Channel], pending: Sequence[Request], deadline: Deadline
    ) -> None:
        """Waits until a socket can go on, or a peer has gone; until the deadline at most."""
        for channel in channels:
            if channel.farewell is not None:
                continue
            events = _POLLRDHUP
            if channel.wants_to_receive:
                events |= select.POLLIN
            if channel.wants_to_send:
                events |= select.POLLOUT
            if events != channel.events:
                channel.events = events
                self._poll.modify(channel.connection, events)
        left = deadline.left()
        ready = self._poll.poll(1000 * left)
        if not ready or deadline.left() == 0.0:
            deadline.expire(self.rank, {request.peer for request in pending})
        for file, events in ready:
            channel = self._by_file[file]
            if events & (_POLLRDHUP | select.POLLHUP | select.POLLERR):
                if channel.wants_to_receive:
                    self._move(channel, deadline)  # what it has sent before comes first
                waiting = {request.peer for request in pending if not request.done}  # type: ignore[attr-defined]
                self._look(channel, _DIED, deadline, wanted=channel.peer in waiting)

    def _look(self, channel: _Channel, silent: str, deadline: Deadline, *, wanted: bool) -> None:
        """Raises if a peer has gone with an error, or while it is waited for."""
        try:
            farewell = channel.last_words()
        except OSError:
            return
        if farewell is None:
            self._lost(channel, silent, deadline)
        elif farewell or wanted:
            self._lost(channel, farewell or _CLOSED, deadline)
        else:
            self._poll.unregister(channel.connection)

    def _lost(self, channel: _Channel, reason: str, deadline: Deadline) -> None:
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
    lend: bool = True,
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
        lend: whether ranks of one host may read large messages from each other's memory.

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
                    _tune(connection, timeout)
                memories = _lenders(connections, end) if lend else {}
            except BaseException:
                for connection in connections.values():
                    connection.close()
                raise
    return TCPTransport(rank, world_size, connections, memories)


def _lenders(connections: Mapping[int, socket.socket], end: float) -> dict[int, PeerMemory]:
    """The peers whose memory we can read and who can read ours."""
    card = Card()
    allow_family(os.getppid())  # the ranks' common parent, where they have one
    found: dict[int, PeerMemory | None] = {}
    try:
        for connection in connections.values():
            connection.settimeout(max(0.1, end - time.monotonic()))
            rendezvous.send_json(connection, card.show())
        for peer, connection in connections.items():
            found[peer] = card.try_out(rendezvous.receive_json(connection))
        for peer, connection in connections.items():
            rendezvous.send_json(connection, found[peer] is not None)
        both = [p for p, c in connections.items() if rendezvous.receive_json(c)]
    except (OSError, ValueError) as error:
        raise PeerLostError(f"a rank was lost while the world was set up ({error}).") from None
    return {peer: memory for peer in both if (memory := found[peer]) is not None}


def _tune(connection: socket.socket, timeout: float) -> None:
    """Small messages go at once, and a host that has vanished is noticed."""
    options = [
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 5),  # seconds of silence until the first probe
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 2),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 5),
        # A peer that is alive but busy may leave data unread for as long as a call may take.
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", int(1000 * timeout)),
    ]
    for level, name, value in options:
        if hasattr(socket, name):  # not every system has them all
            with contextlib.suppress(OSError):
                connection.setsockopt(level, getattr(socket, name), value)
