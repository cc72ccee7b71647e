"""Which launcher a command gets, the mpirun command it builds, and how it looks after children."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import distgrad
from distgrad.core.errors import MissingExtraError, UsageError
from distgrad.launcher import base, environ, starters
from distgrad.launcher.base import choose
from distgrad.launcher.environ import World
from distgrad.launcher.local import LocalLauncher
from distgrad.launcher.mpi import MPILauncher
from distgrad.launcher.output import Overheard
from distgrad.launcher.supervisor import Member, Team, outcome
from distgrad.testing import process

ALONE = World()
UNDER_MPIRUN = World(1, 4, 1, 4, "MPICH (hydra)")
UNDER_TORCHRUN = World(1, 4, 1, 4, "torchrun")
UNDER_US = World(1, 4, 1, 4, "distgrad", "127.0.0.1:4000")
UNDER_SRUN_WITHOUT_MPI = World(1, 4, 1, 4, "Slurm", "node0:4000")
IMPORT_ROOT = str(Path(distgrad.__path__[0]).parent)


def job(workers: int = 2, threads: int | None = 1, shards: int | None = None) -> SimpleNamespace:
    return SimpleNamespace(
        workers=workers,
        launcher="mpi",
        threads_per_worker=threads,
        virtual_shards=shards,
        run_dir="run",
        device="cpu",
    )


@pytest.mark.parametrize(
    ("requested", "yaml", "world", "expected"),
    [
        (None, "local", ALONE, LocalLauncher),
        (None, "mpi", ALONE, MPILauncher),
        ("mpi", "local", ALONE, MPILauncher),
        ("local", "mpi", ALONE, LocalLauncher),
        ("local", "local", UNDER_MPIRUN, MPILauncher),
        (None, "ray", UNDER_MPIRUN, MPILauncher),
        ("mpi", "local", UNDER_TORCHRUN, MPILauncher),
        ("local", "local", UNDER_TORCHRUN, LocalLauncher),
        ("mpi", "mpi", UNDER_US, LocalLauncher),
        (None, "mpi", UNDER_TORCHRUN, LocalLauncher),
        (None, "local", UNDER_SRUN_WITHOUT_MPI, LocalLauncher),
    ],
)
def test_started_by_mpirun_wins_then_flag_then_yaml(requested, yaml, world, expected) -> None:
    assert type(choose(requested, yaml, world)) is expected


def test_an_unknown_launcher_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown launcher 'slurm': use local, mpi or ray"):
        choose("slurm", "local", ALONE)


@pytest.mark.parametrize("launcher", [MPILauncher, LocalLauncher])
def test_more_workers_than_shards_stops_before_anything_starts(launcher) -> None:
    with pytest.raises(UsageError, match="4 workers cannot share 2 virtual shards"):
        launcher(ALONE).launch(job(workers=4, shards=2), ["train", "job.yaml"])


@pytest.mark.parametrize("world", [UNDER_MPIRUN, UNDER_US])
def test_only_who_starts_the_ranks_restarts_them(world: World) -> None:
    with pytest.raises(UsageError, match=f"--max-restarts.*{re.escape(world.source)} has started"):
        choose(None, "local", world).launch(job(), [], max_restarts=1)


@pytest.mark.parametrize(
    "argv",
    [
        ["train", "-n", "4", "job.yaml", "--launcher", "mpi", "a.b=1"],
        ["train", "-np", "4", "job.yaml", "--launcher", "mpi", "a.b=1"],
        ["train", "job.yaml", "a.b=1", "-n4", "--launcher=mpi"],
        ["train", "job.yaml", "--workers", "4", "a.b=1"],
        ["train", "job.yaml", "--workers=4", "a.b=1"],
        ["train", "job.yaml", "a.b=1", "--max-restarts", "4"],
        ["train", "job.yaml", "--max-restarts=4", "a.b=1"],
    ],
)
def test_ranks_get_the_command_without_its_launch_options(argv: list[str]) -> None:
    assert base.without_launch_options(argv) == ["train", "job.yaml", "a.b=1"]


def test_names_that_begin_like_an_option_stay() -> None:
    argv = ["train", "-name", "--new", "n=4", "job.yaml"]
    assert base.without_launch_options(argv) == argv


def fake_mpirun(folder: Path, says: str) -> str:
    """An executable that answers ``--version`` as another MPI would."""
    path = folder / "mpirun"
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("mpirun (Open MPI) 5.0.11", "Open MPI"),
        ("HYDRA build details:", "MPICH"),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.19", "MPICH"),
        ("something else", "unknown"),
    ],
)
def test_flavour(tmp_path: Path, says: str, expected: str) -> None:
    assert starters.flavour(fake_mpirun(tmp_path, says)) == expected


def test_flavour_of_nothing(tmp_path: Path) -> None:
    assert starters.flavour(str(tmp_path / "absent")) == "unknown"


def test_command_for_open_mpi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mpirun = fake_mpirun(tmp_path, "mpirun (Open MPI) 5.0.11")
    monkeypatch.setattr(starters, "find_mpirun", lambda: mpirun)
    monkeypatch.setattr(starters, "library_version", lambda: "Open MPI v5.0.11")
    monkeypatch.setattr(environ, "usable_cores", lambda: 2)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    rank = [sys.executable, "-m", "distgrad", "train", "job.yaml"]
    launcher = MPILauncher(ALONE)
    argv = ["train", "job.yaml", "-n", "4"]

    def command(**settings) -> list[str]:
        program = base.program_of(job(**settings), argv, sys.executable)
        [line] = launcher.commands(program)
        assert f"OMP_NUM_THREADS={program.threads}" in shlex.split(line)
        return shlex.split(line)

    def without_settings(line: list[str]) -> list[str]:
        """From mpirun on, without the variables that Open MPI is told to pass on."""
        words = line[line.index(mpirun) :]
        passed = {i for i, word in enumerate(words) if word == "-x"}
        assert any(words[i + 1].startswith("OMP_NUM_THREADS=") for i in passed)
        return [w for i, w in enumerate(words) if i not in passed and i - 1 not in passed]

    assert without_settings(command(workers=4)) == [
        *[mpirun, "-n", "4", "--allow-run-as-root", "--oversubscribe"],
        *rank,
    ]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert without_settings(command(workers=2)) == [mpirun, "-n", "2", *rank]
    assert without_settings(command(workers=2, threads=2)) == [
        *[mpirun, "-n", "2", "--bind-to", "none"],
        *rank,
    ]


def test_the_ranks_that_a_restart_gets() -> None:
    argv = ["train", "job.yaml", "--resume", "never", "--run-dir", "run", "-n", "2"]
    program = base.program_of(job(), argv, "python")
    first = ["python", "-m", "distgrad", "train", "job.yaml"]
    assert program.words(0) == [*first, "--resume", "never", "--run-dir", "run"]
    assert program.words(1) == program.words(2) == [*first, "--run-dir", "run", "--resume", "auto"]


def test_the_commands_of_local_ranks() -> None:
    lines = LocalLauncher(ALONE).commands(base.Program(["python", "a b.py"], 2, threads=3))
    assert len(lines) == 2
    for rank, line in enumerate(lines):
        *variables, python, script = shlex.split(line)
        assert (python, script) == ("python", "a b.py")
        env = dict(word.split("=", 1) for word in variables)
        assert env["OMP_NUM_THREADS"] == "3"
        world = environ.detect(env)
        assert (world.rank, world.world_size, world.source) == (rank, 2, "distgrad")


def test_missing_mpirun_gives_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mpi4py", exc_type=ImportError)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtraError) as caught:
        MPILauncher(ALONE).launch(job(), ["train", "job.yaml"])
    assert "pip install 'distgrad[mpich]'" in str(caught.value)
    beside = fake_mpirun(tmp_path, "HYDRA")
    assert starters.find_mpirun() == beside


def wrapper(command: list[str]) -> list[str]:
    """A command line whose process supervises ``command``."""
    code = (
        "import sys; from distgrad.launcher.supervisor import Member, Team, supervise;"
        "sys.exit(supervise(lambda restart: Team([Member('it', sys.argv[1:], death_signal=15)])))"
    )
    return [sys.executable, "-c", code, *command]


def start(command: list[str], tmp_path: Path) -> process.Command:
    return process.Command(wrapper(command), cwd=tmp_path, env={"PYTHONPATH": IMPORT_ROOT})


@pytest.mark.timeout_s(30)
def test_supervise_passes_exit_codes(tmp_path: Path) -> None:
    for code in (0, 5, 75):
        with start(["sh", "-c", f"exit {code}"], tmp_path) as command:
            assert command.wait(20).returncode == code
    with start(["sh", "-c", "kill -9 $$"], tmp_path) as command:
        result = command.wait(20)
    assert result.returncode == 6  # that of a lost rank, which a killed one is
    assert re.match(r"error: it \(process \d+\) was killed by SIGKILL", result.stderr)


RESTARTS = """
import pathlib, sys
from distgrad.launcher.supervisor import Member, Team, supervise
def team(restart):
    code = sys.argv[2:][restart]
    mine = ["sh", "-c", f"echo start {restart}; {code}"]
    other = ["true"] if code == "true" else ["sleep", "30"]
    return Team([Member("one", mine), Member("two", other)])
