"""Frames over one connection between the driver and an agent."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from typing import Any

from distgrad.comm.rendezvous import receive

# From an agent: where its rank runs, the rank's output, and its end. To it: what the rank gets.
BEGUN, OUT, ERR, ENDED, SIGNAL, KILL = range(6)

_FRAME = struct.Struct("<BI")
_LIMIT = 1 << 24
# Seconds of silence until the first probe, between probes, and how many may go unanswered.
_KEEPALIVE = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 5))


class Wire:
    """Whole frames over a connected socket; any thread may send, one receives."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):  # not every system has them all
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._connection = connection
        self._sending = threading.RLock()  # a signal handler may send, too

    def send(self, kind: int, value: Any = None) -> None:
        """Sends bytes as they are and anything else as JSON. Raises OSError."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        with self._sending:
            self._connection.sendall(_FRAME.pack(kind, len(data)) + data)

    def receive(self) -> tuple[int, Any] | None:
        """The next frame; None when the other side has gone."""
        try:
            kind, length = _FRAME.unpack(receive(self._connection, _FRAME.size))
            if length > _LIMIT:
                return None
            data = receive(self._connection, length)
        except OSError:
            return None
        return kind, data if kind in (OUT, ERR) else json.loads(data)

    def close(self) -> None:
        """Ends it on both sides; a thread that receives gets None."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
