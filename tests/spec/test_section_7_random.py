"""Tape semantics 7: random numbers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import distgrad as tf

DRAWS = {
    "normal": lambda **k: tf.random.normal((3, 4), **k),
    "uniform": lambda **k: tf.random.uniform((3, 4), **k),
    "uniform int": lambda **k: tf.random.uniform((12,), maxval=10**9, dtype=tf.int64, **k),
    "truncated_normal": lambda **k: tf.random.truncated_normal((3, 4), **k),
    "shuffle": lambda **k: tf.random.shuffle(tf.range(50), **k),
}


def same(a, b):
    return np.array_equal(a, b)


@pytest.mark.parametrize("name", DRAWS)
def test_set_seed_restarts_the_sequence(name):
    """`tf.random.set_seed(s)` restarts the op sequence: the same calls replay the same numbers."""
    draw = DRAWS[name]
    tf.random.set_seed(7)
    first = [draw().numpy() for _ in range(3)]
    tf.random.set_seed(7)
    again = [draw().numpy() for _ in range(3)]
    tf.random.set_seed(8)
    other = draw().numpy()
    assert all(map(same, first, again))
    assert not same(first[0], other)


@pytest.mark.parametrize("name", DRAWS)
def test_two_calls_in_a_row_differ(name):
    """two calls in a row differ (without a seed, with a global one, with an operation's own)."""
    draw = DRAWS[name]
    assert not same(draw(), draw())
    tf.random.set_seed(7)
    assert not same(draw(), draw())
    assert not same(draw(seed=3), draw(seed=3))


@pytest.mark.parametrize("name", DRAWS)
def test_an_operation_seed_has_its_own_sequence(name):
    """`set_seed` with operation seeds: they replay, and other draws do not change them."""
    draw = DRAWS[name]
    tf.random.set_seed(7)
    first = [draw(seed=3).numpy(), draw(seed=3).numpy()]
    tf.random.set_seed(7)
    again = [draw(seed=3).numpy()]
    tf.random.normal((5,))
    draw(seed=4)
    again.append(draw(seed=3).numpy())
    assert all(map(same, first, again))
    tf.random.set_seed(7)
    assert not same(draw(seed=4), first[0]) and not same(draw(), first[0])


def test_an_operation_seed_in_a_program_that_sets_none():
    """Without a global seed an operation's own seed still gives the same numbers in each run."""
    code = (
        "import distgrad as tf\n"
        "print(tf.random.uniform((2,)).numpy().tolist())\n"
        "print(tf.random.normal((2,), seed=5).numpy().tolist())\n"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    (free1, seeded1), (free2, seeded2) = (r.stdout.splitlines() for r in runs)
    assert seeded1 == seeded2 and free1 != free2


def test_normal():
    """`normal`: mean, deviation, dtype and shape as asked."""
    tf.random.set_seed(1)
    x = tf.random.normal((200, 500), mean=3.0, stddev=2.0, dtype=tf.float64)
    assert x.dtype == tf.float64 and x.shape == (200, 500)
    assert abs(np.mean(x) - 3.0) < 0.03 and abs(np.std(x) - 2.0) < 0.03
    assert tf.random.normal([7, 2]).dtype == tf.float32
    assert tf.random.normal([]).shape == () and tf.random.normal((0, 3)).shape == (0, 3)
    per_column = tf.random.normal((1000, 2), mean=[0.0, 100.0], stddev=[1.0, 0.1])
    assert np.allclose(np.mean(per_column, 0), [0.0, 100.0], atol=0.2)


def test_uniform():
    """`uniform` ([minval, maxval))."""
    tf.random.set_seed(1)
    for low, high in ((0, None), (-2.0, 3.0), (1, 2)):
        x = tf.random.uniform((100_000,), low, high).numpy()
        top = 1.0 if high is None else high
        assert x.min() >= low and x.max() < top
        assert abs(x.mean() - (low + top) / 2) < 0.01 * (top - low)
    n = tf.random.uniform((10_000,), minval=-3, maxval=4, dtype=tf.int32)
    assert n.dtype == tf.int32 and set(n.numpy().tolist()) == set(range(-3, 4))


@pytest.mark.parametrize("dtype", [tf.float16, tf.float32])
def test_uniform_never_reaches_maxval(dtype):
    """`uniform` ([minval, maxval)): rounding does not bring maxval in."""
    tf.random.set_seed(0)
    for low, high in ((0, 1), (1.0, 2.0), (1000, 1001)):
        x = tf.random.uniform((300_000,), low, high, dtype=dtype)
        assert x.dtype == dtype
        assert x.numpy().max() < high and x.numpy().min() >= low


def test_uniform_dtype_errors():
    """`random.uniform(int dtype)` without maxval, bool and complex: ValueError."""
    for dtype in (tf.int32, tf.bool, tf.complex64):
        with pytest.raises(ValueError):
            tf.random.uniform((2,), dtype=dtype)
    with pytest.raises(ValueError):
        tf.random.normal((2,), dtype=tf.int32)
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.random.uniform((2,), minval=5, maxval=5, dtype=tf.int32)


def test_truncated_normal():
    """`truncated_normal` (within 2 sd)."""
    tf.random.set_seed(1)
    x = tf.random.truncated_normal((100_000,), mean=10.0, stddev=3.0).numpy()
    assert np.abs(x - 10.0).max() <= 6.0 + 1e-4
    assert abs(x.mean() - 10.0) < 0.05 and abs(x.std() - 3.0 * 0.8796) < 0.05


def test_shuffle():
    """`shuffle`: the same rows in another order; it has a gradient."""
    x = tf.Variable(np.arange(40.0).reshape(20, 2))
    tf.random.set_seed(1)
    with tf.GradientTape() as tape:
        y = tf.random.shuffle(x)
        z = tf.reduce_sum(y * y)
    rows = y.numpy()
    assert not same(rows, x) and same(rows[np.argsort(rows[:, 0])], x)
    np.testing.assert_array_equal(tf.convert_to_tensor(tape.gradient(z, x)), 2 * x.numpy())
    assert float(tf.random.shuffle(tf.constant(1.0))) == 1


def test_random_numbers_can_be_reparametrised():
    """Mean and deviation may be tensors with a gradient of their own."""
    mean, deviation = tf.Variable(1.0), tf.Variable(2.0)
    with tf.GradientTape() as tape:
        x = tf.random.normal((5,), mean, deviation)
        y = tf.reduce_sum(x)
    of_mean, of_deviation = tape.gradient(y, [mean, deviation])
    assert float(of_mean) == 5.0
    noise = (x.numpy() - 1.0) / 2.0
    assert float(of_deviation) == pytest.approx(noise.sum(), rel=1e-6)


@pytest.mark.parametrize("name", ["normal", "uniform", "truncated_normal"])
def test_stateless(name):
    """`random.stateless_*`: the two seeds alone decide, whatever was drawn before."""
    draw = getattr(tf.random, f"stateless_{name}")
    first = draw((3, 4), seed=[1, 2])
    tf.random.set_seed(0)
    tf.random.normal((3,))
    assert same(draw((3, 4), seed=(1, 2)), first)
    for other in ([2, 2], [1, 3], [2, 1]):
        assert not same(draw((3, 4), seed=other), first)
    for bad in ([1], 1, [1.0, 2.0], [1, 2, 3]):
        with pytest.raises(ValueError):
            draw((3,), seed=bad)


def test_generator():
    """`random.Generator.from_seed`: a stream of its own."""
    a, b = tf.random.Generator.from_seed(5), tf.random.Generator.from_seed(5)
    first = [a.normal((3,)), a.uniform((3,)), a.truncated_normal((3,))]
    tf.random.normal((9,))
    again = [b.normal((3,)), b.uniform((3,)), b.truncated_normal((3,))]
    assert all(map(same, first, again)) and not same(a.normal((3,)), first[0])
    a.reset_from_seed(5)
    assert same(a.normal((3,)), first[0])
    assert a.uniform((4,), maxval=3, dtype=tf.int32).dtype == tf.int32
    free = tf.random.Generator.from_non_deterministic_state()
    assert not same(free.normal((3,)), first[0])


def test_categorical():
    """`random.categorical`: classes with the chances of their softmax."""
    tf.random.set_seed(3)
    chances = np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]])
    with np.errstate(divide="ignore"):
        drawn = tf.random.categorical(np.log(chances), 20_000)
    assert drawn.dtype == tf.int64 and drawn.shape == (2, 20_000)
    for row, p in zip(drawn.numpy(), chances, strict=True):
        np.testing.assert_allclose(np.bincount(row, minlength=3) / 20_000, p, atol=0.015)


def test_set_random_seed_fixes_layer_initialisation():
    """`tf.keras.utils.set_random_seed` fixes layer initialisation."""

    def weights(seed):
        tf.keras.utils.set_random_seed(seed)
        layer = tf.keras.layers.Dense(5)
        layer(tf.ones((1, 3)))
        return layer.get_weights()[0]

    assert same(weights(3), weights(3)) and not same(weights(3), weights(4))
