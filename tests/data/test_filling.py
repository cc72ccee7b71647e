"""Tables that lack numbers: the mean or median of the rows to train on stands in for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distgrad.core.errors import DataError
from distgrad.data.fresh import Fresh
from distgrad.data.preparation import Preparation
from distgrad.data.source import load

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).round(3)
X[RNG.random(X.shape) < 0.2] = np.nan
X[:, 0] = np.arange(40)  # which row it is
Y = np.arange(40) % 2


def csv(folder: Path, x: np.ndarray, *, mark: str = "", name: str = "a.csv") -> str:
    lines = [
        ",".join([*(mark if np.isnan(v) else str(v) for v in row), str(y)])
        for row, y in zip(x, Y, strict=False)
    ]
    (folder / name).write_text("\n".join(["a,b,c,kind", *lines, ""]))
    return str(folder / name)


def parquet(folder: Path, x: np.ndarray, name: str = "a.parquet") -> str:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    columns: dict[str, Any] = {
        key: [None if np.isnan(v) else v for v in column.tolist()]
        for key, column in zip("abc", x.T, strict=True)
    }
    files.write_table(pyarrow.table({**columns, "kind": Y[: len(x)]}), folder / name)
    return str(folder / name)


def job(path: str, **more: Any) -> dict[str, Any]:
    return {"source": path.rpartition(".")[2], "path": path, "label": "kind", **more}


@pytest.mark.parametrize("how", ["mean", "median"])
@pytest.mark.parametrize("write", [csv, parquet])
def test_holes_have_what_the_rows_to_train_on_say(write, how: str, tmp_path: Path) -> None:
    splits = load(job(write(tmp_path, X), missing=how, standardize=False), seed=0)
    train, test = splits.train.arrays[0], splits.test.arrays[0]
    assert f"{np.isnan(X).sum()} missing values have the {how}" in splits.description
    own = X[train[:, 0].astype(int)]
    for column, value in zip(own.T, splits.preparation.fill, strict=True):
        there = sorted(column[~np.isnan(column)])
        half = len(there) // 2
        middle = (there[half] + there[~half]) / 2 if how == "median" else sum(there) / len(there)
        np.testing.assert_allclose(value, middle, rtol=1e-12)
    for part in (train, test):
        given = X[part[:, 0].astype(int)]
        expected = np.where(np.isnan(given), splits.preparation.fill, given)
        np.testing.assert_array_equal(part, expected.astype(np.float32))


@pytest.mark.parametrize("mark", ["", " ", "NA", "NaN", "nan", "?", "null"])
def test_marks_of_missing_numbers(mark: str, tmp_path: Path) -> None:
    path = csv(tmp_path, X, mark=mark)
    found = load(job(path, missing="mean"), seed=0)
    expected = load(job(csv(tmp_path, X, name="b.csv"), missing="mean"), seed=0)
    np.testing.assert_array_equal(found.train.arrays[0], expected.train.arrays[0])
    with pytest.raises(DataError, match=r"a\.csv:\d+: column '[abc]' .*data\.missing: mean"):
        load(job(path), seed=0)


@pytest.mark.parametrize("write", [csv, parquet])
def test_new_rows_have_the_numbers_of_training(write, tmp_path: Path) -> None:
    spec = job(write(tmp_path, X), missing="median")
    how = load(spec, seed=0).preparation
    how = Preparation.from_json(how.to_json(), "model")
    fresh = Fresh(how, spec)
    ending = spec["source"]
    path = write(tmp_path, np.array([[np.nan] * 3, [1.0, np.nan, 2.0]]), name=f"new.{ending}")
    (rows,) = fresh.inputs(path, 10)
    filled = np.array([how.fill, [1.0, how.fill[1], 2.0]])
    expected = ((filled - how.mean) / how.deviation).astype(np.float32)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(fresh.labelled(path).arrays[0], expected)
    np.save(tmp_path / "new.npy", [[np.nan] * 3, [1.0, np.nan, 2.0]])
    (rows,) = fresh.inputs(str(tmp_path / "new.npy"), 10)
    np.testing.assert_array_equal(rows, expected)


def test_truths_that_are_missing(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    truths = [None if i % 5 == 0 else i % 2 == 0 for i in range(40)]
    files.write_table(pyarrow.table({"a": truths, "kind": Y}), tmp_path / "a.parquet")
    splits = load(job(str(tmp_path / "a.parquet"), missing="median", standardize=False), seed=0)
    assert set(np.unique(splits.train.arrays[0])) <= {0.0, 0.5, 1.0}


def test_a_column_without_numbers_is_named(tmp_path: Path) -> None:
    x = X.copy()
    x[:, 1] = np.nan
    with pytest.raises(DataError, match=r"no value in column 'b': leave it out of data\.columns"):
        load(job(csv(tmp_path, x), missing="mean"), seed=0)


def test_a_label_that_is_missing_stays_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,kind\n1,0\n2,\n")
    with pytest.raises(DataError, match="a.csv:3: column 'kind' is empty; fill it, or leave"):
        load(job(str(path), missing="mean"), seed=0)


def test_models_from_before_there_was_filling_are_read(tmp_path: Path) -> None:
    how = load(job(csv(tmp_path, np.nan_to_num(X))), seed=0).preparation
    text = how.to_json().replace(' "fill": [],\n', "")
    assert "fill" not in text
    assert Preparation.from_json(text, "model") == how
