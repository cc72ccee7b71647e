"""What two ranks agree on over their new connection: shared memory, rounds, settings of TCP."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from typing import NamedTuple

from distgrad.comm import native, rendezvous
from distgrad.comm.shared_memory import (
    Card,
    Offer,
    PeerMemory,
    Stream,
    allow_family,
    reader,
    take,
)
from distgrad.comm.transport import Rounds
from distgrad.core.errors import PeerLostError

_ROUND_BYTES = 1 << 20  # of all ranks: what is added up is then still in the cores' caches
# Larger arrays are lent (`channel`): between cores that share a cache that takes a tenth to a
# quarter longer, but a third of the time where they do not (16 MB, two ranks).
_MOST_IN_ROUNDS = 4 << 20


class Shared(NamedTuple):
    """The ways through memory to a peer on this host."""

    stream: Stream
    memory: PeerMemory | None  # None: neither may read the other's


def share(connections: Mapping[int, socket.socket], rank: int, end: float) -> dict[int, Shared]:
    """The memory shared with those peers that can see it: the lower rank offers it."""
    offers: dict[int, Offer] = {}
    streams: dict[int, Stream | None] = {}
    memories: dict[int, PeerMemory | None] = {}
    card = Card()
    allow_family(os.getppid())  # the ranks' common parent, where they have one
    try:
        for peer, connection in connections.items():
            connection.settimeout(max(0.1, end - time.monotonic()))
            if rank < peer:
                offers[peer] = Offer(len(connections))
            offer = offers[peer].show() if peer in offers else None
            rendezvous.send_json(connection, {"card": card.show(), "offer": offer})
        for peer, connection in connections.items():
            shown = rendezvous.receive_json(connection)
            memories[peer] = reader(shown["card"])
            streams[peer] = take(shown["offer"])
        for peer, connection in connections.items():
            found = {"reads": memories[peer] is not None, "taken": streams[peer] is not None}
            rendezvous.send_json(connection, found)
        for peer, connection in connections.items():
            said = rendezvous.receive_json(connection)
            if not said["reads"]:
                memories[peer] = None
            if peer in offers:
                streams[peer] = offers[peer].end(said["taken"])
    except (OSError, ValueError) as error:
        raise PeerLostError(f"a rank was lost while the world was set up ({error}).") from None
    return {p: Shared(stream, memories[p]) for p, stream in streams.items() if stream is not None}


def agree_on_rounds(
    connections: Mapping[int, socket.socket], shared: Mapping[int, Shared], end: float
) -> Rounds | None:
    """In which rounds arrays are reduced; None where not all ranks exchange through shared rings
    by machine code, with all others.
    """
    mine = {
        "rings": len(shared) == len(connections) and native.ring_exchange() is not None,
        "lends": all(each.memory is not None for each in shared.values()),
    }
    try:
        for connection in connections.values():
            connection.settimeout(max(0.1, end - time.monotonic()))
            rendezvous.send_json(connection, mine)
        said = [mine, *(rendezvous.receive_json(connection) for connection in connections.values())]
    except (OSError, ValueError) as error:
        raise PeerLostError(f"a rank was lost while the world was set up ({error}).") from None
    if not all(each["rings"] for each in said):
        return None
    return Rounds(_ROUND_BYTES, _MOST_IN_ROUNDS if all(each["lends"] for each in said) else None)


def tune(connection: socket.socket, timeout: float) -> None:
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
