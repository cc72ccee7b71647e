"""Reading the world and the settings from the environment."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import distgrad
from distgrad.core.errors import UsageError
from distgrad.launcher import environ
from distgrad.launcher.environ import World, detect
from distgrad.testing import process

IMPORT_ROOT = str(Path(distgrad.__path__[0]).parent)

OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
HYDRA = {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
MVAPICH = {
    "MV2_COMM_WORLD_RANK": "3",
    "MV2_COMM_WORLD_SIZE": "4",
    "MV2_COMM_WORLD_LOCAL_RANK": "1",
    "MV2_COMM_WORLD_LOCAL_SIZE": "2",
}
SLURM = {
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "4",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS_PER_NODE": "2(x2)",
    "SLURM_STEP_ID": "0",
}
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
DISTGRAD = {f"DISTGRAD_{name}": value for name, value in TORCHRUN.items()} | {
    "DISTGRAD_LOCAL_SIZE": "2"
}


@pytest.mark.parametrize(
    ("env", "source", "by_mpi"),
    [
        (DISTGRAD, "distgrad", False),
        (OPEN_MPI, "Open MPI", True),
        (HYDRA, "MPICH (hydra)", True),
        (MVAPICH, "MVAPICH", True),
        (SLURM, "Slurm", True),
        (TORCHRUN, "torchrun", False),
    ],
)
def test_each_launcher_is_recognised(env: dict, source: str, by_mpi: bool) -> None:
    world = detect(env)
    assert world == World(3, 4, 1, 2, source)
    assert world.started_by_mpi is by_mpi


def test_nobody_started_us() -> None:
    assert detect({}) == World(0, 1, 0, 1, "none")
    assert not detect({}).started_by_mpi
    assert detect({"OMPI_COMM_WORLD_RANK": "", "OMPI_COMM_WORLD_SIZE": ""}) == World()


def test_the_order_of_launchers() -> None:
    env: dict = {}
    for variables, source in (
        (TORCHRUN, "torchrun"),
        (SLURM, "Slurm"),
        (MVAPICH, "MVAPICH"),
        (HYDRA, "MPICH (hydra)"),
        (OPEN_MPI, "Open MPI"),
        (DISTGRAD, "distgrad"),
    ):
        env |= variables
        assert detect(env).source == source


@pytest.mark.parametrize("step", [None, "batch", "4294967291x", ""])
def test_an_sbatch_shell_is_not_a_rank(step: str | None) -> None:
    env = {name: value for name, value in SLURM.items() if name != "SLURM_STEP_ID"}
    if step is not None:
        env["SLURM_STEP_ID"] = step
    assert detect(env).source == "none"


def test_an_interactive_slurm_task_is_not_a_rank() -> None:
    assert not detect(SLURM | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}).started_by_mpi


def test_local_variables_may_be_missing() -> None:
    assert detect({"PMI_RANK": "1", "PMI_SIZE": "2"}) == World(1, 2, 0, 1, "MPICH (hydra)")


def test_a_broken_variable_is_named() -> None:
    with pytest.raises(UsageError, match="PMI_RANK must be a number, got 'one'"):
        detect(HYDRA | {"PMI_RANK": "one"})


def test_ranks_that_meet_over_tcp() -> None:
    assert not detect({"DISTGRAD_ADDRESS": "node0:4000"}).is_rank
    for env, address in (
        (DISTGRAD | {"DISTGRAD_ADDRESS": "node0:4000"}, "node0:4000"),
        (SLURM | {"DISTGRAD_ADDRESS": "node0:4000"}, "node0:4000"),
        (OPEN_MPI | {"DISTGRAD_ADDRESS": "node0:4000"}, "node0:4000"),
        (TORCHRUN | {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}, "node1:29500"),
        (TORCHRUN | {"MASTER_ADDR": "::1", "MASTER_PORT": "29500"}, "[::1]:29500"),
        (
            TORCHRUN | {"MASTER_ADDR": "n", "MASTER_PORT": "1", "DISTGRAD_ADDRESS": "node0:4000"},
            "node0:4000",
        ),
    ):
        world = detect(env)
        assert (world.rank, world.world_size, world.address) == (3, 4, address)
        assert world.is_rank and not world.started_by_mpi
    taken = {**TORCHRUN, "MASTER_ADDR": "h", "MASTER_PORT": "1"}
    assert detect(taken).address == "h:1"
    assert detect({**taken, "TORCHELASTIC_USE_AGENT_STORE": "True"}).address is None
    for env in (TORCHRUN, DISTGRAD):  # who refuses them says what is missing
        assert detect(env).is_rank and detect(env).address is None


def test_what_a_rank_is_given_is_what_it_finds() -> None:
    world = World(2, 3, 0, 1, "distgrad", "10.0.0.1:4000")
    env = environ.rank_variables(world, "secret", restart=1)
    assert detect(env) == world
    assert environ.token(env) == "secret"
    assert env["DISTGRAD_RESTART"] == "1"
    with pytest.raises(UsageError, match="set DISTGRAD_TOKEN to the same secret"):
        environ.token({})
    assert environ.network_interface({"DISTGRAD_INTERFACE": "eth1"}) == "eth1"
    assert environ.network_interface({}) is None
    with pytest.raises(UsageError, match="DISTGRAD_START_TIMEOUT"):
        environ.start_timeout({"DISTGRAD_START_TIMEOUT": "never"})


def test_progress_mode() -> None:
    assert environ.progress_mode({}) == "auto"
    assert environ.progress_mode({"DISTGRAD_PROGRESS": "off"}) == "off"
    with pytest.raises(UsageError, match="auto, plain or off, got 'loud'"):
        environ.progress_mode({"DISTGRAD_PROGRESS": "loud"})


@pytest.mark.parametrize("name", ["nccl", "cudnn"])
def test_libraries_of_gpus_can_be_turned_off(name) -> None:
    use, key = getattr(environ, f"use_{name}"), f"DISTGRAD_{name.upper()}"
    assert use({}) and use({key: "auto"})
    assert not use({key: "off"})
    with pytest.raises(UsageError, match=f"{key} must be auto or off, got 'on'"):
        use({key: "on"})


def test_shared_memory_can_be_turned_off() -> None:
    assert environ.share_memory({}) and environ.share_memory({"DISTGRAD_SHARED_MEMORY": "auto"})
    assert not environ.share_memory({"DISTGRAD_SHARED_MEMORY": "off"})
    with pytest.raises(UsageError, match="auto or off, got 'no'"):
        environ.share_memory({"DISTGRAD_SHARED_MEMORY": "no"})


def test_operation_timeout() -> None:
    assert environ.operation_timeout({}) == 60.0
    assert environ.operation_timeout({"DISTGRAD_TIMEOUT": "2.5"}) == 2.5
    assert environ.operation_timeout({"DISTGRAD_TIMEOUT": ""}) == 60.0
    for text in ("soon", "0", "-1", "inf", "nan", "1e308", "10000000"):
        with pytest.raises(UsageError, match="DISTGRAD_TIMEOUT"):
            environ.operation_timeout({"DISTGRAD_TIMEOUT": text})


def test_script_virtual_shards() -> None:
    assert environ.script_virtual_shards({}) is None
    assert environ.script_virtual_shards({"DISTGRAD_VIRTUAL_SHARDS": "8"}) == 8
    assert environ.script_virtual_shards({"DISTGRAD_VIRTUAL_SHARDS": ""}) is None
    for text in ("0", "many", "9" * 20):
        with pytest.raises(UsageError, match="DISTGRAD_VIRTUAL_SHARDS"):
            environ.script_virtual_shards({"DISTGRAD_VIRTUAL_SHARDS": text})


def test_a_rank_that_its_world_has_not_is_named() -> None:
    for rank, size in (("2", "2"), ("0", "0")):
        with pytest.raises(UsageError, match=f"no rank {rank} among {size}, .*PMI_RANK, PMI_SIZE"):
            environ.detect({"PMI_RANK": rank, "PMI_SIZE": size})


USES_ALL = """
import sys
import distgrad as tf
from distgrad import distribute
try:
    tf.ones(3)
    distribute.virtual_shards()
    distribute.barrier()
except Exception:
    if sys.argv[1:]:
        raise KeyError("a bug") from None
    raise
"""


@pytest.mark.parametrize("name", ["DISTGRAD_TIMEOUT", "DISTGRAD_VIRTUAL_SHARDS", "DISTGRAD_DEVICE"])
def test_a_wrong_variable_ends_a_script_with_one_line(tmp_path, name: str) -> None:
    """Other errors after it have their traceback."""
    script = tmp_path / "script.py"
    script.write_text(USES_ALL)
    env = {"PYTHONPATH": IMPORT_ROOT, name: "0"}
    result = process.run([sys.executable, str(script)], timeout=60, env=env)
    assert result.returncode == 2
    assert re.fullmatch(f"error: {name} must be .*, got '?0'?\\.\n", result.stderr)
    result = process.run([sys.executable, str(script), "bug"], timeout=60, env=env)
    assert (result.returncode, "Traceback" in result.stderr) == (1, True)


def test_terminal_is_known_through_mpirun() -> None:
    assert environ.stdout_is_terminal({"DISTGRAD_TTY": "1"})
