"""What every communicator promises, and the program of a rank that goes through it.

``mpirun -n 3 python cases.py``, or ``distgrad launch -n 3 cases.py``. It imports no pytest: each
of many ranks would wait for it.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from unittest import TestCase

import ml_dtypes  # noqa: F401 (tells NumPy of bfloat16)
import numpy as np

from distgrad.comm import rendezvous, shared_memory, tcp
from distgrad.comm.calls import DTYPES
from distgrad.comm.communicator import Communicator
from distgrad.comm.transport import Rounds
from distgrad.comm.tree import TreeSum, worker_shards
from distgrad.core.errors import InvalidArgumentError, PeerLostError
from distgrad.launcher import environ
from distgrad.launcher.connect import connect

HEALTHY: dict[str, Callable[[Communicator], None]] = {}
BROKEN: dict[str, Callable[[Communicator], None]] = {}
raises = TestCase().assertRaisesRegex
RARE_INTEGERS = ("bool", "int8", "int16", "uint8", "uint16", "uint32", "uint64")
SIZES = (0, 1, 2, 3, 7, 64, 1001, 50_003)


def healthy(case: Callable) -> Callable:
    HEALTHY[case.__name__] = case
    return case


def broken(case: Callable) -> Callable:
    """A case after which the world cannot be used again; it needs two ranks or more."""
    BROKEN[case.__name__] = case
    return case


def values_of(rank: int, size: int, dtype: str) -> np.ndarray:
    return _drawn(rank, size, dtype).copy()


@cache  # each rank asks for those of all
def _drawn(rank: int, size: int, dtype: str) -> np.ndarray:
    rng = np.random.default_rng([rank, size])
    if dtype == "bool" or np.issubdtype(dtype, np.integer):
        return rng.integers(-(10**6), 10**6, size).astype(dtype)
    if np.issubdtype(dtype, np.complexfloating):
        return (rng.normal(size=size) + 1j * rng.normal(size=size)).astype(dtype)
    return (10.0 ** rng.uniform(-4, 4, size) * rng.choice([-1, 1], size)).astype(dtype)


@healthy
def allreduce_sums_integers_exactly(c: Communicator) -> None:
    for whole_bytes in (c._whole_bytes, -1):  # -1: slices, however small the array
        c._whole_bytes = whole_bytes
        for dtype in ("int32", "int64", *RARE_INTEGERS):
            for size in (7, 1001) if dtype in RARE_INTEGERS else SIZES:
                array = values_of(c.rank, size, dtype)
                c.allreduce(array)
                expected = values_of(0, size, dtype)
                for rank in range(1, c.world_size):
                    expected += values_of(rank, size, dtype)
                np.testing.assert_array_equal(array, expected)
                assert array.dtype == dtype


@healthy
def allreduce_adds_floats_in_rank_order(c: Communicator) -> None:
    for whole_bytes in (c._whole_bytes, -1):
        c._whole_bytes = whole_bytes
        for dtype in ("float32", "float64", "bfloat16", "float16", "complex64", "complex128"):
            for size in (7, 1001) if "complex" in dtype else SIZES:
                array = values_of(c.rank, size, dtype)
                c.allreduce(array)
                expected = values_of(0, size, dtype)
                for rank in range(1, c.world_size):
                    expected += values_of(rank, size, dtype)
                assert array.tobytes() == expected.tobytes()


@healthy
def allreduce_max_and_min(c: Communicator) -> None:
    for op, reduce in (("max", np.maximum), ("min", np.minimum)):
        for dtype in ("float32", "float64", "int32", "int64", "bfloat16", "float16"):
            for size in (3, 50_003):
                array = values_of(c.rank, size, dtype)
                c.allreduce(array, op=op)
                everyone = [values_of(r, size, dtype) for r in range(c.world_size)]
                np.testing.assert_array_equal(array, reduce.reduce(everyone))


@healthy
def allreduce_keeps_shapes(c: Communicator) -> None:
    for shape in ((), (3, 5), (0, 4), (2, 3, 4000)):
        array = np.full(shape, c.rank + 1, np.float64)
        c.allreduce(array)
        assert array.shape == shape
        assert (array == c.world_size * (c.world_size + 1) / 2).all()


@healthy
def large_buffers(c: Communicator) -> None:
    array = np.arange(1_000_003, dtype=np.float32) + c.rank
    c.allreduce(array)
    n = c.world_size
    expected = np.zeros_like(array)
    for rank in range(n):
        expected += np.arange(1_000_003, dtype=np.float32) + rank
    np.testing.assert_array_equal(array, expected)
    array[:] = c.rank
    c.broadcast(array, root=n - 1)
    assert (array == n - 1).all()


@healthy
def broadcast_copies_the_root(c: Communicator) -> None:
    for root in range(c.world_size):
        for dtype in DTYPES:
            for size in (0, 1, 1001):
                array = values_of(c.rank, size, dtype)
                c.broadcast(array, root)
                np.testing.assert_array_equal(array, values_of(root, size, dtype))


@healthy
def objects_travel(c: Communicator) -> None:
    def thing(rank: int) -> object:
        return {"rank": rank, "text": "x" * (1 + 70_000 * rank), "none": None}

    for root in range(c.world_size):
        assert c.broadcast_object(thing(c.rank), root) == thing(root)
    assert c.allgather_object(thing(c.rank)) == [thing(r) for r in range(c.world_size)]
    assert c.allgather_object(None) == [None] * c.world_size


@healthy
def barrier_holds_everyone(c: Communicator) -> None:
    time.sleep(0.03 * c.rank)
    before = time.monotonic()
    c.barrier()
    after = time.monotonic()
    times = c.allgather_object((before, after))
    assert max(b for b, _ in times) <= min(a for _, a in times)


@healthy
def reduce_tree_has_the_bits_of_one_worker(c: Communicator) -> None:
    n = c.world_size
    for whole_bytes in (c._whole_bytes, -1):
        c._whole_bytes = whole_bytes
        for virtual_shards, missing in ((n, ()), (8, ()), (12, (0, 5)), (13, (4, 5, 6, 7, 12))):
            present = [s for s in range(virtual_shards) if s not in missing]
            for size in (0, 1, 5, 8191):
                found = tree_total(c, virtual_shards, present, size)
                alone = tree_total(Communicator(None), virtual_shards, present, size)
                assert found.tobytes() == alone.tobytes(), (virtual_shards, missing, size)


def tree_total(
    c: Communicator, virtual_shards: int, present: Sequence[int], size: int, **how: bool
) -> np.ndarray:
    tree_sum = TreeSum(virtual_shards, size)
    tree_sum.start(present)
    for shard in worker_shards(virtual_shards, c.rank, c.world_size):
        if shard in present:
            buffer = tree_sum.buffer()
            buffer[:] = values_of(shard, size, "float32")
            tree_sum.push(shard, buffer)
    out = np.full(size, np.nan, np.float32)
    c.reduce_tree(tree_sum, out, **how)
    assert tree_sum.partials() == {}
    return out


@healthy
def rounds_change_no_bit(c: Communicator) -> None:
    """Large arrays go piece by piece where a transport says so; a rank's part is still one part."""
    c._whole_bytes = -1
    n = c.world_size
    for rounds in (Rounds(1), Rounds(1000), Rounds(1000, 3000), None):
        if c._transport is not None:
            c._transport.rounds = rounds
        for size in (1, n + 1, 1013):
            total = values_of(0, size, "float32")
            for rank in range(1, n):
                total += values_of(rank, size, "float32")
            array = values_of(c.rank, size, "float32")
            c.allreduce(array)
            assert array.tobytes() == total.tobytes(), (rounds, size)
            whole = tree_total(c, n, range(n), size)
            alone = tree_total(Communicator(None), n, range(n), size)
            assert whole.tobytes() == alone.tobytes(), (rounds, size)
            part = tree_total(c, n, range(n), size, scatter=True)
            assert part[c.part(size)].tobytes() == alone[c.part(size)].tobytes()
            c.allgather(part)
            assert part.tobytes() == alone.tobytes(), (rounds, size)


