"""``keras.ops`` against the stored numbers and dtypes of Keras 3, its gradients, and in use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import distgrad as tf
from distgrad import keras
from distgrad.core.dispatch import current
from distgrad.keras import ops
from distgrad.testing.gradients import check_gradients

CASES = json.loads((Path(__file__).parents[1] / "reference" / "keras_ops.json").read_text())


def restored(value):
    if isinstance(value, dict):
        return np.array(value["flat"], value["dtype"]).reshape(value["shape"])
    return [restored(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", [pytest.param(c, id=f"{i}-{c[0]}") for i, c in enumerate(CASES)])
def test_numbers_and_dtype_are_those_of_keras(case):
    name, args, kwargs, results = case
    kwargs = {key: restored(value) for key, value in kwargs.items()}
    out = getattr(ops, name)(*map(restored, args), **kwargs)
    found = list(out) if isinstance(out, (list, tuple)) else [out]
    assert len(found) == len(results)
    for ours, stored in zip(found, results, strict=True):
        wanted = restored(stored)
        half = stored["dtype"] == "float16"
        if name in ("size", "ndim"):
            assert ours == wanted
            continue
        assert (ours.dtype.name, tuple(ours.shape)) == (stored["dtype"], wanted.shape)
        tolerance = 2e-3 if half else 2e-5
        near = tolerance / 10
        if "fft" in name and current().array_type is not np.ndarray:
            # Sums of all numbers, which a GPU's library rounds as the largest result.
            near = max(near, 4e-7 * np.abs(wanted).max(initial=0))
        np.testing.assert_allclose(ours.numpy(), wanted, rtol=tolerance, atol=near)


RNG = np.random.default_rng(3)
A, B = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4))
IMAGES, KERNEL = RNG.normal(size=(1, 4, 4, 2)), RNG.normal(size=(2, 2, 2, 3))


@pytest.mark.parametrize(
    ("fn", "args"),
    [
        (lambda x, y: ops.add(ops.multiply(x, y), 2), (A, B)),
        (lambda x, y: ops.divide(x, ops.exp(y)), (A, B)),
        (ops.logaddexp, (A, B)),
        (lambda x: ops.logsumexp(x, axis=1), (A,)),
        (lambda x: ops.var(x, axis=0), (A,)),
        (lambda x: ops.quantile(x, 0.3, axis=1), (A,)),
        (lambda x: ops.take_along_axis(x, [[0, -1], [1, 1], [2, 0]], axis=1), (A,)),
        (lambda x: ops.take(x, [0, -1, 0], axis=1), (A,)),
        (lambda x: ops.pad(ops.tril(x, 1), 1), (A,)),
        (lambda x, y: ops.slice_update(x, (1, 1), y[:2, :2]), (A, B)),
        (lambda x, y: ops.scatter_update(x, [[0], [2]], y[:2], reduction="add"), (A, B)),
        (lambda x, y: ops.where(A > 0, x, y), (A, B)),
        (lambda x, y: ops.matmul(x, ops.transpose(y)), (A, B)),
        (lambda x, y: ops.dot(x, y[0]), (A, B)),
        (lambda x: ops.diagonal(x, 1), (A,)),
        (lambda x: ops.softmax(x, axis=(0, 1)), (A,)),
        (lambda x: ops.gelu(x), (A,)),
        (lambda x, g: ops.layer_normalization(x, g), (A, B[0])),
        (lambda x, g: ops.rms_normalization(x, g), (A, B[0])),
        (ops.normalize, (A,)),
        (lambda x, w: ops.conv(x, w, padding="same"), (IMAGES, KERNEL)),
        (lambda x, w: ops.average_pool(ops.conv(x, w), 2), (IMAGES, KERNEL)),
        (
            lambda q, k: ops.dot_product_attention(q, k, k, is_causal=True),
            (RNG.normal(size=(1, 3, 2, 2)), RNG.normal(size=(1, 3, 2, 2))),
        ),
        (lambda x: ops.scan(lambda c, s: (c + s, c * s), x[0], x)[1], (A,)),
        (lambda x: ops.fori_loop(0, 3, lambda i, v: v * ops.sin(x[i]), x[0]), (A,)),
        (lambda x: ops.solve(x[:, :3], x[:, 3]), (A,)),
    ],
)
def test_gradients(fn, args):
    check_gradients(fn, args, order=1)


def test_a_function_of_operations_is_captured():
    def step(x, y):
        h = ops.gelu(ops.matmul(x, ops.transpose(y)))
        h = ops.concatenate([h, ops.cast(h > 0, "float32")], axis=-1)
        h = ops.layer_normalization(h) + ops.take(h, [-1], axis=1)
        return ops.sum(ops.multiply(ops.softmax(h), ops.arange(6)), axis=-1), ops.argmax(h, axis=-1)

    captured = tf.function(step)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x, y = (tf.constant(rng.normal(size=(3, 4)).astype("float32")) for _ in range(2))
        for ours, eager in zip(captured(x, y), step(x, y), strict=True):
            np.testing.assert_allclose(ours.numpy(), eager.numpy(), rtol=1e-6)


class Patches(keras.layers.Layer):
    """Cuts a sequence into patches and adds learnt positions to them, as examples for ViT do."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def build(self, shape):
        count = shape[1] // self.size
        self.positions = self.add_weight(shape=(count, self.size * shape[2]))

    def call(self, x):
        batch, length, width = ops.shape(x)
        patches = ops.reshape(x, (batch, length // self.size, self.size * width))
        return patches + ops.expand_dims(ops.take(self.positions, ops.arange(2), axis=0), 0)


class Attending(keras.layers.Layer):
    """Heads of attention over the patches, and the mean of what they find."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 12), initializer="glorot_uniform")

    def call(self, x):
        projected = ops.einsum("btd,de->bte", x, self.kernel)
        q, k, v = (
            ops.reshape(part, (ops.shape(part)[0], -1, 2, 2))
            for part in ops.split(projected, 3, axis=-1)
        )
        found = ops.dot_product_attention(q, k, v)
        return ops.mean(ops.reshape(found, (ops.shape(x)[0], -1, 4)), axis=1)


def test_layers_of_operations_train():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 6, 2)).astype("float32")
    y = (x.mean(axis=(1, 2)) > 0).astype("int32")
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6, 2)), Patches(3), Attending(), keras.layers.Dense(2)])

    def loss(y_true, y_pred):
        return ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)

    model.compile(keras.optimizers.Adam(0.02), loss=loss)
    history = model.fit(x, y, epochs=20, batch_size=32, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]


def test_python_says_what_shapes_and_dtypes_are():
    x = ops.ones((2, 3))
    assert ops.shape(x) == (2, 3) and type(ops.shape(x)) is tuple
    assert ops.dtype(x) == "float32" and ops.dtype([1, 2]) == "int32"
    assert ops.shape(keras.Input((3,))) == (None, 3)
    assert ops.is_tensor(x) and not ops.is_tensor([1.0])
    assert isinstance(ops.convert_to_numpy(x), np.ndarray)
    assert not hasattr(ops, "no_such_operation")


def test_control_flow():
    assert float(ops.cond(True, lambda: 1.0, lambda: 2.0)) == 1.0
    assert ops.switch(7, [lambda x: x, lambda x: -x], 3) == -3
    assert int(ops.while_loop(lambda i: i < 5, lambda i: i + 2, 0)) == 6
    i, total = ops.while_loop(lambda i, s: i < 4, lambda i, s: (i + 1, s + i), (0, 0))
    assert (int(i), int(total)) == (4, 6)
    last, sums = ops.scan(lambda c, x: (c + x, c), ops.array(0.0), ops.array([1.0, 2.0, 3.0]))
    assert float(last) == 6 and sums.numpy().tolist() == [0, 1, 3]
    count, nothing = ops.scan(lambda c, x: (c + 1, None), 0, length=3)
    assert count == 3 and nothing is None
    squares = ops.map(lambda x: x * x, ops.array([1.0, 2.0]))
    assert squares.numpy().tolist() == [1, 4]
    with pytest.raises(ValueError, match="xs or a length"):
        ops.scan(lambda c, x: (c, x), 0)


def test_as_numpy_where_keras_on_tensorflow_is_not():
    assert ops.vstack([[1, 2], [3, 4]]).numpy().tolist() == [[1, 2], [3, 4]]
    infinite = ops.array([np.inf, np.inf, -np.inf])
    assert ops.isclose(infinite, [np.inf, 1.0, np.inf]).numpy().tolist() == [True, False, False]
    sums = ops.segment_sum([1.0, 2.0, 3.0], [0, 2, 0])
    assert sums.numpy().tolist() == [4, 0, 2]


def test_own_gradient():
    @ops.custom_gradient
    def clipped(x):
        return ops.exp(x), lambda upstream: ops.clip(upstream * ops.exp(x), -1, 1)

    x = tf.Variable([0.0, 5.0, -1.0])
    with tf.GradientTape() as tape:
        y = ops.sum(clipped(x)) + ops.sum(ops.stop_gradient(x) * 3)
    np.testing.assert_allclose(tape.gradient(y, x).numpy(), [1, 1, np.exp(-1)], rtol=1e-6)


def test_models_that_divide_integers_by_an_input():
    a, b = (tf.keras.Input((3,), dtype="int32") for _ in range(2))
    x, y = np.array([[7, 8, -9]], "int32"), np.array([[2, 3, 4]], "int32")
    layer = tf.keras.layers.Lambda(lambda pair: pair[0] // pair[1])
    for made, expected in (
        (a // b, x // y),
        (a % b, x % y),
        (ops.fmod(a, b), np.fmod(x, y)),
        (layer([a, b]), x // y),
    ):
        assert made.shape == (None, 3)
        found = tf.keras.Model([a, b], made)([x, y])
        np.testing.assert_array_equal(found, expected)
