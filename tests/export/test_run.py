"""``distgrad export``: runs as files, from raw values to what the outputs mean."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import cli
from distgrad.core.errors import ExportError, UsageError
from distgrad.data.packaged import read_packaged
from distgrad.export import verify, web
from distgrad.export.run import export_run
from distgrad.testing import process

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

IMAGES = """
name: images
data: {source: digits, test_fraction: 0.1}
model:
  layers:
    - {type: Reshape, target_shape: [8, 8, 1]}
    - {type: Conv2D, filters: 4, kernel_size: 3, activation: relu}
    - {type: BatchNormalization}
    - {type: Flatten}
    - {type: Dense, units: 10}
loss: {type: SparseCategoricalCrossentropy, from_logits: true}
metrics: [accuracy]
optimizer: {type: Adam, learning_rate: 0.01}
train: {epochs: 2, global_batch_size: 64}
"""
TABLE = """
name: tumours
data: {source: breast_cancer}
model: {layers: [{type: Dense, units: 4, activation: relu}, {type: Dense, units: 1}]}
loss: {type: BinaryCrossentropy, from_logits: true}
optimizer: {type: Adam, learning_rate: 0.01}
train: {epochs: 3, global_batch_size: 32}
"""
SERIES = """
name: series
data: {source: series, builtin: el-nino, window: 6, horizon: 2}
model: {layers: [{type: GRU, units: 4}, {type: Dense, units: 2}]}
loss: mean_squared_error
optimizer: {type: Adam, learning_rate: 0.01}
train: {epochs: 1, global_batch_size: 32}
"""
TEXT = """
name: writer
data: {source: text, path: text.txt, sequence_length: 4}
model: {layers: [{type: Embedding, input_dim: 8, output_dim: 3}, {type: Dense, units: 8}]}
loss: {type: SparseCategoricalCrossentropy, from_logits: true}
optimizer: {type: Adam, learning_rate: 0.01}
train: {epochs: 1, global_batch_size: 8}
"""
JOBS = {"images": IMAGES, "tumours": TABLE, "series": SERIES, "writer": TEXT}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each kind."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "text.txt").write_text("abcdefgh" * 40)
    root = str(Path(distgrad.__path__[0]).parent)
    for name, text in JOBS.items():
        (folder / f"{name}.yaml").write_text(text)
        command = [sys.executable, "-m", "distgrad", "train", f"{name}.yaml", "--run-dir", name]
        result = process.run(command, timeout=90, cwd=folder, env={"PYTHONPATH": root})
        assert result.returncode == 0, result.stderr
    return folder


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
    np.testing.assert_allclose(outputs(path, x[:7] / 16), expected, rtol=1e-4, atol=1e-4)
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


def test_a_forecast_comes_in_the_units_of_the_series(runs: Path) -> None:
    path = export_run(str(runs / "series"), say=lambda text: None)
    (forecast,) = outputs(path, np.full((1, 6, 1), 23.0, np.float32))
    assert forecast.shape == (2,) and (forecast > 15).all() and (forecast < 32).all()
    test = report_of(path)["test"]
    assert test["measure"] == "mean_squared_error"
    assert test["distgrad"] == pytest.approx(test["onnxruntime"], rel=1e-4)


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


# The web page


class Scripts(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self._name = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        given = dict(attrs)
        self._name = given.get("id") or given.get("type", "") if tag == "script" else ""

    def handle_data(self, data: str) -> None:
        if self._name:
            self.texts[self._name] = self.texts.get(self._name, "") + data


@pytest.fixture(scope="module")
def pages(runs: Path) -> dict[str, Path]:
    found = {}
    for name in ("images", "tumours", "series"):
        found[name] = runs / f"web_{name}"
        export_run(str(runs / name), runs / f"{name}.onnx", page=found[name], say=lambda text: None)
    return found


def scripts(page: Path) -> dict[str, str]:
    return Scripts((page / "index.html").read_text()).texts


@pytest.mark.parametrize("name", ["images", "tumours", "series"])
def test_the_page_and_its_model_belong_together(pages: dict[str, Path], name: str) -> None:
    page = pages[name]
    assert {p.name for p in page.iterdir()} == {"index.html", "model.onnx", "README.txt"}
    text = (page / "index.html").read_text()
    assert re.findall(r"@[A-Z]+@", text) == []
    assert "http://" not in text.replace("http://localhost", "") and "https://" not in text
    about = json.loads(scripts(page)["about"])
    graph = onnx.load(page / "model.onnx").graph
    assert about["input"] == graph.input[0].name
    assert about["output_name"] == graph.output[0].name
    sizes = [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim][1:]
    assert about["shape"] == sizes
    assert about["kind"] == {"images": "image", "tumours": "table", "series": "series"}[name]
    if name == "tumours":
        assert len(about["features"]) == len(about["example"]) == 30
        assert len(about["classes"]) == 2
    assert f"onnxruntime-web@{web.RUNTIME}" in (page / "README.txt").read_text()


needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")


def node(program: str, *flags: str) -> Any:
    done = subprocess.run(
        ["node", *flags, "-"], input=program, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout else None


@needs_node
def test_the_script_of_the_page_is_one(pages: dict[str, Path]) -> None:
    found = scripts(pages["images"])
    node(found["computing"] + found["module"], "--check", "--input-type=module")


@needs_node
def test_a_drawing_becomes_the_pixels_of_the_model(pages: dict[str, Path]) -> None:
    """A bar drawn off the middle: centred, filled from border to border, with the ink's maximum."""
    found = scripts(pages["images"])
    program = f"""{found["computing"]}
    const about = {found["about"]}, size = 40, ink = new Float32Array(size * size);
    for (let y = 3; y < 35; y++) for (let x = 4; x < 12; x++) ink[y * size + x] = 1;
    console.log(JSON.stringify([
      Array.from(computing.image(ink, size, about)),
      Array.from(computing.image(new Float32Array(size * size), size, about)),
      Array.from(computing.image(ink, size, {{shape: [28, 28], highest: 1}})),
    ]));"""
    drawn, empty, large = (np.array(values) for values in node(program))
    expected = np.zeros((8, 8))
    expected[:, 3:5] = 16
    np.testing.assert_allclose(drawn.reshape(8, 8), expected)
    assert not empty.any()
    large = large.reshape(28, 28)
    assert large[4:24, 12:16].min() > 0.5 and not large[:4].any() and not large[24:].any()


