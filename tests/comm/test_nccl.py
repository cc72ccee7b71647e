"""Collectives of the arrays of GPUs on a stand-in for CuPy and NCCL: bits, streams, and hangs."""

from __future__ import annotations

import inspect
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from distgrad.backend.cupy import CupyBackend
from distgrad.comm.communicator import Communicator
from distgrad.comm.nccl import DeviceCommunicator
from distgrad.comm.tree import TreeSum, worker_shards
from distgrad.core.errors import PeerLostError
from distgrad.testing import fake_cupy, fake_nccl, fake_streams, process, standin
from distgrad.testing.thread_world import run_world

pytestmark = pytest.mark.cpu  # it installs the other module itself
SIZES = (0, 1, 3, 64, 1001, 150_001, 300_000)  # the last two beyond what is sent whole


@pytest.fixture(autouse=True)
def gpus(new_threads) -> Iterator[None]:
    with fake_cupy.installed(4):
        yield
    assert not new_threads(), "a thread is left behind"


Work = Callable[[DeviceCommunicator, CupyBackend], object]


def run(size: int, work: Work, *, plain: bool = False, **limits: float) -> list:
    def rank(c: Communicator) -> object:
        with fake_cupy.own_gpu(c.rank) as gpu:
            return work(DeviceCommunicator(c, gpu.xp, gpu.nccl(), plain=plain), gpu)

    return run_world(size, rank, **limits)


def values(shard: int, size: int) -> np.ndarray:
    rng = np.random.default_rng([shard, size])
    return (10.0 ** rng.uniform(-4, 4, size) * rng.choice([-1, 1], size)).astype(np.float32)


def tree_of(c: Communicator, shards: int, size: int, present: list[int], xp=np) -> TreeSum:
    tree = TreeSum(shards, size, xp=xp)
    tree.start(present)
    for shard in worker_shards(shards, c.rank, c.world_size):
        if shard in present:
            buffer = tree.buffer()
            buffer[...] = values(shard, size) if xp is np else standin.asarray(values(shard, size))
            tree.push(shard, buffer)
    return tree


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_sums_have_the_bits_of_the_host(size: int) -> None:
    cases = [(4, [0, 1, 2, 3]), (8, [0, 2, 3, 7]), (7, list(range(7))), (4, [1])]

    def work(c: DeviceCommunicator, gpu: CupyBackend) -> None:
        for shards, present in cases:
            for n in SIZES:
                for scatter in (False, True):
                    there = gpu.xp.full(n, -1, dtype=np.float32)
                    here = np.full(n, -1, np.float32)
                    tree = tree_of(c, shards, n, present, gpu.xp)
                    c.reduce_tree(tree, there, bucket=3, scatter=scatter)
                    assert tree.partials() == {}
                    host = tree_of(c, shards, n, present)
                    c._host.reduce_tree(host, here, bucket=3, scatter=scatter)
                    c.settle()
                    assert there.get().tobytes() == here.tobytes(), (shards, present, n, scatter)
                    c.allgather(there)
                    c._host.allgather(here)
                    c.settle()
                    assert there.get().tobytes() == here.tobytes()

    run(size, work)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_several_sums_go_together(size: int) -> None:
    def work(c: DeviceCommunicator, gpu: CupyBackend) -> None:
        for n in (5, 200_000):
            there = [gpu.xp.zeros(n, dtype=np.float32) for _ in range(2)]
            here = [np.zeros(n, np.float32) for _ in range(2)]
            every = list(range(4))
            c.reduce_trees([(tree_of(c, 4, n, every, gpu.xp), out) for out in there])
            c._host.reduce_trees([(tree_of(c, 4, n, every), out) for out in here])
            c.settle()
            assert [a.get().tobytes() for a in there] == [a.tobytes() for a in here]

    run(size, work)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_plain_sums_are_nccls_own(size: int) -> None:
    """The stand-in adds from the last rank to the first, which shows."""
    present = [rank for rank in range(size) if rank != 1 or size == 2]

    def work(c: DeviceCommunicator, gpu: CupyBackend) -> None:
        for n in SIZES:
            for scatter in (False, True):
                out = gpu.xp.zeros(n, dtype=np.float32)
                c.reduce_tree(tree_of(c, size, n, present, gpu.xp), out, scatter=scatter)
                c.settle()
                zeros = np.zeros(n, np.float32)
                given = [values(r, n) if r in present else zeros for r in range(size)]
                total = given[-1].copy()
                for array in reversed(given[:-1]):
                    total += array
                mine = c.part(n) if scatter else slice(0, n)
                assert out.get()[mine].tobytes() == total[mine].tobytes()

    run(size, work, plain=True)


