"""Calls that threads share give the bits of one thread, whatever they are cut by."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl

import distgrad
import distgrad as tf
from distgrad.compile import eager
from distgrad.compile.capture import trace
from distgrad.compile.llvm import engine, parts, pool, products, updates
from distgrad.core.primitive import registry
from distgrad.launcher import load
from distgrad.testing import process

pytestmark = pytest.mark.skipif(not engine.available(), reason="needs llvmlite and FMA")

from distgrad.compile.cpu_exec import cpu_executor  # noqa: E402

THREADS = 3
RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """Says whether a pool shares calls, however small, or one thread does all.

    BLAS has one thread either way: those of its kernels for AVX2 have other bits with two.
    """
    own = pool.threads_of_blas
    monkeypatch.setattr(pool, "_made", None)
    monkeypatch.setattr(pool, "_cores", lambda: THREADS)
    monkeypatch.setattr(parts, "_LEAST", 1.0)
    monkeypatch.setattr(parts, "_LONG", 1e3)
    monkeypatch.setattr(parts, "WORTH", 0.0)
    monkeypatch.setattr(updates, "_PART", 100)

    def use(many: bool) -> None:
        monkeypatch.setattr(pool, "threads_of_blas", lambda: THREADS if many else 1)
        parts._made.cache_clear()
        products._many.cache_clear()
        updates._prepared.clear()

    with threadpoolctl.threadpool_limits(1, "blas"):
        yield use
    made = pool._made
    if made is not None:
        made.end()
    monkeypatch.setattr(pool, "threads_of_blas", own)
    parts._made.cache_clear()
    products._many.cache_clear()
    updates._prepared.clear()


def same(several, fn, *arrays: np.ndarray) -> None:
    """A captured function by one thread and by several, some of whose steps are shared."""
    program = trace(fn, arrays).program
    assert program is not None
    found = []
    for many in (False, True):
        several(many)
        executor = cpu_executor(program, arrays)
        found.append([out.copy() for out in executor(list(arrays))])
        steps = executor.schedule.steps
        each = [step.fn for step in steps if isinstance(step.fn, parts.Shared)]
        assert any(not shared._alone for shared in each) == many
    for one, other in zip(*found, strict=True):
        assert one.tobytes() == other.tobytes()


def with_gradients(fn, *numbers: int):
    """A function's result, and its gradients for the arguments of these numbers."""

    def both(*arrays):
        given = [tf.convert_to_tensor(a) for a in arrays]
        wanted = [given[i] for i in numbers]
        with tf.GradientTape() as tape:
            tape.watch(wanted)
            y = fn(*given)
            loss = tf.reduce_sum(y * tf.sin(y))
        return [y, *tape.gradient(loss, wanted)]

    return both


@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize(
    "sizes", [(37, 20, 70), (12, 300, 33), (200, 17, 40), (13, 513, 1100), (2, 9, 64)]
)
def test_products(several, sizes, flags) -> None:
    m, k, n = sizes
    a = floats(*((k, m) if flags[0] else (m, k)))
    b = floats(*((n, k) if flags[1] else (k, n)))

    def fn(a, b):
        return tf.matmul(a, b, transpose_a=flags[0], transpose_b=flags[1])

    same(several, fn, a, b)


@pytest.mark.parametrize("lead", [((7,), (7,)), ((2, 3), (3,)), ((1,), (5,)), ((4, 1), (1, 3))])
@pytest.mark.parametrize("small", [True, False])
def test_many_products(several, lead, small, monkeypatch) -> None:
    """Small ones are made from where their factors lie, others as one is."""
    monkeypatch.setattr(products, "_SMALL", 1 << 19 if small else 1)
    a, b = floats(*lead[0], 14, 20), floats(*lead[1], 20, 33)
    same(several, tf.matmul, a, b)
    same(several, lambda a, b: tf.matmul(a, b, transpose_b=True), a, floats(*lead[1], 33, 20))
    heads = floats(2, 15, 3, 16)

    def attention(x):
        q = tf.transpose(x, (0, 2, 1, 3))
        scores = tf.nn.softmax(tf.matmul(q, q, transpose_b=True))
        return tf.transpose(tf.matmul(scores, q), (0, 2, 1, 3))

    same(several, with_gradients(attention, 0), heads)


@pytest.mark.parametrize("shape", [(70, 5), (64, 130), (3, 17, 33), (1, 999), (513,), (400, 1)])
def test_elements_rows_and_columns(several, shape) -> None:
    x, row, column = floats(*shape), floats(shape[-1]), floats(*shape[:-1], 1)
    same(several, lambda x: [tf.exp(x) * 2.0 + 1.0, x > 0.5], x)
    same(several, lambda x, r, c: tf.tanh(x * r) - c, x, row, column)
    if len(shape) > 1 and min(shape) > 1:
        same(several, with_gradients(lambda x: tf.nn.softmax(x), 0), x)
        same(several, with_gradients(lambda x, r: tf.nn.relu(x + r) * r, 0, 1), x, row)
        norm = tf.keras.layers.LayerNormalization()
        norm.build(shape)
        same(several, with_gradients(lambda x: norm(x), 0), x)


