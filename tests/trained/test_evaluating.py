"""``distgrad evaluate``: the bits of the run's own test, and other files seen as by training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distgrad import keras
from distgrad.trained.evaluating import Evaluation, as_dict, confusion_table, report, scores

from .homes import Home, rows, write_csv


def found(home: Home, *words: object) -> dict[str, Any]:
    return json.loads(home.says("evaluate", "run", "--json", *words))


@pytest.mark.parametrize("name", ["table", "digits", "text", "series"])
def test_the_numbers_are_those_of_the_runs_own_end(name: str, request: Any) -> None:
    """By one process, whoever trained it: the batches and shards are those of the training."""
    home = request.getfixturevalue(name)
    assert found(home)["results"] == home.final()


@pytest.mark.mpi
def test_ranks_share_the_work_and_give_the_same_bits(table: Home) -> None:
    pytest.importorskip("mpi4py")
    result = table.program("evaluate", "run", "--json", ranks=2)
    assert json.loads(result.stdout)["results"] == table.final(), result.stderr


@pytest.mark.mpi
def test_more_ranks_than_shards_are_refused(text: Home) -> None:
    pytest.importorskip("mpi4py")
    result = text.program("evaluate", "run", ranks=2)
    assert result.returncode == 2
    assert result.stderr.count("trained in 1 shards, which 2 ranks cannot share") == 1


def test_the_last_validation_is_another_part_than_the_test(table: Home, text: Home) -> None:
    parts = {part: found(table, "--on", part) for part in ("test", "validation", "train")}
    assert [part["samples"] for part in parts.values()] == [20, 16, 64]
    assert len({part["results"]["loss"] for part in parts.values()}) == 3
    text.refuses("evaluate", "run", "--on", "validation", code=2, says="sets no validation_frac")


def test_another_table_is_standardized_by_the_numbers_of_training(
    table: Home, tmp_path: Path
) -> None:
    """By its own mean half of these, which all lie far on one side, would seem to be low."""
    lines = [(c, f"patient {i}", b, a) for i, (a, b, c) in enumerate(rows(5, 200, center=9))]
    other = write_csv(tmp_path / "other.csv", "kind,name,b,a", lines)
    given = found(table, "--data", other)
    assert given["samples"] == 200 and given["results"]["accuracy"] > 0.9
    write_csv(table.folder / "back.csv", "a,b,kind", rows(0, 100))
    again = found(table, "--data", "back.csv")["results"]["loss"]
    everything = [found(table, "--on", part) for part in ("test", "validation", "train")]
    mean = sum(e["results"]["loss"] * e["samples"] for e in everything) / 100
    np.testing.assert_allclose(again, mean, rtol=1e-6)


def test_files_that_are_not_like_those_of_the_training(table: Home, tmp_path: Path) -> None:
    def refused(columns: str, lines: list[tuple], says: str) -> None:
        path = write_csv(tmp_path / "a.csv", columns, lines)
        table.refuses("evaluate", "run", "--data", path, code=4, says=says)

    refused("a,kind", [(1, "low")], "a.csv has no column 'b'; its columns are a, kind")
    refused("a,b", [(1, 2)], "has no column 'kind'")
    refused("a,b,kind", [(1, 2, "low"), (1, 2, "mid")], "is 'mid' in row 2, which is none of the")
    table.refuses("evaluate", "run", "--data", "none.csv", code=4, says="none.csv does not exist")


def test_data_that_have_changed_since_are_not_taken_for_those_of_the_training(
    table: Home, tmp_path: Path
) -> None:
    shutil.copytree(table.run, tmp_path / "run")
    home = Home(tmp_path)
    home.refuses("evaluate", "run", code=4, says="train.csv does not exist")
    write_csv(tmp_path / "train.csv", "a,b,kind", rows(1, 100))
    home.refuses("evaluate", "run", code=4, says="no longer the data that run was trained on")
    moved = f"data.path={table.folder / 'train.csv'}"
    assert found(home, moved)["results"] == table.final()


def test_arrays_with_labels(digits: Home, tmp_path: Path) -> None:
    x, y = np.arange(192, dtype=np.uint8).reshape(3, 8, 8) % 17, np.array([3, 0, 9])
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    np.savez(tmp_path / "xy.npz", x=x, y=y)
    apart = found(digits, "--data", tmp_path / "x.npy", "--labels", tmp_path / "y.npy")
    together = found(digits, "--data", tmp_path / "xy.npz")
    assert apart["results"] == together["results"] and apart["samples"] == 3
    digits.refuses("evaluate", "run", "--data", tmp_path / "x.npy", code=2, says="--labels")
    np.savez(tmp_path / "xy.npz", x=x, y=y + 1)
    says = "the label 10 of given sample 2 is none of the 10 classes"
    digits.refuses("evaluate", "run", "--data", tmp_path / "xy.npz", code=4, says=says)


def test_confusion_and_changes_to_the_job(digits: Home, series: Home) -> None:
    given = found(digits, "--confusion", "metrics=[]", "-b", "100")
    assert list(given["results"]) == ["loss"]
    counts = np.array(given["confusion"])
    assert counts.shape == (10, 10) and counts.sum() == given["samples"] == 360
    np.testing.assert_allclose(np.trace(counts) / 360, digits.final()["accuracy"], rtol=1e-12)
    assert given["scores"][3]["samples"] == counts[3].sum()
    text = digits.says("evaluate", "run", "--confusion")
    assert text.startswith("run, step 46: 360 test samples\nloss ") and "recall" in text
    series.refuses("evaluate", "run", "--confusion", code=2, says="outputs are no classes")


def test_what_is_no_run_or_no_step(digits: Home) -> None:
    digits.refuses("evaluate", "none", code=2, says="there is no run none")
    digits.refuses("evaluate", "run", "--step", "7", code=2, says="no checkpoint of step 7")
    digits.refuses("evaluate", "metrics=[]", code=2, says="one run is needed, there is none")
    assert found(digits, "--step", "46")["step"] == 46


def test_a_keras_file(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")])
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32), np.arange(50) % 2
    model.save(tmp_path / "m.keras")
    np.savez(tmp_path / "xy.npz", x=x, y=y)
    home = Home(tmp_path)
    given = json.loads(home.says("evaluate", "m.keras", "--data", "xy.npz", "--json"))
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    np.testing.assert_allclose(given["results"]["loss"], expected["loss"], rtol=1e-6)
    assert given["results"]["accuracy"] == expected["accuracy"]
    home.refuses("evaluate", "m.keras", code=2, says="name a file of them, --data")
    np.savez(tmp_path / "from1.npz", x=x, y=y + 1)
    says = "from1.npz does not fit m.keras: a label lies outside [0, 2)"
    home.refuses("evaluate", "m.keras", "--data", "from1.npz", code=4, says=says)


COUNTS = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])


def test_precision_is_of_columns_and_recall_of_rows() -> None:
    cat, dog, cow = scores(["cat", "dog", "cow"], COUNTS)
    assert (cat.precision, cat.recall, cat.samples) == (8 / 9, 0.8, 10)
    assert (dog.precision, dog.recall, dog.samples) == (9 / 11, 0.9, 10)
    assert (cow.precision, cow.recall, cow.samples) == (0, 0, 0)


def test_the_table_is_readable() -> None:
    lines = list(confusion_table(["cat", "dog", "cow"], COUNTS))
    assert lines[1].split() == ["true", "cat", "dog", "cow"]
    assert lines[2].split() == ["cat", "8", "2", "0"]
    assert lines[-1].split() == ["dog", "0.8182", "0.9000", "10"]  # no cow was seen or said
    assert len({len(line) for line in lines[1:5]}) == 1
    many = list(confusion_table(list(map(str, range(20))), np.eye(20, dtype=int)))
    assert len(many) == 22 and "--json" in many[-1]


def test_json_has_what_was_found_and_no_more() -> None:
    one = Evaluation("run", 3, "test samples", 20, {"loss": 1 / 3})
    assert as_dict(one) == {
        **{"run": "run", "step": 3, "what": "test samples", "samples": 20},
        "results": {"loss": 1 / 3},
    }
    assert list(report(one)) == ["run, step 3: 20 test samples", "loss 0.3333"]
    small = Evaluation("run", 3, "test samples", 20, {"loss": 1.5e-5})
    assert list(report(small))[1] == "loss 1.5000e-05"
