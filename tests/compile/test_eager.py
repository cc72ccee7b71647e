"""Eager operations on generated kernels: close to NumPy's, and NumPy where they do not apply."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile import eager, interpreter
from distgrad.compile.capture import trace
from distgrad.compile.llvm import bands, composites, engine, lstm, windows
from distgrad.compile.llvm import eager as llvm_eager
from distgrad.core.errors import MissingExtraError
from distgrad.core.primitive import registry
from distgrad.ops import random, streams
from distgrad.ops.biased import ACTIVATIONS
from distgrad.ops.normalization import layer_norm
from distgrad.training.handshake import check_kernels

pytestmark = pytest.mark.skipif(not engine.available(), reason="needs llvmlite and FMA")
RNG = np.random.default_rng(0)
COLUMNS = ("sum", "sum_to", "mean", "observed_moments")
ELEMENTWISE = {
    name: registry[name]
    for name in eager._SMALLEST
    if name not in llvm_eager._FORMS
    and name not in (*windows.NAMES, *bands.NAMES, *composites.NAMES)
    and name not in (*lstm.NAMES, *COLUMNS, "take_grad")
}


@pytest.fixture
def kernels():
    """Sets the kernels for a while."""
    before = eager.used()
    yield eager.use
    eager.use(before)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def own(name, *args, **params):
    """What the primitive's own kernel gives."""
    return registry[name].kernel(np, *args, **params)


def generated(name, *args, **params):
    found = llvm_eager.run(registry[name], args, params)
    assert found is not None
    return found


def close(found, wanted, ulps=8):
    """Within units in the last place of the largest element: terms of its size were added up."""
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    limit = ulps * np.spacing(np.abs(wanted).max(initial=1).astype(np.float32))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=limit)


def arguments(primitive, shape):
    params = dict.fromkeys(primitive.param_names, 0.7)
    args = [normal(*shape) for _ in primitive.arg_names]
    return [
        a > 0 if n in primitive.constant else a
        for a, n in zip(args, primitive.arg_names, strict=True)
    ], params


@pytest.mark.parametrize("shape", [(1,), (1023,), (1024,), (5, 7, 41), (3, 1024)])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name, shape):
    args, params = arguments(ELEMENTWISE[name], shape)
    close(generated(name, *args, **params), own(name, *args, **params))


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_at_the_edges(name):
    """nan, infinities and zeros give what they give in NumPy."""
    first = np.float32([np.nan, np.inf, -np.inf, 0.0, -0.0, 100.0, -100.0])
    others, params = arguments(ELEMENTWISE[name], first.shape)
    args = [first, *[np.ones_like(other) for other in others[1:]]]
    with np.errstate(all="ignore"):
        wanted = own(name, *args, **params)
    np.testing.assert_allclose(generated(name, *args, **params), wanted, rtol=1e-6, atol=1e-30)


LABELS = RNG.integers(0, 37, (6, 5))
ROWS = {
    "softmax_along": ([normal(6, 5, 37)], {"axis": 2}),
    "log_softmax_along": ([normal(6, 5, 37)], {"axis": 2}),
    "softmax_grad": ([normal(6, 5, 37), np.abs(normal(6, 5, 37))], {"axis": 2}),
    "standardize": ([normal(6, 5, 37)], {"axis": (1, 2), "epsilon": 1e-3}),
    "standardize_grad": ([normal(6, 5, 37), normal(6, 5, 37)], {"axis": (2,), "epsilon": 1e-3}),
    "sparse_cross_entropy": ([normal(6, 5, 37), LABELS], {}),
    "sparse_cross_entropy_grad": ([normal(6, 5), normal(6, 5, 37), LABELS.astype(np.int32)], {}),
    "cross_entropy": ([normal(6, 5, 37), np.abs(normal(6, 5, 37))], {}),
    "cross_entropy_grad": ([normal(6, 5), normal(6, 5, 37), np.abs(normal(6, 5, 37))], {}),
    "take_grad": ([normal(6, 5, 37), RNG.integers(0, 9, (6, 5))], {"shape": (9, 37), "axis": 0}),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows(name):
    args, params = ROWS[name]
    wanted = own(name, *args, **params)
    close(generated(name, *args, **params), wanted)
    out = np.full_like(wanted, np.nan)
    assert llvm_eager.run(registry[name], tuple(args), params, out) is out
    close(out, wanted)


def test_every_kernel_is_tested():
    known = {*ELEMENTWISE, *ROWS, *COLUMNS, *composites.NAMES, *lstm.NAMES}
    assert set(eager._SMALLEST) == known | {*windows.NAMES, *bands.NAMES}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(1, 1), (7, 5, 40), (300, 10), (4, 1030)])
