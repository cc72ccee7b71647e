"""One start of a job as a Ray Train run: the trainer, and our backend for it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import ray.train
from ray.train import BackendConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.backend import Backend
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util import get_node_ip_address

from distgrad.comm.rendezvous import Rendezvous, interface_address, new_token
from distgrad.launcher.environ import World
from distgrad.launcher.ray import agent


@dataclass
class DistgradConfig(BackendConfig):
    """Ray Train's name for a backend: here, a place where the ranks meet over TCP.

    Args:
        own_machine: whether the cluster is this machine alone.
        interface: by which network the ranks reach it; None takes Ray's.
        timeout: seconds until all must have been there.
    """

    own_machine: bool = False
    interface: str | None = None
    timeout: float = 60.0

    @property
    def backend_cls(self) -> type[Backend]:
        return MeetingPlace


class MeetingPlace(Backend):
    """Lives in Ray Train's controller, and tells each worker where to meet, and the secret."""

    def on_start(self, worker_group: Any, backend_config: DistgradConfig) -> None:
        if backend_config.own_machine:
            host = "127.0.0.1"
        elif backend_config.interface is not None:
            host = interface_address(backend_config.interface)
        else:
            host = get_node_ip_address()
        token = new_token()
        size, seconds = len(worker_group), backend_config.timeout
        self._meeting = Rendezvous(size, token, host=host, timeout=seconds).start()
        worker_group.execute(_remember, self._meeting.address, token)

    def on_shutdown(self, worker_group: Any, backend_config: DistgradConfig) -> None:
        self._meeting.close()


# Each has an actor, whose start takes more than a second of a core: that for datasets of Ray, since
# ranks read data themselves, and that which frees the places of a controller that was killed, since
# the driver does so. It could not without Ray's dashboard, and would stay in the cluster for good.
_WITHOUT = {"DatasetsCallback", "PlacementGroupCleanerCallback"}


class _Trainer(DataParallelTrainer):
    """Ray's, without what a job of ours does not need."""

    def _create_default_callbacks(self) -> list[Any]:
        found = super()._create_default_callbacks()
        return [each for each in found if type(each).__name__ not in _WITHOUT]


_known: list[str] = []  # in a worker: the address and the token of the place


def _remember(address: str, token: str) -> None:
    _known[:] = address, token


def _do(errand: agent.Errand) -> None:
    context = ray.train.get_context()
    address, token = _known
    world = World(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        local_rank=context.get_local_rank(),
        local_size=context.get_local_world_size(),
        source="distgrad",
        address=address,
    )
    agent.run(errand, world, token)


def run(
    errand: agent.Errand,
    workers: int,
    each: dict[str, float],
    config: DistgradConfig,
    storage: str,
) -> None:
    """Runs an errand in so many Ray workers, and returns when all have done it.

    Args:
        errand: what each worker does.
        workers: how many.
        each: the resources of one, by Ray's names.
        config: of the backend.
        storage: an empty folder; Ray wants one for what is reported to it, which is nothing.

    Raises:
        ray.train.TrainingFailedError: a worker was lost, or could not begin.
    """

    def rank() -> None:
        _do(errand)  # which Ray imports in the worker, where _known is; a closure is copied

    # Restarts are the driver's: Ray would try a bug again, and goes by its own checkpoints.
    once = FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0)
    _Trainer(
        rank,
        backend_config=config,
        scaling_config=ScalingConfig(
            num_workers=workers, resources_per_worker=each, use_gpu="GPU" in each
        ),
        run_config=RunConfig(
            name=f"distgrad-{uuid.uuid4().hex[:12]}", storage_path=storage, failure_config=once
        ),
    ).fit()
