"""The TCP transport: who is let in, who is missing, what a death and a freeze look like."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from distgrad.comm import rendezvous, tcp
from distgrad.comm.communicator import Communicator
from distgrad.comm.rendezvous import Rendezvous
from distgrad.core.errors import PeerLostError, UsageError
from distgrad.testing import process

pytestmark = pytest.mark.timeout_s(30)


def join(place: Rendezvous, rank: int, **how: Any) -> tcp.TCPTransport:
    settings = {"timeout": 10.0, **how}
    return tcp.connect(rank, place.world_size, place.address, place.token, **settings)


def world(size: int, fn: Callable[[Communicator], Any], **how: Any) -> list:
    """Calls ``fn`` in threads that are connected by TCP; its results or errors by rank."""
    place = Rendezvous(size, rendezvous.new_token(), timeout=10).start()

    def run(rank: int) -> Any:
        try:
            communicator = Communicator(join(place, rank, **how), timeout=5)
            result = fn(communicator)
            communicator.close()
            return result
        except PeerLostError as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ranks that have been at a place of meeting, so far."""
    ranks: list[int] = []
    note = Rendezvous._note

    def listed(self: Rendezvous, came: dict, rank: int, connection: socket.socket) -> None:
        note(self, came, rank, connection)
        ranks.append(rank)

    monkeypatch.setattr(Rendezvous, "_note", listed)
    return ranks


def strangers(address: str) -> list[socket.socket]:
    """One who says nothing, one who talks nonsense, one who leaves, one who stops in the middle."""
    where = rendezvous.split_address(address)
    silent, nonsense, gone, halting = (socket.create_connection(where) for _ in range(4))
    nonsense.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
    halting.sendall(b"\0\0\0\0abc")
    gone.close()
    return [silent, nonsense, halting]


def test_strangers_keep_nobody_waiting() -> None:
    place = Rendezvous(2, "secret", timeout=60).start()
    crowd = strangers(place.address)
    start = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        transports = list(pool.map(lambda rank: join(place, rank, timeout=60.0), range(2)))
    assert time.monotonic() - start < 20  # long before anybody's deadline
    for each in [*transports, *crowd]:
        each.close()


def test_strangers_at_the_door_of_a_rank() -> None:
    gate = rendezvous.Gate("127.0.0.1", 0, "secret")
    crowd = strangers(gate.address)
    with ThreadPoolExecutor(1) as pool:
        knocking = pool.submit(rendezvous.knock, gate.address, "secret", 7, time.monotonic() + 5)
        guest = gate.accept(5)
        assert guest is not None and guest[0] == 7
        for connection in (guest[1], knocking.result(), *crowd):
            connection.close()
    assert gate.accept(0.05) is None
    gate.close()


def test_a_wrong_token_is_refused_and_harms_nobody() -> None:
    place = Rendezvous(2, "right", timeout=10).start()
    with pytest.raises(UsageError, match="refused rank 1.*DISTGRAD_TOKEN"):
        tcp.connect(1, 2, place.address, "wrong", timeout=5)
    with ThreadPoolExecutor(2) as pool:
        for transport in pool.map(lambda rank: join(place, rank), range(2)):
            transport.close()


def test_a_gate_that_does_not_know_the_token_is_not_trusted() -> None:
    gate = rendezvous.Gate("127.0.0.1", 0, "other")
    thread = threading.Thread(target=gate.accept, args=(2,))
    thread.start()
    with pytest.raises(UsageError, match="belongs to another job"):
        rendezvous.knock(gate.address, "mine", 0, time.monotonic() + 5)
    thread.join()
    gate.close()


def test_missing_ranks_are_named(noted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def clock() -> float:  # the time is over once two have come
        return time.monotonic() + (20 if len(noted) == 2 else 0)

    monkeypatch.setattr(rendezvous, "time", SimpleNamespace(monotonic=clock, sleep=time.sleep))
    place = Rendezvous(4, "secret", timeout=20).start()
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(join, place, rank) for rank in (0, 2)]
        for future in found:
            with pytest.raises(PeerLostError, match=r"ranks 1, 3 of 4 did not come to .* 20 s"):
                future.result()


def test_two_processes_of_one_rank_and_another_world_size_are_refused(noted: list[int]) -> None:
    place = Rendezvous(2, "secret", timeout=10).start()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(join, place, 0)
        process.wait_until(lambda: noted == [0], 10, "rank 0")
        with pytest.raises(UsageError, match="two processes say that they are rank 0"):
            join(place, 0)
        with pytest.raises(UsageError, match="rank 1 expects 3 ranks, not 2"):
            tcp.connect(1, 3, place.address, "secret", timeout=5)
        second = pool.submit(join, place, 1)
        first.result().close()
        second.result().close()


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = rendezvous.join_address(*free.getsockname())
    with pytest.raises(PeerLostError, match=f"rank 1 could not reach {address}.*refused"):
        tcp.connect(1, 2, address, "secret", timeout=0.5)
    with pytest.raises(UsageError, match="'nowhere' must read host:port"):
        tcp.connect(1, 2, "nowhere", "secret", timeout=0.5)


def test_a_taken_port_is_said() -> None:
    said = pytest.raises(UsageError, match="port is taken.*DISTGRAD_ADDRESS")
    with socket.create_server(("127.0.0.1", 0)) as taken, said:
        Rendezvous(2, "secret", port=taken.getsockname()[1])