def test_bias_and_activation(shape, activation):
    g, x, b = normal(*shape), normal(*shape), normal(shape[-1])
    close(
        generated("biased", x, b, activation=activation), own("biased", x, b, activation=activation)
    )
    found = generated("biased_grad", g, x, b, activation=activation)
    for a, w in zip(found, own("biased_grad", g, x, b, activation=activation), strict=True):
        close(a, w)


@pytest.mark.parametrize("lead", [0, 2])
@pytest.mark.parametrize("shape", [(1, 2), (7, 5, 40), (300, 10), (4, 1030)])
def test_scale_and_offset_have_the_bits_of_numpy(shape, lead):
    rng, row = np.random.default_rng(1), (*(1,) * min(lead, len(shape) - 1), shape[-1])
    shapes = (shape, shape, row, row)
    g, x, scale, offset = (rng.normal(size=each).astype(np.float32) for each in shapes)
    assert (
        generated("rescaled", x, scale, offset).tobytes()
        == own("rescaled", x, scale, offset).tobytes()
    )
    wanted = own("rescaled_grad", g, x, scale)
    for a, w in zip(generated("rescaled_grad", g, x, scale), wanted, strict=True):
        assert a.shape == w.shape and a.tobytes() == w.tobytes()


@pytest.mark.parametrize("shape", [(1, 1), (5, 37), (32, 128)])
def test_cells_of_long_short_term_memory(shape):
    rows, units = shape
    z, c, dh, dc = normal(rows, 4 * units), *(normal(*shape) for _ in range(3))
    for name, args in [("lstm_cell", (z, c)), ("lstm_cell_grad", (dh, dc, z, c))]:
        for found, wanted in zip(generated(name, *args), own(name, *args), strict=True):
            close(found, wanted)


@pytest.mark.parametrize("shape", [(1, 12, 1), (3, 13, 37), (4, 32, 128)])
def test_sequences_of_long_short_term_memory(shape):
    (steps, rows, units), four = shape, 4 * shape[2]
    x, kernel = normal(steps, rows, four), normal(units, four) / np.float32(units**0.5)
    h, c = normal(rows, units), normal(rows, units)
    made = own("lstm_steps", x, kernel, h, c)
    cotangents = normal(*shape), normal(*shape), normal(steps, rows, four)
    for name, args in [
        ("lstm_steps", (x, kernel, h, c)),
        ("lstm_steps_grad", (*cotangents, kernel, h, c, *made)),
    ]:
        wanted = own(name, *args)
        out = tuple([np.full_like(each, np.nan) for each in wanted])
        assert llvm_eager.run(registry[name], args, {}, out) is out
        for found, again, expected in zip(generated(name, *args), out, wanted, strict=True):
            close(found, expected, ulps=32)
            assert found.tobytes() == again.tobytes()


def test_sequences_of_few_samples_are_left_to_blas():
    args = normal(3, 11, 32), normal(8, 32), normal(11, 8), normal(11, 8)
    assert llvm_eager.run(registry["lstm_steps"], args, {}) is None


@pytest.mark.parametrize("shape", [(128, 40), (9, 11, 13, 7), (4096, 1)])
def test_columns(shape):
    """Standardised over all rows, with the bits of NumPy's sums but for one column."""
    ulps = 8 if shape[-1] > 1 else 64  # NumPy adds up a single column in pairs
    dy, x = normal(*shape), 3 * normal(*shape) + 2
    params = {"axis": tuple(range(len(shape) - 1)), "epsilon": 1e-3}
    for name, args in [("standardize", (x,)), ("standardize_grad", (dy, x))]:
        wanted = own(name, *args, **params)
        close(generated(name, *args, **params), wanted, ulps)
        out = np.full_like(wanted, np.nan)
        assert llvm_eager.run(registry[name], args, params, out) is out
        close(out, wanted, ulps)