sys.exit(supervise(team, max_restarts=int(sys.argv[1])))
"""


@pytest.mark.timeout_s(60)
@pytest.mark.parametrize(
    ("limit", "codes", "starts", "expected"),
    [
        (2, ["kill -9 $$", "true"], 2, 0),
        (2, ["exit 6", "kill -11 $$", "true"], 3, 0),
        (2, ["exit 6", "exit 6", "exit 6", "true"], 3, 6),
        (0, ["kill -9 $$", "true"], 1, 6),
        (5, ["exit 1", "true"], 1, 1),
        (5, ["exit 2", "true"], 1, 2),
        (5, ["exit 75", "true"], 1, 75),
    ],
)
def test_restarts_after_a_loss_and_nothing_else(
    tmp_path: Path, limit: int, codes: list[str], starts: int, expected: int
) -> None:
    command = [sys.executable, "-c", RESTARTS, str(limit), *codes]
    result = process.run(command, timeout=30, cwd=tmp_path, env={"PYTHONPATH": IMPORT_ROOT})
    assert result.returncode == expected, result.stderr
    assert result.stdout.count("start") == starts
    assert result.stderr.count("starting all workers again") == starts - 1
    assert not result.orphans
    assert result.seconds < 15


MANY = """
import os, pathlib, signal, sys, time
from distgrad.launcher.supervisor import Member, Team, supervise
class Members(list):
    def __iter__(self):
        yield Member("one", ["sh", "-c", sys.argv[1]])
        while not pathlib.Path("ready").exists():
            time.sleep(0.01)
        if sys.argv[1].startswith("trap"):
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
        for number in range(3):
            yield Member(str(number), ["touch", f"started-{number}"])
