"""Exchanges in machine code: the same bytes as Python's, whoever is late, asleep or elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad.comm import native, ring_calls, shared_memory, tcp
from distgrad.comm.transport import Arrays, Deadline

from .test_shared_memory import pair

pytestmark = [
    pytest.mark.timeout_s(30),
    pytest.mark.skipif(native.ring_exchange() is None, reason="there is no llvmlite"),
    pytest.mark.skipif(
        shared_memory.Offer(1).show() is None, reason="no memory can be shared on this system"
    ),
]
HEADER = b"a header of 16 b"


class End:
    """One rank's end of an exchange of two float arrays and one without elements."""

    def __init__(self, transport: tcp.TCPTransport, size: int, quick: bool) -> None:
        self.transport, self.peer = transport, 1 - transport.rank
        self.sent = [np.zeros(size, np.float32), np.zeros(0), np.zeros(3)]
        self.found = [np.zeros_like(array) for array in self.sent]
        self.heard: list[bytes] = []
        arrays = {self.peer: self.sent}, {self.peer: self.found}
        made = transport.prepare(len(HEADER), Arrays(*arrays)) if quick else None
        self.run = made or (lambda *args: transport._exchange(args[0], *arrays, *args[1:]))

    def __call__(self, number: int, header: bytes = HEADER) -> bool:
        """Whether what has come is what the peer has sent."""
        self.sent[0][:] = np.arange(self.sent[0].size) + number + self.transport.rank
        self.sent[2][:] = number - self.transport.rank
        self.run(header, lambda peer, text: self.heard.append(text), Deadline("talk", 10))
        first = np.arange(self.sent[0].size, dtype=np.float32) + (number + self.peer)
        return bool((self.found[0] == first).all() and (self.found[2] == number - self.peer).all())


def both(first: Callable[[], Any], second: Callable[[], Any]) -> list[Any]:
    found: list[Any] = [None, None]

    def run(number: int, fn: Callable[[], Any]) -> None:
        found[number] = fn()

    thread = threading.Thread(target=run, args=(1, second))
    thread.start()
    run(0, first)
    thread.join(20)
    assert not thread.is_alive()
    return found


def count_quick(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int], list[int], bool]]:
    """What is left to Python, for each call of machine code."""
    left: list[tuple[list[int], list[int], bool]] = []
    run = ring_calls.RingExchange.__call__

    def noted(self: ring_calls.RingExchange, header: bytes) -> tuple[list[int], list[int], bool]:
        left.append(run(self, header))
        return left[-1]

    monkeypatch.setattr(ring_calls.RingExchange, "__call__", noted)
    return left


def wait_for(left: list) -> None:
    """Until the other rank's machine code has given up."""
    while not left:
        time.sleep(0.01)


@pytest.mark.parametrize("ends", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("size", [1, 63, 400])
def test_bytes_arrive_around_the_end_of_a_ring(
    ends: tuple[bool, bool], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "_RING_BYTES", 4096)
    left = count_quick(monkeypatch)
    transports = pair()
    a, b = (End(t, size, quick) for t, quick in zip(transports, ends, strict=True))
    steps = 200
    good = both(lambda: [a(i) for i in range(steps)], lambda: [b(i) for i in range(steps)])
    assert all(map(all, good))
    assert len(left) == steps * sum(ends)
    assert any(not late for _, late, _ in left)
    for transport in transports:
        transport.close()


def test_what_a_ring_cannot_hold_is_left_to_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "_RING_BYTES", 4096)
    left = count_quick(monkeypatch)
    transports = pair()
    a, b = (End(t, 1100, True) for t in transports)
    assert both(lambda: a(1), lambda: b(1)) == [True, True]
    assert left == []


def test_a_full_ring_is_emptied_by_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rank has sent 3000 of 4096 bytes before: its message has no place at once."""
    monkeypatch.setattr(shared_memory, "_RING_BYTES", 4096)
    left = count_quick(monkeypatch)
    one, other = pair()
    a, b = End(one, 400, True), End(other, 400, True)
    extra, found = np.arange(3000).astype(np.uint8), np.zeros(3000, np.uint8)
    sending = one.isend(1, extra)
    one.wait([sending], Deadline("talk", 5))

    def second() -> bool:
        wait_for(left)
        other.recv(0, found, Deadline("talk", 5))
        return b(7)

    assert both(lambda: a(7), second) == [True, True]
    np.testing.assert_array_equal(found, extra)
    assert ([1], [1], False) in left


def test_who_is_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    left = count_quick(monkeypatch)
    a, b = (End(t, 100, True) for t in pair())

    def late() -> bool:
        wait_for(left)
        return b(5)

    assert both(lambda: a(5), late) == [True, True]
    assert ([], [1], False) in left  # sent, and not yet received


def test_who_sleeps_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a nap that nobody ends would last beyond the deadline."""
    monkeypatch.setattr(tcp, "_SHARED_SPINS", 1)
    monkeypatch.setattr(tcp, "_NAP", 20.0)
    a, b = (End(t, 100, quick) for t, quick in zip(pair(), (True, False), strict=True))

    def late() -> bool:
        time.sleep(0.3)
        return a(9)

    start = time.monotonic()
    assert both(late, lambda: b(9)) == [True, True]
    assert time.monotonic() - start < 5


