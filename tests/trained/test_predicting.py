"""``distgrad predict``: rows in order, classes by name, values in their units, texts by seed."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import distgrad
from distgrad import keras
from distgrad.data.fresh import Fresh
from distgrad.testing import process
from distgrad.trained import load
from distgrad.trained.predicting import of_rows, of_text

from .homes import Home, level, rows, write_csv


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_rows_of_a_table_in_order_with_class_names(table: Home, tmp_path: Path) -> None:
    """Columns in another order, one more of text, no label, and statistics of their own."""
    lines = [(f"patient {i}", b, a) for i, (a, b, _) in enumerate(rows(3, 50, center=7))]
    said = read(table.says("predict", "run", write_csv(tmp_path / "a.csv", "name,b,a", lines)))
    assert list(said[0]) == ["prediction", "p(high)", "p(low)"] and len(said) == 50
    model = load(table.run)
    standard = Fresh(model.preparation).standard
    x = standard(np.array([[a, b] for _, b, a in lines]))
    p = np.array([[row["p(high)"], row["p(low)"]] for row in said], np.float32)
    np.testing.assert_allclose(p, model.model.predict(x, verbose=0), rtol=1e-5)
    assert [row["prediction"] for row in said] == ["high" if h > l else "low" for h, l in p]
    assert {row["prediction"] for row in said} == {"high", "low"}
    with_label = write_csv(tmp_path / "b.csv", "kind,b,a", [("?", b, a) for _, b, a in lines])
    assert read(table.says("predict", "run", with_label)) == said
    few = read(table.says("predict", "run", with_label, "-b", "7"))
    assert [row["prediction"] for row in few] == [row["prediction"] for row in said]


def test_parquet_and_arrays_are_rows_too(table: Home, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    values = np.array([(a, b) for a, b, _ in rows(3, 40)])
    written = write_csv(tmp_path / "a.csv", "a,b", values.tolist())
    columns = {"b": values[:, 1], "note": ["x"] * 40, "a": values[:, 0]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet", row_group_size=9)
    np.save(tmp_path / "a.npy", values)
    said = table.says("predict", "run", written)
    assert table.says("predict", "run", tmp_path / "a.npy") == said
    # Its row groups are its batches, whose size decides the last bit of a product.
    again = read(table.says("predict", "run", tmp_path / "a.parquet"))
    assert [row["prediction"] for row in again] == [row["prediction"] for row in read(said)]


def test_what_a_table_must_have(table: Home, tmp_path: Path) -> None:
    def refused(columns: str, line: tuple, says: str) -> None:
        path = write_csv(tmp_path / "a.csv", columns, [line])
        table.refuses("predict", "run", path, code=4, says=says)

    refused("a,c", (1, 2), "a.csv has no column 'b'; its columns are a, c")
    refused("a,b", (1, "x"), "a.csv:2: column 'b' holds 'x', no finite number")
    table.refuses("predict", "run", code=2, says="needs a file of them after its name")
    table.refuses("predict", "run", "a", "b", code=2, says="these are 3: run, a, b")
    table.refuses("predict", "run", "a.csv", "--seed", "1", code=2, says="--seed is not for a mod")


@pytest.mark.parametrize("ending", [".csv", ".npy"])
def test_a_table_without_rows_is_said(table: Home, tmp_path: Path, ending: str) -> None:
    path, out = write_csv(tmp_path / "a.csv", "a,b", []), tmp_path / f"out{ending}"
    table.refuses("predict", "run", path, "-o", out, code=4, says="a.csv has no rows")
    assert not out.exists()


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="no /dev/stdin here")
def test_rows_from_stdin(table: Home, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", "a,b", [(1, 2), (9, 9)])
    command = f"{sys.executable} -m distgrad predict run - < {path}"
    root = str(Path(distgrad.__path__[0]).parent)
    result = process.run(["sh", "-c", command], cwd=table.folder, env={"PYTHONPATH": root})
    assert result.returncode == 0, result.stderr
    assert result.stdout == table.says("predict", "run", path)


def test_logits_become_probabilities_in_every_format(digits: Home, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 17, (70, 8, 8)).astype(np.uint8)
    np.save(tmp_path / "x.npy", images)
    logits = load(digits.run).model.predict(images / np.float32(16), verbose=0).astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for ending in ("csv", "jsonl", "npy", "npz"):
        out = tmp_path / f"out.{ending}"
        said = digits.says("predict", "run", tmp_path / "x.npy", "-o", out)
        assert said == f"wrote 70 predictions to {out}\n"
    best = expected.argmax(axis=1)
    probabilities = np.load(tmp_path / "out.npy")
    np.testing.assert_allclose(probabilities, expected, rtol=2e-6, atol=1e-7)
    with np.load(tmp_path / "out.npz") as found:
        assert found["prediction"].tolist() == [str(number) for number in best]
        assert found["classes"].tolist() == list(map(str, range(10)))
        assert np.array_equal(found["probabilities"], probabilities)
    for line, number, row in zip(
        (tmp_path / "out.jsonl").read_text().splitlines(), best, probabilities, strict=True
    ):
        said = json.loads(line)
        assert said["prediction"] == str(number)
        assert np.array_equal(np.array([*said["probabilities"].values()], np.float32), row)
    rows_of_csv = read((tmp_path / "out.csv").read_text())
    exact = np.array([[row[f"p({i})"] for i in range(10)] for row in rows_of_csv], np.float32)
    assert np.array_equal(exact, probabilities)  # text loses no bit


def test_images_in_the_units_of_training(digits: Home, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.full((2, 8, 8), 0.5))
    says = "holds fractions up to 0.5, but in training whole numbers (int32) that were divided by"
    digits.refuses("predict", "run", path, code=4, says=says)
    np.save(path, np.zeros((8, 8), np.uint8))
    digits.refuses("predict", "run", path, code=4, says="one sample needs a first dimension of 1")
    np.save(path, np.zeros((2, 9), np.uint8))
    digits.refuses("predict", "run", path, code=4, says="but the model was trained on (8, 8)")
    says = "takes arrays: a .npy, .npz or IDX file"
    digits.refuses("predict", "run", write_csv(tmp_path / "a.csv", "a", []), code=4, says=says)


def test_a_file_is_never_replaced_unasked(digits: Home, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 8, 8), np.uint8))
    out, words = tmp_path / "out.csv", ("predict", "run", tmp_path / "x.npy", "-o")
    out.write_text("mine")
    digits.refuses(*words, out, code=2, says="exists: add --force")
    assert out.read_text() == "mine"
    np.save(tmp_path / "bad.npy", np.full((70, 8, 8), np.nan))
    bad = ("predict", "run", tmp_path / "bad.npy", "-o", out, "--force")
    digits.refuses(*bad, code=4, says="no finite float32")
    assert out.read_text() == "mine"  # what fails replaces nothing, and leaves nothing behind
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.npy", "out.csv", "x.npy"]
    digits.says(*words, out, "--force")
    assert len(read(out.read_text())) == 2
    np.save(tmp_path / "own.npy", np.zeros((2, 8, 8), np.uint8))
    own = tmp_path / "own.npy"
    digits.refuses("predict", "run", own, "-o", own, "--force", code=2, says="is the file to read")
    assert np.load(own).shape == (2, 8, 8)
    digits.refuses(*words, tmp_path / "out.xls", code=2, says="must be one of .csv, .jsonl, .npy")
    digits.refuses(*words, tmp_path / "no" / "out.csv", code=2, says="there is no folder")


def test_a_file_larger_than_memory_is_read_as_it_is_used(digits: Home, tmp_path: Path) -> None:
    """64 GiB of zeros, of which the disk holds nothing."""
    path = tmp_path / "x.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (1 << 30, 8, 8)).flush()
    run = load(digits.run)
    said = of_rows(run.model, Fresh(run.preparation), str(path), 5)
    three = list(itertools.islice(said, 3))
    assert [len(each) for each in three] == [5, 5, 5]


def test_a_series_goes_on_in_its_own_units(series: Home, tmp_path: Path) -> None:
    lines = [(i, level(i)) for i in range(1000, 1025)]
    path = write_csv(tmp_path / "wave.csv", "month,level", lines)
    said = [float(row["prediction"]) for row in read(series.says("predict", "run", path))]
    assert len(said) == 2  # the horizon of the job
    np.testing.assert_allclose(said, [level(1025), level(1026)], atol=1)
    longer = read(series.says("predict", "run", path, "--length", "5"))
    assert len(longer) == 5 and [float(row["prediction"]) for row in longer[:2]] == said
    np.save(tmp_path / "wave.npy", np.array([value for _, value in lines]))
    assert len(read(series.says("predict", "run", tmp_path / "wave.npy"))) == 2
    short = write_csv(tmp_path / "a.csv", "month,level", lines[:11])
    series.refuses("predict", "run", short, code=4, says="11 values, but a forecast needs the las")
    other = write_csv(tmp_path / "a.csv", "month,height", lines)
    series.refuses("predict", "run", other, code=4, says="has no column 'level'")


def test_a_text_goes_on_the_same_way_for_the_same_seed(text: Home, tmp_path: Path) -> None:
    def says(*words: str) -> str:
        return text.says("predict", "run", "--prompt", "abcd ab", *words)

    assert says("--length", "23", "--temperature", "0") == "abcd " * 6 + "\n"
    hot = [says("--length", "80", "--temperature", "9", "--seed", seed) for seed in "112"]
    assert hot[0] == hot[1] != hot[2] and {len(each) for each in hot} == {88}
    assert set(hot[0]) == set("abcd \n")
    assert len(says()) == 7 + 200 + 1
    (tmp_path / "prompt.txt").write_text("cd a")
    out = tmp_path / "out.txt"
    text.says("predict", "run", tmp_path / "prompt.txt", "--temperature", "0", "-o", out)
    assert out.read_text().startswith("cd abcd abcd ")
    text.refuses("predict", "run", "--prompt", "xyz", code=2, says="not trained on: 'x', 'y', 'z'")
    assert text.command("predict", "run", "--prompt", "xyz")[1] == ""  # nothing before the error
    text.refuses("predict", "run", "--prompt", "", code=2, says="the prompt is empty")
    text.refuses("predict", "run", code=2, says="needs a --prompt")
    text.refuses("predict", "run", "--prompt", "a", "-o", "a.csv", code=2, says="one of .txt")


def test_characters_are_drawn_by_their_probabilities(text: Home) -> None:
    """The first character after a prompt, over many seeds; temperature 1 leaves the model's own."""
    run = load(text.run)
    codes = np.zeros((1, 8), np.int32)
    codes[0, :2] = [run.preparation.alphabet.index(c) for c in "ca"]
    expected = run.model.predict(codes, verbose=0)[0, 1]
    drawn = [next(of_text(run.model, run.preparation, "ca", seed=s)) for s in range(400)]
    shares = [drawn.count(c) / 400 for c in run.preparation.alphabet]
    np.testing.assert_allclose(shares, expected, atol=0.1)


def test_a_keras_file_predicts_arrays_as_they_are(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    model.save(tmp_path / "m.keras")
    np.savez(tmp_path / "x.npz", x=x)
    home = Home(tmp_path)
    said = home.says("predict", "m.keras", "x.npz")
    assert said.startswith("prediction_0,prediction_1\n")
    found = np.array([line.split(",") for line in said.splitlines()[1:]], np.float32)
    np.testing.assert_allclose(found, model.predict(x, verbose=0), rtol=1e-5)
    home.refuses("predict", "none.keras", "x.npz", code=4, says="none.keras cannot be loaded")


def test_a_script_loads_a_run_by_the_public_name(digits: Home) -> None:
    run = distgrad.load_run(digits.run)
    x = np.zeros((1, 8, 8), np.float32)
    assert run.model.predict(x, verbose=0).shape == (1, 10)
