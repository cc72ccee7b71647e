"""Workers over TCP under our supervisor: the same bits, the same words, the logs of every rank."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

import distgrad
from distgrad.testing import process

pytestmark = pytest.mark.timeout_s(300)

IMPORT_ROOT = str(Path(distgrad.__path__[0]).parent)

SCRIPT = """
import os, sys
import numpy as np
from distgrad.launcher.connect import connect
from distgrad.launcher import environ
communicator = connect()
total = np.array([communicator.rank + 1.0])
communicator.allreduce(total)
words = (communicator.rank, communicator.world_size, total[0], environ.script_virtual_shards(),
         os.environ.get("OMP_NUM_THREADS"), sys.argv[1:])
sys.stdout.write(" ".join(map(str, words)) + "\\n")  # in one piece, also where nothing is buffered
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3, 4])
def test_local_workers_have_the_bits_of_one(dg, short, tmp_path: Path, workers: int) -> None:
    run = dg.train(tmp_path / "run", *short.job, options=["-n", workers, "--launcher", "local"])
    assert run.sha256 == short.sha256
    assert run.metrics == short.metrics
    assert run.saved_sha256() == short.saved_sha256()
    assert (run.status["world_size"], run.status["launcher"]) == (workers, "local")
    assert run.result.stderr == ""
    assert "[rank" not in run.result.stdout  # rank 0 alone has something to say


def test_without_a_run_dir_the_workers_share_a_fresh_one(dg, tmp_path: Path) -> None:
    job = (dg.digits, "train.epochs=1", "-n", 2)
    assert dg.run("train", *job, cwd=tmp_path).returncode == 0
    [folder] = (tmp_path / "runs").glob("2*")
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["world_size"]) == ("finished", 2)
    assert dg.run("train", *job, "--resume", "auto", cwd=tmp_path).returncode == 0
    assert list((tmp_path / "runs").glob("2*")) == [folder]


@pytest.mark.parametrize("launcher", ["local", pytest.param("mpi", marks=pytest.mark.mpi)])
def test_a_script_on_several_workers(dg, script: Path, launcher: str) -> None:
    options = ("-n", 2, "--launcher", launcher, "--virtual-shards", 8)
    result = dg.run("launch", *options, script, "--lr", "0.1")
    assert (result.returncode, result.stderr) == (0, "")
    lines = sorted(line.removeprefix("[rank 1] ") for line in result.stdout.splitlines())
    assert lines == [f"{rank} 2 3.0 8 1 ['--lr', '0.1']" for rank in range(2)]


def test_a_module_on_several_workers(dg, script: Path) -> None:
    result = dg.run("launch", "-n", 2, "-m", script.stem, "-m", cwd=script.parent)
    assert (result.returncode, result.stderr) == (0, "")
    lines = sorted(line.removeprefix("[rank 1] ") for line in result.stdout.splitlines())
    assert lines == [f"{rank} 2 3.0 None 1 ['-m']" for rank in range(2)]
    dg.refuses("launch", "python", script, code=2, says=["no such script: name the script alone"])


def test_a_script_alone(script: Path) -> None:
    result = process.run([sys.executable, str(script)], env={"PYTHONPATH": IMPORT_ROOT})
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("0 1 1.0 None ")


def test_the_printed_commands_do_what_they_say(dg, script: Path) -> None:
    """With an address and a secret in their places they start a world by hand."""
    from distgrad.comm.rendezvous import Rendezvous

    printed = dg.run("launch", "-n", 2, "--print", script, "x y").stdout
    place = Rendezvous(2, "secret", timeout=30).start()
    ranks = []
    for line in printed.splitlines():
        words = shlex.split(line.replace("HOST:PORT", place.address).replace("SECRET", "secret"))
        ranks.append(process.Command(["env", *words], env={"PYTHONPATH": IMPORT_ROOT}))
    for rank, command in enumerate(ranks):
        with command:
            result = command.wait(30)
        assert result.returncode == 0, result.stderr
        assert result.stdout == f"{rank} 2 3.0 None 1 ['x y']\n"


