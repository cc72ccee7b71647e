"""``distgrad export``: the newest weights of a run as a file for elsewhere, with a report."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import distgrad
from distgrad import keras, trained
from distgrad.core import devices, files
from distgrad.core.errors import DataError, ExportError, MissingExtraError, UsageError
from distgrad.data import source
from distgrad.export import onnx_file, verify, web
from distgrad.export.deployed import Deployed
from distgrad.export.model import Exported, to_onnx
from distgrad.trained import Trained
from distgrad.training import checkpoint, tensors
from distgrad.training.run_folder import find_run_folder

ENDINGS = {"onnx": ".onnx", "keras": ".keras", "safetensors": ".safetensors", "npz": ".npz"}
REPORT = "export_report.json"


def export_run(
    name: str,
    output: Path | None = None,
    to: str | None = None,
    *,
    step: int | None = None,
    raw: bool = False,
    int8: bool = False,
    page: Path | None = None,
    force: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Writes the model of a run, and ``export_report.json`` beside it; gives the file.

    ``to`` is one of ``ENDINGS``, by default that of ``output``; ``page`` is a folder for a web page
    with the model in it. Raises UsageError for options that do not go together and for an
    ``output`` that is there, unless by ``force``; ExportError for a model that ONNX cannot express,
    MissingExtraError without onnx, DataError where nothing can be written, and as `trained.load`.
    """
    kind = to or _kind_of(output)
    if kind != "onnx" and (raw or int8 or page is not None):
        raise UsageError(f"--raw, --int8 and --web are of ONNX files, not of --to {kind}")
    if output is not None and output.exists() and not force:
        raise UsageError(f"-o {output} exists: add --force to replace it. Nothing was changed.")
    if page is not None and page.exists() and not page.is_dir():
        raise UsageError(f"--web {page} is a file, not a folder")
    if kind == "onnx":
        onnx_file.package()  # before the data are read
    run = trained.load(find_run_folder(name), step)
    path = run.folder / "export" / f"model{ENDINGS[kind]}" if output is None else output
    report: dict[str, Any] = {
        "run": str(run.folder),
        "job": run.job.name,
        "step": run.step,
        "format": kind,
        "parameters": run.model.count_params(),
        "distgrad": distgrad.__version__,
        "python": platform.python_version(),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "onnx":
            _write_onnx(run, path, report, raw, int8, page, say)
        else:
            _write_weights(run, path, kind)
            say(f"{path}: {report['parameters']} parameters, read back and compared")
        report["bytes"] = path.stat().st_size
        _add_to_report(path, report)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error})") from error
    return path


def _add_to_report(path: Path, report: dict[str, Any]) -> None:
    """The report of a folder holds that of each file, by its name."""
    file = path.with_name(REPORT)
    try:
        known = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        known = {}
    text = json.dumps({**known, path.name: report}, indent=1, ensure_ascii=False) + "\n"
    files.replace(file, text)


def _kind_of(output: Path | None) -> str:
    if output is None:
        return "onnx"
    for kind, ending in ENDINGS.items():
        if output.name.endswith(ending):
            return kind
    raise UsageError(
        f"{output}: what to write is told by the ending ({', '.join(ENDINGS.values())}) or by --to"
    )


def _write_weights(run: Trained, path: Path, kind: str) -> None:
    """Writes a model or its weights, and reads them back. Raises ExportError where they differ."""
    weights = {p: v.numpy() for p, v in run.model.variable_paths().items()}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / f"model{ENDINGS[kind]}"
        if kind == "keras":
            run.model.save(work)
            again = keras.models.load_model(work)
            found = {p: v.numpy() for p, v in again.variable_paths().items()}
        elif kind == "safetensors":
            work.write_bytes(tensors.to_bytes(weights))
            found = tensors.from_bytes(work.read_bytes())
        else:
            np.savez(work, **weights)
            with np.load(work) as file:
                found = {key: file[key] for key in file.files}
        if checkpoint.weights_sha256(found) != checkpoint.weights_sha256(weights):
            raise ExportError(f"{path}: what was read back differs from the weights of the run")
        files.replace(path, work.read_bytes())


