"""Generated reductions: against float64, in one fixed order, whatever stands around a row."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile.capture import trace
from distgrad.compile.llvm import engine
from distgrad.compile.numpy_exec import Executor, numpy_executor
from distgrad.compile.passes import expand, simplify

pytestmark = pytest.mark.skipif(not engine.available(), reason="needs llvmlite and FMA")

from distgrad.compile.cpu_exec import cpu_executor  # noqa: E402

RNG = np.random.default_rng(0)
COLUMNS = [1, 3, 7, 16, 17, 33, 128, 130, 1000]


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def run(fn, *arrays):
    """The results of the generated program, and those of float64 in NumPy."""
    program = trace(fn, arrays).program
    assert program is not None
    executor = cpu_executor(program, arrays)
    wide = [a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays]
    program64 = trace(fn, wide).program
    assert program64 is not None
    return executor, executor(arrays), numpy_executor(program64, wide)(wide)


def check(fn, *arrays, rtol: float = 2e-6, atol: float = 1e-6, whole: bool = True):
    """Sums of n terms of size 1 err by a rounding each: atol grows with their number."""
    executor, found, wanted = run(fn, *arrays)
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
    if whole:
        assert all(hasattr(s.fn, "bound") or s.fn is np.copyto for s in executor.schedule.steps)
    return found


def gradient(fn):
    """``fn`` and the gradients of its sum, weighted by its last argument."""

    def both(*tensors):
        *inputs, weight = tensors
        with tf.GradientTape() as tape:
            watched = [t for t in inputs if t.dtype.is_floating]
            tape.watch(watched)
            out = fn(*inputs)
        return [out, *tape.gradient(out, watched, output_gradients=weight)]

    return both


@pytest.mark.parametrize("columns", COLUMNS)
def test_softmax_and_its_kin(columns):
    x, w = floats(5, columns) * 3, floats(5, columns)
    check(gradient(tf.nn.softmax), x, w)
    check(gradient(tf.nn.log_softmax), x, w, atol=3e-5)  # sums a gradient of 1000 terms


@pytest.mark.parametrize("columns", COLUMNS)
def test_layer_norm(columns):
    x, scale, offset, w = floats(9, columns), floats(columns), floats(columns), floats(9, columns)
    fn = gradient(lambda *a: tf.nn.layer_norm(*a) if hasattr(tf.nn, "layer_norm") else norm(*a))
    check(fn, x, scale, offset, w, rtol=2e-5, atol=2e-5)


def norm(x, scale, offset):
    from distgrad.ops.normalization import layer_norm

    return layer_norm(x, scale, offset)


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_cross_entropy(columns, dtype):
    logits, w = floats(11, columns) * 3, floats(11)
    labels = RNG.integers(0, columns, 11).astype(dtype)

    def fn(logits):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.constant(labels), logits)

    check(gradient(fn), logits, w, rtol=1e-5, whole=False)
    dense = np.abs(floats(11, columns))
    both = gradient(lambda p, x: tf.nn.softmax_cross_entropy_with_logits(p, x))
    check(both, dense, logits, w, rtol=1e-5, atol=1e-3 if columns == 1000 else 2e-5)


WAYS = [
    lambda x: tf.reduce_sum(tf.exp(x), 1),
    lambda x: tf.reduce_mean(x * 2.0, -1, keepdims=True) + 1.0,
    lambda x: tf.reduce_max(x, 1),
    lambda x: tf.reduce_min(tf.abs(x), 1, keepdims=True),
    lambda x: tf.reduce_sum(tf.nn.relu(x), 0),
    lambda x: tf.reduce_mean(x, 0, keepdims=True) * 3.0,
    lambda x: tf.reduce_sum(x * x),
    lambda x: tf.reduce_mean(tf.abs(x)),
    lambda x: x - tf.reduce_mean(x, 0),
    lambda x: (x - tf.reduce_mean(x, 1, keepdims=True)) * x,
    lambda x: tf.reduce_sum(tf.reduce_sum(x * x, 1)),
]


@pytest.mark.parametrize("columns", [*COLUMNS, 3000])
@pytest.mark.parametrize("way", range(len(WAYS)))
def test_reductions(way, columns):
    check(WAYS[way], floats(13, columns), rtol=1e-5, atol=1e-4)


def test_reductions_over_several_axes():
    x = floats(4, 3, 5, 7)
    check(lambda x: tf.reduce_sum(x * 2.0, (2, 3)), x, atol=1e-5)
    check(lambda x: tf.reduce_sum(tf.exp(x), (0, 1)), x, atol=1e-4)
    check(lambda x: x - tf.reduce_mean(x, (1, 2, 3), keepdims=True), x)
    check(lambda x: tf.reduce_mean(x, (0, 1, 2)) + tf.reduce_sum(x, 3)[0, 0, 0], x, whole=False)
    middle = lambda x: tf.reduce_sum(x, 1)  # noqa: E731
    check(middle, x, whole=False)


@pytest.mark.parametrize("shape", [(1,), (5, 1)])
def test_a_reduction_of_a_row_of_one_may_be_reduced_again(shape):
    """Its shape is that of what it was made from."""

    def twice(x):
        least = tf.reduce_min(x, -1, keepdims=True)
        mean = tf.reduce_mean(least, -1, keepdims=True)
        return tf.exp(x), least, mean, tf.reduce_sum(mean - x, -1)

    check(twice, floats(*shape), whole=False)


def test_a_mask_that_repeats_over_the_outer_axes():
    x = floats(2, 3, 9, 9)
    mask = np.tri(9, dtype=bool)

    def fn(x):
        return tf.nn.softmax(tf.where(tf.constant(mask), x * 0.3, np.float32(-1e9)))

    (found,) = check(fn, x)
    assert (found[..., ~mask] == 0).all()


@pytest.mark.parametrize("columns", [5, 64, 200, 2000])
def test_a_row_has_its_bits_among_any_others(columns):
    x = floats(64, columns)

    def fn(x):
        y = tf.nn.softmax(x)
        return y, tf.reduce_sum(y * x, 1), norm(x, 1.0, 0.0)

    program = trace(fn, [x]).program
    assert program is not None
    all_rows = cpu_executor(program, [x])([x])
    for start, stop in ((0, 8), (8, 9), (13, 40)):
        some = np.ascontiguousarray(x[start:stop])
        program = trace(fn, [some]).program
        assert program is not None
        for a, b in zip(all_rows, cpu_executor(program, [some])([some]), strict=True):
            assert a[start:stop].tobytes() == b.tobytes()


@pytest.mark.parametrize("columns", [5, 16, 130, 1500])
def test_columns_are_summed_row_by_row(columns):
    x = floats(300, columns)
    (found,) = check(lambda x: tf.reduce_sum(x * 1.0, 0), x, atol=1e-3)
    total = np.zeros(columns, np.float32)
    for row in x:
        total += row
    assert found.tobytes() == total.tobytes()


@pytest.mark.parametrize("columns", [3, 16, 50, 1024, 5000])
def test_rows_are_summed_in_the_stated_order(columns):
    x = floats(3, columns)
    (found,) = check(lambda x: tf.reduce_sum(x * 1.0, 1), x, rtol=1e-5, atol=1e-4)
    padded = np.zeros((3, -(-columns // 16) * 16), np.float32)
    padded[:, :columns] = x
    vectors = padded.reshape(3, -1, 16)
    total = np.zeros((3, 16), np.float32)
    whole = columns // 16 if columns > 1024 else vectors.shape[1]
    for first in range(0, vectors.shape[1] if columns > 1024 else 1, 64):
        lanes = np.zeros((3, 16), np.float32)
        last = min(first + 64, whole) if columns > 1024 else whole
        for i in range(first, last):
            lanes += vectors[:, i]
        total += lanes
    if columns > 1024 and whole < vectors.shape[1]:
        total += vectors[:, whole]
    while total.shape[1] > 1:
        half = total.shape[1] // 2
        total = total[:, :half] + total[:, half:]
    assert found.tobytes() == total[:, 0].tobytes()


def test_long_sums_stay_close():
    x = RNG.random(1_000_003, dtype=np.float32)
    (found,) = check(lambda x: tf.reduce_sum(x * 1.0), x, rtol=1e-6)
    assert found.dtype == np.float32


def test_infinities_and_nans():
    x = floats(4, 20)
    x[0, 3], x[1, 5], x[2, 7], x[3] = np.nan, np.inf, -np.inf, -np.inf
    _, found, wanted = run(
        lambda x: [tf.reduce_max(x * 1.0, 1), tf.reduce_min(x, 1), tf.nn.softmax(x)], x
    )
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_nothing_in_it():
    for shape in ((0, 5), (5, 0)):
        x = np.zeros(shape, np.float32)
        _, found, wanted = run(lambda x: [tf.reduce_sum(x * 2.0, 1), tf.reduce_mean(x, 0)], x)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def test_strided_and_transposed_inputs():
    wide = floats(8, 6, 40)

    def fn(x):
        y = tf.transpose(x, (1, 0, 2))[:, ::2, 3:37]
        z = tf.transpose(x, (2, 1, 0))
        return tf.nn.softmax(y), tf.reduce_sum(tf.exp(z), 2), tf.reduce_sum(z * 2.0, (0, 1))

    check(fn, wide, atol=1e-4, whole=False)


def test_float64_sums_are_generated_too():
    x = RNG.normal(size=(6, 35))
    check(lambda x: [tf.reduce_sum(x * x, 1), tf.reduce_mean(x, 0)], x, rtol=1e-14, atol=1e-14)


def test_expanding_keeps_the_values():
    x, y = floats(6, 5), np.array([0, 4, 2, 1, 3, 3])

    def fn(x, y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            h = norm(x, 2.0, 0.5)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, h))
            loss += tf.reduce_sum(tf.nn.softmax(h) * tf.nn.log_softmax(h))
        return loss, tape.gradient(loss, x)

    program = trace(fn, [x, y]).program
    assert program is not None
    after = simplify(expand(simplify(program))).verify()
    names = {getattr(i, "name", "") for i in after.instructions}
    assert not names & {"softmax_along", "standardize", "standardize_grad", "sparse_cross_entropy"}
    expected = numpy_executor(program, [x, y])([x, y])
    for a, b in zip(Executor(after, [x, y])([x, y]), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_narrower_vectors_give_the_same_bits(monkeypatch, tmp_path):
    """The code for a CPU without AVX-512 computes lane by lane what that with it does."""
    x, w = floats(7, 150), floats(7, 150)
    fn = gradient(lambda x: norm(tf.nn.softmax(x) + tf.nn.gelu(x, approximate=False), 1.0, 0.0))
    program = trace(fn, [x, w]).program
    assert program is not None
    usual = cpu_executor(program, [x, w])([x, w])
    _, features = engine._host()
    narrow = {k: on and not k.startswith("avx512") for k, on in features.items()}
    monkeypatch.setattr(engine, "_host", lambda: ("haswell", narrow))
    monkeypatch.setattr(engine, "cache_folder", lambda: tmp_path)
    engine._machine.cache_clear()
    try:
        found = cpu_executor(program, [x, w])([x, w])
    finally:
        engine._machine.cache_clear()
    for a, b in zip(found, usual, strict=True):
        assert a.tobytes() == b.tobytes()
