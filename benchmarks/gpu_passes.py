"""What a batch takes in ``fit``, ``evaluate`` and ``predict``, all that Keras does around it too.

Part of ``gpu.py --passes``. Microseconds of a batch: wall-clock of a whole call over its batches,
the best of some rounds after one that compiles. Samples are random, and shuffled in ``fit``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

COLUMNS = ("fit", "evaluate", "predict", "eager evaluate", "eager predict")
_EAGER = 10  # batches: they take long


def mlp(keras: Any) -> tuple[Any, tuple[np.ndarray, np.ndarray], int]:
    """784-128-10 on 60,000 images, 128 at a time."""
    x = np.random.default_rng(0).random((60_000, 784), np.float32)
    layers = [keras.layers.Dense(128, activation="relu"), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input((784,)), *layers]), (x, classes(60_000, 10)), 128


def transformer(keras: Any) -> tuple[Any, tuple[np.ndarray, np.ndarray], int]:
    """Four layers of width 128 on 1,600 texts of 64 letters, 16 at a time."""
    letters = keras.Input((64,), dtype="int32")
    h = keras.layers.Embedding(65, 128)(letters)
    for _ in range(4):
        normal = keras.layers.LayerNormalization()(h)
        h = h + keras.layers.MultiHeadAttention(4, 32)(normal, normal, use_causal_mask=True)
        normal = keras.layers.LayerNormalization()(h)
        h = h + keras.layers.Dense(128)(keras.layers.Dense(512, activation="gelu")(normal))
    model = keras.Model(letters, keras.layers.Dense(65)(keras.layers.LayerNormalization()(h)))
    text = classes((1_600, 64), 65)
    return model, (text, text), 16


def cnn(keras: Any) -> tuple[Any, tuple[np.ndarray, np.ndarray], int]:
    """Two convolutions on 3,200 images, 64 at a time."""
    layers = keras.layers
    x = np.random.default_rng(0).random((3_200, 28, 28, 1), np.float32)
    stack = [layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D()]
    stack += [layers.BatchNormalization(), layers.Conv2D(64, 3, activation="relu")]
    stack += [layers.MaxPooling2D(), layers.Flatten(), layers.Dropout(0.5), layers.Dense(10)]
    return keras.Sequential([keras.Input((28, 28, 1)), *stack]), (x, classes(3_200, 10)), 64


def classes(shape: Any, count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, count, shape).astype(np.int32)


MODELS = {"MNIST MLP": mlp, "char transformer": transformer, "CNN": cnn}


def measured(keras: Any, make: Callable[[Any], Any], rounds: int) -> list[float]:
    """Microseconds of a batch, for each of COLUMNS."""
    model, (x, y), size = make(keras)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    how = {"batch_size": size, "verbose": 0}
    some = slice(0, _EAGER * size)

    def best(call: Callable[[], Any], batches: int) -> float:
        times = []
        for _ in range(1 + rounds):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        return min(times[1:]) / batches * 1e6

    batches = -(-len(x) // size)
    found = [
        best(lambda: model.fit(x, y, **how), batches),
        best(lambda: model.evaluate(x, y, **how), batches),
        best(lambda: model.predict(x, **how), batches),
    ]
    model.run_eagerly = True
    found.append(best(lambda: model.evaluate(x[some], y[some], **how), _EAGER))
    return [*found, best(lambda: model.predict(x[some], **how), _EAGER)]


def table(rounds: int, say: Callable[[str], None], note: Callable[[list[str]], None]) -> None:
    """Says a line for each model as soon as it is there, and notes the table so far."""
    from distgrad import keras

    lines = ["| us of a batch | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    say("\n".join(lines))
    for name, make in MODELS.items():
        times = measured(keras, make, rounds)
        lines.append(f"| {name} | " + " | ".join(f"{t:.0f}" for t in times) + " |")
        say(lines[-1])
        note(lines)