@pytest.mark.parametrize("shape", [(128, 40), (3, 2), (9, 11, 13, 7), (5000, 10), (2, 3, 1030)])
def test_sums_of_columns_are_those_of_numpy(shape):
    x = normal(*shape) * 10.0 ** RNG.integers(-3, 4, shape[-1]).astype(np.float32)
    for lead in (0, len(shape) - 1):
        to = (1,) * lead + shape[-1:]
        ways = {"axis": tuple(range(len(shape) - 1)), "keepdims": bool(lead)}
        for name, params in [("sum_to", {"shape": to}), ("mean", ways)]:
            wanted = own(name, x, **params)
            made = generated(name, x, **params)
            assert made.shape == wanted.shape and made.tobytes() == wanted.tobytes()
    params = {"axis": tuple(range(len(shape) - 1))}
    wanted = own("observed_moments", x, **params)
    out = tuple(np.full_like(w, np.nan) for w in wanted)
    assert llvm_eager.run(registry["observed_moments"], (x,), params, out) is out
    for found in (out, generated("observed_moments", x, **params)):
        for a, w in zip(found, wanted, strict=True):
            assert a.shape == w.shape and a.tobytes() == w.tobytes()


def test_other_rows_are_left_to_numpy():
    x, b = normal(6, 40), normal(40)
    for args in [(x, b[:1]), (x.T, b), (x, b[None]), (x.astype(np.float64), b.astype(np.float64))]:
        assert llvm_eager.run(registry["biased"], args, {"activation": "relu"}) is None
    assert llvm_eager.run(registry["lstm_cell"], (x, normal(5, 10)), {}) is None
    assert llvm_eager.run(registry["rescaled"], (x, b, b[:1]), {}) is None
    assert llvm_eager.run(registry["rescaled_grad"], (x[:, :1].copy(),) * 2 + (b[:1],), {}) is None
    y = normal(80, 80)
    for x, to in [(y.T, (80,)), (y, (80, 1)), (y, ()), (y[:, :1].copy(), (1,))]:
        assert llvm_eager.run(registry["sum_to"], (x,), {"shape": to}) is None
    for x, axis in [(normal(80, 80).T, (0,)), (normal(8, 8), (0,)), (normal(9, 30, 30), (1,))]:
        assert llvm_eager.run(registry["standardize"], (x,), {"axis": axis, "epsilon": 1}) is None


def test_a_cotangent_that_is_repeated_in_memory():
    _, logits, labels = ROWS["sparse_cross_entropy_grad"][0]
    dy = np.broadcast_to(np.float32(0.5), (6, 5))
    close(
        generated("sparse_cross_entropy_grad", dy, logits, labels),
        own("sparse_cross_entropy_grad", dy, logits, labels),
    )


def test_one_kernel_for_any_number_of_rows():
    before = llvm_eager._made.cache_info().misses
    for rows in (1, 3, 100):
        x = normal(rows, 19)
        close(generated("softmax_along", x, axis=1), own("softmax_along", x, axis=1))
    assert llvm_eager._made.cache_info().misses == before + 1


@pytest.mark.parametrize(
    "x",
    [
        normal(64, 64).T,
        normal(64, 128)[:, ::2],
        normal(64, 64).astype(np.float64),
        normal(64, 64).astype(np.float16),
        np.zeros((0, 64), np.float32),
        np.float32(0.3).reshape(()),
        np.zeros((64, 0), np.float32),
    ],
)
def test_other_arrays_are_left_to_numpy(x, kernels):
    kernels("generated")
    for fn, name, params in [
        (tf.nn.gelu, "gelu_exact", {}),
        (tf.nn.softmax, "softmax_along", {"axis": x.ndim - 1}),
    ]:
        if name == "softmax_along" and not x.ndim:
            continue
        found = fn(tf.constant(0, x.dtype) + tf.Tensor(x) if not x.ndim else tf.Tensor(x))
        assert found.numpy().tobytes() == np.asarray(own(name, x, **params)).tobytes()


