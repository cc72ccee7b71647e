"""Channels: what waits to be sent to one peer, what is expected from it, what has arrived.

A message is a word (what it is, and how many bytes) and the bytes. They go through the connection
to the peer (`socket_channel`), or through memory that is shared with it (`shared_channel`). The
last message of a rank says why it goes.
"""

from __future__ import annotations

import select
import socket
import struct
from abc import ABC, abstractmethod
from collections import deque

from distgrad.comm.transport import Request, as_bytes

# The highest byte of a word tells what follows.
DATA, LENT, TAKEN, FAREWELL = range(4)
WORD = struct.Struct("<Q")
LENGTH = (1 << 56) - 1

DIRECT_BYTES = 16 * 1024  # a shorter rest of a message arrives through the staging memory
REASON_BYTES = 1000

POLLRDHUP = getattr(select, "POLLRDHUP", 0)  # the peer says no more, though data may be left
DIED = "its connection ended without a word: the process has died"


def data_word(nbytes: int) -> bytes:
    """The word before a message of so many bytes."""
    return WORD.pack(DATA << 56 | nbytes)


class ChannelRequest(Request):
    """A message on its way, by a channel to one peer."""

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
        value: int = WORD.unpack_from(word)[0]
        return value >> 56, value & LENGTH

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
