"""Exchanges through shared rings in one call of machine code, where `native` has been given it.

The bytes in the rings are those that `SharedChannel` writes and reads, so that either end may be
Python's. What cannot be done at once (a full ring, a peer that is late or sends something else) is
left to Python, with nothing of it begun.

The table of a call holds 64-bit words: where the prefix of each message lies (its first word, and
the header) and its length, how often a late peer is looked for, how many of these looks go by until
the core is given up once, the number of sums, where their table is, whether they were done, and the
number of peers. Then a row for each peer: what ``Stream.addresses`` says, number and place of the
pieces to send and of those to receive, the bytes of both messages, and what has been done. A piece
is an address and a length. The rest is for `_Sums`.
"""

from __future__ import annotations

import ctypes
import itertools
import os
from collections.abc import Mapping, Sequence

import numpy as np

from distgrad.comm import native
from distgrad.comm.additions import Addition
from distgrad.comm.channel import data_word
from distgrad.comm.shared_channel import SharedChannel
from distgrad.comm.shared_memory import filled_up
from distgrad.comm.transport import Arrays

HEAD, ROW = 8, 16  # words before the rows, and in a row
SUM, OPERAND, ADDITION = 6, 6, 3  # words in a sum, in one of its arrays, and in an addition
LARGEST_PREFIX = 64  # bytes: what the machine code has a place for
CHUNK = 1 << 14  # bytes of each array that go through all additions of a sum
NO_RING = 1 << 60  # the size of memory that does not start again at its end
_NUMBER_OF_SUMS, _DONE = 4, 6  # places in the head
_STATE = 15  # where in a row the machine code says what it has done
_SENT, _WAKE_READER, _RECEIVED, _WAKE_WRITER = 1, 2, 4, 8
_CODES = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}

# A look and a pause take some 20 nanoseconds, giving up the core 300 or more.
_LOOKS, _BETWEEN_YIELDS = 1 << 14, 64
_LOOKS_WHEN_CROWDED = 1 << 10  # each gives up the core, where there are more ranks than cores


class _Words:
    """A table of words that holds addresses of other places in it."""

    def __init__(self) -> None:
        self.words: list[int] = []
        self._references: list[tuple[int, int]] = []

    def refer(self, at: int, to: int) -> None:
        """Word ``at`` becomes the address of word ``to``."""
        self._references.append((at, to))

    def table(self) -> ctypes.Array[ctypes.c_int64]:
        made = (ctypes.c_int64 * len(self.words))(*self.words)
        start = ctypes.addressof(made)
        for at, to in self._references:
            made[at] = start + 8 * to
        return made


class Scratch:
    """Memory for partial sums, which all exchanges of a transport share: one runs at a time."""

    def __init__(self) -> None:
        self._chunks: list[np.ndarray] = []

    def chunk(self, number: int) -> np.ndarray:
        while len(self._chunks) <= number:
            self._chunks.append(np.empty(CHUNK, np.uint8))
        return self._chunks[number]


class _Sums:
    """Writes sums of arrays that are read where they have arrived: in the rings.

    A sum is a row of: its elements, the code of their dtype, number and place of its arrays, number
    and place of its additions. An array is a ring and a position in it: for one that arrives, the
    place of its peer's row and where in the message it begins, from which the machine code finds
    the ring's address, its position and size; other memory is a ring that does not end, and scratch
    memory for partial sums one that is as long as a chunk. An addition is the numbers of three
    arrays, the second of them -1 where the first is copied.
    """

    def __init__(
        self, words: _Words, incoming: Mapping[int, tuple[int, int]], scratch: Scratch
    ) -> None:
        self._words = words
        self._incoming = incoming  # row and offset, by the address of an array
        self._scratch = scratch

    def write(self, sums: Sequence[Sequence[Addition]]) -> int:
        """Writes them behind the words that there are; where."""
        words = self._words.words
        start = len(words)
        words += [0] * (SUM * len(sums))
        for number, additions in enumerate(sums):
            at = start + SUM * number
            rows: list[tuple[int, int, int, int, int]] = []
            triples = self._triples(additions, rows)
            out = additions[0][2]
            words[at : at + 2] = [out.size, _CODES[out.dtype]]
            words[at + 2], words[at + 4] = len(rows), len(additions)
            self._words.refer(at + 3, len(words))
            for row, *rest in rows:
                if row:
                    self._words.refer(len(words), row)
                words += [0, *rest, 0]
            self._words.refer(at + 5, len(words))
            words += triples
        return start

    def _triples(
        self, additions: Sequence[Addition], rows: list[tuple[int, int, int, int, int]]
    ) -> list[int]:
        numbers: dict[int, int] = {}
        partial_sums = itertools.count()

        def operand(array: np.ndarray) -> int:
            at = _at(array)
            if at not in numbers:
                row, offset = self._incoming.get(at, (0, 0))
                place = (0, 0, 0) if row else (at, 0, NO_RING)
                numbers[at] = len(rows)
                rows.append((row, offset, *place))
            return numbers[at]

        def target(array: np.ndarray) -> int:
            if _at(array) in self._incoming:  # a partial sum: what has come is not written over
                numbers[_at(array)] = len(rows)
                rows.append((0, 0, _at(self._scratch.chunk(next(partial_sums))), 0, CHUNK))
            return operand(array)

        found: list[int] = []
        for a, b, out in additions:
            found += (operand(a), -1 if b is None else operand(b), target(out))
        return found


