"""Exchanges in machine code: the same bytes as Python's, whoever is late, asleep or elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distgrad.comm import native, ring_calls, shared_memory, tcp
from distgrad.comm.transport import Deadline

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
        made = transport.prepare(len(HEADER), *arrays) if quick else None
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


def count_quick(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int], list[int]]]:
    """What is left to Python, for each call of machine code."""
    left: list[tuple[list[int], list[int]]] = []
    run = ring_calls.RingExchange.__call__

    def noted(self: ring_calls.RingExchange, header: bytes) -> tuple[list[int], list[int]]:
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
    assert any(not late for _, late in left)
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
    assert ([1], [1]) in left


def test_who_is_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    left = count_quick(monkeypatch)
    a, b = (End(t, 100, True) for t in pair())

    def late() -> bool:
        wait_for(left)
        return b(5)

    assert both(lambda: a(5), late) == [True, True]
    assert ([], [1]) in left  # sent, and not yet received


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
