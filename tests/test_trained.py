"""A run folder is a model: without the data, the machine or the workers that made it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import distgrad
from distgrad.core.errors import DataError, UsageError
from distgrad.testing import process
from distgrad.trained import find, load
from distgrad.training import checkpoint

TABLE = """
name: table
data: {source: csv, path: train.csv, label: kind}
model:
  layers:
    - {type: Dense, units: 8, activation: relu}
    - {type: BatchNormalization}
    - {type: Dense, units: 2, activation: softmax}
loss: sparse_categorical_crossentropy
metrics: [accuracy]
optimizer: {type: Adam, learning_rate: 0.05, use_ema: true}
train: {epochs: 3, global_batch_size: 16}
parallel: {virtual_shards: 4, shard_optimizer: true}
checkpoint: {every_steps: 5, keep_last: 3}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run by two workers, whose data are gone."""
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    rows = [
        f"{a:.4f},{b:.4f},{'high' if a + b > 8 else 'low'}" for a, b in rng.normal(4, 2, (80, 2))
    ]
    (folder / "train.csv").write_text("a,b,kind\n" + "\n".join(rows))
    (folder / "job.yaml").write_text(TABLE)
    command = [sys.executable, "-m", "distgrad", "train", "job.yaml", "-n", "2", "--run-dir", "run"]
    root = str(Path(distgrad.__path__[0]).parent)
    result = process.run(command, timeout=90, cwd=folder, env={"PYTHONPATH": root})
    assert result.returncode == 0, result.stderr
    (folder / "train.csv").unlink()
    return folder / "run"


def test_the_model_has_the_bits_that_the_run_tested(run: Path) -> None:
    found = distgrad.load_run(run)
    weights = {path: v.numpy() for path, v in found.model.variable_paths().items()}
    status = json.loads((run / "status.json").read_text())
    assert checkpoint.weights_sha256(weights) == status["weights_sha256"]
    assert found.step == 12 and found.job.name == "table"
    assert found.preparation.classes == ("high", "low")
    committed = checkpoint.load_newest(run / "checkpoints", print)
    assert any(  # so that the averages were not what was committed
        not np.array_equal(weights[path], value)
        for path, value in committed.arrays["model"].items()
    )
    assert found.model.predict(np.zeros((3, 2), np.float32), verbose=0).shape == (3, 2)


def test_a_step_can_be_named(run: Path) -> None:
    assert load(run, step=5).step == 5
    with pytest.raises(UsageError, match="has no checkpoint of step 6; those there: 5, 10, 12"):
        load(run, step=6)


def test_loading_leaves_the_random_numbers_of_a_script_alone(run: Path) -> None:
    distgrad.random.set_seed(3)
    expected = distgrad.random.uniform([2]).numpy()
    distgrad.random.set_seed(3)
    load(run)
    assert distgrad.random.uniform([2]).numpy().tolist() == expected.tolist()


def test_a_damaged_checkpoint_is_named_and_passed_over(run: Path, tmp_path: Path, capsys) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    weights = copy / "checkpoints" / "step_00000012" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert load(copy).step == 10
    assert str(weights) in capsys.readouterr().err
    with pytest.raises(DataError, match="model.safetensors"):
        load(copy, step=12)


def test_a_run_is_found_by_its_folder_its_name_or_as_the_latest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run digits: .* has none"):
        find("digits", tmp_path)
    older, newer, other = [tmp_path / f"2026112{i}-101010-{n}-abcd" for i, n in enumerate("aab")]
    for folder in (older, newer, other):
        folder.mkdir()
        (folder / "resolved.yaml").write_text("name: x\n")
    (tmp_path / "latest").symlink_to(older.name)
    assert find("a", tmp_path) == newer
    assert find("latest", tmp_path).resolve() == older
    assert find(str(other), tmp_path) == find(other.name, tmp_path) == other
    with pytest.raises(UsageError, match=f"there is no run c: .*{other}$"):
        find("c", tmp_path)


def test_what_is_no_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        load(tmp_path / "none")
    with pytest.raises(UsageError, match="holds no run"):
        load(tmp_path)
    shutil.copy(run / "resolved.yaml", tmp_path)
    with pytest.raises(DataError, match="has no checkpoint yet"):
        load(tmp_path)


def test_a_run_of_before_there_was_a_description(run: Path, tmp_path: Path, monkeypatch) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "preparation.json").unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="kept no preparation.json.*train.csv does not exist"):
        load(copy)
    (tmp_path / "train.csv").write_text("a,b,kind\n" + "1,2,x\n3,4,y\n" * 5)
    assert load(copy).preparation.classes == ("x", "y")
    (copy / "preparation.json").write_text("{}")
    with pytest.raises(DataError, match="preparation.json does not describe"):
        load(copy)
