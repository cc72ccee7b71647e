"""A channel through memory that is shared with a peer; the connection only wakes who sleeps."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any

from distgrad.comm.channel import (
    DIRECT_BYTES,
    LENGTH,
    LENT,
    POLLRDHUP,
    REASON_BYTES,
    TAKEN,
    WORD,
    Channel,
    ChannelRequest,
    Gone,
    data_word,
)
from distgrad.comm.shared_memory import PeerMemory, Stream, filled_up, yield_core
from distgrad.comm.transport import Buffer, as_bytes

_LENDING = struct.Struct("<QQ")  # the word, and the address in the sender's memory
_FILLING = [bytes(count) for count in range(8)]  # behind a piece, up to where the next one begins
_LEND_BYTES = 1 << 20  # from here on one copy by the system is faster than two through a ring


class SharedChannel(Channel):
    """Messages go through shared memory; large ones are announced there, and copied directly.

    Bytes in the connection wake a peer that sleeps; only the farewell, behind them, says anything.
    """

    def __init__(
        self, peer: int, connection: socket.socket, stream: Stream, memory: PeerMemory | None
    ) -> None:
        super().__init__(peer, connection)
        self._memory = memory
        self._lent: deque[ChannelRequest] = deque()
        self._stream = stream
        self._word = memoryview(bytearray(WORD.size))
        self._heard = bytearray()  # the farewell, as far as it has come

    @property
    def wants_to_receive(self) -> bool:
        return bool(self.expected or self._lent or self._filling is not None)

    @property
    def wanted_events(self) -> int:
        return POLLRDHUP | select.POLLIN

    def post(self, request: ChannelRequest) -> None:
        data = as_bytes(request.buffer)
        if self.goes_through_ring(data.size):
            super().post(request)
            return
        announced = _LENDING.pack(LENT << 56 | data.size, data.ctypes.data)
        self._outbox.append((memoryview(announced), None, True))
        self._lent.append(request)

    @property
    def ring_bytes(self) -> int:
        return self._stream.size

    def goes_through_ring(self, nbytes: int) -> bool:
        """Whether an array is not lent to the peer, who copies it directly."""
        return self._memory is None or nbytes < _LEND_BYTES

    def ring_addresses(self) -> list[int]:
        """Where machine code finds the rings and their counts (see ``Stream.addresses``)."""
        return self._stream.addresses()

    def moved(self, sent: int, received: int) -> None:
        """Is told what machine code has written and read."""
        self._stream.moved(sent, received)

    def push(self) -> bool:
        sent = 0
        while self._outbox:
            count = self._stream.write(self._outbox[0][0])
            if not count:
                break
            self._sent(count)
            sent += count
        if sent:
            self._wake_if_asleep()
        return sent > 0

    def pull(self) -> bool:
        stream, taken = self._stream, 0
        while self.wants_to_receive:
            if self._filling is None:
                if stream.ready < WORD.size:
                    break
                kind, length = self._unpack(stream.peek(WORD.size))
                if kind == TAKEN:
                    taken += stream.read(self._word)
                    self._lent.popleft().done = True
                    continue
                if not self.expected or stream.ready < (_LENDING if kind == LENT else WORD).size:
                    break
                taken += stream.read(self._word)
                self._begin(length)
                if kind == LENT:
                    taken += stream.read(self._word)
                    self._borrow(WORD.unpack(self._word)[0])
                    continue
            count = stream.read(self._target)
            if not count:
                break
            self._filled(count)
            taken += count
        if taken:
            self._wake_if_asleep()
            self.push()  # who has lent memory waits to be told that it has been read
        return taken > 0

    def send_now(self, header: bytes, arrays: Sequence[Buffer]) -> bool:
        """Sends a header and arrays, each a message, where that can be done at once."""
        if self._outbox:
            return False
        pieces: list[Any] = [data_word(len(header)), header]
        total = WORD.size + filled_up(len(header))
        for array in arrays:
            if nbytes := array.nbytes:
                if not self.goes_through_ring(nbytes):
                    return False
                pieces += [data_word(nbytes), as_bytes(array).data]
                total += WORD.size + filled_up(nbytes)
        if total > self._stream.space:
            return False
        if total <= DIRECT_BYTES:
            pieces = [b"".join([x for p in pieces for x in (p, _FILLING[-len(p) % 8])])]
        for piece in pieces:
            self._stream.write(memoryview(piece))
        self._wake_if_asleep()
        return True

    def wake(self) -> None:
        """Ends the sleep of the peer."""
        with contextlib.suppress(OSError):  # full of such, or gone, which a sleep would notice
            self.connection.send(b"\0")

    def receive_now(self, buffer: Buffer, spins: int) -> ChannelRequest:
        """Receives a message, at once where it comes soon; else it is expected from then on.

        Raises Gone.
        """
        stream, request = self._stream, ChannelRequest(self.peer, buffer)
        if self._outbox or self.wants_to_receive:  # others come first
            self.expected.append(request)
            return request
        self.expected.append(request)
        if not self.goes_through_ring(buffer.nbytes):
            return request
        left = spins
        while stream.ready < WORD.size:
            if not left:
                return request
            left -= 1
            yield_core()
        stream.read(self._word)
        self._begin(WORD.unpack(self._word)[0] & LENGTH)
        while not request.done:
            if count := stream.read(self._target):
                self._filled(count)
                left = spins
            elif not left:
                break
            else:
                left -= 1
                yield_core()
        self._wake_if_asleep()
        return request

    def last_words(self) -> str | None:
        if self.farewell is None:
            with contextlib.suppress(ConnectionError):
                while self._hear():
                    pass
            if not self._heard:
                return None
            self.farewell = self._heard[1:].decode(errors="replace")
        return self.farewell

    def leave(self, reason: str) -> None:
        with contextlib.suppress(OSError):
            self.push()
        self._outbox.clear()
        with contextlib.suppress(OSError):
            self.connection.send(b"\1" + reason.encode(errors="replace")[:REASON_BYTES])
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
        # Unread data would turn the end of this process into a reset, which loses the farewell.
        with contextlib.suppress(OSError):
            while self._hear():
                pass

    def doze(self, asleep: bool) -> bool:
        stream = self._stream
        if not asleep:
            stream.doze(False)
            with contextlib.suppress(OSError):
                self._hear()
            return True
        if not (self.wants_to_send or self.wants_to_receive):
            return True
        stream.doze(True)
        return not (
            (self.wants_to_send and stream.space) or (self.wants_to_receive and stream.ready)
        )

    def _borrow(self, address: int) -> None:
        """Copies what is expected next out of the peer's memory. Raises Gone or OSError."""
        assert self._memory is not None and self._filling is not None
        request = self._filling
        self._memory.read(address, self._target)
        if self._has_left():  # it may have used its memory for something else meanwhile
            raise Gone(self.last_words() or "its connection ended in the middle of a message")
        self._target, self._filling = memoryview(b""), None
        # The request is done once the sender is told that it has its memory back.
        self._outbox.append((memoryview(WORD.pack(TAKEN << 56)), request, True))

    def _has_left(self) -> bool:
        now = select.poll()
        now.register(self.connection, POLLRDHUP)
        return bool(now.poll(0))

    def _wake_if_asleep(self) -> None:
        if self._stream.must_wake():
            self.wake()

    def _hear(self) -> bool:
        """Takes what the connection brings; False at its end. Raises OSError if nothing came."""
        found = self.connection.recv(REASON_BYTES + 1)
        self._heard += found if self._heard else found.lstrip(b"\0")
        return bool(found)
