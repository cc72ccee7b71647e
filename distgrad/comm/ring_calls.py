"""Exchanges through shared rings in one call of machine code, where `native` has been given it.

The bytes in the rings are those that `SharedChannel` writes and reads, so that either end may be
Python's. What cannot be done at once (a full ring, a peer that is late or sends something else) is
left to Python, with nothing of it begun.

The table of a call holds 64-bit words: where the prefix of each message lies (its first word, and
the header) and its length, how often a late peer is looked for, how many of these looks go by until
the core is given up once, and the number of peers. Then a row for each peer: what
``Stream.addresses`` says, number and place of the pieces to send and of those to receive, the bytes
of both messages, and what has been done. A piece is an address and a length; they end the table.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence

from distgrad.comm import native
from distgrad.comm.channel import SharedChannel, data_word
from distgrad.comm.transport import Buffer

HEAD, ROW = 5, 16  # words before the rows, and in a row
LARGEST_PREFIX = 64  # bytes: what the machine code has a place for
_STATE = 15  # where in a row the machine code says what it has done
_SENT, _WAKE_READER, _RECEIVED, _WAKE_WRITER = 1, 2, 4, 8

# A look and a pause take some 20 nanoseconds, giving up the core 300 or more.
_LOOKS, _BETWEEN_YIELDS = 1 << 14, 64
_LOOKS_WHEN_CROWDED = 1 << 10  # each gives up the core, where there are more ranks than cores


class RingExchange:
    """One header and some arrays to each peer, and the same from each, whenever it is called.

    It keeps none of the arrays alive.
    """

    def __init__(
        self,
        function: native.Call,
        channels: Sequence[SharedChannel],
        outgoing: Mapping[int, Sequence[Buffer]],
        incoming: Mapping[int, Sequence[Buffer]],
        header_bytes: int,
    ) -> None:
        self._function = function
        self._channels = channels
        self._prefix = bytearray(data_word(header_bytes) + bytes(header_bytes))
        crowded = len(channels) + 1 > _cores
        looks = (_LOOKS_WHEN_CROWDED, 1) if crowded else (_LOOKS, _BETWEEN_YIELDS)
        words = [_address(self._prefix), len(self._prefix), *looks, len(channels)]
        pieces: list[int] = []
        self._totals: list[tuple[int, int]] = []
        places = []  # of addresses of pieces among the words, which are known at the end
        for channel in channels:
            words += channel.ring_addresses()
            totals = []
            for arrays in (outgoing.get(channel.peer, ()), incoming.get(channel.peer, ())):
                start, total = len(pieces), len(self._prefix)
                for array in arrays:
                    if nbytes := array.nbytes:
                        pieces += (array.__array_interface__["data"][0], nbytes)
                        total += 8 + nbytes
                words += ((len(pieces) - start) // 2, 8 * start)
                places.append(len(words) - 1)
                totals.append(total)
            words += (*totals, 0)
            self._totals.append((totals[0], totals[1]))
        count = len(words)
        self._table = (ctypes.c_int64 * (count + len(pieces)))(*words, *pieces)
        self._at = ctypes.addressof(self._table)
        for place in places:
            self._table[place] += self._at + 8 * count
        self._states = range(HEAD + _STATE, count, ROW)

    def fits(self) -> bool:
        """Whether the rings can hold each message at all."""
        pairs = zip(self._channels, self._totals, strict=True)
        return all(max(totals) <= channel.ring_bytes for channel, totals in pairs)

    def __call__(self, header: bytes) -> tuple[list[int], list[int]]:
        """The peers to which it has not been sent, and those from which nothing has come."""
        channels, table = self._channels, self._table
        for channel in channels:
            if channel.wants_to_send or channel.wants_to_receive:  # others come first
                peers = [c.peer for c in channels]
                return peers, peers
        self._prefix[8:] = header
        for at in self._states:
            table[at] = 0
        self._function(self._at)
        while any([table[at] & _WAKE_READER for at in self._states]):
            for at, channel in zip(self._states, channels, strict=True):
                if table[at] & _WAKE_READER:
                    table[at] &= ~_WAKE_READER
                    channel.wake()
            self._function(self._at)
        unsent, late = [], []
        for at, channel, (out, come) in zip(self._states, channels, self._totals, strict=True):
            state = table[at]
            sent, received = state & _SENT, state & _RECEIVED
            channel.moved(out if sent else 0, come if received else 0)
            if state & _WAKE_WRITER:
                channel.wake()
            if not sent:
                unsent.append(channel.peer)
            if not received:
                late.append(channel.peer)
        return unsent, late


def prepare(
    channels: Sequence[object],
    outgoing: Mapping[int, Sequence[Buffer]],
    incoming: Mapping[int, Sequence[Buffer]],
    header_bytes: int,
) -> RingExchange | None:
    """The exchange with all peers, where machine code can do it: they share rings that hold it."""
    function = native.ring_exchange()
    if function is None or header_bytes + 8 > LARGEST_PREFIX or not channels:
        return None
    shared = []
    for channel in channels:
        if not isinstance(channel, SharedChannel):
            return None
        for arrays in (outgoing.get(channel.peer), incoming.get(channel.peer)):
            if arrays is None or any([not channel.goes_through_ring(a.nbytes) for a in arrays]):
                return None
        shared.append(channel)
    made = RingExchange(function, shared, outgoing, incoming, header_bytes)
    return made if made.fits() else None


def _address(data: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(data))


_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
