"""Exchanges of the same arrays again and again, through shared rings in one call of machine code.

The bytes in the rings are those that `SharedChannel` writes and reads, so that either end may be
Python's. What cannot be done at once (a full ring, a peer that is late or sends something else) is
left to Python, with nothing of it begun.

The table of a call holds 64-bit words: the address and length of the prefix of each message (its
first word, and the header), the looks for a late peer, the number of peers, and for each peer those
of ``_row``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

from distgrad.comm import native
from distgrad.comm.channel import SharedChannel, data_word
from distgrad.comm.transport import Buffer

SPINS_BEFORE_YIELD = 64  # a look and a pause take some 20 nanoseconds, to give up the core 300
_LOOKS = 1 << 14

_HEAD, _ROW, _STATE = 4, 16, 15  # words before the rows, in a row, and where a row has its state
_SENT, _WAKE_READER, _RECEIVED, _WAKE_WRITER = 1, 2, 4, 8
_LARGEST_PREFIX = 64  # bytes: what the machine code has a place for


class RingExchange:
    """One header and some arrays to each peer, and the same from each, whenever it is called."""

    def __init__(
        self,
        function: native.Call,
        channels: Sequence[SharedChannel],
        outgoing: Mapping[int, Sequence[Buffer]],
        incoming: Mapping[int, Sequence[Buffer]],
        header_bytes: int,
    ) -> None:
        self._function = function
        self._channels = list(channels)
        self._prefix = bytearray(data_word(header_bytes) + bytes(header_bytes))
        self._keep: list[object] = [outgoing, incoming]  # memory that the table points to
        self._totals: list[tuple[int, int]] = []
        words = [self._address(self._prefix), len(self._prefix), _LOOKS, len(self._channels)]
        for channel in self._channels:
            words += self._row(channel, outgoing[channel.peer], incoming[channel.peer])
        self._table = (ctypes.c_int64 * len(words))(*words)
        self._at = ctypes.addressof(self._table)
        self._states = [_HEAD + i * _ROW + _STATE for i in range(len(self._channels))]

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
        if any([table[at] & _WAKE_READER for at in self._states]):
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

    def _row(
        self, channel: SharedChannel, outgoing: Sequence[Buffer], incoming: Sequence[Buffer]
    ) -> list[int]:
        sent = [(self._address(self._prefix), len(self._prefix)), *self._pieces(outgoing, True)]
        come = self._pieces(incoming, False)
        total_out = sum(nbytes for _, nbytes in sent)
        total_in = sum(nbytes for _, nbytes in come) + len(self._prefix)
        self._totals.append((total_out, total_in))
        tables = []
        for pieces in (sent, come):
            flat = [word for piece in pieces for word in piece]
            table = (ctypes.c_int64 * len(flat))(*flat)
            self._keep.append(table)
            tables += [len(pieces), ctypes.addressof(table)]
        return [*channel.ring_addresses(), *tables, total_out, total_in, 0]

    def _pieces(self, arrays: Sequence[Buffer], out: bool) -> list[tuple[int, int]]:
        """Address and bytes of each array, and of the word before it."""
        pieces = []
        for array in arrays:
            if array.nbytes:
                word = bytearray(data_word(array.nbytes) if out else 8)
                self._keep.append(word)
                pieces += [(self._address(word), 8), (array.ctypes.data, array.nbytes)]
        return pieces

    @staticmethod
    def _address(data: bytearray) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(data))


def prepare(
    channels: Sequence[object],
    outgoing: Mapping[int, Sequence[Buffer]],
    incoming: Mapping[int, Sequence[Buffer]],
    header_bytes: int,
) -> RingExchange | None:
    """The exchange, where machine code can do it: all peers share rings, which hold all of it."""
    function = native.ring_exchange()
    if function is None or header_bytes + 8 > _LARGEST_PREFIX or not channels:
        return None
    shared = [c for c in channels if isinstance(c, SharedChannel)]
    if len(shared) < len(channels):
        return None
    for channel in shared:
        for arrays in (outgoing[channel.peer], incoming[channel.peer]):
            if any(not channel.goes_through_ring(a.nbytes) for a in arrays):
                return None
            if sum(8 + a.nbytes for a in arrays) + 8 + header_bytes > channel.ring_bytes:
                return None
    return RingExchange(function, shared, outgoing, incoming, header_bytes)