@needs_node
def test_outputs_become_classes_and_their_probabilities(pages: dict[str, Path]) -> None:
    program = f"""{scripts(pages["images"])["computing"]}
    console.log(JSON.stringify([
      computing.results([0.25, 0.75], {{output: "probabilities", classes: ["a", "b"]}}),
      computing.results([0.25], {{output: "probability of the second class", classes: ["a", "b"]}}),
      computing.results([1, 3], {{output: "scores", classes: ["a", "b"]}}),
      computing.results([0], {{output: "scores", classes: ["a", "b"]}}),
      computing.results([21.5], {{output: "values", classes: []}}),
      Array.from(computing.colours([255, 0, 51, 255], {{shape: [1, 1, 3], highest: 255}})),
    ]));"""
    a, b, c, d, e, f = node(program)
    assert a == [["a", 0.25], ["b", 0.75]] and b == [["a", 0.75], ["b", 0.25]]
    assert [name for name, _ in c] == ["a", "b"]
    assert c[1][1] == pytest.approx(1 / (1 + np.exp(-2)))
    assert d == [["a", 0.5], ["b", 0.5]] and e == [["output 1", 21.5]]
    assert f == [255, 0, 51]


# What a browser has, as far as the page asks for it, and a runtime that notes what it is given.
BROWSER = """
class Element {
  constructor() { this.style = {}; this.children = []; }
  append(...given) { this.children.push(...given); }
  replaceChildren(...given) { this.children = given; }
  getContext() { return new Proxy({}, { get: (pen, name) => name === "getImageData" ? drawn
    : name in pen ? pen[name] : () => {}, set: Reflect.set }); }
}
const drawn = (x, y, width, height) => ({ data: Array.from({ length: 4 * width * height },
  (_, i) => Math.abs((i / 4 | 0) % width - 100) < 35 ? 255 : 0) });
const page = { hint: new Element(), inputs: new Element(), results: new Element(),
               problem: new Element(), about: new Element() };
page.about.textContent = JSON.stringify(ABOUT);
globalThis.document = { getElementById: (id) => page[id], createElement: () => new Element() };
globalThis.fed = [];
"""
RUNTIME = """
export const env = { wasm: {} };
export class Tensor { constructor(...given) { [this.type, this.data, this.dims] = given; } }
export class InferenceSession {
  static async create(path) { return new InferenceSession(path); }
  constructor(path) { this.path = path; }
  async run(feeds) { fed.push([this.path, feeds]); return { OUTPUT: { data: VALUES } }; }
}
"""


def opened(page: Path, folder: Path, values: list[float], then: str = "") -> list[Any]:
    """What the model is given, and the rows of results, when a page is opened in such a browser."""
    found = scripts(page)
    output = json.loads(found["about"])["output_name"]
    runtime = RUNTIME.replace("OUTPUT", json.dumps(output)).replace("VALUES", json.dumps(values))
    (folder / "ort.wasm.min.mjs").write_text(runtime)
    program = [BROWSER.replace("ABOUT", found["about"]), found["computing"], found["module"], then]
    told = """await new Promise((done) => setTimeout(done, 20));
    const rows = page.results.children.map((row) => row.children.map((e) => e.textContent));
    console.log(JSON.stringify([...fed.at(-1), rows, page.problem.textContent ?? ""],
      (key, value) => value instanceof Float32Array ? Array.from(value) : value));"""
    (folder / "page.mjs").write_text("\n".join([*program, told]))
    done = subprocess.run(["node", folder / "page.mjs"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_node
def test_a_page_for_a_table_predicts_what_stands_in_its_fields(
    pages: dict[str, Path], tmp_path: Path
) -> None:
    path, feeds, rows, problem = opened(pages["tumours"], tmp_path, [0.25])
    about = json.loads(scripts(pages["tumours"])["about"])
    assert (path, problem) == ("./model.onnx", "")
    given = feeds[about["input"]]
    assert (given["type"], given["dims"]) == ("float32", [1, 30])
    np.testing.assert_allclose(given["data"], about["example"], rtol=1e-6)
    assert [[row[0], row[2]] for row in rows] == [["0", "75.0 %"], ["1", "25.0 %"]]


@needs_node
def test_a_page_for_images_looks_at_what_is_drawn(pages: dict[str, Path], tmp_path: Path) -> None:
    drawn = "page.inputs.children[0].onpointerup();"
    _, feeds, rows, _ = opened(pages["images"], tmp_path, [0.1] * 10, drawn)
    (given,) = feeds.values()
    pixels = np.array(given["data"]).reshape(given["dims"])
    assert pixels.shape == (1, 8, 8) and 15 < pixels.max() <= 16
    assert pixels[0, :, 3:5].min() > 0 and not pixels[0, :, :3].any()  # a bar, in the middle
    assert [row[0] for row in rows] == [str(n) for n in range(10)]


def test_a_page_that_could_not_be_used_is_not_written(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not for text of shape"):
        export_run(str(runs / "writer"), tmp_path / "m.onnx", page=tmp_path / "page")
    assert list(tmp_path.iterdir()) == []


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
