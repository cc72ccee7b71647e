"""The web page around an exported model: its script, run by Node, and what stands in it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distgrad.core.errors import UsageError
from distgrad.export import web
from distgrad.export.run import export_run

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


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
    for name in ("images", "tumours", "gaps", "series"):
        found[name] = runs / f"web_{name}"
        export_run(str(runs / name), runs / f"{name}.onnx", page=found[name], say=lambda text: None)
    return found


def scripts(page: Path) -> dict[str, str]:
    return Scripts((page / "index.html").read_text()).texts


@pytest.mark.parametrize("name", ["images", "tumours", "gaps", "series"])
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
    kinds = {"images": "image", "tumours": "table", "gaps": "table", "series": "series"}
    assert about["kind"] == kinds[name] and about["fills"] == (name == "gaps")
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
def test_an_empty_field_is_a_missing_number(pages: dict[str, Path], tmp_path: Path) -> None:
    """The fields stand in lines, before the button."""
    emptied = """const [line, , button] = page.inputs.children;
    line.children[1].value = ""; button.onclick();"""
    _, feeds, _, problem = opened(pages["gaps"], tmp_path, [0.5, 0.5], emptied)
    (given,) = feeds.values()
    assert problem == "" and given["data"][0] is None  # JSON's nan
    assert given["data"][1] is not None
    feeds = opened(pages["tumours"], tmp_path, [0.25], emptied.replace(", , b", f"{', ' * 30}b"))[1]
    assert next(iter(feeds.values()))["data"][0] == 0


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