def test_mixed_arguments_are_left_to_numpy():
    x = normal(64, 64)
    for args in [(x, normal(64)), (x, x.T), (x, 2.0), (x, x.astype(np.float64))]:
        assert llvm_eager.run(registry["relu_grad"], args, {}) is None
    assert llvm_eager.run(registry["softmax_along"], (x,), {"axis": 0}) is None
    below = np.array([-1] * 64)
    params = {"shape": (9, 64), "axis": 0}
    assert llvm_eager.run(registry["take_grad"], (x, below), params) is None


def test_random_numbers_are_those_of_numpy(kernels):
    drawn = {}
    for name in ("numpy", "generated"):
        kernels(name)
        with streams.stream(1, 2, 3):
            drawn[name] = [
                random.uniform((67, 33), dtype=d).numpy() for d in ("float32", "float64")
            ]
    for a, b in zip(*drawn.values(), strict=True):
        assert a.tobytes() == b.tobytes()


def attention(x, w):
    h = tf.nn.gelu(tf.matmul(layer_norm(x), w))
    scores = tf.nn.softmax(tf.matmul(h, h, transpose_b=True))
    y = tf.sigmoid(tf.nn.relu(tf.matmul(scores, h)))
    labels = tf.constant(np.arange(96) % 32)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, y @ w))


def test_first_and_second_derivatives(kernels):
    x, w = tf.constant(normal(96, 32)), tf.constant(normal(32, 32) / 6)
    found = {}
    for name in ("numpy", "generated"):
        kernels(name)
        with tf.GradientTape() as outer:
            outer.watch(w)
            with tf.GradientTape() as inner:
                inner.watch([x, w])
                loss = attention(x, w)
            dx, dw = inner.gradient(loss, [x, w])
            size = tf.reduce_sum(dx * dx) + tf.reduce_sum(dw * dw)
        found[name] = [v.numpy() for v in (loss, dx, dw, outer.gradient(size, w))]
    for a, b in zip(*found.values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-5 * np.abs(b).max())


def has_the_bits_of_eager(fn, *args):
    """Bind by bind, and by the plan that comes of many runs."""
    captured, eager = tf.function(fn), fn(*args)
    for _ in range(interpreter.TRIED + 2):
        for a, b in zip(captured(*args), eager, strict=True):
            assert a.numpy().tobytes() == b.numpy().tobytes()
    (executor,) = captured.executors
    assert executor.planned


