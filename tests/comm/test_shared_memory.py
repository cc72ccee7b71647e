"""Memory between processes: bytes in order, wake-ups that are never lost, nothing left behind."""

from __future__ import annotations

import gc
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from distgrad.comm import rendezvous, shared_channel, shared_memory, tcp
from distgrad.comm.rendezvous import Rendezvous
from distgrad.comm.transport import Arrays, Deadline

pytestmark = [
    pytest.mark.timeout_s(30),
    pytest.mark.skipif(
        shared_memory.Offer(1).show() is None, reason="no memory can be shared on this system"
    ),
]


def streams(size: int, monkeypatch: pytest.MonkeyPatch) -> tuple:
    monkeypatch.setattr(shared_memory, "_RING_BYTES", size)
    offer = shared_memory.Offer(1)
    taken = shared_memory.take(offer.show())
    mine = offer.end(taken is not None)
    assert mine is not None and taken is not None
    return mine, taken


def pair(**how: object) -> tuple[tcp.TCPTransport, tcp.TCPTransport]:
    place = Rendezvous(2, rendezvous.new_token(), timeout=10).start()

    def join(rank: int) -> tcp.TCPTransport:
        return tcp.connect(rank, 2, place.address, place.token, timeout=10.0, **how)  # type: ignore[arg-type]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(join, range(2))
    return first, second


def test_pieces_come_out_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any length, in parts where there is no more space, each from a multiple of 8 on."""
    for one, other in (streams(4096, monkeypatch), reversed(streams(4096, monkeypatch))):
        rng = np.random.default_rng(0)
        sent = [rng.integers(0, 256, n).astype(np.uint8) for n in rng.integers(1, 3000, 300)]
        found = [np.zeros_like(piece) for piece in sent]
        to_write, to_read = ([piece.data for piece in pieces] for pieces in (sent, found))
        while to_read:
            for _ in range(rng.integers(4)):
                if to_write:
                    to_write[0] = to_write[0][one.write(to_write[0]) :]
                    to_write = to_write if to_write[0] else to_write[1:]
            for _ in range(rng.integers(4)):
                if to_read:
                    rest = to_read[0]
                    if other.ready >= 8 and len(rest) == found[-len(to_read)].size >= 8:
                        assert other.peek(8) == sent[-len(to_read)][:8].tobytes()
                    to_read[0] = rest[other.read(rest) :]
                    to_read = to_read if to_read[0] else to_read[1:]
            assert 0 <= one.space <= 4096 and other.ready >= 0
        for piece, came in zip(sent, found, strict=True):
            np.testing.assert_array_equal(came, piece)
        assert one.space == 4096 and other.ready == 0


def test_a_full_ring_takes_and_an_empty_one_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = streams(4096, monkeypatch)
    assert one.read(memoryview(bytearray(10))) == 0
    assert one.write(memoryview(bytes(5000))) == 4096
    assert one.write(memoryview(b"x")) == 0
    assert other.read(memoryview(bytearray(10))) == 10
    assert one.space == 16


def test_who_sleeps_is_woken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = streams(4096, monkeypatch)
    assert not one.must_wake()
    other.doze(True)
    assert not other.must_wake()  # that is the other's sleep
    assert one.must_wake() and not one.must_wake()


def test_an_offer_of_another_host_or_with_a_wrong_secret_is_refused() -> None:
    offer = shared_memory.Offer(1)
    shown = offer.show()
    assert shown is not None
    assert shared_memory.take({**shown, "host": "another"}) is None
    assert shared_memory.take({**shown, "secret": "00" * 16}) is None
    assert shared_memory.take({**shown, "path": f"/proc/{os.getpid()}/fd/99999"}) is None
    assert shared_memory.take(None) is None
    assert offer.end(False) is None


def test_a_card_with_a_wrong_secret_or_of_nobody_is_refused() -> None:
    card = shared_memory.Card()  # whose memory others must find
    shown = card.show()
    assert shown is not None
    assert shared_memory.reader({**shown, "secret": "00" * 16}) is None
    assert shared_memory.reader({**shown, "pids": "another"}) is None
    assert shared_memory.reader(None) is None


def test_wake_ups_are_never_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a nap that nobody ends would last beyond the deadline."""
    monkeypatch.setattr(tcp, "_SHARED_SPINS", 1)  # asleep at every chance
    monkeypatch.setattr(tcp, "_NAP", 20.0)
    monkeypatch.setattr(shared_memory, "_RING_BYTES", 4096)
    transports = pair()
    assert all(t._sharing for t in transports)
    words = [b"some words", b"a header!"]
    count = 400

    def run(rank: int) -> int:
        good = 0
        for number in range(count):
            deadline = Deadline("talk", 5)
            array = np.full(1 + 37 * (number % 300), rank * count + number)
            found = np.zeros_like(array)
            heard: list[bytes] = []
            transports[rank].exchange(
                words[number % 2],
                partial(Arrays, {1 - rank: [array]}, {1 - rank: [found]}),
                lambda peer, header, heard=heard: heard.append(header),  # type: ignore[misc]
                deadline,
            )
            right = (found == (1 - rank) * count + number).all()
            good += right and heard in ([], [words[number % 2]])  # one like ours need not be shown
        return int(good)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, range(2))) == [count, count]
    for transport in transports:
        transport.close()


@pytest.mark.parametrize(
    "nbytes", [1, shared_channel._LEND_BYTES - 1, 3 * shared_channel._LEND_BYTES]
)
def test_a_late_receiver_gets_all(nbytes: int) -> None:
    first, second = pair()
    sent, found = np.arange(nbytes).astype(np.uint8), np.zeros(nbytes, np.uint8)
    thread = threading.Thread(target=lambda: first.send(1, sent, Deadline("talk", 10)))
    thread.start()
    time.sleep(0.2)
    second.recv(0, found, Deadline("talk", 10))
    thread.join()
    np.testing.assert_array_equal(found, sent)
    first.close()
    second.close()


def test_no_file_stays_open_and_no_name_in_dev_shm() -> None:
    gc.collect()
    before = sum("distgrad" in _target(name) for name in os.listdir("/proc/self/fd"))
    names = set(os.listdir("/dev/shm"))
    transports = pair()
    for transport in transports:
        transport.close()
    del transport, transports
    gc.collect()
    assert sum("distgrad" in _target(name) for name in os.listdir("/proc/self/fd")) == before
    assert not {name for name in set(os.listdir("/dev/shm")) - names if "distgrad" in name}


def _target(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return ""