def test_plain_sums_of_several_shards_a_rank_keep_their_order() -> None:
    def work(c: DeviceCommunicator, gpu: CupyBackend) -> None:
        out, here = gpu.xp.zeros(1001, dtype=np.float32), np.zeros(1001, np.float32)
        c.reduce_tree(tree_of(c, 8, 1001, [0, 2, 5, 7], gpu.xp), out)
        c._host.reduce_tree(tree_of(c, 8, 1001, [0, 2, 5, 7]), here)
        c.settle()
        assert out.get().tobytes() == here.tobytes()

    run(3, work, plain=True)


def test_nobody_waits_before_settle() -> None:
    """Rank 0 goes on while the GPU of rank 1 is busy, and has the sum after ``settle``."""

    def work(c: DeviceCommunicator, gpu: CupyBackend) -> None:
        ready = threading.Event()
        out = gpu.xp.zeros(100, dtype=np.float32)
        if c.rank == 1:
            gpu.xp.cuda.get_current_stream().add(ready.is_set)
        with gpu.stream("other"):
            tree = tree_of(c, 2, 100, [0, 1], gpu.xp)
            c.reduce_tree(tree, out)
            end = gpu.mark()
        if c.rank == 0:
            assert not end.done
        c.barrier()
        ready.set()
        gpu.after(end)
        c.settle()
        assert end.done
        assert out.get().tobytes() == (values(0, 100) + values(1, 100)).tobytes()

    run(2, work)


# What goes wrong

# After half a second: at most as much longer as a busy machine takes, see ``lost``.
WAITED = r"waited (0\.[5-9]|[1-4]\.\d) s"


def lost(call: Callable[[], object], pattern: str) -> None:
    start = time.monotonic()
    with pytest.raises(PeerLostError, match=pattern):
        call()
    assert time.monotonic() - start < 5


def test_a_gpu_that_hangs_is_named_by_the_deadline_and_nccl_is_aborted() -> None:
    def work(c: DeviceCommunicator, gpu: CupyBackend) -> None:
        if c.rank == 1:
            gpu.xp.cuda.get_current_stream().add(lambda: False)  # a kernel without an end
        out = gpu.xp.zeros(100, dtype=np.float32)
        c.allreduce(out)
        text = (
            rf"rank \d {WAITED} for its GPU in allreduce\(sum\), which ranks?|lost rank \d "
            rf"in allreduce\(sum\): rank \d {WAITED} for its GPU"
        )
        lost(lambda: c.settle(timeout=0.5), text)
        assert not c._comm._alive
        lost(c.barrier, "has ended")

    run(3, work, timeout=20)


def test_a_rank_that_never_comes_is_named_before_a_gpu_waits_for_it() -> None:
    given_up = threading.Event()

    def work(c: DeviceCommunicator, gpu: CupyBackend) -> None:
        if c.rank == 1:
            given_up.wait(15)
            return
        out = gpu.xp.zeros(100, dtype=np.float32)
        text = rf"rank 0 {WAITED} for rank 1 in allreduce\(sum\)"
        lost(lambda: c.allreduce(out, timeout=0.5), text)
        given_up.set()
        assert not c._comm._alive

    run(2, work, timeout=20)


def test_a_rank_that_freezes_between_its_call_and_its_gpu_is_named() -> None:
    given_up = threading.Event()

    def work(c: DeviceCommunicator, gpu: CupyBackend) -> None:
        out = gpu.xp.zeros(100, dtype=np.float32)
        if c.rank == 1:
            deadline = c._host._operation("broadcast", None)._deadline
            c._meet(c._call("broadcast", deadline, out.dtype, 0, out.nbytes))
            given_up.wait(15)  # and calls NCCL no more
            return
        c.broadcast(out)
        lost(lambda: c.settle(timeout=0.5), f"rank 0 {WAITED} for rank 1 in broadcast")
        given_up.set()

    run(2, work, timeout=20)


