"""Dense layers in one call each way: close to NumPy's, for any sizes, and left to BLAS else."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile import eager, interpreter
from distgrad.compile.capture import trace
from distgrad.compile.llvm import calls, dense, engine, loops
from distgrad.compile.numpy_exec import numpy_executor
from distgrad.core.primitive import registry
from distgrad.ops.dense import IN_ONE
from distgrad.training.arena import Arena

pytestmark = pytest.mark.skipif(not engine.available(), reason="needs llvmlite and FMA")
RNG = np.random.default_rng(0)
# Few rows, few columns, a rest of every tile, and several blocks of rows.
SIZES = [(1, 784, 128), (3, 5, 2), (11, 64, 10), (12, 2, 33), (64, 128, 10), (700, 40, 800)]


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def close(found, wanted):
    scale = np.abs(wanted).max(initial=1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=64 * np.finfo(np.float32).eps * scale)


def layer(m, k, n):
    return normal(m, k), normal(k, n) / np.float32(k**0.5), normal(n)


@pytest.fixture
def kernels():
    """Sets the kernels for a while."""
    before = eager.used()
    yield eager.use
    eager.use(before)


@pytest.mark.parametrize("activation", IN_ONE)
@pytest.mark.parametrize("sizes", SIZES)
def test_forward(sizes, activation):
    args = layer(*sizes)
    wanted = registry["dense"].kernel(np, *args, activation=activation)
    close(dense.forward(*args, activation, None), wanted)
    out = np.full_like(wanted, np.nan)
    assert dense.forward(*args, activation, out) is out
    close(out, wanted)


@pytest.mark.parametrize("all_three", [False, True])
@pytest.mark.parametrize("activation", IN_ONE)
@pytest.mark.parametrize("sizes", SIZES)
def test_backward(sizes, activation, all_three):
    m, k, n = sizes
    x, w, b = layer(*sizes)
    y = registry["dense"].kernel(np, x, w, b, activation=activation)
    args = normal(m, n), y, x, w, b
    wanted = registry["dense_grad"].kernel(np, *args, activation=activation, all_three=all_three)
    found = dense.backward(args, activation, all_three, None)
    if m < 12 and all_three and k * n > 1 << 14:
        assert found is None  # a large matrix is not packed for few rows
        return
    places = (None, np.full_like(w, np.nan), None)[not all_three :]
    again = dense.backward(args, activation, all_three, places)
    assert again[all_three] is places[all_three]
    for a, c, expected in zip(found, again, wanted, strict=True):
        assert a.tobytes() == c.tobytes()
        close(a, expected)


def test_a_place_gets_a_gradient_of_numpy_too():
    x, w, b = layer(4, 3, 2)
    args = normal(4, 2), normal(4, 2), x, w, b
    places = None, np.full_like(w, np.nan), np.full_like(b, np.nan)
    made = registry["dense_grad"].kernel(np, *args, activation="relu", all_three=True, out=places)
    assert made[1] is places[1] and made[2] is places[2] and np.isfinite(places[1]).all()


def test_others_are_left_to_numpy():
    x, w, b = layer(24, 48, 40)
    wide = normal(24, 80)[:, ::2]
    for args in [
        (x.astype(np.float64), w.astype(np.float64), b.astype(np.float64)),
        (x, np.asfortranarray(w), b),
        (x[:, :40], w, b),
        (x, w, b[:1]),
        (x[:0], w, b),
        (x[0], w, b),
        layer(512, 512, 10),  # a long product with few columns
    ]:
        assert dense.forward(*args, "", None) is None
    assert dense.backward((wide, normal(24, 40), x, w, b), "", True, None) is None
    large = layer(2048, 40, 600)
    assert dense.backward((normal(2048, 600),) * 2 + large, "relu", True, None) is None


def test_the_same_where_machine_code_cannot_look_into_an_array(monkeypatch):
    args = layer(20, 7, 33)
    wanted = dense.forward(*args, "tanh", None)
    monkeypatch.setattr(calls, "found_at", loops.address_of)
    calls._planner.cache_clear()
    dense._forward_plan.cache_clear()
    try:
        assert dense.forward(*args, "tanh", None).tobytes() == wanted.tobytes()
    finally:
        monkeypatch.undo()
        calls._planner.cache_clear()
        dense._forward_plan.cache_clear()


def model():
    found = [tf.keras.layers.Dense(32, activation=a) for a in ("relu", "tanh", "gelu", None)]
    found.append(tf.keras.layers.Dense(5, activation="softmax"))
    made = tf.keras.Sequential(found)
    made.build((16, 24))
    return made


def trained(made, x, labels):
    loss_of = tf.keras.losses.SparseCategoricalCrossentropy()
    with tf.GradientTape() as tape:
        loss = loss_of(labels, made(x))
    return [loss, *tape.gradient(loss, made.trainable_variables)]


X, LABELS = normal(16, 24), RNG.integers(0, 5, 16)


@pytest.mark.parametrize("name", ["numpy", "generated"])
def test_captured_layers_have_the_bits_of_eager(name, kernels):
    kernels(name)
    made = model()
    captured, eagerly = tf.function(lambda x: trained(made, x, LABELS)), trained(made, X, LABELS)
    for _ in range(interpreter.TRIED + 2):  # bind by bind, and by the plan that comes of many runs
        for a, b in zip(captured(tf.constant(X)), eagerly, strict=True):
            assert a.numpy().tobytes() == b.numpy().tobytes()
    (executor,) = captured.executors
    assert executor.planned


def test_numpys_bits_are_those_of_the_parts(kernels):
    """A capture that fuses records parts: on NumPy's kernels they give what the whole does."""
    kernels("numpy")
    made = model()
    program = trace(lambda x: trained(made, x, LABELS), [X]).program
    names = {i.name for i in program.instructions}
    assert {"dot", "relu", "sparse_cross_entropy"} <= names
    assert not {"dense", "dense_grad", "mean_sparse_cross_entropy"} & names
    parts = numpy_executor(program, [X])([X])
    for a, b in zip(parts, trained(made, X, LABELS), strict=True):
        assert np.asarray(a).tobytes() == b.numpy().tobytes()


