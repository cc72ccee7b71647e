"""Channels: what waits to be sent to one peer, what is expected from it, what has arrived.

A message is a word (what it is, and how many bytes) and the bytes. They go through the connection
to the peer, or through memory that is shared with it; the connection then only wakes the peer. The
last message of a rank says why it goes.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any

from distgrad.comm.shared_memory import PeerMemory, Stream, yield_core
from distgrad.comm.transport import Buffer, Request, as_bytes

# The highest byte of a word tells what follows.
_DATA, _LENT, _TAKEN, _FAREWELL = range(4)
_WORD = struct.Struct("<Q")
_LENDING = struct.Struct("<QQ")  # the word, and the address in the sender's memory
_LENGTH = (1 << 56) - 1

_DIRECT_BYTES = 16 * 1024  # a shorter rest of a message arrives through the staging memory
_STAGING_BYTES = 64 * 1024
_GATHER = 16  # pieces in one system call
_REASON_BYTES = 1000
_LEND_BYTES = 1 << 20  # from here on one copy by the system is faster than two through a ring

POLLRDHUP = getattr(select, "POLLRDHUP", 0)  # the peer says no more, though data may be left
DIED = "its connection ended without a word: the process has died"


def data_word(nbytes: int) -> bytes:
    """The word before a message of so many bytes."""
    return _WORD.pack(_DATA << 56 | nbytes)


class ChannelRequest(Request):
    done = False


class Gone(Exception):
    """The peer of a channel says no more; the text says why."""


class Channel(ABC):
    """What both ways have in common. ``farewell``: why the peer left; empty: in peace."""

    def __init__(self, peer: int, connection: socket.socket) -> None:
        self.peer = peer
        self.connection = connection
        self.expected: deque[ChannelRequest] = deque()
        self.farewell: str | None = None
        self.events = 0  # those that the poll object knows of
        # Pieces to send; a request is done with its last piece. ``True``: a message begins here.
        self._outbox: deque[tuple[memoryview, ChannelRequest | None, bool]] = deque()
        self._filling: ChannelRequest | None = None
        self._target = memoryview(b"")  # what is still empty of it

    @property
    def wants_to_send(self) -> bool:
        return bool(self._outbox)

    @property
    def wants_to_receive(self) -> bool:
        return bool(self.expected or self._filling is not None)

    @property
    def wanted_events(self) -> int:
        """What a sleep of this process must end at, besides the end of the peer."""
        events = POLLRDHUP
        if self.wants_to_receive:
            events |= select.POLLIN
        if self.wants_to_send:
            events |= select.POLLOUT
        return events

    def post(self, request: ChannelRequest) -> None:
        data = as_bytes(request.buffer)
        word = data_word(data.size)
        self._outbox.append((memoryview(word), None, True))
        self._outbox.append((data.data, request, False))

    @abstractmethod
    def push(self) -> bool:
        """Sends as much as the way takes; whether it was anything. Raises OSError."""

    @abstractmethod
    def pull(self) -> bool:
        """Takes what has arrived, as far as it is expected; whether it was anything.

        Raises Gone or OSError.
        """

    @abstractmethod
    def last_words(self) -> str | None:
        """Why the peer has gone, behind any data nobody waits for; None: it has died silently.

        Raises BlockingIOError if it is still there after all.
        """

    @abstractmethod
    def leave(self, reason: str) -> None:
        """Says why, if that can be said, and nothing more from then on."""

    def doze(self, asleep: bool) -> bool:
        """Is told before and after a sleep; False: there is something to do first."""
        return True

    @staticmethod
    def _unpack(word: bytes | bytearray | memoryview) -> tuple[int, int]:
        value: int = _WORD.unpack_from(word)[0]
        return value >> 56, value & _LENGTH

    def _sent(self, count: int) -> None:
        """Takes ``count`` bytes out of the outbox."""
        outbox = self._outbox
        while outbox:
            piece, request, _ = outbox[0]
            if count < len(piece):
                if count:
                    outbox[0] = piece[count:], request, False
                return
            count -= len(piece)
            outbox.popleft()
            if request is not None:
                request.done = True

    def _begin(self, length: int) -> None:
        """Starts on the next message that is expected."""
        request = self.expected.popleft()
        if length != request.buffer.nbytes:
            raise Gone(f"it sends {length} bytes where {request.buffer.nbytes} are expected")
        self._filling, self._target = request, as_bytes(request.buffer).data

    def _filled(self, count: int) -> None:
        self._target = self._target[count:]
        if not self._target:
            assert self._filling is not None
            self._filling.done = True
            self._filling = None


class SocketChannel(Channel):
    """Everything goes through the connection."""

    def __init__(self, peer: int, connection: socket.socket) -> None:
        super().__init__(peer, connection)
        self._staging = bytearray(_STAGING_BYTES)
        self._start = self._end = 0

    def push(self) -> bool:
        outbox, moved = self._outbox, False
        while outbox:
            pieces = [outbox[i][0] for i in range(min(_GATHER, len(outbox)))]
            try:
                sent = self.connection.sendmsg(pieces)
            except (BlockingIOError, InterruptedError):
                break
            self._sent(sent)
            moved = True
        return moved

    def pull(self) -> bool:
        moved = False
        while self.wants_to_receive:
            if self._filling is not None:
                if not self._fill():
                    break
                moved = True
                continue
            word = self._peek(_WORD.size)
            if word is None:
                break
            kind, length = self._unpack(word)
            if kind == _FAREWELL:
                text = self._peek(_WORD.size + length)
                if text is None:
                    break
                self.farewell = text[_WORD.size :].decode(errors="replace")
                raise Gone(self.farewell)
            self._start += _WORD.size
            self._begin(length)
        return moved

    def last_words(self) -> str | None:
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
            place += length
        return None

    def leave(self, reason: str) -> None:
        with contextlib.suppress(OSError, Gone):
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
                raise Gone("its connection ended in the middle of a message")
        self._filled(count)
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
            raise Gone(DIED)
        return count > 0


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
        self._word = memoryview(bytearray(_WORD.size))
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
        announced = _LENDING.pack(_LENT << 56 | data.size, data.ctypes.data)
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
                if stream.ready < _WORD.size:
                    break
                kind, length = self._unpack(stream.peek(_WORD.size))
                if kind == _TAKEN:
                    taken += stream.read(self._word)
                    self._lent.popleft().done = True
                    continue
                if not self.expected or stream.ready < (_LENDING if kind == _LENT else _WORD).size:
                    break
                taken += stream.read(self._word)
                self._begin(length)
                if kind == _LENT:
                    taken += stream.read(self._word)
                    self._borrow(_WORD.unpack(self._word)[0])
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
        total = _WORD.size + len(header)
        for array in arrays:
            if nbytes := array.nbytes:
                if not self.goes_through_ring(nbytes):
                    return False
                pieces += [data_word(nbytes), as_bytes(array).data]
                total += _WORD.size + nbytes
        if total > self._stream.space:
            return False
        if total <= _DIRECT_BYTES:
            pieces = [b"".join(pieces)]
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
        while stream.ready < _WORD.size:
            if not left:
                return request
            left -= 1
            yield_core()
        stream.read(self._word)
        self._begin(_WORD.unpack(self._word)[0] & _LENGTH)
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
            self.connection.send(b"\1" + reason.encode()[:_REASON_BYTES])
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
        self._outbox.append((memoryview(_WORD.pack(_TAKEN << 56)), request, True))

    def _has_left(self) -> bool:
        now = select.poll()
        now.register(self.connection, POLLRDHUP)
        return bool(now.poll(0))

    def _wake_if_asleep(self) -> None:
        if self._stream.must_wake():
            self.wake()

    def _hear(self) -> bool:
        """Takes what the connection brings; False at its end. Raises OSError if nothing came."""
        found = self.connection.recv(_REASON_BYTES + 1)
        self._heard += found if self._heard else found.lstrip(b"\0")
        return bool(found)
