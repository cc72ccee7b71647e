"""What the worker says when a run is resumed with another job. (Whole runs are in tests/e2e.)"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from distgrad import worker
from distgrad.comm.communicator import Communicator
from distgrad.compile import eager
from distgrad.config import load
from distgrad.core.errors import UsageError
from distgrad.job import Job, config_hash
from distgrad.resuming import _differences, decides_bits, executor, kernels, warn_of_changes
from distgrad.testing.thread_world import run_world

DIGITS = Path(__file__).parents[1] / "configs" / "digits.yaml"


def job(*changes: str) -> Job:
    return Job.from_config(load(DIGITS, changes))


def differences(*changes: str) -> str:
    committed = json.loads(json.dumps(decides_bits(job())))
    return _differences(job(*changes), committed)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seed=3", "seed was 0 and is 3"),
        ("data.test_fraction=0.5", "data.test_fraction was 0.2 and is 0.5"),
        ("loss=mse", 'loss was "sparse_categorical_crossentropy" and is "mse"'),
        ("metrics=[]", 'metrics was ["accuracy"] and is []'),
        ("optimizer.beta_1=0.5", "optimizer.beta_1 was 0.9 and is 0.5"),
        ("optimizer={type: SGD}", 'optimizer.type was "Adam" and is "SGD"'),
        ("train.global_batch_size=5", "train.global_batch_size was 64 and is 5"),
        ("train.shuffle=false", "train.shuffle was true and is false"),
        ("train.class_weight=balanced", 'train.class_weight was null and is "balanced"'),
        ("parallel.virtual_shards=4", "parallel.virtual_shards was 8 and is 4"),
        ("parallel.virtual_shards=null", "parallel.virtual_shards was 8 and is null"),
        ("parallel.threads_per_worker=2", "parallel.threads_per_worker was 1 and is 2"),
        ("model.layers=[{type: Flatten}]", "model.layers was [{"),
    ],
)
def test_what_decides_the_weights_is_compared_and_named(change: str, said: str) -> None:
    assert job(change).config_hash != job().config_hash
    assert said in differences(change)


@pytest.mark.parametrize(
    "change",
    [
        *("name=x", "train.epochs=99", "parallel.workers=2", "checkpoint.every_steps=1"),
        *("train.jit=off", "train.recompute=true", "parallel.threads_per_worker=1"),
    ],
)
def test_what_does_not_decide_them_is_not(change: str) -> None:
    assert job(change).config_hash == job().config_hash
    assert decides_bits(job(change)) == decides_bits(job())


def test_many_differences_still_fit_on_a_screen() -> None:
    layers = [{"type": "Dense", "units": number + 1} for number in range(50)]
    said = differences(
        f"model.layers={json.dumps(layers)}",
        "optimizer={type: SGD, momentum: 0.5}",
        "seed=1",
        "train.global_batch_size=7",
        "data.test_fraction=0.5",
    )
    assert said.endswith("more") and len(said) < 1000


class Committed:
    """What the worker asks of a commit here."""

    def __init__(self, **state: str) -> None:
        self.state = state


@pytest.mark.parametrize("begun", ["generated", "numpy", "eager"])
def test_a_resumed_run_goes_on_with_the_executor_that_it_began_with(begun: str) -> None:
    assert executor(job(), Path("run"), Committed(executor=begun)) == begun


def test_a_resumed_run_refuses_another_executor() -> None:
    with pytest.raises(UsageError, match=r"steps run eagerly, and train\.jit=numpy would give"):
        executor(job("train.jit=numpy"), Path("run"), Committed(executor="eager"))
    assert executor(job("train.jit=off"), Path("run"), Committed(executor="eager")) == "eager"
    assert executor(job("train.jit=numpy"), Path("run"), None) == "numpy"
    assert executor(job(), Path("run"), Committed()) == "eager"  # of a version without programs


def test_a_resumed_run_keeps_the_kernels_that_it_began_with():
    """Also one of before there were any; a new run takes the fastest beside its executor's."""
    for state, wanted in [({"kernels": "generated"}, "generated"), ({}, "numpy")]:
        assert kernels("eager", SimpleNamespace(state=state)) == wanted
    assert kernels("numpy", None) == "numpy"
    assert kernels("eager", None) == kernels("generated", None) == eager.best()


def test_a_run_that_goes_on_elsewhere_says_so(capsys) -> None:
    here = {"numpy": "2.4.0", "gpu": "NVIDIA H100", "nccl": "2.29.3"}
    before = SimpleNamespace(state={"environment": {**here, "gpu": "NVIDIA T4"}})
    warn_of_changes(before, here)
    assert 'gpu was "NVIDIA T4" and is "NVIDIA H100"' in capsys.readouterr().err
    for same in ({"environment": here}, {}):
        warn_of_changes(SimpleNamespace(state=same), here)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("train.epochs=2", "train.epochs 2, rank 0 has 40"),
        ("checkpoint.every_steps=9", "checkpoint.every_steps 9, rank 0 has 50"),
        ("seed=1", "seed 1, rank 0 has 0"),
    ],
)
def test_ranks_with_different_jobs_are_refused_before_the_first_step(
    change: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def rank(communicator: Communicator) -> str:
        with pytest.raises(UsageError) as caught:
            worker.main(job(*[change] * communicator.rank), communicator)
        return str(caught.value)

    assert f"rank 1 has {said}" in run_world(2, rank)[0]
    assert not list(tmp_path.iterdir())


def test_runs_from_before_there_was_a_key_go_on() -> None:
    values = load(DIGITS, []).to_dict()
    begun = config_hash(values)
    before = {**values, "train": {k: v for k, v in values["train"].items() if k != "class_weight"}}
    assert config_hash(before) == begun
    weighed = {**values, "train": {**values["train"], "class_weight": "balanced"}}
    assert config_hash(weighed) != begun
    values["data"] = {**values["data"], "columns": None, "categories": None, "missing": None}
    assert config_hash(values) == begun
    values["data"]["categories"] = ["city"]
    assert config_hash(values) != begun
