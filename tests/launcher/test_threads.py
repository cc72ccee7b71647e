"""How many threads a process has, and those that it starts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import distgrad
from distgrad.core.errors import UsageError
from distgrad.launcher import environ, load
from distgrad.testing import process

IMPORT_ROOT = str(Path(distgrad.__path__[0]).parent)
NAMES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "DISTGRAD_KERNEL_THREADS")


@pytest.fixture
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that says nothing of threads or ranks."""
    for name in (*environ.thread_variables(1), "DISTGRAD_VIRTUAL_SHARDS"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def said(code: str, **env: str) -> list[int]:
    """Threads of BLAS and of kernels that a process has after some lines; None: as BLAS."""
    script = f"""
import json
import distgrad as tf
from distgrad.launcher import threads
{code}
print(json.dumps([threads.blas_info()["threads"], threads.of_kernels()]))
"""
    env = {"PYTHONPATH": IMPORT_ROOT, **env}
    done = process.run([sys.executable, "-c", script], env=env, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if found[0] is None:
        pytest.skip("threadpoolctl does not know this BLAS")
    return found


CORES = load.cores()
RANK = {"DISTGRAD_RANK": "0", "DISTGRAD_WORLD_SIZE": "2", "DISTGRAD_LOCAL_RANK": "0"}


def test_a_loaded_blas_is_capped(nothing_said) -> None:
    asked = {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    code = "assert threads.blas_info()['threads'] == 2 or print(threads.blas_info())"
    assert said(f"{code}\nthreads.limit(1)", **asked) == [1, 1]
    assert said("threads.limit(3)", **asked) == [3, 3]


def test_a_script_has_all_and_a_rank_its_share_for_kernels(nothing_said) -> None:
    assert said("") == [CORES, None]
    assert said("threads.limit(None)") == [1, CORES]
    assert said("", DISTGRAD_VIRTUAL_SHARDS="4") == [1, CORES]
    assert said("", **RANK, DISTGRAD_LOCAL_SIZE="1") == [1, CORES]
    assert said("", **RANK, DISTGRAD_LOCAL_SIZE="2") == [1, max(1, CORES // 2)]
    assert said("", **RANK, DISTGRAD_LOCAL_SIZE=f"{2 * CORES}") == [1, 1]


def test_what_a_user_says_holds(nothing_said) -> None:
    two = {"OMP_NUM_THREADS": "2"}
    assert said("", **RANK, DISTGRAD_LOCAL_SIZE="1", **two) == [2, None]
    # A job, whose bits BLAS's threads would change, lets kernels have them.
    assert said("threads.limit(None)", **two) == [1, 2]
    assert said("threads.limit(None)", OMP_NUM_THREADS="1") == [1, 1]
    assert said("threads.limit(None)", OMP_NUM_THREADS="3,2") == [1, 3]
    told = "tf.config.threading.set_intra_op_parallelism_threads(2)"
    assert said(told) == [2, 2]
    assert said(f"{told}\nthreads.limit(None)") == [1, 2]


def test_children_get_their_threads(nothing_said) -> None:
    settings = environ.rank_settings(3, virtual_shards=8)
    assert [settings[name] for name in NAMES] == ["3", "3", "3"]
    assert environ.script_virtual_shards(settings) == 8
    env = environ.child_environment(settings)
    assert env["PATH"] and settings.items() <= env.items()
    shared = environ.rank_settings(None)
    assert [shared[name] for name in NAMES] == ["1", "1", "share"]
    nothing_said.setenv("OMP_NUM_THREADS", "4")
    found = environ.rank_settings(None)
    assert [found[name] for name in NAMES] == ["1", "1", "4"]
    rank = {**RANK, "DISTGRAD_LOCAL_SIZE": "1"}
    for settings, has in ((shared, CORES), (found, 4), (environ.rank_settings(2), 2)):
        blas = int(settings["OMP_NUM_THREADS"])
        assert said("", **settings, **rank) == [min(blas, CORES), has]
        assert said("threads.limit(None)", **settings, **rank) == [1, has]
    with pytest.raises(UsageError, match="threads_per_worker must be 1 or more, got 0"):
        environ.thread_variables(0)
