"""Writes what Keras 3 gives for its normalizing, recurrent and attention layers, as an npz.

    python tests/reference/make_sequence_reference.py

It needs keras and tensorflow; the tests do not. Every case is a layer, random weights and inputs,
and how the layer is called. Of it are kept: the names and values of the weights, the outputs, the
gradients of ``sum(output * fixed random numbers)`` by inputs and trainable weights, and all weights
after five steps of gradient descent on that sum. All floats are float32.
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
import tensorflow as tf

OUT = Path(__file__).parent / "sequence_layers.npz"
STEPS, RATE = 5, 0.01
RNG = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def spec(cls: str, *args: Any, **config: Any) -> dict:
    """A layer to make: ``args`` may be further specs."""
    return {"class": cls, "args": list(args), "config": config}


def make(what: Any) -> Any:
    if not isinstance(what, dict):
        return what
    cls = getattr(keras.layers, what["class"])
    config = {key: make(value) for key, value in what["config"].items()}
    return cls(*map(make, what["args"]), **config)


def mask(*lengths: int, steps: int = 5) -> np.ndarray:
    return np.arange(steps)[None] < np.array(lengths)[:, None]


def cases() -> Iterator[tuple[str, dict, list[np.ndarray], dict]]:
    """(kind, layer, inputs, keywords of the call)."""
    # Normalisation
    train = {"training": True}
    image, sequence = normal(3, 4, 4, 6) * 2 + 1, normal(4, 5, 3) - 1
    yield "normalization", spec("BatchNormalization"), [normal(7, 4) * 3 + 1], train
    yield "normalization", spec("BatchNormalization"), [normal(7, 4) * 3 + 1], {}
    yield "normalization", spec("BatchNormalization"), [image], train
    yield "normalization", spec("BatchNormalization", axis=1, momentum=0.7), [image], train
    yield "normalization", spec("BatchNormalization", axis=1, epsilon=0.1), [image], {}
    yield "normalization", spec("BatchNormalization", center=False), [sequence], train
    yield "normalization", spec("BatchNormalization", scale=False), [sequence], train
    yield "normalization", spec("BatchNormalization", trainable=False), [sequence], train
    masked = {"mask": mask(5, 3, 1, 0), **train}
    yield "normalization", spec("BatchNormalization", momentum=0.6), [sequence], masked
    yield "normalization", spec("LayerNormalization"), [image], {}
    yield "normalization", spec("LayerNormalization", axis=1), [image], {}
    yield "normalization", spec("LayerNormalization", axis=[-1, -2], epsilon=0.01), [image], {}
    yield "normalization", spec("LayerNormalization", center=False), [sequence], {}
    yield "normalization", spec("LayerNormalization", scale=False), [sequence], {}
    yield "normalization", spec("RMSNormalization"), [sequence], {}
    yield "normalization", spec("RMSNormalization", axis=[1, 2], epsilon=0.1), [sequence], {}
    yield "normalization", spec("GroupNormalization", groups=3), [image], {}
    yield "normalization", spec("GroupNormalization", groups=-1), [image], {}
    yield "normalization", spec("GroupNormalization", groups=2, axis=1), [image], {}
    yield "normalization", spec("GroupNormalization", 1, center=False), [normal(4, 6)], {}

    # Recurrent layers
    x = normal(4, 5, 3)
    ragged = {"mask": mask(5, 3, 1, 0)}
    holes = {"mask": RNG.uniform(size=(4, 5)) > 0.4}
    full = {"return_sequences": True, "return_state": True}
    for cls, states in (("SimpleRNN", 1), ("LSTM", 2), ("GRU", 1)):
        begin = [normal(4, 6) for _ in range(states)]
        yield "recurrent", spec(cls, 6), [x], {}
        yield "recurrent", spec(cls, 6, **full), [x], {"initial_state": begin}
        yield "recurrent", spec(cls, 6, go_backwards=True, **full), [x], ragged
        yield "recurrent", spec(cls, 6, return_state=True), [x], holes
        yield "recurrent", spec(cls, 6, zero_output_for_mask=True, **full), [x], holes
        yield "recurrent", spec(cls, 6, use_bias=False, activation="relu"), [x], {}
        cell = spec(f"{cls}Cell", 4)
        yield "recurrent", spec("RNN", cell, **full), [x], ragged
        yield "recurrent", spec(f"{cls}Cell", 6), [normal(4, 3), begin], {}
        both = spec("Bidirectional", spec(cls, 3, **full), merge_mode="sum")
        yield "recurrent", both, [x], holes
    yield "recurrent", spec("LSTM", 6, recurrent_activation="hard_sigmoid"), [x], {}
    yield "recurrent", spec("GRU", 6, reset_after=False, return_sequences=True), [x], holes
    yield "recurrent", spec("GRU", 6, reset_after=False, use_bias=False), [x], {}
    for mode in ("concat", "mul", "ave", None):
        yield "recurrent", spec("Bidirectional", spec("GRU", 3), merge_mode=mode), [x], {}
        inner = spec("LSTM", 3, return_sequences=True)
        yield "recurrent", spec("Bidirectional", inner, merge_mode=mode), [x], ragged
    back = spec("GRU", 4, go_backwards=True, return_state=True)
    pair = spec("Bidirectional", spec("SimpleRNN", 4, return_state=True), backward_layer=back)
    yield "recurrent", pair, [x], {"initial_state": [normal(4, 4), normal(4, 4)]}
    yield "recurrent", spec("TimeDistributed", spec("Dense", 4)), [x], {}
    nested = spec("TimeDistributed", spec("LSTM", 4))
    yield "recurrent", nested, [normal(2, 3, 4, 2)], {}

    # Attention
    q, v, k = normal(3, 4, 6), normal(3, 5, 7), normal(3, 5, 8)
    some = RNG.uniform(size=(3, 4, 5)) > 0.4
    some[:, :, 0] = True  # every query sees something
    keys = mask(5, 3, 1)
    head = "MultiHeadAttention"
    scores = {"return_attention_scores": True}
    yield "attention", spec(head, 2, 3), [q, q], {}
    yield "attention", spec(head, 2, 3), [q, v, k], scores
    yield "attention", spec(head, 2, 3, value_dim=4, output_shape=5), [q, v], {}
    yield "attention", spec(head, 2, 3, use_bias=False), [q, v], {"attention_mask": some}
    yield "attention", spec(head, 2, 3), [q, v], {"value_mask": keys, **scores}
    yield "attention", spec(head, 2, 3), [q, v, k], {"key_mask": keys}
    yield "attention", spec(head, 3, 2), [q, q], {"use_causal_mask": True}
    causal = {"use_causal_mask": True, "attention_mask": some, "value_mask": keys}
    yield "attention", spec(head, 1, 4, output_shape=[2, 3]), [q, v], causal
    grid = normal(2, 3, 4, 5)
    yield "attention", spec(head, 2, 3), [grid, grid], scores
    yield "attention", spec(head, 2, 3, attention_axes=[2]), [grid, grid], scores
    yield "attention", spec(head, 2, 3, attention_axes=1), [grid, grid], {}
    q, v, k = normal(3, 4, 6), normal(3, 5, 6), normal(3, 5, 6)
    yield "attention", spec("Attention"), [[q, v]], {}
    yield "attention", spec("Attention", use_scale=True), [[q, v, k]], scores
    yield "attention", spec("Attention", use_scale=True, score_mode="concat"), [[q, v]], {}
    yield "attention", spec("Attention"), [[q, v]], {"mask": [mask(4, 2, 0, steps=4), keys]}
    yield "attention", spec("Attention"), [[q, v]], {"use_causal_mask": True}
    yield "attention", spec("AdditiveAttention"), [[q, v]], scores
    yield "attention", spec("AdditiveAttention", use_scale=False), [[q, v, k]], {}


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    descriptions = []
    for number, (kind, layer_spec, inputs, keywords) in enumerate(cases()):

        def put(name: str, nest: Any, number: int = number) -> Any:
            """Keeps the arrays of a nest; gives the nest with their names in their place."""
            if isinstance(nest, (np.ndarray, np.generic)):
                arrays[f"{number}/{name}"] = np.asarray(nest)
                return f"@{number}/{name}"
            if isinstance(nest, (list, tuple)):
                return [put(f"{name}{i}", item) for i, item in enumerate(nest)]
            return nest

        keras.backend.clear_session()  # automatic names count from the start again
        layer = make(layer_spec)
        given = tf.nest.map_structure(tf.constant, inputs)
        layer(*given, **keywords)
        start = []
        for weight in layer.weights:
            value = normal(*weight.shape) * 0.5
            start.append(1 + np.abs(value) if "variance" in weight.name else value)
        layer.set_weights(start)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(given)
            outputs = tf.nest.flatten(layer(*given, **keywords))
            factors = [normal(*output.shape) for output in outputs]
            total = sum(tf.reduce_sum(o * f) for o, f in zip(outputs, factors, strict=True))
        trained = [weight.value for weight in layer.trainable_weights]
        description = {
            "kind": kind,
            "layer": layer_spec,
            "inputs": [put(f"x{i}_", x) for i, x in enumerate(inputs)],
            "keywords": {key: put(key, value) for key, value in keywords.items()},
            "names": [weight.path.split("/", 1)[1] for weight in layer.weights],
            "weights": put("w", start),
            "factors": put("f", factors),
            "outputs": put("y", [output.numpy() for output in outputs]),
            "by_inputs": put(
                "gx", [g.numpy() for g in tape.gradient(total, tf.nest.flatten(given))]
            ),
            "by_weights": put("gw", [g.numpy() for g in tape.gradient(total, trained)]),
        }
        layer.set_weights(start)
        for _ in range(STEPS):
            with tf.GradientTape() as tape:
                outputs = tf.nest.flatten(layer(*given, **keywords))
                total = sum(tf.reduce_sum(o * f) for o, f in zip(outputs, factors, strict=True))
            for weight, gradient in zip(trained, tape.gradient(total, trained), strict=True):
                weight.assign_sub(RATE * gradient)
        description["after"] = put("a", layer.get_weights())
        descriptions.append(description)
    arrays["cases"] = np.array(json.dumps({"steps": STEPS, "rate": RATE, "cases": descriptions}))
    np.savez_compressed(OUT, **arrays)
    print(f"{OUT.name}: {len(descriptions)} cases, {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