@pytest.mark.parametrize("name", ["numpy", "generated"])
def test_a_captured_function_has_the_bits_of_eager(name, kernels):
    kernels(name)
    x, w = tf.constant(normal(96, 32)), tf.constant(normal(32, 32) / 6)

    def gradient(x, w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            loss = attention(x, w)
        return loss, tape.gradient(loss, w)

    has_the_bits_of_eager(gradient, x, w)


def test_what_ran_is_told_apart(kernels, monkeypatch):
    kernels("generated")
    assert eager.identity().startswith("llvmlite ")
    kernels("numpy")
    assert eager.identity() == "NumPy" and eager.used() == "numpy"
    with monkeypatch.context() as patch:
        patch.setattr(engine, "lack", lambda: "there is no llvmlite")
        assert eager.best() == "numpy"
        with pytest.raises(MissingExtraError, match="pip install llvmlite"):
            eager.use("generated")


def test_workers_with_other_kernels_are_refused(kernels):
    from distgrad.core.errors import UsageError

    class Two:
        rank, world_size = 0, 2

        def allgather_object(self, own):
            return [own, {**own, "kernels": "NumPy"}]

    kernels("numpy")
    check_kernels(Two())
    kernels("generated")
    with pytest.raises(UsageError, match="rank 1 has kernels NumPy, rank 0 has llvmlite"):
        check_kernels(Two())


def test_an_import_and_small_arrays_load_no_generator():
    code = (
        "import sys, numpy as np, distgrad as tf; x = tf.ones((4, 4)); "
        "tf.nn.gelu(x), tf.nn.softmax(x); print('llvmlite' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_convolutions_and_poolings(kernels):
    """Forward and gradients; what each of these kernels gives is tested beside it."""
    x, filters = tf.Variable(normal(4, 13, 12, 16)), tf.Variable(normal(3, 3, 16, 16) * 0.1)
    found = {}
    for name in ("numpy", "generated"):
        kernels(name)
        with tf.GradientTape() as tape:
            y = tf.nn.conv2d(x, filters, 1, "SAME")
            z = tf.nn.max_pool2d(y, 2, 2, "VALID") + tf.nn.avg_pool2d(y, 2, 2, "VALID")
            loss = tf.reduce_sum(z * z)
        found[name] = [z, *tape.gradient(loss, [x, filters])]
    for a, b in zip(found["generated"], found["numpy"], strict=True):
        scale = float(tf.reduce_max(tf.abs(b)))
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=2e-6 * scale)
        assert a.numpy().tobytes() != b.numpy().tobytes()


@pytest.mark.parametrize("lead", [(96,), (3, 32)])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_products_of_matrices(lead, transpose_a, transpose_b, kernels):
    """In any layout, into a given array or a new one, and in rows of a larger array."""
    if transpose_a and len(lead) > 1:
        lead = (96,)
    dot, flags = registry["dot"], {"transpose_a": transpose_a, "transpose_b": transpose_b}
    a, b = normal(*lead, 129), normal(129, 97)
    wanted = np.matmul(a.astype(np.float64), b)
    for repeated in (False, True):  # as Fortran lays matrices out
        x = np.ascontiguousarray(a.T).T if repeated and a.ndim == 2 else a
        y = np.ascontiguousarray(b.T).T if repeated else b
        x, y = x.T if transpose_a else x, y.T if transpose_b else y
        out = np.full(wanted.shape, np.nan, np.float32)
        kernels("generated")
        hook = dot.kernel_for(np)
        made = llvm_eager.product(x, y, transpose_a, transpose_b, None)
        assert made is not None
        assert hook(x, y, **flags, out=out) is out and made.tobytes() == out.tobytes()
        np.testing.assert_allclose(made, wanted, rtol=0, atol=1e-4)
        kernels("numpy")
        np.testing.assert_allclose(dot.kernel_for(np)(x, y, **flags), wanted, rtol=0, atol=1e-4)


def test_a_column_times_a_row_is_generated_with_the_bits_of_numpy(kernels):
    """As in the step of a batch of one sample: NumPy would multiply without BLAS, 30 times slower.

    Zeros keep their sign.
    """
    rng, dot = np.random.default_rng(3), registry["dot"]
    x, g = (rng.normal(size=(1, n)).astype(np.float32) for n in (200, 40))
    x[0, :3], g[0, :2] = (0, -0.0, 1e-30), (-1, 1e-30)
    flags = {"transpose_a": True, "transpose_b": False}
    kernels("generated")
    assert eager.chosen(dot, (x, g), flags) is not None
    assert eager.chosen(dot, (x[:, :20], g), flags) is None
    assert dot.kernel_for(np)(x, g, **flags).tobytes() == np.matmul(x.T, g).tobytes()


def test_other_products_are_left_to_blas():
    a, b = normal(128, 128), normal(128, 128)
    for x, y in [
        (a[:8], b),
        (a, b[:, :16]),
        (a[:, ::2], b[:64]),
        (a, b[:64]),
    ]:
        assert llvm_eager.product(x, y, False, False, None) is None
    assert llvm_eager.product(a, b, False, False, normal(128, 256)[:, ::2]) is None


def layers():
    found = [
        tf.keras.layers.LSTM(32, return_sequences=True),
        tf.keras.layers.Conv1D(48, 3, activation="relu"),
        tf.keras.layers.Dense(40, activation="gelu"),
        tf.keras.layers.LayerNormalization(),
        tf.keras.layers.Dropout(0.3, seed=1),
        tf.keras.layers.Dense(3, activation="tanh"),
    ]
    model = tf.keras.Sequential(found)
    model.build((16, 12, 24))
    return model


def trained(model, x):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(x, training=False)))
    return [loss, *tape.gradient(loss, model.trainable_variables)]


