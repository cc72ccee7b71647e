"""Jobs over several hosts, each with an address of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import pytest

import distgrad
from distgrad.testing import process
from distgrad.testing.hosts import Hosts, unavailable

pytestmark = [pytest.mark.slow, pytest.mark.timeout_s(300)]
ROOT = os.path.dirname(next(iter(distgrad.__path__)))


@pytest.fixture(scope="module")
def hosts():
    reason = unavailable()
    if reason:
        pytest.skip(reason)
    with Hosts(3) as made:
        yield made


def command(hosts: Hosts, words: list[object], **env: str) -> process.Command:
    return process.Command(list(map(str, words)), env={"PYTHONPATH": ROOT, **env})


def over_mpi(hosts: Hosts, dg, job: list[object]) -> process.Command:
    """mpirun on the first host, one rank on each, with a program of ours in place of ssh."""
    mpirun = dg.mpirun()
    shell = ["-launcher", "rsh", "-launcher-exec", hosts.remote_shell()]
    where = ["-hosts", ",".join(hosts.addresses), "-ppn", 1, "-n", len(hosts.addresses)]
    rank = [sys.executable, "-m", "distgrad", "train", *job]
    words = hosts.on(0, [str(w) for w in (mpirun, *shell, *where, *rank)])
    return command(hosts, words, MPIR_CVAR_NOLOCAL="1")


def over_tcp(hosts: Hosts, job: list[object], **env: str) -> list[process.Command]:
    """One rank started by hand on each host, as a scheduler of one's own would."""
    world = len(hosts.addresses)
    common = {
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": hosts.addresses[0],
        "MASTER_PORT": "29517",
        "DISTGRAD_TOKEN": "of-this-test",
        **env,
    }
    rank = [sys.executable, "-m", "distgrad", "train", *map(str, job)]
    return [
        command(hosts, hosts.on(i, rank), RANK=str(i), DISTGRAD_INTERFACE="eth0", **common)
        for i in range(world)
    ]


@pytest.mark.mpi
def test_mpirun_over_three_hosts(dg, short, hosts, tmp_path):
    with over_mpi(hosts, dg, [*short.job, "--run-dir", tmp_path / "run"]) as running:
        result = running.wait(240)
    assert result.returncode == 0, result.stdout + result.stderr
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["world_size"] == 3 and status["weights_sha256"] == short.sha256


def test_ranks_started_by_hand_over_three_hosts(short, hosts, tmp_path):
    with contextlib.ExitStack() as stack:
        ranks = over_tcp(hosts, [*short.job, "--run-dir", tmp_path / "run"])
        running = [stack.enter_context(rank) for rank in ranks]
        results = [rank.wait(240) for rank in running]
    assert [r.returncode for r in results] == [0, 0, 0], results[0].stderr
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["world_size"] == 3 and status["weights_sha256"] == short.sha256


@pytest.mark.ray
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None or importlib.util.find_spec("pyarrow") is None,
    reason="Ray Train is not installed: pip install 'distgrad[ray]'",
)
@pytest.mark.timeout_s(500)
def test_a_ray_cluster_over_three_hosts(dg, short, hosts, tmp_path):
    """One CPU on each host, so that every worker is on a host of its own."""
    ray = str(Path(sys.executable).parent / "ray")
    folder = tempfile.mkdtemp(prefix="dgray", dir="/tmp")  # short: sockets lie in it
    env = {
        "RAY_TMPDIR": folder,
        "RAY_AUTH_MODE": "disabled",  # all of this is one machine
        "RAY_USAGE_STATS_ENABLED": "0",
        "DISTGRAD_START_TIMEOUT": "200",
    }
    head, *others = hosts.addresses
    where = [["--head", "--port=6379", "--include-dashboard=false"]]
    where += [[f"--address={head}:6379"] for _ in others]
    own = ["--num-cpus=1", "--object-store-memory=100000000", "--block", "--disable-usage-stats"]
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for host, words in enumerate(where):
            place = f"--node-ip-address={hosts.addresses[host]}"
            node = command(hosts, hosts.on(host, [ray, "start", *words, place, *own]), **env)
            stack.enter_context(node)
            process.wait_until(lambda node=node: "Ray runtime started" in node.stdout, 120, "Ray")
        job = [*short.job, "--run-dir", tmp_path / "run", "--interface", "eth0"]
        words = [sys.executable, "-m", "distgrad", "train", *job, "-n", 3, "--launcher", "ray"]
        on = hosts.on(0, list(map(str, words)))
        with command(hosts, on, RAY_ADDRESS=f"{head}:6379", **env) as running:
            result = running.wait(400)
    assert result.returncode == 0, result.stdout + result.stderr
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["world_size"] == 3 and status["launcher"] == "ray"
    assert status["weights_sha256"] == short.sha256


def test_a_host_that_is_cut_off_ends_the_others_by_their_deadline(dg, hosts, tmp_path):
    """No packet tells of it: only the deadline of an operation does."""
    job = [dg.digits, "train.epochs=500", "--run-dir", tmp_path / "run"]
    with contextlib.ExitStack() as stack:
        ranks = over_tcp(hosts, job, DISTGRAD_TIMEOUT="5")
        running = [stack.enter_context(rank) for rank in ranks]
        metrics = tmp_path / "run" / "metrics.jsonl"
        process.wait_until(lambda: metrics.exists() and metrics.stat().st_size > 2000, 120, "steps")
        hosts.cut(2)
        began = time.monotonic()
        results = [rank.wait(60) for rank in running]
        seconds = time.monotonic() - began
    hosts.join(2)
    assert [r.returncode for r in results] == [6, 6, 6], [r.stderr for r in results]
    assert seconds < 30
    assert "rank 2" in results[0].stderr + results[1].stderr
