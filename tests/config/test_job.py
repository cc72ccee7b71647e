"""What a config makes of itself for the workers."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import pytest

from distgrad.config import load
from distgrad.job import Job

from .jobs import CONFIGS, JOB, problems, write


def job(**changes: object) -> Job:
    overrides = [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in changes.items()]
    return Job.from_config(load(write(JOB), overrides))


def test_the_size_of_buckets() -> None:
    assert job().bucket_bytes is None
    assert job(parallel__bucket_mib=0.5).bucket_bytes == 1 << 19
    assert job(parallel__bucket_mib=0.5).config_hash == job().config_hash
    (problem,) = problems(JOB, "parallel.bucket_mib=0")
    assert "parallel.bucket_mib=0: must be greater than 0" in problem


def test_a_job_is_plain_values() -> None:
    config = load(write(JOB), ["seed=3"])
    made = Job.from_config(config, run_dir="runs/a", resume="auto", source_yaml=JOB)
    assert (made.name, made.seed, made.epochs, made.workers) == ("small", 3, 2, 2)
    assert made.layers[0]["type"] == "Flatten" and made.layers[1]["units"] == 10
    assert made.every_steps is None and made.keep_last == 3
    assert (made.run_dir, made.resume, made.source_yaml) == ("runs/a", "auto", JOB)
    assert load(write(made.resolved_yaml)) == config

    def plain(value: object) -> bool:
        if isinstance(value, dict):
            return all(map(plain, [*value, *value.values()]))
        if isinstance(value, list | tuple):
            return all(map(plain, value))
        return value is None or type(value) in (str, int, float, bool)

    assert plain(vars(made))
    assert job(checkpoint__every_steps=0).every_steps is None
    assert job().timeline is None and job(tracking__timeline=7).timeline == (1, 7)
    assert job(tracking__timeline=[5, 7]).timeline == (5, 7)


def test_a_job_is_unpickled_without_the_machinery_of_yaml() -> None:
    code = (
        "import pickle, sys; job = pickle.load(sys.stdin.buffer); print(job.config_hash);"
        "assert not {'pydantic', 'ruamel.yaml', 'distgrad.config'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(job()),
        cwd=CONFIGS.parent,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().strip() == job().config_hash


@pytest.mark.parametrize(
    ("key", "value", "same"),
    [
        ("name", "other", True),
        ("train__epochs", 9, True),
        ("parallel__workers", 1, True),
        ("parallel__launcher", "mpi", True),
        ("checkpoint__every_steps", 7, True),
        ("checkpoint__keep_last", 7, True),
        ("tracking__timeline", 7, True),
        ("seed", 7, False),
        ("train__global_batch_size", 7, False),
        ("train__shuffle", False, False),
        ("parallel__virtual_shards", 2, False),
        ("parallel__threads_per_worker", 1, True),
        ("parallel__threads_per_worker", 2, False),
        ("optimizer__learning_rate", 0.7, False),
        ("model__layers__1__units", 7, False),
        ("data__test_fraction", 0.7, False),
    ],
)
def test_the_hash_is_that_of_the_mathematics(key: str, value: object, same: bool) -> None:
    assert (job(**{key: value}).config_hash == job().config_hash) is same


def test_sums_have_a_fixed_order_where_there_are_virtual_shards() -> None:
    free = {"parallel__virtual_shards": None}
    assert job().deterministic and not job(**free).deterministic
    assert job(**free, parallel__deterministic=True).deterministic

    def hashes(device: str) -> set[str]:
        chosen = (True, False, "auto")
        return {
            job(**free, device=device, parallel__deterministic=value).config_hash
            for value in chosen
        }

    assert (len(hashes("cpu")), len(hashes("cuda"))) == (1, 2)  # on a CPU they always do
