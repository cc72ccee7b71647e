"""mpirun or srun: which one starts the ranks, and what its end says of them.

The srun here is a script that reads the options of the real one and starts the ranks by mpirun, so
that the job under it is a real one.
"""

from __future__ import annotations

import shlex
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import distgrad
from distgrad.comm.mpi import library_version
from distgrad.core.errors import MissingExtraError, UsageError
from distgrad.launcher import environ, starters
from distgrad.launcher.base import Program
from distgrad.testing import process

pytestmark = [pytest.mark.mpi, pytest.mark.timeout_s(120)]
IMPORT_ROOT = str(Path(distgrad.__path__[0]).parent)
DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"

SRUN = """#!/bin/sh
if [ "$1" = --mpi=list ]; then
    echo "MPI plugin types are..." && echo "    none" && echo "    PLUGIN" && exit 0
fi
echo "srun $*" >>LOG
while :; do
    case $1 in
    -n) count=$2 && shift 2 ;;
    -*) shift ;;
    *) break ;;
    esac
done
exec MPIRUN -n "$count" "$@"
"""


@pytest.fixture
def mpirun() -> str:
    pytest.importorskip("mpi4py", exc_type=ImportError)
    try:
        return starters.find_mpirun()
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.fixture
def plugin(mpirun: str) -> str:
    """What a site's srun must have for the MPI that is installed here."""
    return {"MPICH": "pmi2", "Open MPI": "pmix"}[starters.flavour(mpirun)]


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def stand_in(folder: Path, mpirun: str, plugin: str) -> Path:
    options = starters.Starter(mpirun, starters.flavour(mpirun)).command(Program([], 8, threads=1))
    words = shlex.join([mpirun, *options[3:]])
    text = SRUN.replace("MPIRUN", words).replace("LOG", str(folder / "log"))
    return executable(folder / "srun", text.replace("PLUGIN", plugin))


@pytest.fixture
def allocation(tmp_path: Path, mpirun: str, plugin: str, monkeypatch) -> Path:
    """A Slurm allocation with an srun on PATH; the folder that holds it."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    stand_in(folder, mpirun, plugin)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    for name in ("SLURM_STEP_ID", "SLURM_MPI_TYPE", "DISTGRAD_MPIRUN"):
        monkeypatch.delenv(name, raising=False)
    return folder


def words(threads: int | None = 1) -> list[str]:
    return starters.find_starter().command(Program(["rank"], 4, threads=threads))


def test_srun_within_an_allocation(allocation: Path, plugin: str, monkeypatch) -> None:
    srun, always = str(allocation / "srun"), ["--kill-on-bad-exit=1", "--quit-on-interrupt"]
    assert words() == [srun, "-n", "4", *always, f"--mpi={plugin}"]
    assert words(threads=2) == [srun, "-n", "4", *always, f"--mpi={plugin}", "--cpu-bind=none"]
    monkeypatch.setenv("SLURM_STEP_ID", "0")  # a shell that srun itself has started
    assert words() == [srun, "-n", "4", *always, "--overlap", f"--mpi={plugin}"]
    monkeypatch.delenv("SLURM_STEP_ID")
    monkeypatch.setenv("SLURM_MPI_TYPE", "cray_shasta")
    assert words() == [srun, "-n", "4", *always]


def test_mpirun_where_srun_does_not_speak_to_the_mpi(
    allocation: Path, mpirun: str, plugin: str
) -> None:
    stand_in(allocation, mpirun, {"pmi2": "pmix", "pmix": "pmi2"}[plugin])
    assert words()[0] == mpirun
    executable(allocation / "srun", "#!/bin/sh\nexit 1\n")  # it does not say
    assert words()[0] == str(allocation / "srun")


def test_the_user_chooses(allocation: Path, mpirun: str, monkeypatch) -> None:
    monkeypatch.setenv("DISTGRAD_MPIRUN", "mpirun")
    assert words()[0] == mpirun
    monkeypatch.setenv("DISTGRAD_MPIRUN", mpirun)
    assert words()[0] == mpirun
    monkeypatch.delenv("SLURM_JOB_ID")
    assert words()[0] == mpirun
    monkeypatch.setenv("DISTGRAD_MPIRUN", "srun")
    assert words()[0] == str(allocation / "srun")
    monkeypatch.setenv("DISTGRAD_MPIRUN", "/no/such/mpirun")
    with pytest.raises(UsageError, match="DISTGRAD_MPIRUN is /no/such/mpirun"):
        words()


def test_without_an_allocation_there_is_no_srun(allocation: Path, mpirun: str, monkeypatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID")
    assert words()[0] == mpirun


def test_an_mpirun_of_another_family_is_refused(tmp_path: Path, plugin: str, monkeypatch) -> None:
    says, other = {"pmi2": ("mpirun (Open MPI) 5.0", "Open MPI"), "pmix": ("HYDRA", "MPICH")}[
        plugin
    ]
    path = executable(tmp_path / "mpiexec", f"#!/bin/sh\necho '{says}'\n")
    monkeypatch.setenv("DISTGRAD_MPIRUN", str(path))
    with pytest.raises(MissingExtraError) as caught:
        words()
    loaded = library_version()
    assert f"{path} is that of {other}, but mpi4py loads {loaded}" in str(caught.value)


def test_a_shell_of_salloc_is_no_rank() -> None:
    step = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "17"}
    assert environ.detect({**step, "SLURM_STEP_ID": "0"}).started_by_mpi
    for shell in ("4294967290", "4294967291", ""):
        assert not environ.detect({**step, "SLURM_STEP_ID": shell}).is_rank


def test_a_job_under_srun(allocation: Path, run_cli, tmp_path: Path) -> None:
    job = ("train", DIGITS, "train.epochs=1", "--run-dir", tmp_path / "run")
    options = ("-n", 2, "--launcher", "mpi")
    printed = run_cli(*job, *options, "--print")
    assert f"{allocation / 'srun'} -n 2 --kill-on-bad-exit=1" in printed.stdout, printed.stderr
    assert not (allocation / "log").exists()
    result = run_cli(*job, *options, timeout=100)
    assert result.returncode == 0, result.stderr
    assert " 2 workers" in result.stdout
    assert not result.orphans
    assert (allocation / "log").read_text().startswith("srun -n 2 --kill-on-bad-exit=1")


ENDS = """
import os, signal, sys
from distgrad.launcher.connect import connect
c = connect()
print("a start", flush=True)
c.barrier()  # both have said it: with one killed, mpirun ends the other at once
if c.rank == 1:
    if sys.argv[1] == "killed":
        os.kill(os.getpid(), int(sys.argv[2]))
    sys.exit(int(sys.argv[2]))
