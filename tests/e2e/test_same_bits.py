"""The promise that users buy: the same weights, bit by bit, however many workers train."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

pytestmark = [pytest.mark.mpi, pytest.mark.slow, pytest.mark.timeout_s(500)]

# Nothing fits: 5 or 6 shards on 2 or 3 workers, batches of 50 and a last one of 37 samples.
UNEVEN = """\
name: uneven
seed: 7
data: {source: digits, test_fraction: 0.2}
model:
  layers:
    - {type: Flatten}
    - {type: Dense, units: 33, activation: tanh}
    - {type: Dropout, rate: 0.5}
    - {type: Dense, units: 10, activation: softmax}
loss: sparse_categorical_crossentropy
metrics: [accuracy]
optimizer: {type: Adam, learning_rate: 0.01}
train: {epochs: 1, global_batch_size: 50}
"""


def same_bits_program(dg):
    return dg.root / "benchmarks" / "same_bits.py"


def test_single_process_and_mpirun_with_1_2_3_4_and_8_workers(dg, short) -> None:
    """By the command that the README gives to users."""
    result = dg.run(*short.job, program=[str(same_bits_program(dg))], limit=450)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1] == "all equal"
    rows = re.findall(r"^(.+?) +(\d+)  ([0-9a-f]{64}) +[\d.]+$", result.stdout, re.MULTILINE)
    assert [(how, int(workers)) for how, workers, _ in rows] == [
        ("single process", 1),
        *((f"mpirun -n {n}", n) for n in (1, 2, 3, 4, 8)),
    ]
    assert {sha256 for _, _, sha256 in rows} == {short.sha256}


def test_the_verdict_is_different_where_anything_is(dg) -> None:
    spec = importlib.util.spec_from_file_location("same_bits", same_bits_program(dg))
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    rows = [program.Row(f"mpirun -n {n}", n, "ab" * 32, 1.0, True) for n in (1, 2)]
    assert program.verdict(rows) == "all equal"
    other = rows[1]._replace(weights_sha256="ac" * 32)
    assert program.verdict([rows[0], other]) == "DIFFERENT"
    failed = rows[1]._replace(finished=False)
    assert program.verdict([failed, failed]) == "DIFFERENT"


def test_same_bits_needs_a_good_job_with_virtual_shards(dg) -> None:
    program = [str(same_bits_program(dg))]
    says = ["parallel.virtual_shards"]
    dg.refuses("parallel.virtual_shards=null", program=program, code=2, says=says)
    dg.refuses("train.epoch=2", program=program, code=2, says=["did you mean epochs?"])


def test_distgrad_starts_mpirun_itself(dg, short, tmp_path: Path) -> None:
    run = dg.train(tmp_path / "run", *short.job, options=["-n", 4, "--launcher", "mpi"])
    assert run.sha256 == short.sha256
    assert (run.status["world_size"], run.status["launcher"]) == (4, "mpi")
    # Not the weights alone: every loss and metric on the way, too.
    assert run.metrics == short.metrics
    assert run.saved_sha256() == short.saved_sha256()


def test_uneven_shards_and_dropout(dg, tmp_path: Path) -> None:
    path = tmp_path / "uneven.yaml"
    path.write_text(UNEVEN)
    found = {}
    for shards, worlds in [(5, (1, 2, 3)), (6, (2, 3))]:
        job = (path, f"parallel.virtual_shards={shards}")
        alone = dg.train(tmp_path / f"{shards}", *job)
        assert alone.status["step"] == 29
        for ranks in worlds:
            run = dg.train(tmp_path / f"{shards}-{ranks}", *job, ranks=ranks)
            assert run.sha256 == alone.sha256, f"{shards} shards, {ranks} workers"
            assert run.metrics == alone.metrics
        found[shards] = alone.sha256
    assert found[5] != found[6]  # other shards draw other dropout: the hash does notice


def test_status_of_a_finished_run(short) -> None:
    status = short.status
    assert status["state"] == "finished" and status["exit_code"] == 0
    assert (status["step"], status["epoch"]) == (46, 1)
    assert (status["world_size"], status["launcher"]) == (1, "local")
    assert status["virtual_shards"] == 8
    assert set(status["metrics"]) == {"loss", "accuracy", "test_loss", "test_accuracy"}
    last = short.metrics[-1]
    assert last["kind"] == "final"
    assert {key: last[key] for key in status["metrics"]} == status["metrics"]
    assert f"test accuracy {status['metrics']['test_accuracy']:.4f}" in short.result.stdout
    assert f"weights sha256 {status['weights_sha256']}" in short.result.stdout


def test_the_hash_is_that_of_the_saved_weights(short) -> None:
    assert [path.name for path in short.commits] == [
        "step_00000020",
        "step_00000040",
        "step_00000046",
    ]
    assert short.saved_sha256() == short.sha256
    assert len(short.sha256) == 64


def test_rank_0_alone_prints(dg, short, tmp_path: Path) -> None:
    run = dg.train(tmp_path / "run", *short.job, ranks=3)
    assert run.sha256 == short.sha256
    assert (run.status["world_size"], run.status["launcher"]) == (3, "mpi")
    assert run.result.stderr == short.result.stderr == ""
    assert run.printed == short.printed


def test_weights_of_classes(dg, tmp_path: Path) -> None:
    """Where every class counts twice, steps are those of twice the learning rate."""
    job = (dg.digits, "train.epochs=2", "optimizer={type: SGD, learning_rate: 0.02}")
    twice = dg.train(tmp_path / "twice", *job, "optimizer.learning_rate=0.04")
    weights = "train.class_weight={" + ", ".join(f"'{digit}': 2" for digit in range(10)) + "}"
    weighed = dg.train(tmp_path / "weighed", *job, weights, options=["-n", 2])
    assert weighed.sha256 == twice.sha256
    one = (*job, "train.class_weight={'3': 9.5}")
    alone = dg.train(tmp_path / "alone", *one)
    assert dg.train(tmp_path / "three", *one, options=["-n", 3]).sha256 == alone.sha256


def test_gradients_are_accumulated_over_steps(dg, tmp_path: Path) -> None:
    optimizer = "optimizer={type: Adam, learning_rate: 0.003, gradient_accumulation_steps: 2}"
    job = (dg.digits, "train.epochs=2", optimizer)
    alone = dg.train(tmp_path / "alone", *job)
    assert dg.train(tmp_path / "three", *job, options=["-n", 3]).sha256 == alone.sha256