def test_an_abort_reaches_whoever_waits_for_a_gpu() -> None:
    waits = threading.Event()

    def work(c: DeviceCommunicator, gpu: CupyBackend) -> None:
        stuck = gpu.xp.cuda.get_current_stream()
        if c.rank == 1:
            stuck.add(lambda: False)
        out = gpu.xp.zeros(100, dtype=np.float32)
        c.allreduce(out)
        if c.rank == 1:
            # as a rank would that comes into ``settle``, and then fails
            c._meet(c._call("settle", c._host._operation("settle", None)._deadline))
            waits.wait(15)
            time.sleep(0.2)
            c.abort(1, "ValueError: a bug")
            assert not c._comm._alive
        else:
            waits.set()
            lost(c.settle, r"rank 0 lost rank 1 in allreduce\(sum\): ValueError: a bug")

    run(2, work, timeout=20)


def test_work_that_an_abort_has_ended_is_not_taken_for_done() -> None:
    given_up = threading.Event()

    def work(c: DeviceCommunicator, gpu: CupyBackend) -> None:
        out = gpu.xp.zeros(100, dtype=np.float32)
        if c.rank == 1:
            gpu.xp.cuda.get_current_stream().add(lambda: False)
            c.allreduce(out)
            c._meet(c._call("settle", c._host._operation("settle", None)._deadline))
            given_up.wait(15)
        else:
            c.allreduce(out)
            threading.Timer(0.1, c._end, [False]).start()
            lost(c.settle, r"allreduce\(sum\) was aborted")
            given_up.set()

    run(2, work, timeout=20)


def test_a_call_of_nccl_that_blocks_ends_at_its_deadline(monkeypatch) -> None:
    def work(c: DeviceCommunicator, gpu: CupyBackend) -> None:
        def blocking() -> None:  # as it connects to a peer that is gone
            while c._comm._alive:
                time.sleep(0.01)

        c._nccl = type("nccl", (), {**vars(c._nccl), "groupEnd": staticmethod(blocking)})
        out = gpu.xp.zeros(100, dtype=np.float32)
        text = rf"rank {c.rank} {WAITED} for rank {1 - c.rank} in allreduce"
        text += "|lost rank|failed in allreduce"
        lost(lambda: c.allreduce(out, timeout=0.5), text)
        fake_nccl._group.depth = 0

    run(2, work, timeout=20)


def test_a_start_that_blocks_ends_at_its_deadline(monkeypatch, new_threads) -> None:
    monkeypatch.setattr(fake_nccl, "_INIT_LIMIT", 3.0)
    given_up = threading.Event()

    def rank(c: Communicator) -> None:
        with fake_cupy.own_gpu(c.rank) as gpu:
            if c.rank == 1:  # meets the others, and never calls NCCL
                c.broadcast_object(None)
                c.barrier()
                given_up.wait(15)
                return
            start = lambda: DeviceCommunicator(c, gpu.xp, gpu.nccl())  # noqa: E731
            lost(start, f"rank 0 {WAITED} for rank 1 in the start of NCCL")
            given_up.set()

    run_world(2, rank, timeout=0.5)
    new_threads()  # the stand-in's own limit ends what NCCL would keep


def test_an_error_of_nccl_is_told() -> None:
    def work(c: DeviceCommunicator, gpu: CupyBackend) -> None:
        out = gpu.xp.zeros(100, dtype=np.float32)
        c.barrier()
        c._comm._meeting.broken = "a cable"
        c.allreduce(out)
        c.settle()

    with pytest.raises(PeerLostError, match=r"NCCL failed in .*INVALID_USAGE.*DISTGRAD_NCCL=off"):
        run(2, work)


def test_two_ranks_on_one_gpu_are_refused_by_nccl() -> None:
    def rank(c: Communicator) -> None:
        with fake_cupy.own_gpu(0) as gpu:
            DeviceCommunicator(c, gpu.xp, gpu.nccl())

    with pytest.raises(PeerLostError, match="NCCL failed in the start of NCCL"):
        run_world(2, rank)


# The stand-in itself