def _write_onnx(
    run: Trained,
    path: Path,
    report: dict[str, Any],
    raw: bool,
    int8: bool,
    page: Path | None,
    say: Callable[[str], None],
) -> None:
    deployed = Deployed(run, raw)
    if page is not None:
        web.kind_of(deployed)  # before the work is done
    made = to_onnx(run.model, deployed.signature, deployed.metadata(), call=deployed)
    contents = {path: made.content}
    if int8:
        name = f"{path.name.removesuffix('.onnx')}.int8.onnx"
        contents[path.with_name(name)] = verify.quantized(made.content)
    report |= _described(deployed, made)
    samples = _test_samples(run, say)
    if samples is not None:
        report["test"] = _scores(deployed, made, contents, *samples)
    for each, content in contents.items():
        files.replace(each, content)
    say(f"{path}: {made}")
    for each in list(contents)[1:]:
        report["int8"] = {"file": each.name, "bytes": len(contents[each])}
        sizes = f"{len(contents[each]) / 1e6:.2f} MB in place of {len(made.content) / 1e6:.2f} MB"
        say(f"{each}: weights of 8 bits, {sizes}")
    if samples is not None:
        say(_scores_line(report["test"]))
    if page is not None:
        web.write(page, deployed, made)
        say(f"{page}: index.html with the model; {web.NOTE} says how to look at it")


def _described(deployed: Deployed, made: Exported) -> dict[str, Any]:
    """What the report says of an ONNX file."""
    return {
        "opset": onnx_file.OPSET,
        "ir_version": onnx_file.IR_VERSION,
        "onnx": onnx_file.version(),
        "inputs": [
            {"name": each.name, "shape": ["batch", *each.shape[1:]], "dtype": each.dtype.name}
            for each in made.inputs
        ],
        "outputs": list(made.outputs),
        "metadata": deployed.metadata(),
        "operations": made.nodes,
        "compared": {
            "by": made.runtime,
            "batches": list(made.batches),
            "largest_difference": made.difference,
            "tolerance": made.tolerance,
        },
    }


def _test_samples(run: Trained, say: Callable[[str], None]) -> tuple[np.ndarray, np.ndarray] | None:
    """The test samples of the job, if they can still be read."""
    try:
        test = source.load(run.job.data, run.job.seed, announce=say).test
    except (DataError, MissingExtraError) as error:
        say(f"the accuracy is not compared, for want of the test samples: {error}")
        return None
    x, y = test.take(slice(0, len(test)))
    return x, y


def _scores(
    deployed: Deployed, made: Exported, contents: dict[Path, bytes], x: np.ndarray, y: np.ndarray
) -> dict[str, Any]:
    """How good the model is by itself, and by each file.

    Raises ExportError where the first of them does not compute the same for the test samples.
    """
    given, wanted = deployed.as_files_have(x), deployed.targets(y)
    with devices.host():
        own = _in_parts(lambda part: deployed.meant(deployed.run.model.predict_on_batch(part)), x)
    found: dict[str, Any] = {
        "measure": deployed.measure,
        "samples": len(x),
        "distgrad": deployed.score(own, wanted),
    }
    for content in contents.values():
        outputs = _in_parts(_by_file(content, made.inputs[0].name), given)
        key = "int8"
        if content is made.content:
            key = made.runtime.partition(" ")[0]
            off = verify.compare([outputs], [own], made.outputs, made.tolerance)
            found["largest_difference"] = off
        found[key] = deployed.score(outputs, wanted)
    return found


def _by_file(content: bytes, name: str) -> Callable[[np.ndarray], np.ndarray]:
    run, _ = verify.runner(content)
    return lambda part: run({name: part})[0]


def _in_parts(predict: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    return np.concatenate([predict(x[i : i + 256]) for i in range(0, len(x), 256)])


def _scores_line(scores: dict[str, Any]) -> str:
    others = ("measure", "samples", "largest_difference")
    values = [f"{value:.4f} ({key})" for key, value in scores.items() if key not in others]
    return f"test {scores['measure']} of {scores['samples']} samples: {', '.join(values)}"
