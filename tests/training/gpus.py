"""A model that is trained on GPUs of a stand-in, one for each rank of a world of threads."""

from __future__ import annotations

import pytest

from distgrad.comm.communicator import Communicator
from distgrad.comm.nccl import DeviceCommunicator
from distgrad.comm.tree import worker_shards
from distgrad.data.loader import Loader
from distgrad.data.source import ArraySource
from distgrad.testing import cuda_on_cpu, fake_cupy
from distgrad.testing.thread_world import run_world
from distgrad.training import staging
from distgrad.training.loop import TrainingLoop
from distgrad.training.staging import carrier, link
from distgrad.training.step import TrainStep

from .models import bits, network, samples

MARKS = [
    pytest.mark.cpu,  # it installs the other module itself
    pytest.mark.skipif(not cuda_on_cpu.available(), reason="no g++"),
]
SEED = 3


def step_of(model, communicator: Communicator, shards: int, **options) -> TrainStep:
    return TrainStep.of(model, communicator, shards, SEED, check_every=2, **options)


def train(
    world_size: int,
    shards: int,
    *,
    own: bool = True,
    deterministic: bool = True,
    batch: int = 20,
    make=network,
    **options,
) -> tuple[bytes, list[float]]:
    """One epoch on a GPU for each rank (or one for all), which must end alike.

    It has 43 samples: the last batch is a short one.
    """
    models = [make() for _ in range(world_size)]

    def work(c: Communicator) -> tuple:
        with fake_cupy.own_gpu(c.rank if own else 0) as gpu:
            link(c, deterministic=deterministic)
            moved = isinstance(carrier(c, gpu), DeviceCommunicator)
            assert moved == (own and world_size > 1)
            model = models[c.rank]
            step = step_of(model, c, shards, **options)
            mine = worker_shards(shards, c.rank, c.world_size)
            loader = Loader(ArraySource(*samples()), batch, shards, mine, SEED)
            loop = TrainingLoop(step, loader, lambda loss, sums: {"loss": loss})
            assert step.input_device is not None and step.captured == ("executor" in options)
            loop.run(1)
            assert not moved or staging._linked[c]._running is None
            return bits(model.variables), loop.logs()

    ranks = run_world(world_size, work, time_limit=100)
    assert all(rank == ranks[0] for rank in ranks)
    return ranks[0]
