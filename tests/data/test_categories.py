"""Tables with columns of texts: each text is a column of ones and zeros, here and for new rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distgrad.config import ConfigError
from distgrad.config import load as load_config
from distgrad.core.errors import DataError
from distgrad.data import table
from distgrad.data.fresh import Fresh
from distgrad.data.source import load

ROWS = [(30 + i, "Rom, Süd" if i % 3 else "Oslo", "ja" if i % 2 else "nein") for i in range(12)]
NAMES = ("age", "city", "kind")


def csv(path: Path, rows: list[tuple], names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    quoted = [",".join(f'"{value}"' for value in row) for row in rows]
    path.write_text("\n".join([",".join(names), *quoted, ""]), encoding="utf-8")
    return {"source": "csv", "path": str(path)}


def parquet(path: Path, rows: list[tuple], names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    parquet.write_table(pyarrow.table(columns), path)
    return {"source": "parquet", "path": str(path)}


WRITERS = pytest.mark.parametrize("write", [csv, parquet])
Write = Callable[..., dict[str, Any]]


def spec(given: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**given, "label": "kind", "categories": ("city",), "standardize": False, **more}


@WRITERS
def test_texts_are_columns_of_ones_and_zeros(write: Write, tmp_path: Path) -> None:
    job = spec(write(tmp_path / "a", ROWS))
    splits = load(job, seed=0)
    assert splits.preparation.features == ("age", "city=Oslo", "city=Rom, Süd")
    x = np.concatenate([splits.train.arrays[0], splits.test.arrays[0]])
    expected = [[age, city == "Oslo", city != "Oslo"] for age, city, _ in ROWS]
    assert sorted(x.tolist()) == expected
    chosen = load({**job, "columns": ("city",)}, seed=0)
    assert chosen.preparation.features == ("city=Oslo", "city=Rom, Süd")


@WRITERS
def test_new_rows_have_the_columns_of_training(write: Write, tmp_path: Path) -> None:
    job = spec(write(tmp_path / "a", ROWS))
    how = load(job, seed=0).preparation
    fresh = Fresh(how, job)
    rows = [("Oslo", 1, 40), ("Paris", 2, 41), ("Rom, Süd", 3, 42)]
    ending = {"csv": ".csv", "parquet": ".parquet"}[job["source"]]
    path = tmp_path / f"new{ending}"
    write(path, rows, ("city", "more", "age"))
    (found,) = fresh.inputs(str(path), 10)
    np.testing.assert_array_equal(found, [[40, 1, 0], [41, 0, 0], [42, 0, 1]])
    write(path, [(40,)], ("age",))
    with pytest.raises(DataError, match="has no column 'city=Oslo', 'city=Rom, Süd'; its"):
        list(fresh.inputs(str(path), 10))
    write(path, [("Oslo", 40, "ja")], ("city", "age", "kind"))
    x, y = fresh.labelled(str(path), None).take(slice(0, 1))
    np.testing.assert_array_equal(x, [[40, 1, 0]])
    np.testing.assert_array_equal(y, [0])


def test_a_missing_text_is_no_category(tmp_path: Path) -> None:
    rows = [*ROWS, (50, "", "ja")]
    splits = load(spec(csv(tmp_path / "a.csv", rows)), seed=0)
    assert splits.preparation.features == ("age", "city=Oslo", "city=Rom, Süd")
    rows[-1] = (50, None, "ja")
    splits = load(spec(parquet(tmp_path / "a.parquet", rows)), seed=0)
    x = np.concatenate([splits.train.arrays[0], splits.test.arrays[0]])
    assert [50, 0, 0] in x.tolist()


def test_a_text_of_the_test_part_alone_has_no_column(tmp_path: Path) -> None:
    rows = [(n, f"c{n}", "ja" if n % 2 else "nein") for n in range(10)]
    splits = load(spec(csv(tmp_path / "a.csv", rows)), seed=0)
    train = {f"city=c{int(age)}" for age in splits.train.arrays[0][:, 0]}
    assert set(splits.preparation.features) == {"age", *train}


def test_a_file_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join(f'{a},"{c}",{k}' for a, c, k in ROWS))
    options = {"header": False, "delimiter": ","}
    job = {"source": "csv", "path": str(path), "label": "2", "categories": ("1",), **options}
    how = load({**job, "standardize": False}, seed=0).preparation
    assert how.features == ("0", "1=Oslo", "1=Rom, Süd")
    path.write_text('41,"Rom, Süd"\n42,Paris\n')  # no label any more
    (found,) = Fresh(how, job).inputs(str(path), 10)
    np.testing.assert_array_equal(found, [[41, 0, 1], [42, 0, 0]])


def test_a_column_of_that_name_is_meant_first(tmp_path: Path) -> None:
    rows = [(i, "x", 7 + i, "ja" if i % 2 else "nein") for i in range(10)]
    path = csv(tmp_path / "a.csv", rows, ("age", "city", "city=x", "kind"))
    splits = load({**path, "label": "kind", "columns": ("city=x",), "standardize": False}, seed=0)
    assert splits.train.arrays[0].min() >= 7


def test_what_cannot_be_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = csv(tmp_path / "a.csv", ROWS)
    with pytest.raises(DataError, match="no finite number; name a column of texts in data"):
        load({**job, "label": "kind"}, seed=0)
    with pytest.raises(DataError, match="has no column 'town'"):
        load(spec(job, categories=("town",)), seed=0)
    monkeypatch.setattr(table, "_MOST_TEXTS", 1)
    with pytest.raises(DataError, match="'city' has 2 different texts; 1 is the most"):
        load(spec(job), seed=0)
    (tmp_path / "b.csv").write_bytes("age,city\n1,Öl\n".encode("latin-1"))
    with pytest.raises(DataError, match="save it as UTF-8"):
        load({"source": "csv", "path": str(tmp_path / "b.csv"), "label": "age"}, seed=0)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("columns: [age], categories: [city]", "categories must be among the columns"),
        ("columns: [age, age]", "columns name one of them twice"),
        ("columns: [age, kind]", "the label cannot be one of columns"),
        ("categories: [kind]", "the label cannot be one of columns"),
    ],
)
@pytest.mark.parametrize("source", ["csv", "parquet"])
def test_a_job_that_contradicts_itself(source: str, keys: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        f"name: t\ndata: {{source: {source}, path: a, label: kind, {keys}}}\n"
        "model: {layers: [{type: Dense, units: 2}]}\nloss: mse\n"
        "optimizer: {type: Adam}\ntrain: {epochs: 1, global_batch_size: 4}\n"
    )
    with pytest.raises(ConfigError, match=said):
        load_config(str(path), [])