def test_a_step_is_few_operations():
    made = model()
    program = trace(lambda x: trained(made, x, LABELS), [X], in_parts=False).program
    names = [i.name for i in program.instructions]
    assert names.count("dense") == names.count("dense_grad") == 4  # all but that of gelu
    assert names.count("dot") == 3 and "add" not in names
    assert "mean_sparse_cross_entropy_grad" in names and "sparse_cross_entropy" not in names


@pytest.mark.parametrize("frozen", ["kernel", "bias"])
def test_frozen_weights_get_no_gradient(frozen):
    made = tf.keras.layers.Dense(3, activation="relu")
    made.build((4, 5))
    x, still = tf.Variable(normal(4, 5)), getattr(made, frozen)
    wanted = [v for v in (x, made.kernel, made.bias) if v is not still]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(made(x) ** 2)
    every = tape.gradient(loss, [x, made.kernel, made.bias])
    still.trainable = False
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(made(x) ** 2)
    some = tape.gradient(loss, wanted)
    kept = [g for g, v in zip(every, (x, made.kernel, made.bias), strict=True) if v is not still]
    for a, b in zip(some, kept, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)


def test_a_layer_of_its_own_kernel_adds_two_gradients():
    w, b = tf.Variable(normal(14, 14)), tf.Variable(normal(14))
    arena = Arena([w, b])
    found = []
    for buffers in ({}, dict(enumerate(arena.views(arena.empty())))):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(registry["dense"](w, w, b, activation="tanh"))
        tape._buffers = buffers
        found.append(tape.gradient(loss, [w, b]))
    for a, expected in zip(*found, strict=True):
        np.testing.assert_allclose(a.numpy(), expected.numpy(), rtol=1e-6)


def test_gradients_of_a_kernel_that_is_read_twice_are_added_in_its_place():
    """The second layer with the same weights adds to what lies in the place of the first."""
    made = tf.keras.layers.Dense(6, activation="tanh")
    made.build((3, 6))
    variables = [made.kernel, made.bias]
    arena = Arena(variables)
    x = tf.constant(normal(3, 6))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(made(made(x)))
    wanted = tape.gradient(loss, variables)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(made(made(x)))
    flat = arena.empty()
    tape._buffers = dict(enumerate(arena.views(flat)))
    found = tape.gradient(loss, variables)
    for a, b, place in zip(found, wanted, arena.views(flat), strict=True):
        assert a._data is tape._buffers[0] or np.shares_memory(a._data, place)
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)
