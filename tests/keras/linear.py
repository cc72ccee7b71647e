"""A linear model, samples for it, and what fit makes of both."""

from __future__ import annotations

import numpy as np

import distgrad as tf

keras = tf.keras
layers = keras.layers
X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
Y = (X @ np.array([[1.0], [-1.0], [0.5], [0.0]])).astype(np.float32)


def linear(**options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([layers.Dense(1)])
    model.compile(**{"optimizer": keras.optimizers.SGD(0.1), "loss": "mse", **options})
    return model


def weights_after(fit, **options) -> list[np.ndarray]:
    model = linear(**options)
    fit(model)
    return model.get_weights()


def same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def generator():
    while True:
        for start in range(0, 40, 8):
            yield X[start : start + 8], Y[start : start + 8]