def test_columns_that_are_added_up(several) -> None:
    """A wide row is cut into lines of the cache, and each column adds its rows in their order."""
    x, bias = floats(33, 400), floats(400)
    same(several, with_gradients(lambda x, b: tf.nn.relu(x + b), 0, 1), x, bias)


def test_losses_of_classes(several) -> None:
    """Which look at the number of a column: only rows can be cut."""
    logits, labels = floats(50, 200), RNG.integers(0, 200, 50)

    def fn(logits):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)

    same(several, with_gradients(fn, 0), logits)


CONVOLUTIONS = {
    "Winograd": ((5, 9, 8, 32), (3, 3, 32, 48), 1, "SAME"),
    "Winograd, few channels": ((4, 7, 7, 17), (3, 3, 17, 16), 1, "VALID"),
    "strides": ((5, 9, 9, 16), (3, 3, 16, 24), 2, "SAME"),
    "1 x 1": ((4, 6, 6, 64), (1, 1, 64, 32), 1, "VALID"),
    "1 x 1, strides": ((4, 6, 6, 40), (1, 1, 40, 70), 2, "VALID"),
    "5 x 5": ((3, 9, 9, 12), (5, 5, 12, 8), 1, "SAME"),
    "images": ((6, 12, 12, 3), (3, 3, 3, 32), 1, "SAME"),
    "one channel": ((6, 12, 12, 1), (3, 3, 1, 40), 1, "VALID"),
    "one axis": ((5, 30, 24), (3, 24, 20), 1, "SAME"),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(several, name) -> None:
    x, filters, strides, padding = CONVOLUTIONS[name]

    def fn(x, w):
        convolve = tf.nn.conv1d if x.ndim == 3 else tf.nn.conv2d
        return convolve(x, w, strides, padding)

    same(several, with_gradients(fn, 0, 1), floats(*x), floats(*filters))


def test_depthwise_convolutions(several) -> None:
    def fn(x, w):
        return tf.nn.depthwise_conv2d(x, w, (1, 1, 1, 1), "SAME")

    same(several, with_gradients(fn, 0, 1), floats(5, 8, 8, 40), floats(3, 3, 40, 1))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_pooling(several, padding) -> None:
    x, bias = floats(7, 9, 9, 20), floats(20)
    for pool2d in (tf.nn.max_pool2d, tf.nn.avg_pool2d):
        same(several, with_gradients(lambda x, p=pool2d: p(x, 2, 2, padding), 0), x)
        same(several, with_gradients(lambda x, p=pool2d: p(x, 3, 1, padding), 0), x)

    def rectified(x, b):
        return tf.nn.max_pool2d(tf.nn.relu(x + b), 2, 2, padding)

    same(several, with_gradients(rectified, 0, 1), x, bias)


@pytest.mark.parametrize("width", [20, 64, 150])
def test_sums_over_shards(several, width) -> None:
    x, g = floats(8, 5, 77), floats(8, 5, width)
    product = registry["product_over_shards"]
    merges = (0, 1, 0, 2, 0, 1, 0, 3)

    def fn(x, g):
        return product(x, g, merges=merges)

    same(several, fn, x, g)


@pytest.mark.parametrize("sizes", [[1000], [7, 30, 11] * 20, [640, 3, 100_001]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_updates(several, sizes, dtype) -> None:
    found = []
    for many in (False, True):
        several(many)
        rng = np.random.default_rng(1)
        variables = [tf.Variable(rng.normal(size=n).astype(dtype)) for n in sizes]
        optimizer = tf.keras.optimizers.Adam(0.1)
        for _ in range(3):
            gradients = [tf.constant(rng.normal(size=n).astype(dtype)) for n in sizes]
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
        found.append(b"".join(v.numpy().tobytes() for v in variables))
    assert found[0] == found[1]


def test_eager_operations(several, monkeypatch) -> None:
    """Products, dense layers each way, convolutions."""
    monkeypatch.setattr(eager, "_used", None)
    eager.use("generated")
    rng = np.random.default_rng(2)
    x, images = (rng.normal(size=s).astype(np.float32) for s in ((70, 130), (6, 16, 16, 16)))
    layers = [tf.keras.layers.Dense(90, activation="gelu"), tf.keras.layers.Conv2D(32, 3)]
    layers[0].build(x.shape)
    layers[1].build(images.shape)
    found = []
    for many in (False, True):
        several(many)
        from distgrad.compile.llvm import dense

        dense._forward_plan.cache_clear()
        dense._backward_plan.cache_clear()
        weights = [w for layer in layers for w in layer.trainable_weights]
        with tf.GradientTape() as tape:
            y, z = layers[0](x), layers[1](images)
            many_ = tf.matmul(tf.reshape(z, (6, 196, 32)), tf.reshape(z, (6, 32, 196)))
            loss = tf.reduce_sum(y * y) + tf.reduce_sum(many_) + tf.reduce_sum(tf.matmul(x, x.T))
        made = [y, z, loss, *tape.gradient(loss, weights)]
        found.append([m.numpy().tobytes() for m in made])
    assert found[0] == found[1]


@pytest.mark.parametrize("rows", [1, 8, 12])
def test_dense_layers_of_few_rows(several, rows, monkeypatch) -> None:
    """A batch of one may have any stride between its rows; few rows are multiplied otherwise."""
    monkeypatch.setattr(eager, "_used", None)
    eager.use("generated")
    from distgrad.compile.llvm import dense

    x = np.random.default_rng(3).normal(size=(rows, 400)).astype(np.float32)
    x = x[0][None] if rows == 1 else x
    found = []
    for many in (False, True):
        several(many)
        dense._forward_plan.cache_clear()
        dense._backward_plan.cache_clear()
        tf.keras.utils.set_random_seed(0)
        layer = tf.keras.layers.Dense(600, activation="tanh")
        tensor = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            y = layer(tensor)
        made = [y, *tape.gradient(y, [tensor, *layer.trainable_weights])]
        found.append([m.numpy().tobytes() for m in made])
        kernel = layer.kernel.numpy().astype(float)
        np.testing.assert_allclose(y.numpy(), np.tanh(x @ kernel), atol=1e-4)
    assert found[0] == found[1]


def test_updates_that_read_what_others_write_go_one_after_the_other(several) -> None:
    """As in a game of two, where the gradient of each is the other."""
    found = []
    for many in (False, True):
        several(many)
        rng = np.random.default_rng(4)
        a, b = (tf.Variable(rng.normal(size=100_000).astype(np.float32)) for _ in range(2))
        optimizer = tf.keras.optimizers.SGD(0.1)
        for _ in range(20):
            optimizer.apply_gradients([(b, a), (a, b)])
        found.append(a.numpy().tobytes() + b.numpy().tobytes())
    assert found[0] == found[1]


def test_gradients_that_come_to_be_what_others_write(several) -> None:
    found = []
    for many in (False, True):
        several(many)
        a, b = (tf.Variable(np.linspace(0, n, 50_000, dtype=np.float32)) for n in (1, 2))
        optimizer = tf.keras.optimizers.SGD(0.1)
        ones = tf.ones(50_000)
        for gradients in [(ones, ones), (ones, ones), (b, a), (ones, ones), (a, b), (b, a)]:
            optimizer.apply_gradients(zip(gradients, (a, b), strict=True))
        found.append(a.numpy().tobytes() + b.numpy().tobytes())
    assert found[0] == found[1]


MODELS = """
import hashlib
import numpy as np
import distgrad as tf

layers, rng = tf.keras.layers, np.random.default_rng(0)
tf.keras.utils.set_random_seed(0)

def attention():
    x = tf.keras.Input((64, 64))
    y = x + layers.MultiHeadAttention(2, 32)(x, x)
    y = layers.LayerNormalization()(y)
    y = y + layers.Dense(64)(layers.Dense(256, activation="gelu")(y))
    return tf.keras.Model(x, layers.Dense(10)(layers.GlobalAveragePooling1D()(y)))

def told(model, where):
    digest = hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights()))
    print(where, digest.hexdigest())

loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
for name, shape, model in [
    ("dense", (784,), [layers.Dense(600, activation="relu"), layers.Dense(600), layers.Dense(10)]),
    ("small", (784,), [layers.Dense(128, activation="relu"), layers.Dense(1), layers.Dense(10)]),
    ("lstm", (20, 64), [layers.LSTM(96, return_sequences=True), layers.LSTM(64), layers.Dense(10)]),
    ("images", (20, 20, 3), [
        layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(48, 3, strides=2, use_bias=False), layers.BatchNormalization(),
        layers.Flatten(), layers.Dropout(0.5), layers.Dense(10)]),
    ("attention", (64, 64), attention()),
]:
    x, y = rng.random((128, *shape), np.float32), rng.integers(0, 10, 128)
    model = model if isinstance(model, tf.keras.Model) else tf.keras.Sequential(model)
    model.compile("adam", loss)
    model.fit(x, y, batch_size=64, epochs=2, verbose=0)
    told(model, name)
    optimizer = tf.keras.optimizers.Adam()
    for _ in range(2):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(value, variables), variables))
    told(model, name + " eager")
from distgrad.compile.llvm import pool
print("threads", 1 if pool._made is None else pool._made.threads)
"""


@pytest.mark.skipif(load.cores() < 2, reason="one core, or a quota of one")
@pytest.mark.parametrize("shards", ["", "4"])
def test_models_have_the_same_bits_with_any_number_of_threads(shards: str) -> None:
    def hashes(threads: int) -> list[str]:
        root = str(Path(distgrad.__path__[0]).parent)
        env = {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        env |= {"PYTHONPATH": root, "DISTGRAD_VIRTUAL_SHARDS": shards}
        result = process.run([sys.executable, "-c", MODELS], env=env, timeout=200)
        assert result.returncode == 0, result.stderr
        *found, last = result.stdout.splitlines()
        assert last == f"threads {threads}"
        return found

    one = hashes(1)
    assert len(one) == 10 and hashes(2) == one
