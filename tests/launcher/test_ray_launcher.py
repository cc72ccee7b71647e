"""What the Ray launcher does before Ray is there, and the command that it prints."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from distgrad.core.errors import MissingExtraError, UsageError
from distgrad.launcher import environ
from distgrad.launcher.base import Program, choose, program_of
from distgrad.launcher.environ import World
from distgrad.launcher.ray.launcher import RayLauncher
from distgrad.testing import process


@pytest.mark.parametrize(("requested", "yaml"), [("ray", "local"), (None, "ray")])
def test_choice(requested: str | None, yaml: str) -> None:
    assert type(choose(requested, yaml, World())) is RayLauncher


def job(**changes: object) -> SimpleNamespace:
    values = {"workers": 2, "threads_per_worker": 1, "virtual_shards": None, "run_dir": "runs/x"}
    return SimpleNamespace(**{**values, "device": "cpu", **changes})


def test_a_cuda_job_gets_a_gpu_for_each_worker() -> None:
    assert program_of(job(), ["train", "job.yaml"], sys.executable).gpus == 0
    assert program_of(job(device="cuda"), ["train", "job.yaml"], sys.executable).gpus == 1


SUBMIT = "ray job submit --address http://HEAD:8265 --working-dir . -- python3 -m distgrad"


def test_printed_command_of_a_job(run_cli) -> None:
    root = Path(__file__).parents[2]
    argv = ["train", "configs/digits.yaml", "-n", 4, "--launcher", "ray", "--print", "seed=3"]
    result = run_cli(*argv, cwd=root)
    assert result.returncode == 0, result.stderr
    [line] = result.stdout.splitlines()
    submit, _, words = line.partition(" -m distgrad ")
    assert submit.startswith("ray job submit --address http://HEAD:8265 --working-dir . -- python")
    expected = "train configs/digits.yaml seed=3 --resume never -n 4 --launcher ray"
    assert words == expected
    # What it prints is a command that this program knows.
    again = run_cli(*shlex.split(words), "--dry-run", cwd=root)
    assert again.returncode == 0 and "launcher   ray, 4 workers" in again.stdout


def test_printed_command_of_a_script() -> None:
    program = Program(["/x/python3", "s.py", "--a", "b c"], 3, threads=2, virtual_shards=6, gpus=1)
    [line] = RayLauncher().commands(program)
    options = "-n 3 --launcher ray --threads-per-worker 2 --virtual-shards 6 --gpus-per-worker 1"
    assert line == f"{SUBMIT} launch {options} s.py --a 'b c'"


@pytest.mark.parametrize("missing", ["ray", "pyarrow"])
def test_without_ray_the_pip_line_is_given(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else real(name)
    )
    with pytest.raises(MissingExtraError, match=rf"needs {missing}: pip install 'distgrad\[ray\]'"):
        RayLauncher().launch(job(), ["train", "job.yaml"])


def test_too_many_workers_for_the_shards_stops_before_ray() -> None:
    with pytest.raises(UsageError, match="4 workers cannot share 2 virtual shards"):
        RayLauncher().launch(job(workers=4, virtual_shards=2), ["train", "job.yaml"])


def test_gpus_need_somebody_who_hands_them_out(run_cli, tmp_path: Path) -> None:
    (tmp_path / "s.py").touch()
    result: process.Result = run_cli("launch", "--gpus-per-worker", 1, "s.py")
    assert result.returncode == 2
    assert "--gpus-per-worker needs --launcher ray" in result.stderr


def test_ray_address() -> None:
    given = {"RAY_ADDRESS": "10.0.0.1:6379"}
    assert environ.ray_address(given) == "10.0.0.1:6379"
    assert [environ.ray_address({"RAY_ADDRESS": a}) for a in ("", "auto")] == [None, None]
    assert environ.ray_address({}) is None


def test_what_ranks_elsewhere_inherit() -> None:
    env = {"PYTHONPATH": "/p", "DISTGRAD_TIMEOUT": "9", "HOME": "/h", "RAY_ADDRESS": "x"}
    own = {"PYTHONPATH": "/p", "DISTGRAD_TIMEOUT": "9"}
    assert environ.inherited_settings(env) == {"PYTHONUNBUFFERED": "", **own}
    kept = environ.inherited_settings({"PYTHONUNBUFFERED": "1"})
    assert kept == {"PYTHONUNBUFFERED": "1"}


def test_who_started_a_rank() -> None:
    assert environ.launcher_name({}) == "local"
    assert environ.launcher_name({"PMI_RANK": "0", "PMI_SIZE": "2"}) == "mpi"
    assert environ.launcher_name({"DISTGRAD_LAUNCHER": "ray"}) == "ray"


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")  # Ray's own
def test_a_job_has_all_of_ray_train_but_two_of_its_actors() -> None:
    """By names that are not public: with others, each start would wait for them."""
    pytest.importorskip("pyarrow")
    train = pytest.importorskip("ray.train")
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from distgrad.launcher.ray import trainer

    def callbacks(kind: type) -> list[str]:
        workers = train.ScalingConfig(num_workers=1)
        made = kind(lambda: None, backend_config=trainer.DistgradConfig(), scaling_config=workers)
        return [type(each).__name__ for each in made._create_default_callbacks()]

    theirs = callbacks(DataParallelTrainer)
    for name in trainer._WITHOUT:
        theirs.remove(name)
    assert callbacks(trainer._Trainer) == theirs
