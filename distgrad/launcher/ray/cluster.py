"""The Ray cluster of a job: one that is there, or one of our own for as long as the job runs."""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace

import ray
from ray._private import worker
from ray._private.services import canonicalize_bootstrap_address
from ray.util import get_node_ip_address, placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup

from distgrad.comm.rendezvous import interface_address, split_address
from distgrad.core.errors import MissingExtraError, UsageError
from distgrad.launcher import environ
from distgrad.launcher.ray import watchdog

_OBJECT_STORE_BYTES = 200_000_000  # nothing of ours goes through it
_ANSWER = 10.0  # seconds that a cluster gets to answer
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray warns that it will change
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # ranks run where the driver runs
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a lost node is a lost worker to us
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Of a cluster of our own: each of a job's processes has settings of its own, so that those
    # which Ray starts in advance would serve nobody.
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
}


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that this process is connected to.

    ``host`` is the address of ours that its workers reach; ``can_grow`` is false for our own.
    ``storage`` is a folder for as long as we are connected.
    """

    name: str
    host: str
    can_grow: bool
    storage: str = ""

    def shortage(self, workers: int, each: dict[str, float]) -> str | None:
        """What the cluster lacks for ``workers`` times ``each``, or None."""
        total, free = ray.cluster_resources(), ray.available_resources()
        nodes = sum(node["Alive"] for node in ray.nodes())
        lacking = [kind for kind in each if workers * each[kind] > total.get(kind, 0)]
        if not lacking and self._placed():
            return None
        busy = [kind for kind in each if workers * each[kind] > free.get(kind, 0)]
        found = [
            f"{workers * each[kind]:g} {kind} and there are {total.get(kind, 0):g}, "
            f"{free.get(kind, 0):g} of them free"
            for kind in lacking or busy
        ]
        if not found:
            return None
        size = "1 node" if nodes == 1 else f"{nodes} nodes"
        return f"{workers} workers need {'; '.join(found)} ({self.name}, {size})"

    @staticmethod
    def free_places() -> None:
        """Gives back what Ray still holds for workers of this process: after a lost controller.

        Ray's ids of placement groups end with that of the job which has made them.
        """
        own = ray.get_runtime_context().get_job_id()
        for name, group in placement_group_table().items():
            if name.endswith(own) and group["state"] != "REMOVED":
                remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))

    @staticmethod
    def _placed() -> bool:
        states = [group["state"] for group in placement_group_table().values()]
        return "PENDING" not in states


@contextlib.contextmanager
def joined(workers: int, each: dict[str, float]) -> Iterator[Cluster]:
    """Joins the cluster of RAY_ADDRESS or of ``ray start`` on this machine, else starts one.

    Our own has CPUs for all workers, however many cores there are, and ends with the block. Ray's
    ``address="auto"`` would also join any program here that has started Ray for itself alone.

    Raises:
        MissingExtraError: there is a cluster and it cannot be joined.
    """
    environ.set_defaults(_QUIET)
    logging.getLogger("ray").setLevel(logging.ERROR)
    dog, storage = None, ""
    try:
        cluster = _connect(math.ceil(workers * each["CPU"]))
        session = "" if cluster.can_grow else worker._global_node.get_session_dir_path()
        storage = tempfile.mkdtemp(prefix="distgrad-ray-")
        dog = watchdog.start(storage, session)
        yield replace(cluster, storage=storage)
    except SystemExit as end:
        # Ray's way to take a SIGTERM, until our own handler is in place.
        raise SystemExit(128 + end.code if end.code == signal.SIGTERM else end.code) from None
    finally:
        ray.shutdown()
        watchdog.close(dog)
        shutil.rmtree(storage, ignore_errors=True)


def _connect(cpus: int) -> Cluster:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = _known_address()
    if address is None:
        ray.init(
            address="local",
            num_cpus=max(cpus, environ.usable_cores()),
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            **quiet,
        )
        return Cluster("Ray started here", "127.0.0.1", can_grow=False)
    try:
        ray.init(**quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise MissingExtraError(f"the Ray cluster at {address} cannot be joined: {error}") from None
    interface = environ.network_interface()
    host = get_node_ip_address() if interface is None else interface_address(interface)
    return Cluster(f"Ray cluster at {address}", host, can_grow=True)


def _known_address() -> str | None:
    """``host:port`` of the cluster to join; None where there is none.

    Ray itself would try one that does not answer for minutes.
    """
    given = environ.ray_address()
    if given is not None and "://" in given:
        raise UsageError(
            f"RAY_ADDRESS is {given}: --launcher ray must run on a host of the cluster, where it "
            "reads host:port. From outside hand it in: ray job submit, or launch/ray_submit.sh."
        )
    try:
        address = canonicalize_bootstrap_address(given)
    except (OSError, ValueError) as error:
        raise MissingExtraError(f"RAY_ADDRESS is {given}, where no Ray is: {error}") from None
    if address is None:
        return None
    try:
        socket.create_connection(split_address(address), timeout=_ANSWER).close()
    except OSError as error:
        if given is not None:
            raise MissingExtraError(
                f"no Ray answers at {address}, which RAY_ADDRESS names ({error})."
            ) from None
        return None  # `ray start` has been here; what it started has ended
    return address