@pytest.mark.parametrize("name", ["numpy", "generated"])
def test_captured_layers_have_the_bits_of_eager(name, kernels):
    kernels(name)
    model, x = layers(), tf.constant(normal(16, 12, 24))
    has_the_bits_of_eager(lambda x: trained(model, x), x)


def test_a_capture_that_fuses_sees_parts():
    """Else its shards could not be run together, and its kernels not be joined."""
    model, x = layers(), normal(16, 12, 24)
    whole, parts = (
        {i.name for i in trace(lambda x: trained(model, x), [x], in_parts=p).program.instructions}
        for p in (False, True)
    )
    ours = {
        f"{each}{grad}" for each in ("biased", "lstm_steps", "rescaled") for grad in ("", "_grad")
    }
    assert ours <= whole and not ours & parts and {"relu", "sigmoid", "tanh"} <= parts


def test_dropout_draws_what_it_drew(kernels):
    """The choice is that of the generator; what is kept is scaled, and so is its gradient."""
    x = tf.constant(normal(64, 100))
    found = []
    for name in ("numpy", "generated"):
        kernels(name)
        with streams.stream(1, 2, 3), tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.nn.dropout(x, 0.3)
        found.append((y.numpy(), tape.gradient(y, x).numpy()))
    with streams.stream(1, 2, 3):
        kept = random.uniform((64, 100)).numpy() >= np.float32(0.3)
    scale = np.float32(1 / 0.7)
    for y, dx in found:
        np.testing.assert_array_equal(y, np.where(kept, x.numpy() * scale, np.float32(0)))
        np.testing.assert_array_equal(dx, np.where(kept, scale, np.float32(0)))


@pytest.mark.parametrize("size", [1, 16, 1023, 4100])
def test_a_choice_of_arrays_numbers_and_one_repeated(size):
    condition = RNG.integers(0, 2, size).astype(bool)
    arrays = normal(size), normal(size), np.broadcast_to(np.float32(1.5), size), 0.0, 1
    for x in arrays:
        for y in arrays:
            found = llvm_eager.select(condition, x, y, None)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, np.where(condition, x, y))
    assert llvm_eager.select(condition, normal(size), 2.5, None) is None
    assert llvm_eager.select(condition, normal(size).astype(np.float64), 0.0, None) is None


def test_a_captured_function_has_the_bits_of_eager_in_bfloat16(kernels):
    kernels("generated")

    def fn(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            labels = tf.nn.softmax(x)
            losses = tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=x)
        return losses, tape.gradient(losses, x)

    has_the_bits_of_eager(fn, tf.cast(tf.constant(normal(3, 4097)), tf.bfloat16))


@pytest.mark.parametrize(
    ("m", "k", "n", "large"),
    [(256, 10, 512, True), (1024, 1024, 1, True), (1, 90, 100, True), (30, 30, 30, False)],
)
def test_blas_has_one_thread_for_products_that_might_have_more(
    m, k, n, large, monkeypatch, kernels
):
    """Of float32: threads of BLAS would be in the way of ours."""
    kernels("generated")
    asked = []

    class Pool:
        @staticmethod
        def by_blas(call, *args, **kwargs):
            asked.append(call)
            return call(*args, **kwargs)

    monkeypatch.setattr(eager, "_pool", Pool)
    monkeypatch.setattr(eager, "_product", lambda *args: None)
    a, b, dot = normal(m, k), normal(k, n), registry["dot"].kernel_for(np)
    for x, y, flags in [(a, b, (False, False)), (a.T.copy(), b.T.copy(), (True, True))]:
        made = dot(x, y, transpose_a=flags[0], transpose_b=flags[1])
        np.testing.assert_allclose(made, a @ b, rtol=0, atol=1e-3)
    assert len(asked) == 2 * large
