"""Training on several GPUs of a stand-in, whose streams do their work as late as they may."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import distgrad as tf
from distgrad.comm.communicator import Communicator
from distgrad.comm.nccl import DeviceCommunicator
from distgrad.core.errors import PeerLostError, UsageError
from distgrad.data.loader import Loader
from distgrad.data.source import ArraySource
from distgrad.launcher import environ
from distgrad.testing import fake_cupy
from distgrad.testing.thread_world import run_world
from distgrad.training import staging
from distgrad.training.handshake import check_environment, environment
from distgrad.training.overlap import Courier
from distgrad.training.reduction import GradientSum, ShardResult
from distgrad.training.staging import Staged, carrier, link

from .gpus import MARKS, SEED, train
from .models import network

pytestmark = [*MARKS, pytest.mark.usefixtures("gpus")]


@pytest.mark.parametrize("shards", [4, 7])
@pytest.mark.parametrize("shard_optimizer", [False, True])
def test_equal_bits_with_any_number_of_gpus(shards: int, shard_optimizer: bool) -> None:
    alone = train(1, shards)
    for world_size in (2, 3, 4):
        staged = train(world_size, shards, own=False, shard_optimizer=shard_optimizer)
        assert staged == alone
        for overlap, bucket_bytes in ((False, 1), (True, 1), (False, 1 << 20)):
            found = train(
                world_size,
                shards,
                overlap=overlap,
                bucket_bytes=bucket_bytes,
                shard_optimizer=shard_optimizer,
            )
            assert found == alone, (world_size, overlap, bucket_bytes)


def test_equal_bits_of_captured_steps_with_any_number_of_gpus() -> None:
    """Each bucket is sent when the graph that fills it has been launched."""
    captured = {"executor": "cuda", "strict": True}
    alone = train(1, 4, **captured)
    for world_size in (2, 4):
        assert train(world_size, 4, own=False, **captured) == alone
        for overlap in (False, True):
            found = train(world_size, 4, overlap=overlap, bucket_bytes=1, **captured)
            assert found == alone, (world_size, overlap)


@pytest.mark.parametrize("shard_optimizer", [False, True])
def test_plain_sums_agree_on_all_ranks(shard_optimizer: bool) -> None:
    options = {"bucket_bytes": 1, "shard_optimizer": shard_optimizer}
    plain, logs = train(3, 3, deterministic=False, **options)
    fixed, expected = train(3, 3, **options)
    assert plain != fixed  # the stand-in adds from the last rank to the first
    assert logs["loss"] == pytest.approx(expected["loss"], rel=1e-6)


def test_a_job_beside_waits_for_its_sender_and_the_sender_for_the_job() -> None:
    with fake_cupy.own_gpu(1) as gpu:
        given, sent, received = (gpu.xp.zeros(3, dtype=np.float32) for _ in range(3))
        go_on = threading.Event()
        gpu.xp.cuda.get_current_stream().add(go_on.is_set)  # the device lies behind

        def job() -> None:
            assert gpu.xp.cuda.get_current_stream().ptr
            sent[...] = given

        with Courier() as courier:
            given[...] = 5
            courier.send(job)
        received[...] = sent
        assert not courier._last.done
        go_on.set()
        assert received.get().tolist() == [5] * 3


def test_exchanges_overlap_by_themselves_where_nccl_makes_them() -> None:
    models = [network() for _ in range(2)]

    def work(c: Communicator) -> bool:
        with fake_cupy.own_gpu(c.rank):
            link(c)
            model = models[c.rank]
            total = GradientSum(
                model.compute, 0, model.trainable_variables, c, 2, SEED, bucket_bytes=1
            )
            return total.overlap

    assert run_world(2, work) == [True, True]


def test_a_gpu_that_hangs_in_a_step_ends_it_and_keeps_the_weights() -> None:
    group = [[tf.Variable(np.ones(4, np.float32)) for _ in range(2)] for _ in range(2)]
    stuck = threading.Event()

    def work(c: Communicator) -> None:
        with fake_cupy.own_gpu(c.rank) as gpu:
            link(c)

            def compute(arrays, training):
                return ShardResult(tf.reduce_sum(group[c.rank][0] * group[c.rank][1]), np.zeros(0))

            total = GradientSum(compute, 0, group[c.rank], c, 2, SEED, overlap=True, bucket_bytes=1)
            loader = Loader(ArraySource(np.ones(4)), 4, 2, range(c.rank, c.rank + 1), SEED)
            (batch,) = loader.epoch(0)
            if c.rank == 1:  # its stream of exchanges
                gpu.stream("courier").add(stuck.is_set)
            total(0, batch)

    with pytest.raises(PeerLostError, match=r"waited 0\.5 s for its GPU in reduce_tree"):
        run_world(2, work, timeout=0.5, time_limit=20)


# Who has a GPU of its own


def linked(c: Communicator, gpu: int, **how) -> type:
    with fake_cupy.own_gpu(gpu) as backend:
        link(c, **how)
        link(c, **how)  # once is enough
        return type(carrier(c, backend))


def test_ranks_that_share_a_gpu_go_through_the_host() -> None:
    assert run_world(3, lambda c: linked(c, c.rank)) == [DeviceCommunicator] * 3
    assert run_world(3, lambda c: linked(c, c.rank % 2)) == [Staged] * 3
    assert linked(Communicator(None), 0) is Staged  # nobody to send anything to


def test_nccl_can_be_left_out(monkeypatch) -> None:
    monkeypatch.setenv("DISTGRAD_NCCL", "off")
    assert run_world(2, lambda c: linked(c, c.rank)) == [Staged] * 2
    monkeypatch.setenv("DISTGRAD_NCCL", "no")
    with pytest.raises(UsageError, match="must be auto or off, got 'no'"):
        environ.use_nccl()


def test_without_nccl_it_is_said_once(monkeypatch, capsys) -> None:
    from cupy.cuda import nccl

    monkeypatch.setattr(nccl, "available", False)
    assert run_world(2, lambda c: linked(c, c.rank)) == [Staged] * 2
    said = capsys.readouterr().err
    assert said.count("warning: CuPy finds no NCCL") == 1 and "pip install nvidia-nccl" in said


def test_a_link_ends_with_the_communicator_of_hosts() -> None:
    def work(c: Communicator) -> bool:
        linked(c, c.rank)
        comm = staging._linked[c]._comm
        c.barrier()
        c.close()
        return comm._alive

    assert run_world(2, work) == [False, False]


# The handshake


def test_the_environment_names_what_decides_the_bits_of_a_gpu(monkeypatch) -> None:
    found = environment()
    assert found["gpu"] == "Stand-in" and found["compute_capability"] == "90"
    assert (found["cupy"], found["cuda_runtime"], found["nccl"]) == ("14.0.0", "12.9", "2.29.3")
    assert found["cudnn"] == "9.28.0"
    with tf.device("/CPU:0"):
        assert "gpu" not in environment()


def test_another_gpu_on_a_rank_is_named() -> None:
    def work(c: Communicator) -> None:
        with fake_cupy.own_gpu(c.rank) as gpu:
            if c.rank == 1:
                gpu.facts = lambda: {**type(gpu).facts(gpu), "gpu": "NVIDIA T4", "nccl": "2.1.0"}
            check_environment(c)

    with pytest.raises(UsageError, match=r"has gpu (NVIDIA T4|Stand-in), rank \d has (NV|St)"):
        run_world(2, work)


def test_a_rank_on_the_cpu_is_named() -> None:
    def work(c: Communicator) -> None:
        if c.rank == 1:
            with tf.device("/CPU:0"):
                check_environment(c)
        else:
            with fake_cupy.own_gpu(0):
                check_environment(c)

    with pytest.raises(UsageError, match=r"has gpu (null|Stand-in), rank \d has (null|Stand)"):
        run_world(2, work)