class RingExchange:
    """One header and some arrays to each peer, and the same from each, whenever it is called.

    Sums are done with what has come, where it is all there and of a known dtype; the incoming
    arrays are then left as they were. It keeps none of the arrays alive.
    """

    def __init__(
        self,
        function: native.Call,
        channels: Sequence[SharedChannel],
        arrays: Arrays,
        header_bytes: int,
        scratch: Scratch,
    ) -> None:
        outgoing, incoming, sums = arrays
        self._function = function
        self._channels = channels
        self._prefix = bytearray(data_word(header_bytes) + bytes(header_bytes))
        crowded = len(channels) + 1 > _cores
        looks = (_LOOKS_WHEN_CROWDED, 1) if crowded else (_LOOKS, _BETWEEN_YIELDS)
        made = _Words()
        words = made.words
        known = all([out.size and out.dtype in _CODES for each in sums for *_, out in each])
        self._adds, self._leaves_sums = bool(sums) and known, not known
        number = len(sums) if known else 0
        words += [_at(self._prefix), len(self._prefix), *looks, number, 0, 0, len(channels)]
        self._totals: list[tuple[int, int]] = []
        self._states = range(HEAD + _STATE, HEAD + ROW * len(channels), ROW)
        arrived: dict[int, tuple[int, int]] = {}
        pieces: list[int] = []
        for channel in channels:
            row, totals = len(words), []
            words += channel.ring_addresses()
            for way in (outgoing[channel.peer], incoming[channel.peer]):
                start, total = len(pieces), filled_up(len(self._prefix))
                for array in way:
                    if nbytes := array.nbytes:
                        pieces += (_at(array), nbytes)
                        if way is not outgoing[channel.peer]:
                            arrived[pieces[-2]] = row, total + 8
                        total += 8 + filled_up(nbytes)
                made.refer(len(words) + 1, HEAD + ROW * len(channels) + start)
                words += ((len(pieces) - start) // 2, 0)
                totals.append(total)
            words += (*totals, 0)
            self._totals.append((totals[0], totals[1]))
        words += pieces
        if self._adds:
            made.refer(_NUMBER_OF_SUMS + 1, _Sums(made, arrived, scratch).write(sums))
        self._scratch = scratch
        self._table = made.table()
        self._address = ctypes.addressof(self._table)

    def fits(self) -> bool:
        """Whether the rings can hold each message at all."""
        pairs = zip(self._channels, self._totals, strict=True)
        return all([max(totals) <= channel.ring_bytes for channel, totals in pairs])

    def __call__(self, header: bytes) -> tuple[list[int], list[int], bool]:
        """The peers to which it has not been sent, those from which nothing has come, and whether
        all is done, the sums as well.
        """
        channels, table = self._channels, self._table
        for channel in channels:
            if channel.wants_to_send or channel.wants_to_receive:  # others come first
                peers = [c.peer for c in channels]
                return peers, peers, False
        self._prefix[8:] = header
        for at in self._states:
            table[at] = 0
        self._function(self._address)
        while any([table[at] & _WAKE_READER for at in self._states]):
            for at, channel in zip(self._states, channels, strict=True):
                if table[at] & _WAKE_READER:
                    table[at] &= ~_WAKE_READER
                    channel.wake()
            self._function(self._address)
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
        done = table[_DONE] if self._adds else not (unsent or late or self._leaves_sums)
        return unsent, late, bool(done)


def prepare(
    channels: Sequence[object], arrays: Arrays, header_bytes: int, scratch: Scratch
) -> RingExchange | None:
    """The exchange with all peers, where machine code can do it: they share rings that hold it."""
    function = native.ring_exchange()
    if function is None or header_bytes + 8 > LARGEST_PREFIX or not channels:
        return None
    shared = []
    for channel in channels:
        if not isinstance(channel, SharedChannel):
            return None
        for way in (arrays.outgoing.get(channel.peer), arrays.incoming.get(channel.peer)):
            if way is None or any([not channel.goes_through_ring(a.nbytes) for a in way]):
                return None
        shared.append(channel)
    made = RingExchange(function, shared, arrays, header_bytes, scratch)
    return made if made.fits() else None


def _at(data: np.ndarray | bytearray) -> int:
    if isinstance(data, bytearray):
        return ctypes.addressof(ctypes.c_char.from_buffer(data))
    address: int = data.__array_interface__["data"][0]
    return address


_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
