"""Products in machine code, steps in sequence, and no late reads."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.compile.capture import trace
from distgrad.compile.llvm import engine
from distgrad.compile.numpy_exec import numpy_executor

pytestmark = pytest.mark.skipif(not engine.available(), reason="needs llvmlite and FMA")

from distgrad.compile.cpu_exec import cpu_executor  # noqa: E402

RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def both(fn, *arrays):
    program = trace(fn, arrays).program
    assert program is not None
    return cpu_executor(program, arrays), numpy_executor(program, arrays)


@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize(
    "sizes", [(2, 3, 4), (32, 32, 32), (5, 1, 7), (1, 9, 4), (64, 10, 128), (27, 700, 530)]
)
def test_products(sizes, flags):
    m, k, n = sizes
    a = floats(*((k, m) if flags[0] else (m, k)))
    b = floats(*((n, k) if flags[1] else (k, n)))

    def fn(a, b):
        return tf.matmul(a, b, transpose_a=flags[0], transpose_b=flags[1])

    generated, oracle = both(fn, a, b)
    (found,), (usual,) = generated([a, b]), oracle([a, b])
    exact = (a.T if flags[0] else a).astype(float) @ (b.T if flags[1] else b).astype(float)
    assert np.abs(found - exact).max() <= max(2 * np.abs(usual - exact).max(), 1e-6)
    if min(sizes) > 1:
        assert np.matmul not in [step.fn for step in generated.schedule.steps]


def test_a_row_has_its_bits_whatever_other_rows_there_are():
    w = floats(300, 70)
    rows = floats(61, 300)
    program = {n: both(tf.matmul, rows[:n], w)[0] for n in (2, 3, 12, 30, 61)}
    whole = program[61]([rows, w])[0]
    for n in (2, 3, 12, 30):
        for start in (0, 61 - n):
            part = np.ascontiguousarray(rows[start : start + n])
            assert program[n]([part, w])[0].tobytes() == whole[start : start + n].tobytes()


def test_a_matrix_times_itself_and_parts_of_matrices():
    x = floats(24, 40)

    def fn(x):
        left, right = tf.split(x, 2, axis=1)
        y = tf.matmul(left, right, transpose_b=True)
        return tf.matmul(x, x, transpose_b=True), y, tf.matmul(y[2:9], left)

    generated, oracle = both(fn, x)
    for a, b in zip(generated([x]), oracle([x]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_deep_network_is_few_calls():
    weights = [floats(16, 16) for _ in range(20)]

    def fn(x, *weights):
        for w in weights:
            x = tf.nn.relu(tf.matmul(x, w) + 0.5)
        return x

    generated, oracle = both(fn, floats(8, 16), *weights)
    calls = [s for s in generated.schedule.steps if hasattr(s.fn, "bound")]
    assert len(calls) <= 2 + 40 // 16
    for _ in range(2):
        x = floats(8, 16)
        found, wanted = generated([x, *weights])[0], oracle([x, *weights])[0]
        # Of terms that nearly cancel out little is left: errors are relative to the largest.
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_a_large_input_is_not_bound():
    x, w = floats(300, 100), floats(100, 8)
    generated, oracle = both(lambda x, w: tf.nn.relu(tf.matmul(x, w)) + 1.0, x, w)
    for _ in range(2):
        x = floats(300, 100)
        np.testing.assert_allclose(generated([x, w])[0], oracle([x, w])[0], rtol=1e-5, atol=1e-5)


def test_parts_of_a_variable_keep_its_old_value():
    v = tf.Variable(floats(4, 6))

    def fn(x):
        first, second = tf.split(v, 2, axis=1)
        v.assign(v * 2.0)
        return first * x, second + x

    x = floats(4, 3)
    start = v.numpy()
    generated, _ = both(fn, x)
    v.assign(start)
    found = generated([x])
    np.testing.assert_allclose(found[0], start[:, :3] * x, rtol=1e-6)
    np.testing.assert_allclose(found[1], start[:, 3:] + x, rtol=1e-6)
    np.testing.assert_array_equal(v.numpy(), start * 2)


def test_parts_that_are_returned_are_the_callers_own():
    x = floats(6, 4)
    generated, _ = both(lambda x: tf.split(tf.exp(x), 2, axis=0), x)
    first = generated([x])
    kept = [a.copy() for a in first]
    generated([x + 1])
    for a, b in zip(first, kept, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize(
    "sizes", [(2, 2, 4), (32, 16, 32), (7, 33, 65), (50, 64, 50), (90, 5, 100)]
)
def test_many_small_products(sizes, flags):
    """Of rows that lie apart, too, as those of attention's heads do."""
    m, k, n = sizes
    a = floats(2, *((k, 3, m) if flags[0] else (m, 3, k)))
    b = floats(2, *((n, 3, k) if flags[1] else (k, 3, n)))

    def fn(a, b):
        a, b = (tf.transpose(x, (0, 2, 1, 3)) for x in (a, b))
        return tf.matmul(a, b, transpose_a=flags[0], transpose_b=flags[1])

    generated, oracle = both(fn, a, b)
    (found,), (usual,) = generated([a, b]), oracle([a, b])
    np.testing.assert_allclose(found, usual, rtol=0, atol=2e-5)
    assert np.matmul not in [step.fn for step in generated.schedule.steps]
