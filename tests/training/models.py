"""Small models of several kinds of layers, and data for them, on which captured steps are tried."""

from __future__ import annotations

import numpy as np

import distgrad as tf

L = tf.keras.layers
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(40, 8, 8, 1)).astype(np.float32)
TOKENS = RNG.integers(0, 9, (40, 7)).astype(np.int32)
LABELS = RNG.integers(0, 4, 40)


def image(p):
    return [
        L.Conv2D(4, 3, activation="relu", dtype=p),
        L.BatchNormalization(dtype=p),
        L.MaxPooling2D(dtype=p),
        L.Dropout(0.3, dtype=p),
        L.Flatten(dtype=p),
        L.Dense(8, activation="gelu", dtype=p),
        L.Dense(4, dtype=p),
    ], IMAGES


def recurrent(p):
    return [L.Embedding(9, 5, mask_zero=True, dtype=p), L.LSTM(6, dtype=p), L.Dense(4)], TOKENS


def transformer(p):
    return [
        L.Embedding(9, 8, dtype=p),
        L.TransformerBlock(16, 2, dropout=0.1, dtype=p),
        L.GlobalAveragePooling1D(dtype=p),
        L.Dense(4),
    ], TOKENS


MODELS = {f.__name__: f for f in (image, recurrent, transformer)}


def network(*more, **how) -> tf.keras.Sequential:
    """Dropout, moving averages, several sizes of variables; always the same weights.

    ``more`` layers stand before the last one; Adam is made as ``how`` says.
    """
    model = tf.keras.Sequential(
        [
            L.Dense(9, activation="tanh"),
            L.BatchNormalization(),
            L.Dropout(0.4),
            *more,
            L.Dense(3, activation="softmax"),
        ]
    )
    optimizer = tf.keras.optimizers.Adam(0.01, **how)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.build((None, 6))
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape).astype(np.float32))
    return model


def samples(count: int = 43) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of ``network``, and their classes."""
    rng = np.random.default_rng(count)
    return rng.normal(size=(count, 6)).astype(np.float32), rng.integers(0, 3, count)


def bits(variables) -> bytes:
    return b"".join(np.asarray(variable.numpy()).tobytes() for variable in variables)
