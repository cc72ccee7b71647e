"""Buckets and the thread that sends them: never another bit, no error lost, no thread left."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

import distgrad as tf
from distgrad.comm.communicator import Communicator
from distgrad.comm.tree import worker_shards
from distgrad.core.errors import PeerLostError
from distgrad.data.loader import Loader
from distgrad.data.source import ArraySource
from distgrad.testing import process
from distgrad.testing.thread_world import run_world
from distgrad.training.buckets import GradientBuckets
from distgrad.training.overlap import Courier
from distgrad.training.reduction import GradientSum, ShardResult
from distgrad.training.step import TrainStep

from .models import L, bits, network, samples

SEED = 3
ONE_EACH = 1  # byte: every variable is a bucket


@pytest.fixture(autouse=True)
def no_thread_left(new_threads) -> Iterator[None]:
    yield
    assert not new_threads(), "a thread is left behind"


def train(world_size: int, shards: int, **options) -> tuple:
    """One epoch: weights, state and metrics, which must be equal on all ranks."""
    # Made here: the global random stream belongs to all threads.
    models = [
        network(L.Dense(5, activation="relu"), global_clipnorm=0.5) for _ in range(world_size)
    ]

    def work(c: Communicator) -> tuple:
        model = models[c.rank]
        step = TrainStep.of(model, c, shards, SEED, **options)
        own = worker_shards(shards, c.rank, c.world_size)
        # 20, 20 and 3 samples: most shards of the last batch are empty
        batches = Loader(ArraySource(*samples()), 20, shards, own, SEED).epoch(0)
        results = [step(number, batch) for number, batch in enumerate(batches)]
        seen = [(result.loss, result.sums.tobytes()) for result in results]
        return bits([*model.variables, *model.optimizer.variables]), seen, step.sum.overlap

    ranks = run_world(world_size, work, time_limit=100)
    assert all(rank == ranks[0] for rank in ranks)
    assert ranks[0][2] is (world_size > 1 and options.get("overlap") is True)
    return ranks[0][:2]


@pytest.mark.parametrize("shards", [4, 5, 6, 7, 8])
def test_equal_bits_with_any_buckets_overlapped_or_not(shards: int) -> None:
    alone = train(1, shards, overlap=False)
    for world_size in (1, 2, 3, 4):
        for bucket_bytes in (ONE_EACH, 200):
            for overlap in (False, True):
                found = train(world_size, shards, overlap=overlap, bucket_bytes=bucket_bytes)
                assert found == alone, (world_size, bucket_bytes, overlap)


def test_buckets_are_runs_of_variables_from_the_last_one_on() -> None:
    group = [tf.Variable(np.zeros(size, np.float32)) for size in (100, 10, 10, 300, 5)]

    def cut(bucket_bytes: int) -> list[list[int]]:
        buckets = GradientBuckets(group, 1, Communicator(), bucket_bytes=bucket_bytes).buckets
        assert [bucket.number for bucket in buckets] == list(range(len(buckets)))
        covered = sum(bucket.where.stop - bucket.where.start for bucket in buckets)
        assert covered == buckets[0].layout.size
        return [bucket.positions for bucket in buckets]

    assert cut(ONE_EACH) == [[4], [3], [2], [1], [0]]
    assert cut(500) == [[4], [3], [0, 1, 2]]
    assert cut(1200) == [[4], [3], [0, 1, 2]]
    assert cut(1240) == [[3, 4], [0, 1, 2]]
    assert cut(1 << 20) == [[0, 1, 2, 3, 4]]


def test_buckets_of_two_dtypes_and_a_variable_that_nothing_reads() -> None:
    def make() -> list[tf.Variable]:
        dtypes = ["float32", "float64", "float32", "float64", "float32"]
        return [tf.Variable(np.arange(1, 4), dtype=dtype) for dtype in dtypes]

    groups = [make() for _ in range(3)]
    x = np.arange(1.0, 8.0)

    def work(c: Communicator, overlap: bool) -> bytes:
        group = groups[c.rank]

        def compute(arrays, training):
            terms = [tf.cast(v * v, "float64") for v in group[:4]]  # not the last one
            total = tf.reduce_sum(tf.add_n(terms))
            return ShardResult(total * tf.reduce_mean(arrays[0]), np.zeros(0))

        total = GradientSum(compute, 0, group, c, 3, SEED, overlap=overlap, bucket_bytes=ONE_EACH)
        own = worker_shards(3, c.rank, c.world_size)
        (batch,) = Loader(ArraySource(x), 7, 3, own, SEED).epoch(0)
        total(0, batch)
        assert total.gradients[4] is None
        for variable, gradient in zip(group[:4], total.gradients, strict=False):
            assert gradient.dtype == variable.dtype.numpy_dtype
            expected = 2 * np.arange(1, 4) * x.mean()
            np.testing.assert_allclose(tf.Tensor(gradient), expected, rtol=1e-6)
        return b"".join(tf.Tensor(g).numpy().tobytes() for g in total.gradients[:4])

    alone = work(Communicator(), False)
    for world_size in (2, 3):
        for overlap in (False, True):
            found = run_world(world_size, lambda c, overlap=overlap: work(c, overlap))
            assert found == [alone] * world_size


def test_a_bucket_is_sent_while_the_backward_pass_goes_on() -> None:
    """The gradient of the last layer is reduced before that of the first is known."""
    order: list[str] = []

    @tf.custom_gradient
    def slow(x):
        def grad(upstream):
            end = time.monotonic() + 20
            while not order and time.monotonic() < end:
                time.sleep(0.001)
            order.append("first layer")
            return upstream

        return tf.identity(x), grad

    class Watched(Communicator):
        def reduce_tree(self, tree_sum, out, **how):
            super().reduce_tree(tree_sum, out, **how)
            if "bucket" in how:
                order.append(f"bucket {how['bucket']}")

    def work(c: Communicator) -> None:
        watched = Watched(c._transport)
        group = [tf.Variable(np.ones(4, np.float32)), tf.Variable(np.ones(4, np.float32))]

        def compute(arrays, training):
            hidden = group[0] * tf.cast(tf.reduce_mean(arrays[0]), "float32")
            if watched.rank == 0:
                hidden = slow(hidden)
            return ShardResult(tf.reduce_sum(hidden * group[1]), np.zeros(0))

        total = GradientSum(
            compute, 0, group, watched, 2, SEED, overlap=True, bucket_bytes=ONE_EACH
        )
        (batch,) = Loader(ArraySource(np.ones(4)), 4, 2, range(c.rank, c.rank + 1), SEED).epoch(0)
        total(0, batch)

    run_world(2, work)
    assert order[0] == "bucket 0" and order.index("first layer") < order.index("bucket 1")


# Errors


def test_jobs_run_in_order_in_one_thread_and_the_end_waits_for_them() -> None:
    done: list[tuple[int, int]] = []

    def job(number: int) -> None:
        time.sleep(0.01)
        done.append((number, threading.get_ident()))

    with Courier() as courier:
        for number in range(5):
            courier.send(lambda number=number: job(number))
    assert [number for number, _ in done] == list(range(5))
    assert len({thread for _, thread in done}) == 1 and done[0][1] != threading.get_ident()


def test_the_error_of_a_job_reaches_the_caller_and_drops_the_jobs_after_it() -> None:
    done: list[int] = []

    def fail() -> None:
        raise PeerLostError("rank 1 has gone")

    with pytest.raises(PeerLostError, match="rank 1 has gone"), Courier() as courier:
        courier.send(fail)
        while courier._error is None:
            time.sleep(0.001)
        courier.send(lambda: done.append(1))
    with pytest.raises(PeerLostError, match="rank 1 has gone"), Courier() as courier:
        courier.send(fail)
        courier._jobs.put(lambda: done.append(2))
    assert done == []


def test_an_error_of_the_caller_comes_first_and_does_not_wait_for_all_jobs() -> None:
    done: list[int] = []

    def slow() -> None:
        process.wait_until(lambda: courier._dropped, 10, "the error of the caller")
        done.append(1)
        raise PeerLostError("a consequence")

    start = time.monotonic()
    with pytest.raises(ZeroDivisionError), Courier() as courier:
        for _ in range(100):
            courier.send(slow)
        raise ZeroDivisionError
    assert time.monotonic() - start < 5 and len(done) <= 1


@pytest.mark.parametrize("overlap", [False, True])
def test_a_rank_that_fails_in_its_backward_pass_ends_all_with_its_own_error(overlap: bool) -> None:
    @tf.custom_gradient
    def broken(x):
        def grad(upstream):
            raise ZeroDivisionError("a bug in a gradient")

        return tf.identity(x), grad

    def work(c: Communicator) -> None:
        group = [tf.Variable(np.ones(4, np.float32)) for _ in range(2)]

        def compute(arrays, training):
            hidden = group[0] * 2.0
            hidden = broken(hidden) if c.rank == 1 else hidden
            return ShardResult(tf.reduce_sum(hidden * group[1]), np.zeros(0))

        total = GradientSum(compute, 0, group, c, 3, SEED, overlap=overlap, bucket_bytes=ONE_EACH)
        (batch,) = Loader(ArraySource(np.ones(6)), 6, 3, range(c.rank, c.rank + 1), SEED).epoch(0)
        total(0, batch)

    with pytest.raises(ZeroDivisionError, match="a bug in a gradient"):
        run_world(3, work, time_limit=20)


def test_a_peer_that_never_comes_is_named_by_the_deadline() -> None:
    def work(c: Communicator) -> None:
        if c.rank == 1:
            time.sleep(1.5)
            return
        group = [tf.Variable(np.ones(4, np.float32)) for _ in range(2)]

        def compute(arrays, training):
            return ShardResult(tf.reduce_sum(group[0] * group[1]), np.zeros(0))

        total = GradientSum(compute, 0, group, c, 2, SEED, overlap=True, bucket_bytes=ONE_EACH)
        (batch,) = Loader(ArraySource(np.ones(4)), 4, 2, range(c.rank, c.rank + 1), SEED).epoch(0)
        total(0, batch)

    with pytest.raises(PeerLostError, match=r"rank 0 waited 0\.\d s for rank 1 in reduce_tree"):
        run_world(2, work, timeout=0.3, time_limit=20)