sys.exit(supervise(lambda restart: Team(Members())))
"""


@pytest.mark.timeout_s(60)
@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("trap 'exit 75' TERM; touch ready; while :; do sleep 0.1; done", 75),
        ("touch ready; exit 3", 3),
    ],
)
def test_no_more_are_started_once_one_failed_or_all_are_to_stop(
    tmp_path: Path, first: str, expected: int
) -> None:
    """Thousands take minutes to start, in which nothing else would be heard."""
    command = [sys.executable, "-c", MANY, first]
    result = process.run(command, timeout=30, cwd=tmp_path, env={"PYTHONPATH": IMPORT_ROOT})
    assert result.returncode == expected, result.stderr
    assert not list(tmp_path.glob("started-*"))
    assert not result.orphans


def test_a_rank_under_mpirun_that_ended_by_the_signal_that_was_passed_on() -> None:
    child = SimpleNamespace(pid=1, poll=lambda: 15)
    assert outcome(Team([Member("mpirun", ())]), [child], [signal.SIGTERM], lambda: [15]) == 143


def test_hydras_word_of_a_signal_has_the_bits_of_the_kill_of_the_others(capfd) -> None:
    """As it has written them of ranks that ended by SIGBUS, SIGINT and SIGKILL."""
    banner = (
        b"=   PID 7 RUNNING AT here\n=   EXIT CODE: %d\n=   CLEANING UP REMAINING PROCESSES\n"
        b"YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Some text (signal %d)\n"
    )

    def ended(one: int, last: int, *received: int) -> tuple[int, str]:
        words = starters.Starter("mpirun", "MPICH").killed_words
        script = f"import sys; sys.stdout.buffer.write({banner % (one, last)!r})"
        command = [sys.executable, "-c", script]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as written:
            number = Overheard(written, words).number()
        child = SimpleNamespace(pid=1, poll=lambda: last, said=lambda: None)
        code = outcome(Team([Member("mpirun", ())]), [child], [*received], lambda: [number])
        return code, capfd.readouterr().err.removeprefix(
            "error: a rank under mpirun was killed by "
        )

    assert ended(7, 15) == (6, "SIGBUS. Is /dev/shm full, or a disk?\n")
    assert ended(9, 15) == (6, "SIGABRT, SIGBUS or SIGTERM.\n")
    assert ended(9, 9) == (6, "SIGKILL. Out of memory?\n")
    assert ended(2, 11, signal.SIGINT) == ended(9, 11, signal.SIGINT) == (130, "")


TRAP = """
import pathlib, signal, sys, time
for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
    signal.signal(getattr(signal, name), lambda n, f, name=name: (
        pathlib.Path("got").write_text(name), sys.exit(75)))