@healthy
def reduce_tree_keeps_its_memory(c: Communicator) -> None:
    tree_sum = TreeSum(8, 30_000, np.float64)
    out = np.empty(30_000)
    scratch = allocated = 0
    for step in range(4):
        tree_sum.start(range(8))
        for shard in worker_shards(8, c.rank, c.world_size):
            buffer = tree_sum.buffer()
            buffer[:] = shard + step
            tree_sum.push(shard, buffer)
        c.reduce_tree(tree_sum, out)
        assert (out == 28 + 8 * step).all()
        if step == 0:
            scratch, allocated = c._scratch.ctypes.data, tree_sum.allocated
    assert (c._scratch.ctypes.data, tree_sum.allocated) == (scratch, allocated)


@healthy
def reduce_tree_wants_exactly_its_shards(c: Communicator) -> None:
    tree_sum = TreeSum(8, 10)
    tree_sum.start(range(8))
    with raises(InvalidArgumentError, f"rank {c.rank} must push every present"):
        c.reduce_tree(tree_sum, np.empty(10, np.float32))
    with raises(InvalidArgumentError, "out of 10 float32"):
        c.reduce_tree(tree_sum, np.empty(10, np.float64))
    c.barrier()  # nothing was sent, so the world goes on


@healthy
def wrong_arguments_leave_the_world_alive(c: Communicator) -> None:
    with raises(InvalidArgumentError, "got list"):
        c.allreduce([1.0])
    with raises(InvalidArgumentError, "got object"):
        c.allreduce(np.zeros(3, object))
    with raises(InvalidArgumentError, "no max: got complex64"):
        c.allreduce(np.zeros(3, np.complex64), op="max")
    with raises(InvalidArgumentError, "got >f4"):
        c.allreduce(np.zeros(3, ">f4"))
    with raises(InvalidArgumentError, "C-contiguous"):
        c.broadcast(np.zeros((3, 4)).T)
    with raises(InvalidArgumentError, "'mean'"):
        c.allreduce(np.zeros(3), op="mean")
    with raises(InvalidArgumentError, "root"):
        c.broadcast(np.zeros(3), root=c.world_size)
    c.barrier()