def test_another_header_is_shown_to_the_check() -> None:
    a, b = (End(t, 100, True) for t in pair())
    both(lambda: a(1, b"here, 16 letters"), lambda: b(1, b"there, as many !"))
    assert (a.heard, b.heard) == ([b"there, as many !"], [b"here, 16 letters"])


class AddingEnd:
    """One rank's end of an exchange that is added up: one partial of rank 0, three of rank 1.

    The tree is ``(a + b) + (c + d)``; with ``padding``, that many bytes are sent before.
    """

    def __init__(self, transport: tcp.TCPTransport, size: int, padding: int = 0) -> None:
        self.transport, self.peer = transport, 1 - transport.rank
        self.partials = [np.zeros(size, np.float32) for _ in range(4)]
        self.total = np.zeros(size, np.float32)
        self.count, self.others, self.all = (np.zeros(3) for _ in range(3))
        a, b, c, d = self.partials
        own, come = ([a], [b, c, d]) if transport.rank == 0 else ([b, c, d], [a])
        pads = [np.zeros(padding, np.uint8) for _ in range(2)]
        outgoing = {self.peer: [pads[0], *own, self.count]}
        incoming = {self.peer: [pads[1], *come, self.others]}
        tree = [(a, b, a), (c, d, c), (a, c, self.total)]
        counts = [(self.count, self.others, self.all)]
        self.come = come
        self.run = transport.prepare(len(HEADER), Arrays(outgoing, incoming, [tree, counts]))

    def __call__(self, number: int) -> bool:
        rng = np.random.default_rng(number)
        values = rng.normal(size=(4, self.total.size)).astype(np.float32)
        mine = slice(0, 1) if self.transport.rank == 0 else slice(1, 4)
        for place, value in zip(self.partials[mine], values[mine], strict=True):
            place[:] = value
        self.count[:] = number + self.transport.rank
        self.run(HEADER, lambda peer, text: None, Deadline("talk", 10))
        a, b, c, d = values
        good = self.total.tobytes() == ((a + b) + (c + d)).tobytes()
        return bool(good and (self.all == 2 * number + 1).all())


@pytest.mark.parametrize(("size", "ring"), [(1, 4096), (63, 4096), (230, 4096), (20_000, 1 << 20)])
def test_sums_read_what_has_come_in_the_rings(
    size: int, ring: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also around a ring's end, and in several chunks; what is to be received stays untouched."""
    monkeypatch.setattr(shared_memory, "_RING_BYTES", ring)
    left = count_quick(monkeypatch)
    a, b = (AddingEnd(t, size) for t in pair())
    good = both(lambda: [a(i) for i in range(100)], lambda: [b(i) for i in range(100)])
    assert all(map(all, good))
    assert len(left) == 200
    assert any(done for *_, done in left)
    if all(done for *_, done in left):  # nobody was late
        assert not any(array.any() for end in (a, b) for array in end.come)


@pytest.mark.parametrize("padding", range(1, 8))
def test_arrays_behind_others_of_odd_lengths_are_added_too(
    padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "_RING_BYTES", 4096)
    left = count_quick(monkeypatch)
    a, b = (AddingEnd(t, 51, padding) for t in pair())
    good = both(lambda: [a(i) for i in range(20)], lambda: [b(i) for i in range(20)])
    assert all(map(all, good))
    assert all(done or unsent or late for unsent, late, done in left)
    assert any(done for *_, done in left)


def test_pieces_begin_at_multiples_of_8_whoever_moves_them() -> None:
    """Of all lengths, by Python at one end and by machine code at the other, past a ring's end."""
    one, other = pair()
    deadline = Deadline("talk", 10)
    for number in range(60):
        nbytes = [number % 9 + 1, 37 * number % 200 + 1, 3]
        sent = [np.full(count, number, np.uint8) for count in nbytes]
        came = [np.zeros(count, np.uint8) for count in nbytes]
        run = one.prepare(len(HEADER), Arrays({1: sent}, {1: came}, []))
        back = [np.zeros(count, np.uint8) for count in (len(HEADER), *nbytes)]

        def talk(sent=sent, back=back) -> bool:
            for array in (np.frombuffer(HEADER, np.uint8), *sent):
                other.send(0, array, deadline)
            for array in back:
                other.recv(1 - other.rank, array, deadline)
            return True

        both(lambda run=run: run(HEADER, lambda peer, text: None, deadline), talk)
        for got, given in zip((*came, *back[1:]), (*sent, *sent), strict=True):
            assert (got == given).all()


def test_nothing_is_added_over_what_has_not_been_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 has no space for its partial, over which the first sum goes; all others are there."""
    monkeypatch.setattr(shared_memory, "_RING_BYTES", 16384)
    left = count_quick(monkeypatch)
    one, other = pair()
    a = AddingEnd(one, 1000)
    deadline = Deadline("talk", 10)
    one.send(1, np.zeros(14_000, np.uint8), deadline)
    values = np.random.default_rng(7).normal(size=(4, 1000)).astype(np.float32)
    for array in (np.frombuffer(HEADER, np.uint8), *values[1:], np.full(3, 8.0)):
        other.send(0, array, deadline)
    found = np.zeros(1000, np.float32)

    def second() -> bool:
        wait_for(left)
        for array in (np.zeros(14_000, np.uint8), np.zeros(16, np.uint8), found, np.zeros(3)):
            other.recv(0, array, deadline)
        return bool((found == values[0]).all())

    assert both(lambda: a(7), second) == [True, True]
    assert left == [([1], [], False)]