def test_interfaces() -> None:
    assert rendezvous.interface_address("127.0.0.1") == "127.0.0.1"
    names = [name for _, name in socket.if_nameindex()]
    if "lo" in names:
        assert rendezvous.interface_address("lo") == "127.0.0.1"
        place = Rendezvous(2, "secret", timeout=10).start()
        with ThreadPoolExecutor(2) as pool:
            both = pool.map(lambda rank: join(place, rank, interface="lo"), range(2))
            for transport in both:
                transport.close()
    with pytest.raises(UsageError, match="'nosuch0' is neither a network interface"):
        rendezvous.interface_address("nosuch0")


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_large_messages_by_either_way(size: int, share: bool) -> None:
    def fn(c: Communicator) -> bytes:
        array = np.random.default_rng(c.rank).normal(size=3_000_001).astype(np.float32)
        c.allreduce(array)
        return array.tobytes()

    results = world(size, fn, share_memory=share)
    assert len(set(results)) == 1 and isinstance(results[0], bytes)
    assert results == world(size, fn, share_memory=not share)  # the way changes no bit


def test_a_bug_on_one_rank_reaches_all_before_it_leaves() -> None:
    """Also those that wait for somebody else, and long before their deadline."""
    heard = [threading.Event() for _ in range(3)]

    def fn(c: Communicator) -> bool:
        c.barrier()
        if c.rank == 3:
            c.abort(1, "ZeroDivisionError: bug")
            return all(each.wait(10) for each in heard)
        try:
            c.broadcast(np.zeros(3), root=(c.rank + 1) % 3, timeout=60)
        finally:
            heard[c.rank].set()
        return False

    *told, culprit = world(4, fn)
    assert culprit is True
    assert all("ZeroDivisionError: bug" in str(error) for error in told), told


@pytest.mark.parametrize("share", [False, True])
def test_a_reason_may_be_the_name_of_any_file(share: bool) -> None:
    def fn(c: Communicator) -> None:
        if c.rank == 1:
            c.abort(1, "no such file: \udcff.npy")
        else:
            c.barrier()

    lost, _ = world(2, fn, share_memory=share)
    assert "rank 0 lost rank 1 in barrier: no such file: ?.npy" in str(lost)


def test_who_leaves_in_peace_disturbs_nobody() -> None:
    def fn(c: Communicator) -> str:
        array = np.full(400_000, c.rank)
        if c.rank == 0:
            return "left"
        time.sleep(0.3)
        transport = c._transport
        assert transport is not None
        deadline = tcp.Deadline("talk", 5)
        if c.rank == 1:
            transport.send(2, array, deadline)
            return "sent"
        transport.recv(1, array, deadline)
        assert (array == 1).all()
        with pytest.raises(PeerLostError, match="rank 2 lost rank 0 in talk: it has ended"):
            transport.recv(0, array, deadline)
        return "received"

    assert world(3, fn) == ["left", "sent", "received"]


@pytest.mark.parametrize("share", [False, True])
def test_a_look_sees_who_has_failed_and_keeps_what_was_sent(share: bool) -> None:
    left, go_on = threading.Event(), threading.Event()

    def fn(c: Communicator) -> str:
        array, transport = np.full(3, c.rank), c._transport
        assert transport is not None
        deadline = tcp.Deadline("a look", 5)
        if c.rank == 0:  # in peace, behind a message that nobody waits for yet
            transport.send(2, array, deadline)
            left.set()
            return "left"
        if c.rank == 1:
            go_on.wait(5)
            transport.close("a bug")
            return "failed"
        left.wait(5)
        for _ in range(20):
            transport.look(deadline)
            time.sleep(0.01)
        transport.recv(0, array, deadline)
        assert (array == 0).all()
        go_on.set()
        with pytest.raises(PeerLostError, match="rank 2 lost rank 1 in a look: a bug"):
            while True:
                transport.look(deadline)
        transport.close()
        with pytest.raises(PeerLostError, match="closed"):
            transport.look(deadline)
        return "seen"

    assert world(3, fn, share_memory=share) == ["left", "failed", "seen"]


@pytest.mark.parametrize("looks", [False, True])
@pytest.mark.parametrize("share", [False, True])
def test_who_waits_later_for_one_that_left_hears_of_it(share: bool, looks: bool) -> None:
    """Also where its leave was seen while nobody needed it."""
    left = threading.Event()

    def fn(c: Communicator) -> str:
        array, transport = np.full(3, c.rank), c._transport
        assert transport is not None
        if c.rank == 0:
            transport.send(1, array, tcp.Deadline("talk", 5))
            transport.close()
            left.set()
            return "left"
        left.wait(5)
        for _ in range(5 * looks):
            transport.look(tcp.Deadline("a look", 5))
        transport.recv(0, array, tcp.Deadline("talk", 5))
        assert (array == 0).all()
        for _ in range(2):
            with pytest.raises(PeerLostError, match="rank 1 lost rank 0 in talk: it has ended"):
                transport.recv(0, array, tcp.Deadline("talk", 20))
        with pytest.raises(PeerLostError, match="in talk: it has ended"):
            transport.wait([transport.irecv(0, array)], tcp.Deadline("talk", 20))
        return "heard"

    assert world(2, fn, share_memory=share) == ["left", "heard"]


def test_a_message_of_another_size_is_refused() -> None:
    def fn(c: Communicator) -> None:
        assert c._transport is not None
        deadline = tcp.Deadline("talk", 5)
        if c.rank == 0:
            c._transport.send(1, np.zeros(5), deadline)
            c.barrier()
        else:
            c._transport.recv(0, np.zeros(6), deadline)

    results = world(2, fn)
    assert "it sends 40 bytes where 48 are expected" in str(results[1])


def test_waiting_costs_no_core() -> None:
    def fn(c: Communicator) -> float:
        if c.rank == 0:
            time.sleep(1.0)
        start = time.thread_time()
        c.barrier()
        return time.thread_time() - start

    assert max(world(3, fn)) < 0.1
