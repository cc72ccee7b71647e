"""Keras models under capture: three steps of training have the bits of eager ones."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile import executors
from distgrad.compile.llvm import engine

L = tf.keras.layers


def image_net():
    return tf.keras.Sequential(
        [
            L.Conv2D(4, 3, activation="relu", padding="same"),
            L.BatchNormalization(),
            L.MaxPooling2D(),
            L.SpatialDropout2D(0.2),
            L.Conv2D(3, 3),
            L.AveragePooling2D(),
            L.Flatten(),
            L.Dense(3),
        ]
    )


def token_net():
    inputs = tf.keras.Input((7,), dtype="int32")
    x = L.Embedding(11, 8)(inputs)
    y = L.MultiHeadAttention(2, 4)(L.LayerNormalization()(x), x)
    x = L.Dropout(0.1)(L.Add()([x, y]))
    x = L.Dense(8, activation="gelu")(x)
    return tf.keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling1D()(x)))


def recurrent_net(cell):
    return lambda: tf.keras.Sequential([L.Embedding(11, 6), cell(5), L.Dense(3)])


def dense_net():
    return tf.keras.Sequential(
        [
            L.Dense(9, activation="tanh", kernel_regularizer="l2"),
            L.GaussianNoise(0.1),
            L.Dense(9, activation="elu", kernel_constraint=tf.keras.constraints.MaxNorm(1.0)),
            L.Dropout(0.3),
            L.Dense(3, activation="softmax"),
        ]
    )


IMAGES = np.random.default_rng(0).normal(size=(3, 6, 10, 10, 2)).astype(np.float32)
TOKENS = np.random.default_rng(1).integers(0, 11, (3, 6, 7)).astype(np.int32)
MODELS = {
    "image": (image_net, IMAGES),
    "tokens": (token_net, TOKENS),
    "LSTM": (recurrent_net(L.LSTM), TOKENS),
    "GRU": (recurrent_net(L.GRU), TOKENS),
    "dense": (dense_net, IMAGES[:, :, 0, 0]),
}


def strict(fn):
    return tf.function(fn, jit_compile="strict")


def trained(make, batches, decorator=lambda fn: fn):
    tf.keras.utils.set_random_seed(3)
    model, optimizer = make(), tf.keras.optimizers.AdamW(0.01, clipnorm=1.0)
    loss_fn = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=make is not dense_net)
    metric = tf.keras.metrics.SparseCategoricalAccuracy()
    model(tf.constant(batches[0]))  # makes the weights

    @decorator
    def step(x, y):
        with tf.GradientTape() as tape:
            scores = model(x, training=True)
            loss = loss_fn(y, scores) + sum(model.losses)
        v = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, v), v, strict=True))
        metric.update_state(y, scores)
        return loss, metric.result()

    y = np.array([0, 1, 2, 0, 1, 2])
    out = [step(x, y) for x in batches]
    if decorator is not trained.__defaults__[0]:
        assert len(step.executors) == 1
    return [float(v) for pair in out for v in pair], [w.numpy() for w in model.weights]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("decorator", [tf.function, strict], ids=["interpreted", "planned"])
def test_training_has_the_bits_of_eager(name, decorator, monkeypatch):
    monkeypatch.setattr(executors, "best", lambda: "numpy")
    make, batches = MODELS[name]
    eager, captured = trained(make, batches), trained(make, batches, decorator)
    assert captured[0] == eager[0]
    for a, b in zip(captured[1], eager[1], strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.skipif(not engine.available(), reason="needs llvmlite and FMA")
@pytest.mark.parametrize("name", MODELS)
def test_generated_kernels_stay_close(name):
    """Losses to 5e-6 after three steps: rounding, carried through the updates."""
    make, batches = MODELS[name]
    eager = trained(make, batches)
    captured = trained(make, batches, strict)
    np.testing.assert_allclose(captured[0], eager[0], rtol=5e-6)
