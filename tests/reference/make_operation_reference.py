"""Writes what Keras 3 makes of the models in operations.py.

    python tests/reference/make_operation_reference.py           # into keras_operations.zip
    python tests/reference/make_operation_reference.py DIR        # reads what distgrad saved in DIR

It needs keras and tensorflow; the tests do not. The archive holds for each model its config,
``NAME.json``, and in ``NAME.npz`` its weights (``weights/0``, ...) and its outputs; in
``classes.json`` the module of each class of operations, what makes one, and what it is called on.
With DIR, which ``tests/keras/models/test_operations.py`` fills if asked by ``DISTGRAD_KEEP``, every
file in it is loaded and its outputs are compared with those of distgrad.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import os
import sys
import zipfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
sys.path.insert(0, str(Path(__file__).parent))

import keras
import numpy as np
import operations


def outputs(model, values: list) -> dict[str, np.ndarray]:
    found = keras.tree.flatten(model(values if len(values) > 1 else values[0]))
    return {f"outputs/{i}": np.asarray(each) for i, each in enumerate(found)}


def arguments(function) -> list[str]:
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]


def classes() -> dict[str, list]:
    found = {}
    rooms = [f"ops.{name}" for name in ("core", "linalg", "math", "nn", "numpy")]
    for name in (*rooms, "activations.activations"):
        module = importlib.import_module(f"keras.src.{name}")
        for each in vars(module).values():
            if isinstance(each, type) and each.__module__ == module.__name__:
                found[each.__name__] = [
                    each.__module__,
                    arguments(each.__init__),
                    arguments(each.call),
                ]
    return found


def write() -> None:
    path = Path(__file__).parent / "keras_operations.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("classes.json", json.dumps(classes()))
        for name in operations.MODELS:
            keras.backend.clear_session()
            keras.utils.set_random_seed(3)
            model, values = operations.built(keras, name)
            arrays = {f"weights/{i}": each for i, each in enumerate(model.get_weights())}
            buffer = io.BytesIO()
            np.savez(buffer, **arrays, **outputs(model, values))
            archive.writestr(f"{name}.json", model.to_json())
            archive.writestr(f"{name}.npz", buffer.getvalue())
    print(f"{len(operations.MODELS)} models, {path.stat().st_size:,} bytes")


def read(folder: Path) -> None:
    for name in operations.MODELS:
        keras.backend.clear_session()
        model = keras.models.load_model(folder / f"{name}.keras")
        _, values = operations.built(keras, name)
        expected = np.load(folder / f"{name}.npz")
        found = outputs(model, values)
        assert set(found) == set(expected.files)
        for key, value in found.items():
            np.testing.assert_allclose(value, expected[key], rtol=2e-5, atol=2e-5, err_msg=name)
        print(f"{name}: Keras reads it, with the same outputs")


if __name__ == "__main__":
    read(Path(sys.argv[1])) if len(sys.argv) > 1 else write()
