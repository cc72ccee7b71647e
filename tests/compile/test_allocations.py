"""A captured step allocates nothing that grows with the model or the batch, once it is warm.

What is left are Python's own objects and the buffers in which NumPy casts 8,192 elements at a time.
"""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile import executors
from distgrad.compile.llvm import engine
from distgrad.data.loader import cut
from distgrad.training import world
from distgrad.training.step import TrainStep

L = tf.keras.layers
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(64, 20, 20, 3)).astype(np.float32)
TOKENS = RNG.integers(0, 30, (64, 48)).astype(np.int32)
LABELS = RNG.integers(0, 4, 64)
EXECUTORS = ["numpy", *(["generated"] if engine.available() else [])]

BYTES = 1 << 18  # at once, in a step that computes megabytes
KEPT = 1 << 15  # after it


def dense():
    return [L.Flatten(), L.Dense(400, activation="relu"), L.Dropout(0.3), L.Dense(4)], IMAGES


def image():
    return [
        L.Conv2D(12, 3, activation="relu"),
        L.BatchNormalization(),
        L.MaxPooling2D(),
        L.Dropout(0.3),
        L.Conv2D(16, 3, padding="same"),
        L.Flatten(),
        L.Dense(64, activation="gelu"),
        L.Dense(4),
    ], IMAGES


def transformer():
    block = L.TransformerBlock(64, 4, dropout=0.1)
    return [L.Embedding(30, 32), block, L.GlobalAveragePooling1D(), L.Dense(4)], TOKENS


def recurrent():
    return [L.Embedding(30, 32, mask_zero=True), L.LSTM(64), L.Dense(4)], TOKENS[:, :12]


MODELS = {f.__name__: f for f in (dense, image, transformer, recurrent)}


def memory_of(run, warm=6):
    """Bytes that a call takes at most, and those that it keeps, after a few others."""
    for _ in range(warm):
        run()
    gc.collect()
    tracemalloc.start()
    try:
        run()
        run()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        run()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak - before, after - before


def training_step(build, executor, shards, optimizer):
    stack, x = build()
    model = tf.keras.Sequential(stack)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    model.prepare((x, LABELS))
    step = TrainStep.of(
        model, world.communicator(), shards, 5, executor=executor, strict=executor != "eager"
    )
    batch = cut(0, 64, shards, range(shards), lambda a, b: (x[a:b], LABELS[a:b]))
    number = iter(range(1000))
    return lambda: step(next(number), batch)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shards", [1, 4])
def test_a_training_step(name, executor, shards):
    optimizer = tf.keras.optimizers.Adam(0.001, global_clipnorm=1.0)
    at_once, kept = memory_of(training_step(MODELS[name], executor, shards, optimizer))
    assert at_once < BYTES and kept < KEPT


@pytest.mark.parametrize("optimizer", ["SGD", "RMSprop", "AdamW", "Ftrl", "scaled"])
def test_every_optimizer(optimizer):
    """Also under a loss scale, which looks at every gradient.

    Those without generated code compute on pieces of 32,768 elements, in a few arrays of that size.
    """
    if optimizer == "scaled":
        made = tf.keras.optimizers.LossScaleOptimizer(tf.keras.optimizers.Adam(), 8.0)
    else:
        made = getattr(tf.keras.optimizers, optimizer)(0.001, use_ema=True)
    at_once, kept = memory_of(training_step(dense, EXECUTORS[-1], 1, made))
    assert at_once < 4 * BYTES and kept < KEPT


def test_an_eager_step_shows_that_the_count_sees_arrays():
    assert memory_of(training_step(image, "eager", 1, "adam"), warm=2)[0] > 8 * BYTES


@pytest.mark.parametrize("shards", [1, 4])
def test_an_eager_step_computes_gradients_in_their_places(shards):
    """They are twice as large as anything else in it, and the sum over shards has its arrays."""
    at_once, kept = memory_of(training_step(dense, "eager", shards, "adam"))
    assert at_once < 4 * (1200 * 400) and kept < KEPT


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_function(executor, monkeypatch):
    """A whole step under the decorator: what it returns is all that it allocates."""
    monkeypatch.setattr(executors, "best", lambda: executor)
    stack, x = image()
    model, optimizer = tf.keras.Sequential(stack), tf.keras.optimizers.Adam(0.001)
    loss_fn = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(jit_compile="strict")
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
        v = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, v), v, strict=True))
        return loss

    images, labels = tf.constant(x), tf.constant(LABELS)
    at_once, kept = memory_of(lambda: step(images, labels))
    assert at_once < BYTES and kept < KEPT
