"""A web page that runs an exported model: index.html, model.onnx, and how to get its runtime."""

from __future__ import annotations

import html
import json
from importlib import resources
from pathlib import Path
from typing import Any

from distgrad.core import files
from distgrad.core.errors import UsageError
from distgrad.export.deployed import Deployed
from distgrad.export.model import Exported

RUNTIME = "1.30.0"  # of onnxruntime-web
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
NOTE = "README.txt"


def write(folder: Path, deployed: Deployed, made: Exported) -> None:
    """Writes the page. Raises UsageError for a model that it has no inputs for."""
    about = describe(deployed, made)
    template = resources.files("distgrad.export").joinpath("page.html").read_text("utf-8")
    # In a script element only its own end could be misread.
    text = json.dumps(about, ensure_ascii=False).replace("</", "<\\/")
    title = html.escape(f"{deployed.run.job.name}")
    folder.mkdir(parents=True, exist_ok=True)
    page = template.replace("@TITLE@", title).replace("@ABOUT@", text)
    files.replace(folder / "index.html", page)
    files.replace(folder / "model.onnx", made.content)
    files.replace(folder / NOTE, note())


def describe(deployed: Deployed, made: Exported) -> dict[str, Any]:
    """What the page knows of its model."""
    how = deployed.how
    return {
        "kind": kind_of(deployed),
        "input": made.inputs[0].name,
        "output_name": made.outputs[0],
        "shape": list(how.shape),
        "classes": list(deployed.outputs.classes),
        "output": deployed.output,
        "highest": deployed.highest,
        "features": list(how.features),
        "label": how.label,
        "fills": deployed.fills,
        "example": _example(deployed),
        "note": note(),
    }


def kind_of(deployed: Deployed) -> str:
    """``image``, ``table`` or ``series``. Raises UsageError for any other input."""
    how = deployed.how
    if how.kind in ("table", "series"):
        return how.kind
    sides = how.shape[:2]
    channels = how.shape[2] if len(how.shape) == 3 else 1
    if how.kind == "arrays" and len(sides) == 2 and min(sides) >= 4 and channels in (1, 3):
        return "image"
    if how.kind == "arrays" and len(how.shape) == 1 and how.shape[0] <= 64:
        return "table"
    raise UsageError(
        f"--web has a page for images, tables and series, not for {how.kind} of shape {how.shape}"
    )


def _example(deployed: Deployed) -> list[float]:
    """What the fields of a page hold at first: a sample in the middle of those of training."""
    how = deployed.how
    if deployed.raw or not how.mean:
        return []
    count = how.shape[0]
    return [float(f"{m:.4g}") for m in (how.mean if len(how.mean) == count else how.mean * count)]


def note() -> str:
    """How to get the runtime, and how to serve the page."""
    return (
        "This page computes in the browser with onnxruntime-web, which is not part of it (14 MB).\n"
        "In this folder:\n\n"
        f"  npm pack onnxruntime-web@{RUNTIME}\n"
        f"  tar -xzf onnxruntime-web-{RUNTIME}.tgz --strip-components=2 "
        + " ".join(f"package/dist/{name}" for name in FILES)
        + "\n  python -m http.server\n\n"
        "and open http://localhost:8000, or copy the folder to any web server. Nothing that is\n"
        "drawn or typed leaves the browser.\n"
    )