c.barrier()
"""


@pytest.mark.parametrize("number", [7, 9, 11])
@pytest.mark.parametrize(("how", "starts"), [("killed", 2), ("exits", 1)])
def test_only_a_killed_rank_is_started_again(
    mpirun: str, run_cli, tmp_path: Path, how: str, number: int, starts: int
) -> None:
    """Hydra has the same exit code for both."""
    (tmp_path / "ends.py").write_text(ENDS)
    options = ("-n", 2, "--launcher", "mpi", "--max-restarts", 1)
    result = run_cli("launch", *options, tmp_path / "ends.py", how, number)
    said = result.stdout + result.stderr
    assert result.returncode == (number if how == "exits" else 6), said
    assert result.stdout.count("a start") == 2 * starts, said
    assert result.stderr.count("starting all workers again") == starts - 1, said
    if how == "killed":
        assert "error: a rank under mpirun was killed by SIG" in result.stderr
    assert result.seconds < 40
    assert not result.orphans


def test_what_ranks_write_passes_as_it_comes(mpirun: str, tmp_path: Path) -> None:
    if starters.flavour(mpirun) != "MPICH":
        pytest.skip("another mpirun writes to our stdout itself, in whole lines")
    script = "import time; print('no end of line', end='', flush=True); time.sleep(60)"
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "-m", "distgrad", "launch", "-n", "1", "--launcher", "mpi"]
    start = [*command, str(tmp_path / "script.py")]
    with process.Command(start, env={"PYTHONPATH": IMPORT_ROOT}) as running:
        process.wait_until(lambda: "no end of line" in running.stdout, 30, "its words")


def test_open_mpi_passes_the_variables_of_a_job_to_other_hosts(monkeypatch) -> None:
    monkeypatch.setenv("DISTGRAD_TIMEOUT", "20")
    program = Program(["rank"], 2, threads=1, virtual_shards=8)
    command = starters.Starter("mpirun", "Open MPI").command(program)
    passed = {word for flag, word in pairwise(command) if flag == "-x"}
    assert {"DISTGRAD_VIRTUAL_SHARDS=8", "OMP_NUM_THREADS=1", "DISTGRAD_TIMEOUT"} <= passed
    assert "-x" not in starters.Starter("mpirun", "MPICH").command(program)
