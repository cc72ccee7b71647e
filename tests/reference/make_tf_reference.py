"""Writes what TensorFlow makes of the calls in tf_functions.py, into tf_functions.npz.

    python tests/reference/make_tf_reference.py

It needs tensorflow; the tests do not. Each array lies under ``CALL|out/0`` or ``CALL|grad/NAME``.
``keras_image_classes.json`` has module, settings and arguments of the classes of keras.ops.image.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import tensorflow as tf
import tf_functions


def arguments(function) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def classes_of_images() -> dict[str, list]:
    module = importlib.import_module("keras.src.ops.image")
    return {
        each.__name__: [each.__module__, arguments(each.__init__), arguments(each.call)]
        for each in vars(module).values()
        if isinstance(each, type) and each.__module__ == module.__name__
    }


def main() -> None:
    arrays = {}
    for call in tf_functions.ALL:
        wanted = call not in tf_functions.WITHOUT_GRADIENTS
        try:
            found = tf_functions.evaluate(tf, call, wanted)
        except (LookupError, NotImplementedError, tf.errors.OpError) as error:
            # TensorFlow has no gradient there, or one that fails (rfft with another length).
            print(f"no gradient of {call}: {str(error)[:80]}", file=sys.stderr)
            found = tf_functions.evaluate(tf, call, gradients=False)
        arrays |= {f"{call}|{key}": value for key, value in found.items()}
    path = Path(__file__).parent / "tf_functions.npz"
    np.savez_compressed(path, **arrays)
    classes = Path(__file__).parent / "keras_image_classes.json"
    classes.write_text(json.dumps(classes_of_images(), indent=1) + "\n")
    print(f"{len(tf_functions.ALL)} calls, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