pathlib.Path("ready").touch()
for _ in range(600):
    time.sleep(0.1)  # one sleep of a minute misses a signal just before it
"""


@pytest.mark.timeout_s(60)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_supervise_forwards_signals(tmp_path: Path, name: str) -> None:
    with start([sys.executable, "-c", TRAP], tmp_path) as command:
        process.wait_until((tmp_path / "ready").exists, 20, "the child")
        command.send_signal(getattr(signal, name))
        result = command.wait(20)
    assert result.returncode == 75
    assert (tmp_path / "got").read_text() == name
    assert not result.orphans


@pytest.mark.timeout_s(60)
def test_a_second_signal_kills_a_deaf_child(tmp_path: Path) -> None:
    deaf = "trap '' TERM; touch ready; while :; do sleep 0.1; done"
    with start(["sh", "-c", deaf], tmp_path) as command:
        process.wait_until((tmp_path / "ready").exists, 20, "the child")
        command.send_signal(signal.SIGTERM)
        command.send_signal(signal.SIGINT)
        result = command.wait(20)
    assert result.returncode == 137
    assert not result.orphans


@pytest.mark.mpi
@pytest.mark.timeout_s(60)
@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_killing_the_wrapper_leaves_no_rank_behind(tmp_path: Path) -> None:
    try:
        mpirun = starters.find_mpirun()
    except MissingExtraError as error:
        pytest.skip(str(error))
    rank = (
        "import pathlib, time; from mpi4py import MPI; r = MPI.COMM_WORLD.rank;"
        "pathlib.Path(f'ready{r}').touch(); time.sleep(60)"
    )
    with start([mpirun, "-n", "2", sys.executable, "-c", rank], tmp_path) as command:
        ready = [tmp_path / "ready0", tmp_path / "ready1"]
        process.wait_until(lambda: all(p.exists() for p in ready), 30, "both ranks")
        assert len(command.family()) >= 4
        command.send_signal(signal.SIGKILL)
        result = command.wait(20, grace=10)
    assert not result.orphans