@pytest.mark.parametrize("style", ["torchrun", "Slurm"])
def test_ranks_that_somebody_else_has_started(script: Path, style: str) -> None:
    """In the style of torchrun, and of srun where there is no MPI; rank 0 keeps the place."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])

    def variables(rank: int) -> dict[str, str]:
        if style == "torchrun":
            own = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
            own["MASTER_PORT"] = port
        else:
            own = {"SLURM_PROCID": str(rank), "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0"}
            own["DISTGRAD_ADDRESS"] = f"127.0.0.1:{port}"
        return {"PYTHONPATH": IMPORT_ROOT, **own}

    command = [sys.executable, str(script)]
    refused = process.run(command, env=variables(0), timeout=30)
    assert refused.returncode == 2 and "set DISTGRAD_TOKEN to the same secret" in refused.stderr
    secret = {"DISTGRAD_TOKEN": "secret"}
    one = process.Command(command, env=variables(1) | secret)
    zero = process.Command(command, env=variables(0) | secret)
    with one, zero:
        results = [zero.wait(30), one.wait(30)]
    assert [r.returncode for r in results] == [0, 0], results
    assert [r.stdout.split()[:3] for r in results] == [["0", "2", "3.0"], ["1", "2", "3.0"]]


def test_a_rank_that_never_comes_is_named(script: Path) -> None:
    env = {"DISTGRAD_RANK": "0", "DISTGRAD_WORLD_SIZE": "2", "PYTHONPATH": IMPORT_ROOT}
    from distgrad.comm.rendezvous import Rendezvous

    place, begun = Rendezvous(2, "secret", timeout=5), script.parent / "begun"
    note = f"open({str(begun)!r}, 'w')\n"
    script.write_text(script.read_text().replace("communicator =", f"{note}communicator =", 1))
    env |= {"DISTGRAD_ADDRESS": place.address, "DISTGRAD_TOKEN": "secret"}
    with process.Command([sys.executable, str(script)], env=env) as rank:
        process.wait_until(begun.exists, 60, "the rank to begin")
        place.start()
        result = rank.wait(30)
    assert result.returncode == 6
    assert "rank 1 of 2 did not come to" in result.stderr


def test_other_ranks_write_logs(dg, tmp_path: Path) -> None:
    """Words of every rank are kept in the run folder; those of ranks above 0 are marked."""
    # Python runs this file at the start of every rank.
    site = tmp_path / "path" / "sitecustomize.py"
    site.parent.mkdir()
    site.write_text(
        "import os, sys\nif os.environ.get('DISTGRAD_RANK') == '1':\n"
        "    print('a warning', file=sys.stderr, flush=True)\n"
    )
    path = f"{site.parent}{os.pathsep}{IMPORT_ROOT}"
    words = ["train", str(dg.digits), "train.epochs=1", "-n", "2", "--run-dir", "run"]
    command = [sys.executable, "-m", "distgrad", *words]
    result = process.run(command, cwd=tmp_path, env={"PYTHONPATH": path}, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stderr == "[rank 1] a warning\n"
    logs = {path.name: path.read_text() for path in (tmp_path / "run" / "logs").iterdir()}
    assert logs == {"rank_00000.log": result.stdout, "rank_00001.log": "a warning\n"}


def test_two_live_runs_in_one_folder_are_refused(dg, tmp_path: Path) -> None:
    words = ("train", dg.digits, "train.epochs=500", "--run-dir", tmp_path / "run")
    with dg.start(*words) as first:
        status = tmp_path / "run" / "status.json"
        process.wait_until(status.exists, 60, "the first run")
        said = dg.refuses(*words, "--resume", "auto", code=2, says=["is in use by a run"])
        assert re.search(rf"\(process {first.pid} on ", said)
        assert first.is_running()
        first.send_signal(signal.SIGTERM)
        assert first.wait(60).returncode == 75


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_local_workers_stop_politely(dg, tmp_path: Path, number: int) -> None:
    words = ("train", dg.digits, "train.epochs=500", "-n", 2, "--run-dir", tmp_path / "run")
    with dg.start(*words) as command:
        metrics = tmp_path / "run" / "metrics.jsonl"
        process.wait_until(lambda: metrics.exists() and metrics.stat().st_size, 60, "a step")
        command.send_signal(number)
        result = command.wait(60)
    assert result.returncode == 75, result.stderr
    assert not result.orphans
    assert result.stderr.count("error: stopped and saved after step") == 1
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "preempted"
