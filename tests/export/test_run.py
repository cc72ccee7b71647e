"""``distgrad export``: runs as files, from raw values to what the outputs mean."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import cli
from distgrad.core.errors import ExportError
from distgrad.data.packaged import read_packaged
from distgrad.export import verify
from distgrad.export.run import export_run

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def report_of(path: Path) -> dict[str, Any]:
    return json.loads((path.parent / "export_report.json").read_text())[path.name]


def outputs(path: Path, x: np.ndarray) -> np.ndarray:
    run, _ = verify.runner(path.read_bytes())
    return run({onnx.load(path).graph.input[0].name: x})[0]


def metadata(path: Path) -> dict[str, str]:
    return {each.key: each.value for each in onnx.load(path).metadata_props}


def digits() -> tuple[np.ndarray, np.ndarray]:
    rows = read_packaged("digits.csv.gz", lambda p: np.loadtxt(p, delimiter=",", dtype=np.int32))
    return rows[:, :-1].reshape(-1, 8, 8).astype(np.float32), rows[:, -1]


def test_an_image_model_takes_pixels_as_the_file_has_them(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "digits.onnx"
    assert cli.main(["export", str(runs / "images"), "-o", str(path)]) == 0
    x, _ = digits()
    found = outputs(path, x)
    model = distgrad.load_run(runs / "images").model
    expected = distgrad.nn.softmax(model(x / 16)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert json.loads(metadata(path)["classes"]) == [str(n) for n in range(10)]
    assert metadata(path)["output"] == "probabilities"
    report = report_of(path)
    test = report["test"]
    assert test["samples"] == 180 and test["measure"] == "accuracy"
    assert test["distgrad"] == test["onnxruntime"] > 0.5
    assert 0 <= test["largest_difference"] < 1e-4 and report["bytes"] == path.stat().st_size
    assert report["opset"] == 18 and report["compared"]["by"].startswith("onnxruntime ")
    said = capsys.readouterr().out
    assert "test accuracy of 180 samples: " in said and f"{path}: ONNX opset 18" in said
    status = json.loads((runs / "images" / "status.json").read_text())
    accuracy = next(v for k, v in _flat(status) if k == "test_accuracy")
    assert test["distgrad"] == pytest.approx(accuracy, abs=1e-6)


def _flat(nest: dict) -> Any:
    for key, value in nest.items():
        yield from _flat(value) if isinstance(value, dict) else [(key, value)]


def test_raw_is_the_model_alone(runs: Path) -> None:
    path = export_run(str(runs / "images"), runs / "raw.onnx", raw=True, say=lambda text: None)
    x, _ = digits()
    expected = distgrad.load_run(runs / "images").model(x[:7] / 16).numpy()
    np.testing.assert_allclose(outputs(path, x[:7] / 16), expected, rtol=1e-5, atol=1e-5)
    assert metadata(path)["output"] == "scores"
    assert metadata(path)["inputs_prepared"] == "by the caller"
    assert report_of(path)["test"]["distgrad"] == report_of(path)["test"]["onnxruntime"]


def test_a_table_model_takes_its_columns_in_their_own_units(runs: Path) -> None:
    path = export_run(str(runs / "tumours"), say=lambda text: None)
    assert path == runs / "tumours" / "export" / "model.onnx"
    about, found = metadata(path), distgrad.load_run(runs / "tumours")
    assert json.loads(about["classes"]) == ["0", "1"]
    assert about["output"] == "probability of the second class"
    assert len(json.loads(about["features"])) == 30
    mean = np.array([found.preparation.mean], np.float32)
    (probability,) = outputs(path, mean)
    expected = distgrad.math.sigmoid(found.model(np.zeros((1, 30), np.float32))).numpy()
    np.testing.assert_allclose(probability, expected[0], atol=1e-5)
    test = report_of(path)["test"]
    assert test["distgrad"] == test["onnxruntime"] > 0.8


def test_a_missing_number_of_a_table_is_nan(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs)  # where the job finds its table
    path = export_run(str(runs / "gaps"), say=lambda text: None)
    fill = distgrad.load_run(runs / "gaps").preparation.fill
    given = np.array([[np.nan, 4], [2, np.nan], [3, 4], [np.nan, np.nan]], np.float32)
    complete = np.where(np.isnan(given), np.array(fill, np.float32), given)
    np.testing.assert_array_equal(outputs(path, given), outputs(path, complete))
    assert metadata(path)["missing"] == "nan"
    test = report_of(path)["test"]
    assert test["distgrad"] == test["onnxruntime"] > 0.6
    raw = export_run(str(runs / "gaps"), runs / "raw_gaps.onnx", raw=True, say=lambda text: None)
    assert "missing" not in metadata(raw) and np.isnan(outputs(raw, given)[:2]).all()


def test_a_forecast_comes_in_the_units_of_the_series(runs: Path) -> None:
    path = export_run(str(runs / "series"), say=lambda text: None)
    (forecast,) = outputs(path, np.full((1, 6, 1), 23.0, np.float32))
    assert forecast.shape == (2,) and (forecast > 15).all() and (forecast < 32).all()
    test = report_of(path)["test"]
    assert test["measure"] == "mean_squared_error"
    assert test["distgrad"] == pytest.approx(test["onnxruntime"], rel=1e-6)


def test_a_text_model_takes_codes_and_says_its_alphabet(runs: Path) -> None:
    path = export_run(str(runs / "writer"), say=lambda text: None)
    assert json.loads(metadata(path)["alphabet"]) == list("abcdefgh")
    assert outputs(path, np.zeros((2, 4), np.int32)).shape == (2, 4, 8)


def test_weights_of_8_bits(runs: Path) -> None:
    path = export_run(str(runs / "images"), runs / "small.onnx", int8=True, say=lambda text: None)
    small = runs / "small.int8.onnx"
    report = report_of(path)
    assert report["int8"] == {"file": small.name, "bytes": small.stat().st_size}
    assert small.stat().st_size < path.stat().st_size
    assert abs(report["test"]["int8"] - report["test"]["distgrad"]) < 0.05
    x, _ = digits()
    assert np.mean(outputs(small, x).argmax(1) == outputs(path, x).argmax(1)) > 0.95


@pytest.mark.parametrize("kind", ["keras", "safetensors", "npz"])
def test_other_files(runs: Path, kind: str) -> None:
    path = export_run(str(runs / "images"), to=kind, say=lambda text: None)
    assert path == runs / "images" / "export" / f"model.{kind}"
    assert report_of(path)["format"] == kind
    model = distgrad.load_run(runs / "images").model
    weights = {p: v.numpy() for p, v in model.variable_paths().items()}
    if kind == "keras":
        again = distgrad.keras.models.load_model(path)
        x = np.ones((2, 8, 8), np.float32)
        np.testing.assert_array_equal(again(x).numpy(), model(x).numpy())
    elif kind == "npz":
        with np.load(path) as found:
            assert set(found.files) == set(weights)
            assert all(np.array_equal(found[p], w) for p, w in weights.items())
    else:
        for variable in model.variables:
            variable.assign(variable * 0)
        model.load_weights(path)
        assert all(np.array_equal(v.numpy(), weights[p]) for p, v in model.variable_paths().items())


def test_without_the_test_samples_the_file_is_there_and_the_reason_said(
    runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs / "writer", tmp_path / "writer")
    job = (tmp_path / "writer" / "resolved.yaml").read_text()
    (tmp_path / "writer" / "resolved.yaml").write_text(job.replace("text.txt", "gone.txt"))
    said: list[str] = []
    path = export_run(str(tmp_path / "writer"), say=said.append)
    assert path.is_file() and "test" not in report_of(path)
    assert any("gone.txt" in line for line in said)


def test_a_file_is_never_replaced_unasked(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = tmp_path / "data.npz"
    data.write_text("mine")
    words = ["export", str(runs / "images"), "-o", str(data)]
    assert cli.main(words) == 2 and "exists: add --force" in capsys.readouterr().err
    assert data.read_text() == "mine"
    assert cli.main([*words, "--force"]) == 0 and data.read_bytes().startswith(b"PK")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--web", "file"], 2, "--web file is a file, not a folder"),
        (["-o", "file/m.npz"], 4, "file/m.npz cannot be written"),
    ],
)
def test_a_place_where_nothing_can_be_written(
    runs: Path,
    tmp_path: Path,
    options: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert cli.main(["export", str(runs / "images"), *options]) == code
    assert message in capsys.readouterr().err


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "m.tflite"], "what to write is told by the ending"),
        (["--to", "keras", "--int8"], "--raw, --int8 and --web are of ONNX files"),
        (["-o", "m.npz", "--web", "page"], "--raw, --int8 and --web are of ONNX files"),
        (["--to", "tflite"], "'tflite' is not one of 'onnx', 'keras', 'safetensors', 'npz'"),
        (["--step", "1"], "has no checkpoint of step 1"),
    ],
    ids=["ending", "int8", "web", "format", "step"],
)
def test_wrong_options(
    runs: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(runs)
    assert cli.main(["export", "images", *options]) == 2
    assert message in capsys.readouterr().err


def test_without_onnx_the_exit_code_is_3(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert cli.main(["export", str(runs / "images"), "-o", str(runs / "none.onnx")]) == 3
    assert "pip install 'distgrad[onnx]'" in capsys.readouterr().err
    assert not (runs / "none.onnx").exists()


def test_a_file_that_computes_something_else_is_not_written(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distgrad.export.deployed import Deployed

    def without(self: Deployed, x: Any) -> Any:
        return self.run.model(x, training=False)

    monkeypatch.setattr(Deployed, "__call__", without)  # forgets to divide, and the softmax
    with pytest.raises(ExportError, match="does not compute what the model does"):
        export_run(str(runs / "images"), tmp_path / "m.onnx", say=lambda text: None)
    assert list(tmp_path.iterdir()) == []
