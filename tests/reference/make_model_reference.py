"""Writes what Keras 3 saves of the models in models.py, and what it then predicts.

    python tests/reference/make_model_reference.py           # into keras_models.zip
    python tests/reference/make_model_reference.py DIR        # reads what distgrad saved in DIR

It needs keras and tensorflow; the tests do not. The archive holds for each model ``NAME.keras`` (of
a class that the config can describe), ``NAME.weights.h5``, the shape of its summary, and in
``NAME.npz`` the predictions then (``then/0``, ...) and after two more updates (``later/0``, ...).
With DIR, which ``tests/keras/models/test_saving.py`` fills if asked by ``DISTGRAD_KEEP``, every
file in it is loaded and its predictions are compared with those of distgrad.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
sys.path.insert(0, str(Path(__file__).parent))

import keras
import models
import numpy as np


def made(name: str) -> Any:
    if name in models.MODELS:
        return models.compiled(keras, models.MODELS[name](keras), "adam")
    optimizer = getattr(keras.optimizers, name)(**models.OPTIMIZERS[name])
    return models.compiled(keras, models.small(keras), optimizer)


def save(name: str, folder: Path) -> None:
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    model = made(name)
    models.steps(model, name, 2)
    arrays = {f"then/{i}": each for i, each in enumerate(models.predictions(model, name))}
    lines: list[str] = []
    if name in models.MODELS:
        model.save_weights(folder / f"{name}.weights.h5")
        model.summary(print_fn=lines.append, line_length=76)
        (folder / f"{name}.txt").write_text("\n".join(lines))
    if name != "nested":
        model.save(folder / f"{name}.keras")
    models.steps(model, name, 2)
    arrays |= {f"later/{i}": each for i, each in enumerate(models.predictions(model, name))}
    np.savez(folder / f"{name}.npz", **arrays)


def write() -> None:
    path = Path(__file__).parent / "keras_models.zip"
    with tempfile.TemporaryDirectory() as work:
        for name in (*models.MODELS, *models.OPTIMIZERS):
            save(name, Path(work))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for each in sorted(Path(work).iterdir()):
                archive.write(each, each.name)
    print(f"{path.name}: {path.stat().st_size:,} bytes")


def check(folder: Path) -> None:
    """Loads what distgrad has written, and compares what comes out."""
    for path in sorted(folder.glob("*.npz")):
        stored = np.load(io.BytesIO(path.read_bytes()))
        name = path.stem
        expected = [stored[key] for key in stored.files if key.startswith("then/")]
        later = [stored[key] for key in stored.files if key.startswith("later/")]
        for kind in (".keras", ".weights.h5"):
            file = folder / f"{name}{kind}"
            if not file.exists():
                continue
            if kind == ".keras":
                model = keras.models.load_model(file)
            else:
                model = made(name)
                models.steps(model, name, 1)  # builds it, and its optimizer
                model.load_weights(file)
            # float32, sums in another order: some 1e-6 of numbers of order 1
            for a, b in zip(models.predictions(model, name), expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6, err_msg=str(file))
            models.steps(model, name, 2)
            for a, b in zip(models.predictions(model, name), later, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5, err_msg=str(file))
            print(f"{file.name}: the same predictions, also after two more updates")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        check(Path(sys.argv[1]))
    else:
        write()
