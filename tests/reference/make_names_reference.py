"""Writes what Keras 3 gives for the losses, metrics, layers and optimizers of keras_names.json.

    python tests/reference/make_names_reference.py

It needs keras and tensorflow; the tests do not. A case is the name of a class below ``keras``, its
config, what it is called on, its weights, and what it gives. Of optimizers the weights are what
they start from, the inputs the gradients of each step, and the results the weights after each.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np

RNG = np.random.default_rng(17)
Case = tuple[str, dict, list, dict]  # name, config, inputs, further arguments of the call


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def losses() -> Iterator[Case]:
    mask = (RNG.uniform(size=(4, 3, 3)) > 0.5).astype(np.float32)
    shares = RNG.uniform(size=(4, 3, 3)).astype(np.float32)
    for config in ({}, {"axis": [1, 2]}, {"axis": [1, 2], "reduction": "sum"}):
        yield "losses.Dice", config, [mask, shares], {}
        yield "losses.Tversky", {"alpha": 0.3, "beta": 0.8, **config}, [mask, shares], {}
    vectors = normal(6, 4)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = np.array([0, 1, 0, 2, 1, 0])
    for config in ({}, {"remove_diagonal": False}, {"gamma": 5.0, "margin": 0.2}):
        yield "losses.Circle", config, [labels, vectors], {}
    rows = RNG.dirichlet(np.ones(4), 6).astype(np.float32)
    yield "losses.CategoricalGeneralizedCrossEntropy", {}, [labels, rows], {}
    yield "losses.CategoricalGeneralizedCrossEntropy", {"q": 0.2}, [labels, rows], {}


def metrics() -> Iterator[Case]:
    a, b = normal(5, 4), normal(5, 4)
    for name in ("PearsonCorrelation", "ConcordanceCorrelation"):
        yield f"metrics.{name}", {}, [a, b], {}
        yield f"metrics.{name}", {"axis": 0}, [a, b], {}
    labels = np.array([0, 1, 0, 2, 1, 3])
    hot, rows = np.eye(4, dtype=np.float32)[labels], normal(6, 4)
    yield "metrics.OneHotIoU", {"num_classes": 4, "target_class_ids": [0, 2]}, [hot, rows], {}
    yield "metrics.OneHotMeanIoU", {"num_classes": 4}, [hot, rows], {}
    numbers = {"num_classes": 4, "sparse_y_pred": True}
    yield "metrics.OneHotMeanIoU", numbers, [hot, np.array([0, 1, 1, 2, 2, 3])], {}


def layers() -> Iterator[Case]:
    for equation, shape, axes, size in (
        ("ab,bc->ac", 6, "c", (3, 4)),
        ("abc,cd->abd", [None, 6], "d", (3, 2, 4)),
        ("...x,xy->...y", 6, "y", (3, 2, 2, 4)),
        ("abc,cde->abde", [None, 2, 3], "de", (3, 2, 4)),
        ("ab...,bc->ac...", 5, "c", (3, 4, 2)),
    ):
        config = {"equation": equation, "output_shape": shape, "bias_axes": axes}
        yield "layers.EinsumDense", {**config, "activation": "tanh"}, [normal(*size)], {}
    yield "layers.UnitNormalization", {}, [normal(3, 4)], {}
    yield "layers.UnitNormalization", {"axis": [1, 2]}, [normal(3, 4, 2)], {}
    yield "layers.ActivityRegularization", {"l1": 0.1, "l2": 0.2}, [normal(3, 4)], {}
    images = normal(2, 3, 5, 6, 2)
    for config in (
        {},
        {"padding": "same", "strides": 2, "return_sequences": True},
        {"data_format": "channels_first", "return_state": True},
        {"dilation_rate": 2, "padding": "same", "unit_forget_bias": False, "go_backwards": True},
    ):
        config = {"filters": 3, "kernel_size": 2, **config}
        yield "layers.ConvLSTM2D", config, [images], {}
    series = {"filters": 3, "kernel_size": 2, "use_bias": False}
    yield "layers.ConvLSTM1D", series, [normal(2, 3, 5, 2)], {}
    yield "layers.ConvLSTM3D", {"filters": 2, "kernel_size": 2}, [normal(2, 2, 3, 3, 3, 2)], {}
    heads = {"head_dim": 4, "num_query_heads": 6, "num_key_value_heads": 2}
    query, value = normal(2, 5, 6), normal(2, 4, 3)
    yield "layers.GroupQueryAttention", heads, [query, value], {}
    window = {**heads, "use_bias": False, "sliding_window": 2, "use_gate": True}
    yield "layers.GroupQueryAttention", window, [query, query], {"use_causal_mask": True}


def optimizers() -> Iterator[Case]:
    given = [[normal(3, 4), normal(2)] for _ in range(4)]
    yield "optimizers.Lamb", {}, given, {}
    yield "optimizers.Lamb", {"beta_1": 0.5, "weight_decay": 0.1, "clipnorm": 0.5}, given, {}
    yield "optimizers.Adafactor", {"learning_rate": 0.1}, given, {}
    yield "optimizers.Adafactor", {"clip_threshold": 0.5, "beta_2_decay": -0.5}, given, {}
    yield "optimizers.Muon", {"learning_rate": 0.1}, given, {}
    plain = {"nesterov": False, "rms_rate": None, "adam_lr_ratio": 0.5, "ns_steps": 3}
    yield "optimizers.Muon", plain, given, {}


def found(name: str) -> Any:
    place: Any = keras
    for part in name.split("."):
        place = getattr(place, part)
    return place


def plain(value: Any) -> Any:
    """Nests of arrays as nests of dtype, shape and shortest numbers."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    array = np.asarray(value)
    flat = [float(str(number)) if array.dtype.kind == "f" else number for number in array.ravel()]
    return {"dtype": array.dtype.name, "shape": array.shape, "flat": np.array(flat).tolist()}


def run(name: str, config: dict, inputs: list, more: dict) -> tuple[list, Any]:
    """The weights and the results."""
    made = found(name)(**config)
    if name.startswith("losses"):
        return [], made(*inputs)
    if name.startswith("metrics"):
        made.update_state(*inputs)
        return [], made.result()
    if name.startswith("layers"):
        made(*inputs, **more)
        weights = [0.3 * normal(*w.shape) for w in made.get_weights()]
        made.set_weights(weights)
        return weights, made(*inputs, **more)
    start = [normal(*g.shape) for g in inputs[0]]
    variables = [keras.Variable(value) for value in start]
    made.build(variables)
    results = []
    for step in inputs:
        made.apply([keras.ops.array(g) for g in step])
        results.append([np.array(v) for v in variables])
    return start, results


def main() -> None:
    lines = []
    for cases in (losses, metrics, layers, optimizers):
        for name, config, inputs, more in cases():
            weights, results = run(name, config, inputs, more)
            case = [name, config, plain(inputs), more, plain(weights), plain(results)]
            lines.append(json.dumps(case, separators=(",", ":")))
    text = "[\n" + ",\n".join(lines) + "\n]\n"
    (Path(__file__).parent / "keras_names.json").write_text(text)


if __name__ == "__main__":
    main()
