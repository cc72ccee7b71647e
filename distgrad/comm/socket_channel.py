"""A channel through the connection to a peer alone."""

from __future__ import annotations

import contextlib
import socket

from distgrad.comm.channel import (
    DIED,
    DIRECT_BYTES,
    FAREWELL,
    REASON_BYTES,
    WORD,
    Channel,
    Gone,
)

_STAGING_BYTES = 64 * 1024
_GATHER = 16  # pieces in one system call


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
            word = self._peek(WORD.size)
            if word is None:
                break
            kind, length = self._unpack(word)
            if kind == FAREWELL:
                text = self._peek(WORD.size + length)
                if text is None:
                    break
                self.farewell = text[WORD.size :].decode(errors="replace")
                raise Gone(self.farewell)
            self._start += WORD.size
            self._begin(length)
        return moved

    def last_words(self) -> str | None:
        if self.farewell is not None:
            return self.farewell
        with contextlib.suppress(ConnectionError):
            while self._more(grow=True):
                pass
        place = self._start + len(self._target)
        while place + WORD.size <= self._end:
            kind, length = self._unpack(self._staging[place : place + WORD.size])
            place += WORD.size
            if kind == FAREWELL:
                text = bytes(self._staging[place : place + length])
                self.farewell = text.decode(errors="replace")
                return self.farewell
            place += length
        return None

    def leave(self, reason: str) -> None:
        with contextlib.suppress(OSError, Gone):
            self.push()
        if not self._outbox or self._outbox[0][2]:
            text = reason.encode(errors="replace")[:REASON_BYTES]
            with contextlib.suppress(OSError):
                self.connection.send(WORD.pack(FAREWELL << 56 | len(text)) + text)
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
        if have or len(target) < DIRECT_BYTES:
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
