"""How a rank's error ends the world: once, by name, with its exit code, and nobody left behind."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import distgrad
from distgrad.testing import process

from . import ends

pytestmark = pytest.mark.timeout_s(90)
needs_mpi = [
    pytest.mark.mpi,
    pytest.mark.skipif(
        importlib.util.find_spec("mpi4py") is None,
        reason="no mpi4py: pip install 'distgrad[mpich]'",
    ),
]


@pytest.fixture(params=["local", pytest.param("mpi", marks=needs_mpi)])
def ranks(request, tmp_path: Path):
    """Runs a case on three ranks; checks that nothing outlives it, or goes on for long.

    Seconds are those since the last of the ranks has begun.
    """
    over_mpi = request.param == "mpi"
    start = request.getfixturevalue("run_mpi" if over_mpi else "run_cli")

    def run(case, n: int = 3, **env: str) -> process.Result:
        words = (n,) if over_mpi else ("launch", "-n", n)
        result = start(*words, ends.__file__, case.__name__, timeout=60, env=env)
        assert not result.orphans
        seconds = time.time() - (tmp_path / "begun").stat().st_mtime
        assert seconds < 20
        # Open MPI's mpirun has words of its own for any exit code but 0: between two lines, and
        # those of its event library.
        own_words = re.compile(r"^-{70,}\n(?:.*\n)*?-{70,}\n|^\[warn\] Epoll .*\n", re.MULTILINE)
        return replace(result, stderr=own_words.sub("", result.stderr), seconds=seconds)

    return run


def test_a_good_end(ranks) -> None:
    for n in (1, 2, 3):
        result = ranks(ends.fine, n)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count(f"sum {5 * n}") == n
        assert result.stderr == ""


def test_the_exit_code_of_the_worker_is_the_exit_code_of_the_job(ranks) -> None:
    result = ranks(ends.returns_a_code)
    assert (result.returncode, result.stderr) == (4, "")
    assert ranks(ends.exits_with_zero).returncode == 0


@pytest.mark.parametrize(
    "case", [ends.bug_on_one_rank, ends.bug_on_all_ranks, ends.uncaught_in_a_script]
)
def test_a_bug_is_printed_once_with_its_rank(ranks, case) -> None:
    result = ranks(case)
    assert result.returncode == 1
    assert result.stderr.count("Traceback (most recent call last)") == 1
    rank = 0 if case is ends.bug_on_all_ranks else 1
    name = (
        "KeyError: 'in a script'" if case is ends.uncaught_in_a_script else "ZeroDivisionError: bug"
    )
    assert f"[rank {rank}] {name}" in result.stderr


def test_a_bug_that_comes_to_the_ranks_one_by_one_is_printed_once(ranks) -> None:
    result = ranks(ends.bug_on_all_ranks_late_on_the_first)
    assert result.returncode == 1
    assert result.stderr.count("Traceback (most recent call last)") == 1, result.stderr


def test_an_aborted_world_leaves_no_shared_memory(ranks) -> None:
    segments = ranks(ends.bug_with_shared_memory).stdout.split()
    if not segments:
        pytest.skip("this MPI keeps no named shared memory")
    assert not [path for path in segments if Path(path).exists()]


def test_a_job_error_of_all_ranks_is_one_plain_line(ranks) -> None:
    for case in (
        ends.diverged_on_all_ranks,
        ends.diverged_on_all_ranks_with_much_to_close_on_the_first,
    ):
        result = ranks(case)
        assert (result.returncode, result.stderr) == (5, "error: loss is nan at step 3.\n")
    result = ranks(ends.preempted_on_all_ranks)
    assert (result.returncode, result.stderr) == (75, "error: saved at step 7.\n")


@pytest.mark.parametrize("case", [ends.bad_data_on_one_rank, ends.bad_data_while_others_compute])
def test_a_job_error_of_one_rank_ends_all_with_its_code(ranks, case) -> None:
    result = ranks(case)
    assert result.returncode == 4
    assert result.stderr.count("error:") == 1
    assert "[rank 1] error: shard.npy is truncated.\n" in result.stderr


def test_a_frozen_rank_is_named(ranks) -> None:
    result = ranks(ends.frozen_rank, DISTGRAD_TIMEOUT="1")
    assert result.returncode == 6
    assert result.stderr.count("error:") == 1
    # Both others' waits end at the same time: rank 0 says its own, or what rank 2 told it.
    named = r"\[rank 0\] error: .*rank [02] waited [\d.]+ s for rank 1 in barrier \(limit 1 s\)"
    assert re.search(named, result.stderr)


def test_a_late_rank_is_named_once_a_wait_and_nothing_fails(ranks) -> None:
    result = ranks(ends.late_rank, DISTGRAD_TIMEOUT="12")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("sum 15") == 3
    said = r"warning: rank 0 has waited 2\.\d s for rank 1 in allreduce\(sum\) \(limit 12 s\)"
    assert len(re.findall(said, result.stderr)) == 2, result.stderr
    assert len(result.stderr.splitlines()) == 2  # rank 2 leaves the word to rank 0


def test_a_killed_rank_ends_the_job(ranks, request) -> None:
    result = ranks(ends.killed_rank)
    assert result.seconds < 10
    if "local" in request.node.name:
        assert result.returncode == 6
        assert re.match(r"error: rank 1 \(process \d+\) was killed by SIGKILL", result.stderr)
        assert result.stderr.count("\n") == 1
    else:
        assert result.returncode != 0


def test_different_calls_are_named(ranks) -> None:
    result = ranks(ends.different_calls)
    assert result.returncode == 1
    assert result.stderr.count("error:") == 1
    assert "call 1: barrier" in result.stderr
    assert "call 1: allreduce(sum) of 24 bytes float64" in result.stderr
    said = ranks(ends.different_calls_in_a_script).stderr
    assert re.search(
        r"Seen at .*ends\.py:\d+: c\.(barrier\(\)|allreduce\(np\.zeros\(3\)\))\n", said
    )


@pytest.mark.parametrize("memory", ["auto", "off"])
@pytest.mark.parametrize(
    "case", [ends.exits_on_one_rank, ends.exits_in_a_script, ends.raises_an_exit_in_a_script]
)
def test_one_rank_that_exits_ends_all_with_its_code(ranks, case, memory: str) -> None:
    result = ranks(case, DISTGRAD_SHARED_MEMORY=memory)
    assert result.returncode == 9, result.stderr
    assert result.stderr.count("rank 1 has ended with exit code 9") == 1
    assert result.stderr.count("error:") == 1


@pytest.mark.parametrize(
    "case", [ends.exits_slowly_on_a_busy_machine, ends.exits_while_another_still_connects]
)
def test_a_rank_that_takes_long_to_exit_gives_its_code(run_cli, case) -> None:
    result = run_cli("launch", "-n", 3, ends.__file__, case.__name__)
    assert result.returncode == 9, result.stderr
    assert result.stderr == "error: rank 1 has ended with exit code 9.\n"


def test_ctrl_c_is_said_once_and_no_rank_waits_to_say_it_again(run_cli) -> None:
    result = run_cli("launch", "-n", 3, ends.__file__, ends.interrupted_by_its_first_rank.__name__)
    assert result.returncode == 130
    assert re.fullmatch(r"\[rank \d\] interrupted\n", result.stderr), result.stderr
    assert not result.orphans


@pytest.mark.parametrize(
    ("case", "code"),
    [
        (ends.exits_with_a_code_of_ours, 3),
        (ends.exits_with_the_code_of_a_loss, 6),
        (ends.exits_without_cleaning_up, 1),
    ],
)
def test_an_exit_without_a_word_is_told_of_by_one_line(run_cli, case, code: int) -> None:
    """Also where errors that are printed have that code."""
    result = run_cli("launch", "-n", 3, ends.__file__, case.__name__, timeout=60)
    assert result.returncode == code
    assert result.stderr == f"error: rank 1 has ended with exit code {code}.\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_rank_whose_output_nobody_takes_still_ends_all(ranks) -> None:
    result = ranks(ends.a_bug_without_stdout)
    assert result.returncode == 1, result.stderr
    assert "[rank 1] KeyError: 'a bug'" in result.stderr
    assert "excepthook" not in result.stderr
    assert result.seconds < 10


def test_an_exit_with_words_has_code_1(ranks) -> None:
    result = ranks(ends.exits_with_words_in_a_script)
    assert result.returncode == 1
    assert result.stderr.count("the words of its user") == 1


def test_ranks_that_come_to_their_end_too_early_are_named(ranks) -> None:
    result = ranks(ends.ends_early_in_a_script)
    assert result.returncode == 1
    assert result.stderr.count("error:") == 1
    named = "rank [12]( has come to the end of its program| in barrier: it has ended)"
    assert re.search(named, result.stderr), result.stderr
    assert "very rank must make the same number of collective calls." in result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_end_of_a_fork_is_not_that_of_its_rank(ranks) -> None:
    result = ranks(ends.forks_in_a_script)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("sum 15") == 3
    assert result.stderr.count("ValueError: a bug in the child") == 1


@pytest.mark.mpi
@pytest.mark.parametrize(
    "case", [ends.ends_early_under_a_slow_mpirun, ends.bugs_under_a_slow_mpirun]
)
def test_one_rank_speaks_though_mpirun_is_slow_to_end_the_others(run_mpi, case) -> None:
    """Between what a rank says and the end of the others more time passes than they are silent."""
    result = run_mpi(3, ends.__file__, case.__name__, timeout=60)
    assert result.returncode == 1
    said = re.findall(r"^\[rank \d\] (?:error:|ZeroDivisionError:)", result.stderr, re.MULTILINE)
    assert len(said) == 1, result.stderr


def test_a_rank_that_exits_before_it_connects_leaves_nobody_waiting(ranks) -> None:
    result = ranks(ends.exits_before_it_connects, DISTGRAD_START_TIMEOUT="4")
    assert result.returncode != 0
    assert result.seconds < 15


def test_a_rank_that_is_killed_while_others_connect_is_named_once(run_cli) -> None:
    result = run_cli("launch", "-n", 3, ends.__file__, ends.killed_while_others_connect.__name__)
    assert result.returncode == 6
    assert re.fullmatch(r"error: rank 1 \(process \d+\) was killed by SIGKILL.*\n", result.stderr)
    assert not result.orphans


@pytest.mark.parametrize("workers", [2, 3])
def test_a_rank_that_never_connects_is_named_once(run_cli, workers: int) -> None:
    words = ("launch", "-n", workers, ends.__file__, "rank_0_never_connects")
    result = run_cli(*words, env={"DISTGRAD_START_TIMEOUT": "10"})  # the others come by then
    assert result.returncode == 6, result.stderr
    assert re.fullmatch(r"\[rank 1\] error: rank 0 of \d did not come .*\n", result.stderr)
    assert not result.orphans


@pytest.mark.parametrize(
    ("launcher", "case", "variable"),
    [
        ("local", ends.no_rank_can_connect_and_the_first_comes_late, "DISTGRAD_INTERFACE"),
        pytest.param("mpi", ends.uncaught_in_a_script, "DISTGRAD_START_TIMEOUT", marks=needs_mpi),
    ],
)
def test_an_error_before_they_connect_is_said_once(run_cli, launcher, case, variable) -> None:
    words = ("launch", "-n", 3, "--launcher", launcher, ends.__file__, case.__name__)
    result = run_cli(*words, env={variable: "wrong"})
    assert result.returncode == 2
    assert re.fullmatch(r"\[rank \d\] error: .*wrong.*\n", result.stderr), result.stderr


def python(folder: Path, *args: str, **env: str) -> process.Result:
    root = str(Path(distgrad.__path__[0]).parent)
    path = os.pathsep.join(filter(None, (env.pop("first_on_path", ""), root)))
    command, env = [sys.executable, *args], {"PYTHONPATH": path, **env}
    return process.run(command, timeout=30, env=env, cwd=folder)


@pytest.mark.mpi
def test_two_mpi_families_are_named(tmp_path: Path) -> None:
    """Open MPI's variables around an MPICH-bound mpi4py, or the other way round."""
    MPI = pytest.importorskip("mpi4py.MPI", exc_type=ImportError)

    if "Open MPI" in MPI.Get_library_version():
        source, env = "MPICH (hydra)", {"PMI_RANK": "0", "PMI_SIZE": "2"}
    else:
        source = "Open MPI"
        env = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}
    result = python(tmp_path, ends.__file__, "fine", **env)
    assert result.returncode == 3, result.stderr
    assert result.stderr.startswith(f"[rank 0] error: {source} started 2 ranks, but")
    assert " ".join(MPI.Get_library_version().splitlines()[0].split()) in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_missing_mpi4py_gives_the_pip_line(tmp_path: Path) -> None:
    (tmp_path / "mpi4py.py").write_text("raise ImportError('not here')\n")
    env = {"PMI_RANK": "0", "PMI_SIZE": "2"}
    result = python(tmp_path, ends.__file__, "fine", first_on_path=str(tmp_path), **env)
    assert result.returncode == 3, result.stderr
    assert "pip install 'distgrad[mpich]'" in result.stderr
    assert result.stderr.count("\n") == 1
