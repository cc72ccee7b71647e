"""keras.RematScope: the same bits with less memory, eager and captured."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile.llvm import engine
from distgrad.core import devices
from distgrad.data.loader import cut
from distgrad.training import world
from distgrad.training.step import TrainStep

L = tf.keras.layers
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(32, 12, 12, 1)).astype(np.float32)
TOKENS = RNG.integers(0, 9, (32, 16)).astype(np.int32)
LABELS = RNG.integers(0, 4, 32)
SEQUENCES = RNG.normal(size=(32, 6, 8)).astype(np.float32)
ON_CPU = ["numpy", *(["generated"] if engine.available() else [])]
EXECUTORS = ["eager", *(["cuda"] if devices.on_gpu() else ON_CPU)]


class Counter(L.Layer):
    """A layer that reads the state which it writes."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.calls.assign_add(1.0)
        return tf.tanh(x * self.calls)


def image():
    """Batch statistics, dropout, extra losses, and probabilities that remember their logits."""
    options = {"kernel_regularizer": "l2", "activity_regularizer": "l2"}
    return [
        L.Conv2D(4, 3, activation="relu", name="first", **options),
        L.BatchNormalization(),
        L.Dropout(0.3),
        L.Flatten(),
        Counter(),
        L.Dense(16, activation="gelu"),
        L.SpectralNormalization(L.Dense(8)),
        L.Dense(4, activation="softmax"),
    ], IMAGES


def recurrent():
    """A mask, layers within layers, and a weight of each step that a loss reads, too."""
    return [
        L.Embedding(9, 8, mask_zero=True),
        L.Bidirectional(L.SimpleRNN(6, recurrent_regularizer="l2"), activity_regularizer="l2"),
        L.Dense(4, activation="softmax"),
    ], TOKENS[:, :5]


def transformer(depth=2):
    blocks = [L.TransformerBlock(64, 4, dropout=0.1, name=f"block{i}") for i in range(depth)]
    return [
        L.Embedding(9, 16),
        *blocks,
        L.GlobalAveragePooling1D(),
        L.Dense(4, activation="softmax"),
    ], TOKENS


def deep():
    return transformer(4)


MODELS = {f.__name__: f for f in (image, recurrent, transformer)}


def made(build, mode, executor, shards=2):
    tf.keras.utils.set_random_seed(1)
    with tf.keras.RematScope(mode, output_size_threshold=100, layer_names=["first", "block1"]):
        stack, x = build()
    model = tf.keras.Sequential(stack)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.prepare((x, LABELS))
    step = TrainStep.of(
        model, world.communicator(), shards, 5, executor=executor, strict=executor != "eager"
    )
    return model, step, cut(0, 32, shards, range(shards), lambda a, b: (x[a:b], LABELS[a:b]))


def train(build, mode, executor):
    model, step, batch = made(build, mode, executor)
    losses = [step(number, batch).loss for number in range(3)]
    return losses, [v.numpy().tobytes() for v in model.variables]


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("build", MODELS)
def test_training_has_the_same_bits(build, executor):
    plain = train(MODELS[build], None, executor)
    for mode in ("full", "activations", "larger_than", "list_of_layers"):
        assert train(MODELS[build], mode, executor) == plain, mode


def residual(x):
    """What goes into a layer several times, and by it."""
    x = L.Dense(8)(x)
    return L.Add()([x, L.MultiHeadAttention(2, 4)(x, x)])


def stateful(x):
    """States of the batch before."""
    return L.GRU(4, stateful=True)(x)


@pytest.mark.parametrize("build", [residual, stateful])
@pytest.mark.parametrize("captured", [False, True])
def test_whole_batches_have_the_same_bits(build, captured):
    def weights(mode):
        tf.keras.utils.set_random_seed(1)
        with tf.keras.RematScope(mode):
            inputs = tf.keras.Input((6, 8))
            model = tf.keras.Model(inputs, L.Dense(1)(L.Flatten()(build(inputs))))
        model.compile("sgd", "mse", jit_compile=captured)
        model.fit(SEQUENCES, SEQUENCES[:, 0, :1], batch_size=8, verbose=0)
        return [weight.tobytes() for weight in model.get_weights()]

    assert weights("full") == weights(None)


@pytest.mark.cpu  # it counts memory of the host
def test_an_eager_step_takes_less_memory():
    def peak(mode):
        _, step, batch = made(deep, mode, "eager", shards=1)
        step(0, batch)
        gc.collect()
        tracemalloc.start()
        step(1, batch)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    plain, full, some = peak(None), peak("full"), peak("list_of_layers")
    assert full < 0.6 * plain and full < some < plain


@pytest.mark.parametrize("executor", EXECUTORS[1:])
def test_a_captured_step_takes_less_memory(executor):
    def planned(mode):
        _, step, batch = made(deep, mode, executor, shards=1)
        step(0, batch)
        (program,) = step.sum.programs._known.values()
        return program._one.executor.nbytes

    assert planned("full") < 0.7 * planned(None)


def test_gradients_of_arguments_by_name_and_masks():
    """Everything that a layer is given, and what it gives beside its output."""
    with tf.keras.RematScope():
        attention = L.MultiHeadAttention(2, 4)
    plain = L.MultiHeadAttention(2, 4)
    x = tf.constant(RNG.normal(size=(2, 5, 6)).astype(np.float32))
    y = tf.constant(RNG.normal(size=(2, 7, 6)).astype(np.float32))
    found = []
    for layer in (plain, attention):
        layer(x, value=y)
        for weight, of in zip(layer.weights, plain.weights, strict=True):
            weight.assign(of)
        with tf.GradientTape() as tape:
            tape.watch([x, y])
            out, scores = layer(x, value=y, return_attention_scores=True)
            total = tf.reduce_sum(out**2) + tf.reduce_sum(scores**3)
        found.append(tape.gradient(total, [x, y, *layer.trainable_variables]))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_inference_and_models_are_left_alone():
    with tf.keras.RematScope():
        model = tf.keras.Sequential([L.Dense(3, activation="relu"), L.Dense(2)])
    assert model._remat_mode is None and model.layers[0]._remat_mode is not None
    x = np.ones((4, 5), np.float32)
    np.testing.assert_array_equal(model(x), model.predict(x, verbose=0))
    with tf.keras.RematScope(), tf.keras.RematScope(None):
        assert L.Dense(1)._remat_mode is None
    assert L.Dense(1)._remat_mode is None


def test_remat_of_a_function_and_wrong_modes():
    x = tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        y = tf.keras.remat(lambda x: tf.exp(x) * x)(x)
    np.testing.assert_allclose(tape.gradient(y, x), np.exp([1, 2]) * [2, 3], rtol=1e-6)
    with pytest.raises(ValueError, match="mode is one of full, activations"):
        tf.keras.RematScope("some")
