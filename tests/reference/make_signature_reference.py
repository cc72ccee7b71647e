"""Writes the parameters of TensorFlow's and Keras's functions and constructors: signatures.json.

    python tests/reference/make_signature_reference.py

It needs tensorflow and keras; the tests do not. A name is followed by its parameters in order, as
Python writes them, "..." for a default that is no plain value.
"""

from __future__ import annotations

import inspect
import json
import os
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import tensorflow as tf

ROOMS = """
autodiff autograph bitwise config data debugging dtypes errors experimental image io linalg lookup
math nest nn quantization queue random sets signal strings summary test train
"""
# What is used by its methods: their parameters, too.
OBJECTS = {
    "GradientTape": tf.GradientTape,
    "TensorArray": tf.TensorArray,
    "Variable": tf.Variable,
    "data.Dataset": tf.data.Dataset,
    "keras.Model": keras.Model,
    "keras.Sequential": keras.Sequential,
    "keras.callbacks.Callback": keras.callbacks.Callback,
    "keras.layers.Layer": keras.layers.Layer,
    "keras.losses.Loss": keras.losses.Loss,
    "keras.metrics.Metric": keras.metrics.Metric,
    "keras.optimizers.Optimizer": keras.optimizers.Optimizer,
    "random.Generator": tf.random.Generator,
    "train.Checkpoint": tf.train.Checkpoint,
    "train.CheckpointManager": tf.train.CheckpointManager,
}


def written(parameter: inspect.Parameter) -> str:
    """A parameter without its annotation."""
    if parameter.default is parameter.empty:
        return str(parameter.replace(annotation=parameter.empty))
    plain = isinstance(parameter.default, (bool, int, float, str, tuple, types.NoneType))
    return f"{parameter.name}={parameter.default!r}" if plain else f"{parameter.name}=..."


def parameters(function: Any) -> list[str] | None:
    try:
        found = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    if inspect.isclass(function) and [p.name for p in found] == ["args", "kwargs"]:
        return parameters(function.__init__)  # behind a metaclass
    names = [written(p) for p in found if p.name != "self"]
    alone = [p.kind for p in found if p.name != "self"]
    if inspect.Parameter.KEYWORD_ONLY in alone and inspect.Parameter.VAR_POSITIONAL not in alone:
        names.insert(alone.index(inspect.Parameter.KEYWORD_ONLY), "*")
    return names


def functions(place: Any, path: str) -> Iterator[tuple[str, list[str]]]:
    """Everything that can be called in a module and in those below it."""
    for name in sorted(dir(place)):
        found = getattr(place, name)
        full = f"{path}.{name}".lstrip(".")
        if name.startswith("_"):
            continue
        if isinstance(found, types.ModuleType):
            own = found.__name__.startswith(("tensorflow._api", "keras."))
            if own and (path or name in ROOMS.split()) and name not in ("legacy", "src"):
                yield from functions(found, full)
        elif callable(found) and (known := parameters(found)) is not None:
            yield full, known


def main() -> None:
    found = dict([*functions(tf, ""), *functions(keras, "keras")])
    for path, cls in OBJECTS.items():
        for name in sorted(
            n for n in dir(cls) if not n.startswith("_") and callable(getattr(cls, n))
        ):
            known = parameters(getattr(cls, name))
            if known is not None:
                found[f"{path}.{name}"] = known
    lines = [f"{json.dumps(n)}: {json.dumps(', '.join(p))}" for n, p in sorted(found.items())]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (Path(__file__).parent / "signatures.json").write_text(text)


if __name__ == "__main__":
    main()
