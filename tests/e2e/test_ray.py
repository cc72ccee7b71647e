"""Workers on Ray: the same bits, words and exit codes, and nobody left behind.

One cluster serves most tests; those that look at how a job's own cluster ends have one each.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import distgrad
from distgrad.testing import process

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout_s(400),
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None or importlib.util.find_spec("pyarrow") is None,
        reason="Ray Train is not installed: pip install 'distgrad[ray]'",
    ),
    pytest.mark.skipif(sys.platform != "linux", reason="finds ranks in /proc"),
]

ROOT = str(Path(distgrad.__path__[0]).parent)
BIN = Path(sys.executable).parent
CPUS = 4
EPOCHS, EVERY = 60, 10
STEPS = EPOCHS * 23
_random = random.Random()


@pytest.fixture(scope="module", autouse=True)
def _private_ray() -> Iterator[Path]:
    """Ray of these tests alone: its own folder (short: sockets lie in it), no access token."""
    with pytest.MonkeyPatch.context() as patch:
        folder = Path(tempfile.mkdtemp(prefix="dgray", dir="/tmp"))
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("DISTGRAD_START_TIMEOUT", "150")  # a busy machine starts Ray slowly
        patch.delenv("RAY_ADDRESS", raising=False)
        yield folder
        shutil.rmtree(folder, ignore_errors=True)


class Head:
    """A Ray cluster of one node, with its dashboard."""

    def __init__(self, command: process.Command, address: str, dashboard: str) -> None:
        self.command = command
        self.address = address
        self.dashboard = dashboard


@pytest.fixture(scope="module")
def head(_private_ray: Path) -> Iterator[Head]:
    port, dashboard, agent = free_ports(3)
    words = [BIN / "ray", "start", "--head", "--block", "--node-ip-address=127.0.0.1"]
    words += [f"--port={port}", f"--num-cpus={CPUS}", "--object-store-memory=200000000"]
    words += ["--include-dashboard=true", f"--dashboard-port={dashboard}"]
    # Where another cluster of this machine has the usual port, nobody would take a job.
    words += [f"--dashboard-agent-listen-port={agent}"]
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"  # jobs that are submitted run python
    # As a cluster of our own: no process in advance, which would serve no job of these tests.
    spared = {"RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0"}
    with process.Command(words, env={"PYTHONPATH": ROOT, "PATH": path, **spared}) as command:
        process.wait_until(
            lambda: "Ray runtime started" in command.stdout or not command.is_running(), 120, "Ray"
        )
        assert command.is_running(), command.stdout + command.stderr
        yield Head(command, f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture
def joined(head: Head, monkeypatch: pytest.MonkeyPatch) -> Head:
    monkeypatch.setenv("RAY_ADDRESS", head.address)
    return head


@pytest.fixture(scope="module")
def long(dg, tmp_path_factory):
    job = (dg.digits, f"train.epochs={EPOCHS}", f"checkpoint.every_steps={EVERY}")
    return dg.train(tmp_path_factory.mktemp("long") / "run", *job)


def check(run, undisturbed) -> None:
    assert run.sha256 == undisturbed.sha256
    assert run.metrics == undisturbed.metrics
    assert run.saved_sha256() == undisturbed.sha256


def no_ray_is_left(folder: Path) -> None:
    """No process names the folder of this Ray: its raylet, its GCS, its workers."""

    def left() -> list[str]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                if str(folder) in words:
                    found.append(words.replace("\0", " "))
        return found

    process.wait_until(lambda: not left(), 10, "Ray's processes to end")


# On a cluster that is there.


@pytest.mark.parametrize("workers", [1, 4])  # of two below: a job that is submitted
def test_workers_on_ray_have_the_bits_of_one(dg, short, joined, tmp_path, workers: int) -> None:
    run = dg.train(tmp_path / "run", *short.job, options=["-n", workers, "--launcher", "ray"])
    assert run.sha256 == short.sha256
    assert run.metrics == short.metrics
    assert run.saved_sha256() == short.saved_sha256()
    assert (run.status["world_size"], run.status["launcher"]) == (workers, "ray")
    assert run.result.stderr == ""
    assert run.printed == short.printed
    assert ", 1 thread a worker, " in run.result.stdout  # as many as it has asked Ray for
    assert (run.folder / "logs" / "rank_00000.log").read_text() == run.result.stdout


SCRIPT = """
import os, sys
import numpy as np
from distgrad.launcher.connect import connect
from distgrad.launcher import environ
if __name__ == "__main__":
    communicator = connect()
    total = np.array([communicator.rank + 1.0])
    communicator.allreduce(total)
    words = (communicator.rank, communicator.world_size, total[0], environ.script_virtual_shards(),
             os.environ["OMP_NUM_THREADS"], sys.argv[1:], os.getcwd())
    sys.stdout.write(" ".join(map(str, words)) + "\\n")  # in one piece, buffered or not
    sys.stdout.flush()
    if "bug" in sys.argv and communicator.rank == 1:
        raise LookupError("a bug of the user")
    if "exit" in sys.argv:
        sys.exit(17)
    communicator.barrier()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_a_script(dg, joined, script: Path) -> None:
    options = ["--threads-per-worker", 2, "--virtual-shards", 4, "--launcher", "ray"]
    result = dg.run("launch", "-n", 2, *options, script.name, "-x", "n", cwd=script.parent)
    assert result.returncode == 0, result.stderr
    told = f"2 3.0 4 2 ['-x', 'n'] {script.parent}"
    assert sorted(result.stdout.splitlines()) == [f"0 {told}", f"[rank 1] 1 {told}"]