@healthy
def leaving_together(c: Communicator) -> None:
    assert c.leave(75)


@healthy
def closed_means_closed(c: Communicator) -> None:
    c.barrier()
    c.close()
    c.close()
    with raises(PeerLostError, "closed"):
        c.barrier()


def expect_lost(call: Callable[[], object], pattern: str, within: float = 5.0) -> str:
    start = time.monotonic()
    with raises(PeerLostError, pattern) as caught:
        call()
    assert time.monotonic() - start < within
    return str(caught.exception)


@broken
def another_operation_is_named(c: Communicator) -> None:
    # Seen here, or heard from a peer that has seen it first.
    if c.rank == 0:
        text = expect_lost(c.barrier, r"ranks (0 and \d|\d and 0) are not in the same call")
    else:
        call = lambda: c.allreduce(np.zeros(100, np.float32))  # noqa: E731
        text = expect_lost(call, "rank 0 (is )?in call 1")
    assert "call 1: barrier" in text
    assert "call 1: allreduce(sum) of 400 bytes float32, bucket 0" in text
    expect_lost(c.barrier, "has ended")


@broken
def another_size_is_named(c: Communicator) -> None:
    array = np.zeros(30_000 + (c.rank == 1), np.float64)
    expect_lost(lambda: c.allreduce(array), "(240000|240008) bytes|lost rank")


@broken
def another_dtype_is_named(c: Communicator) -> None:
    array = np.zeros(10, np.float32 if c.rank == 0 else np.int32)
    expect_lost(lambda: c.allreduce(array), "40 bytes (float32|int32)|lost rank")


@broken
def another_bucket_is_named(c: Communicator) -> None:
    array = np.zeros(10)
    expect_lost(lambda: c.allreduce(array, bucket=min(c.rank, 1)), "bucket (0|1)|lost rank")


@broken
def other_present_shards_are_caught(c: Communicator) -> None:
    expect_lost(
        lambda: tree_total(c, 8, list(range(8 - (c.rank == 0))), 10), "reduce_tree of 40 bytes"
    )


@broken
def a_peer_that_never_comes_is_named(c: Communicator) -> None:
    if c.rank == 0:
        time.sleep(1.2)
        return
    # A thread may also hear from another one that has given up just before.
    waited = r"waited (0\.[3-9]|1\.[01]) s for ranks? 0.* in"
    expected = rf"rank {c.rank} ({waited}|lost rank \d in) barrier"
    expect_lost(lambda: c.barrier(timeout=0.3), expected, within=1.1)


@broken
def leaving_alone_wakes_the_others(c: Communicator) -> None:
    if c.rank == 0:
        assert not c.leave(4)
        time.sleep(0.5)
    else:
        expect_lost(c.barrier, "rank 0 in call 1: stopping with exit code 4|lost rank")


@broken
def leaving_with_another_code_is_no_agreement(c: Communicator) -> None:
    assert not c.leave(4 + c.rank)


Worlds = Callable[[], Communicator]


def mpi_worlds() -> tuple[Communicator, Worlds]:
    from mpi4py import MPI

    from distgrad.comm import mpi

    if MPI.COMM_WORLD.size == 3:
        mpi._CHUNK_BYTES = 65_536  # as if the larger buffers had more than 2**30 bytes
    # Messages that a broken case leaves behind stay in a communicator of its own.
    return (
        Communicator(mpi.MPITransport()),
        lambda: Communicator(mpi.MPITransport(MPI.COMM_WORLD.Dup())),
    )


def tcp_worlds() -> tuple[Communicator, Worlds]:
    world = connect()
    if world.world_size == 1:
        return world, lambda: Communicator(None)
    if world.world_size == 3:
        shared_memory._RING_BYTES = 4096  # messages that fill the rings many times
    share = world.world_size != 4  # there everything goes through the sockets

    def fresh() -> Communicator:
        place = rendezvous.Rendezvous(world.world_size, "secret", timeout=20)
        address = world.broadcast_object(place.address)
        if world.rank == 0:
            place.start()
        else:
            place.close()
        transport = tcp.connect(
            world.rank, world.world_size, address, "secret", timeout=20, share_memory=share
        )
        return Communicator(transport)

    return world, fresh


def main() -> None:
    """One rank in a process of its own: goes through all cases, prints those that passed."""
    over_mpi = environ.detect().started_by_mpi
    world, fresh = mpi_worlds() if over_mpi else tcp_worlds()
    cases = {**HEALTHY, **BROKEN} if world.world_size > 1 else HEALTHY
    for name, case in cases.items():
        try:
            communicator = fresh()
            case(communicator)
            communicator.close()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            world.abort(1, name)
            os._exit(1)
        os.write(1, f"{name}\n".encode())
    world.barrier()
    if over_mpi:
        world.abort(0, "done")  # those messages would keep MPI from finishing by itself


if __name__ == "__main__":
    main()
