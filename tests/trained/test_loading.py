"""A run folder is a model: without the data, the machine or the workers that made it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad.core.errors import DataError, UsageError
from distgrad.trained import load
from distgrad.training import checkpoint
from distgrad.training.run_folder import find_run_folder


@pytest.fixture
def run(table: Any) -> Path:
    """The folder of a run by two workers, whose data are not where these tests run."""
    return table.run


def test_the_model_has_the_bits_that_the_run_tested(run: Path) -> None:
    found = distgrad.load_run(run)
    weights = {path: v.numpy() for path, v in found.model.variable_paths().items()}
    status = json.loads((run / "status.json").read_text())
    assert checkpoint.weights_sha256(weights) == status["weights_sha256"]
    assert found.step == 16 and found.job.name == "table"
    assert found.preparation.classes == ("high", "low")
    committed = checkpoint.load_newest(run / "checkpoints", print)
    assert any(  # so that the averages were not what was committed
        not np.array_equal(weights[path], value)
        for path, value in committed.arrays["model"].items()
    )
    assert found.model.predict(np.zeros((3, 2), np.float32), verbose=0).shape == (3, 2)


def test_a_step_can_be_named(run: Path) -> None:
    assert load(run, step=10).step == 10
    with pytest.raises(UsageError, match="has no checkpoint of step 6; those there: 10, 15, 16"):
        load(run, step=6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("seed=3", "seed was 0 and is 3, but that is how the model was trained"),
        ("data.label=a", 'data.label was "kind" and is "a"'),
        ("model.layers.0.units=9", "model.layers.0.units was 8 and is 9"),
        ("optimizer={type: SGD}", "optimizer.type was"),
    ],
)
def test_what_has_been_learnt_cannot_be_changed(run: Path, change: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(run, overrides=[change])
    assert says in str(caught.value)


def test_it_is_shown_in_one_line(run: Path) -> None:
    found = load(run)
    assert repr(found) == f"<Trained {found.job.name!r}, step {found.step}, of {str(run)!r}>"


def test_what_is_computed_of_it_can(run: Path) -> None:
    changes = ["data.path=moved.csv", "metrics=[]", "train.global_batch_size=7"]
    found = load(run, overrides=changes)
    assert found.job.data["path"] == "moved.csv" and found.job.metrics == ()


def test_loading_leaves_the_random_numbers_of_a_script_alone(run: Path) -> None:
    distgrad.random.set_seed(3)
    expected = distgrad.random.uniform([2]).numpy()
    distgrad.random.set_seed(3)
    load(run)
    assert distgrad.random.uniform([2]).numpy().tolist() == expected.tolist()


def test_a_damaged_checkpoint_is_named_and_passed_over(run: Path, tmp_path: Path, capsys) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    weights = copy / "checkpoints" / "step_00000016" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert load(copy).step == 15
    assert str(weights) in capsys.readouterr().err
    with pytest.raises(DataError, match="model.safetensors"):
        load(copy, step=16)


def test_a_run_is_found_by_its_folder_its_name_or_as_the_latest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run digits: there are no runs in"):
        find_run_folder("digits", tmp_path)
    older, newer, other = [tmp_path / f"2026112{i}-101010-{n}-abcd" for i, n in enumerate("aab")]
    for folder in (older, newer, other):
        folder.mkdir()
        (folder / "resolved.yaml").write_text("name: x\n")
    (tmp_path / "latest").symlink_to(older.name)
    assert find_run_folder("a", tmp_path) == newer
    assert find_run_folder("latest", tmp_path) == older
    assert find_run_folder(str(other), tmp_path) == find_run_folder(other.name, tmp_path) == other
    with pytest.raises(UsageError, match=f"there is no run c: the newest in .*{other.name}"):
        find_run_folder("c", tmp_path)


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