def test_a_bug_ends_all_with_its_traceback_and_is_not_tried_again(dg, joined, script: Path) -> None:
    options = ["-n", 3, "--launcher", "ray", "--max-restarts", 2]
    result = dg.run("launch", *options, script.name, "bug", cwd=script.parent)
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert lines[0] == "[rank 1] Traceback (most recent call last):"
    assert lines[-1] == "[rank 1] LookupError: a bug of the user"
    assert result.stderr.count("Traceback") == 1
    assert "restart" not in result.stderr


def test_exit_codes_pass_through(dg, joined, script: Path, short, tmp_path: Path) -> None:
    options = ["-n", 2, "--launcher", "ray"]
    assert dg.run("launch", *options, script, "exit").returncode == 17
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "resolved.yaml").write_text("of another run")
    dg.refuses("train", *short.job, *options, "--run-dir", tmp_path / "run", code=2)


def test_too_few_cpus_are_named(dg, joined, short, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DISTGRAD_START_TIMEOUT", "12")
    begun = time.monotonic()
    words = ("train", *short.job, "--run-dir", tmp_path / "run", "-n", 6, "--launcher", "ray")
    result = dg.run(*words)
    assert time.monotonic() - begun < 60  # 12 s, and what Ray takes to be imported and joined
    assert result.returncode == 3
    first, last = result.stderr.splitlines()
    need = rf"6 workers need 6 CPU and there are {CPUS}, {CPUS} of them free"
    where = rf"\(Ray cluster at [\d.]+:{joined.address.rpartition(':')[2]}, 1 node\)"
    assert re.fullmatch(rf"waiting for Ray: {need} {where}", first)
    assert re.match(rf"error: {need} {where}: start fewer workers", last)
    assert not (tmp_path / "run" / "status.json").exists()


def test_an_address_where_no_ray_is(dg, short, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_ports(1)[0]}")
    options = ("-n", 2, "--launcher", "ray", "--run-dir", tmp_path / "run")
    dg.refuses("train", *short.job, *options, code=3, says=["RAY_ADDRESS", "no Ray answers"])


def test_a_submitted_job(dg, head, short, tmp_path: Path) -> None:
    """`ray job submit` starts the driver, which then runs like any other."""
    folder = tmp_path / "run"
    words = ["sh", Path(dg.root) / "launch" / "ray_submit.sh", head.dashboard, "2"]
    words += [*map(str, short.job), "--run-dir", folder]
    env = {"PYTHONPATH": ROOT, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    result = process.run(words, timeout=300, cwd=dg.root, env=env)
    assert result.returncode == 0, result.stdout + result.stderr
    status = json.loads((folder / "status.json").read_text())
    assert status["weights_sha256"] == short.sha256
    assert (status["world_size"], status["launcher"]) == (2, "ray")
    assert f"weights sha256 {short.sha256}" in result.stdout


def wait_for_step(run, command: process.Command, step: int) -> None:
    process.wait_until(
        lambda: run.steps_logged >= step or not command.is_running(), 200, f"step {step}"
    )
    assert command.is_running(), f"it ended before step {step}\n{command.stderr}"


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def no_rank_is_left(dg, head: Head) -> None:
    process.wait_until(lambda: not dg.rank_pids(head.command), 10, "the ranks to end")


def controllers(head: Head) -> list[int]:
    """What Ray Train starts for each job, to start its workers."""
    found = []
    for pid in head.command.family():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::TrainController"):
                found.append(pid)
    return found


def test_killed_workers_and_the_job_goes_on(dg, long, joined, tmp_path: Path, capsys) -> None:
    """The rank, the Ray worker that has started it, and who has started that: each time all start
    again, on the CPUs that they had, which are all that there are."""
    run = long.anew(tmp_path / "run", *long.job, "parallel.threads_per_worker=2")
    options = ("-n", 2, "--launcher", "ray", "--max-restarts", 3)
    seconds = []
    with dg.start("train", *run.job, "--run-dir", run.folder, *options) as command:
        for number in range(3):
            wait_for_step(run, command, _random.randint(1, STEPS // 4) + number * STEPS // 4)
            # The step may have been logged before the first kill, when ranks are starting again.
            process.wait_until(lambda: len(dg.rank_pids(joined.command)) == 2, 60, "both ranks")
            pid = dg.rank_pids(joined.command)[_random.randrange(2)]
            victims = [pid], [parent(pid)], controllers(joined)
            [victim] = victims[number]
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            said = f"(restart {number + 1} of 3)"
            process.wait_until(lambda said=said: said in command.stderr, 20, said)
            seconds.append(time.monotonic() - killed)
        result = command.wait(250, grace=10)
    assert result.returncode == 0, result.stderr
    assert not result.orphans
    no_rank_is_left(dg, joined)
    check(run, long)
    assert result.stderr.count("was killed by SIGKILL") == 3
    with capsys.disabled():
        print(f" [ray: {max(seconds):.2f} s at most to the restart] ", end="")


def test_a_killed_worker_ends_the_job_with_6(dg, long, joined, tmp_path: Path) -> None:
    run = long.anew(tmp_path / "run")
    options = ("-n", 2, "--launcher", "ray")
    with dg.start("train", *run.job, "--run-dir", run.folder, *options) as command:
        wait_for_step(run, command, _random.randint(1, STEPS // 2))
        os.kill(dg.rank_pids(joined.command)[1], signal.SIGKILL)
        killed = time.monotonic()
        result = command.wait(60, grace=10)
    assert time.monotonic() - killed < 20
    assert result.returncode == 6, result.stderr
    assert result.stderr.startswith("error: rank 1 (process "), result.stderr
    assert not result.orphans
    no_rank_is_left(dg, joined)


# On a cluster of their own.


def test_without_a_cluster_one_is_started_and_ended(dg, short, tmp_path) -> None:
    with own_folder() as folder:
        (folder / "ray").mkdir()  # one that has ended, with its address left behind
        (folder / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{free_ports(1)[0]}")
        run = dg.train(tmp_path / "run", *short.job, options=["-n", 3, "--launcher", "ray"])
        assert run.sha256 == short.sha256
        assert run.printed == short.printed
        assert run.result.stderr == ""
        no_ray_is_left(folder)


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """A folder in which no Ray has been started yet."""
    with pytest.MonkeyPatch.context() as patch:
        folder = Path(tempfile.mkdtemp(prefix="dgray", dir="/tmp"))
        patch.setenv("RAY_TMPDIR", str(folder))
        yield folder
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_driver_is_told_to_end(dg, long, tmp_path: Path, number: int) -> None:
    run = long.anew(tmp_path / "run")
    options = ("-n", 2, "--launcher", "ray", "--max-restarts", 1)
    with (
        own_folder() as folder,
        dg.start("train", *run.job, "--run-dir", run.folder, *options) as command,
    ):
        wait_for_step(run, command, _random.randint(1, STEPS // 2))
        command.send_signal(number)
        result = command.wait(60, grace=15)
        assert not result.orphans
        no_ray_is_left(folder)
    assert "restart" not in result.stderr
    if number == signal.SIGINT:
        assert result.returncode == 130, result.stderr
        return
    assert result.returncode == 75, result.stderr
    assert run.status["state"] == "preempted"
    dg.resume(run)
    check(run, long)


def test_a_killed_driver_takes_all_with_it(dg, long, tmp_path: Path, monkeypatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    run = long.anew(tmp_path / "run")
    options = ("-n", 2, "--launcher", "ray")
    with (
        own_folder() as folder,
        dg.start("train", *run.job, "--run-dir", run.folder, *options) as command,
    ):
        wait_for_step(run, command, _random.randint(1, STEPS // 2))
        assert list(temporary.glob("distgrad-ray-*"))
        command.send_signal(signal.SIGKILL)
        process.wait_until(lambda: not command_lines(command), 10, "the end of Ray")
        no_ray_is_left(folder)
    assert not list(temporary.glob("distgrad-ray-*"))
    # Ray ends its workers one by one: rank 0 may have had the time to say that it lost the other.
    status = run.status
    assert status["state"] == "running" or (status["state"], status["exit_code"]) == ("failed", 6)


def command_lines(command: process.Command) -> list[str]:
    found = []
    for pid in command.family():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ").strip()
            found += [words] if words else []
    return found