def test_the_stand_in_knows_the_rules_of_nccl() -> None:
    nccl = fake_nccl.module()
    comm = nccl.NcclCommunicator(1, nccl.get_unique_id(), 0)
    array = standin.asarray(np.zeros((4, 4), np.float32))
    at, code = array.data.ptr, nccl.NCCL_FLOAT32
    with pytest.raises(ValueError, match="17 float32 are wanted"):
        comm.allReduce(at, at, 17, code, nccl.NCCL_SUM, 0)
    with pytest.raises(ValueError, match="float64"):
        comm.allReduce(at, at, 4, nccl.NCCL_FLOAT64, nccl.NCCL_SUM, 0)
    turned = standin.Array(np.zeros((4, 4), np.float32).T)
    with pytest.raises(ValueError, match="strides"):
        comm.allReduce(turned.data.ptr, at, 16, code, nccl.NCCL_SUM, 0)
    with pytest.raises(fake_streams.CUDARuntimeError, match="no stream"):
        comm.allReduce(at, at, 4, code, nccl.NCCL_SUM, 12345)
    with pytest.raises(TypeError, match="pointer"):
        comm.allReduce(at, at, 4, code, nccl.NCCL_SUM, fake_streams.get_current_stream())
    fake_streams.Device(1).use()
    with pytest.raises(nccl.NcclError):
        comm.allReduce(at, at, 4, code, nccl.NCCL_SUM, 0)
    fake_streams.Device(0).use()
    comm.abort()
    with pytest.raises(nccl.NcclError):
        comm.check_async_error()


def test_the_stand_in_finds_counts_that_differ() -> None:
    def work(c: DeviceCommunicator, gpu: CupyBackend) -> None:
        comm, other = c._comm, 1 - c.rank
        array = gpu.xp.zeros(10, dtype=np.float32)
        if c.rank == 0:
            comm.send(array.data.ptr, 10, 7, other, 0)
        else:
            comm.recv(array.data.ptr, 9, 7, other, 0)
        c.barrier()
        with pytest.raises(fake_nccl.NcclError):
            comm.check_async_error()

    run(2, work)


def test_the_names_are_those_of_cupy() -> None:
    program = inspect.getsource(_check_real_names) + "\n_check_real_names()"
    done = process.run([sys.executable, "-c", program], timeout=60)
    if "No module named 'cupy'" in done.stderr:
        pytest.skip("no CuPy: pip install 'distgrad[cuda12]'")
    assert done.returncode == 0, done.stderr


def _check_real_names() -> None:
    """In a process of its own, where ``cupy`` is the real one. No GPU is needed."""
    import cupy
    import cupyx
    from cupy.cuda import nccl

    for name in ("Stream", "Event", "Device", "get_current_stream", "runtime"):
        assert hasattr(cupy.cuda, name), name
    for name in ("record", "wait_event", "synchronize"):
        assert hasattr(cupy.cuda.Stream, name), name
    assert hasattr(cupy.cuda.Event, "done") and hasattr(cupy.ndarray, "set")
    assert hasattr(cupy.cuda.Device, "pci_bus_id") and hasattr(cupyx, "empty_pinned")
    assert hasattr(cupy.cuda.Device, "compute_capability")
    assert hasattr(cupy.cuda.runtime, "getDeviceProperties")
    if not nccl.available:
        return
    for name in ("groupStart", "groupEnd", "get_unique_id", "get_version", "NcclError"):
        assert hasattr(nccl, name), name
    types = ("FLOAT32", "FLOAT64", "INT32", "INT64", "BFLOAT16", "FLOAT16")
    for name in ("NCCL_SUM", *[f"NCCL_{name}" for name in types]):
        assert isinstance(getattr(nccl, name), int), name
    assert (nccl.NCCL_INT32, nccl.NCCL_INT64) == (2, 4)
    assert (nccl.NCCL_FLOAT32, nccl.NCCL_FLOAT64, nccl.NCCL_SUM) == (7, 8, 0)
    assert (nccl.NCCL_FLOAT16, nccl.NCCL_BFLOAT16) == (6, 9)
    number = nccl.get_unique_id()
    assert type(number) is bytes and len(number) == 128
    given = {
        "send": "sendbuf, size_t count, int datatype, int peer, intptr_t stream",
        "recv": "recvbuf, size_t count, int datatype, int peer, intptr_t stream",
        "broadcast": "recvbuff, size_t count, int datatype, int root, intptr_t stream",
        "allReduce": "recvbuf, size_t count, int datatype, int op, intptr_t stream",
        "reduce": "recvbuf, size_t count, int datatype, int op, int root, intptr_t stream",
        "reduceScatter": "recvbuf, size_t recvcount, int datatype, int op, intptr_t stream",
        "allGather": "recvbuf, size_t count, int datatype, intptr_t stream",
        "abort": "",
        "destroy": "",
        "check_async_error": "",
    }
    for name, arguments in given.items():
        assert arguments in getattr(nccl.NcclCommunicator, name).__doc__, name
