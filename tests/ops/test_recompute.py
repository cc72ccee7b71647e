"""recompute_grad: the same gradients without the memory."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import distgrad as tf

RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(4, 3)), RNG.normal(size=(3, 3))


def block(x, w):
    return tf.tanh(x @ w) * tf.sin(x)


def gradients(f, x, w):
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(f(f(x, w), w) ** 2)
    return y, tape.gradient(y, [x, w])


def test_gradients_are_the_same_bits():
    x, w = tf.Variable(X), tf.Variable(W)
    plain, recomputed = gradients(block, x, w), gradients(tf.recompute_grad(block), x, w)
    assert float(plain[0]) == float(recomputed[0])
    for a, b in zip(plain[1], recomputed[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_used_elsewhere_too_has_the_same_bits():
    """Arguments and variables whose gradients come from within, several times, and from outside."""
    x, w = tf.Variable(RNG.normal(size=(7, 5))), tf.Variable(RNG.normal(size=(5, 5)))

    def mixed(a, b):
        return tf.tanh(a @ w) * tf.sin(b @ w) + a * b

    results = []
    for f in (mixed, tf.recompute_grad(mixed)):
        with tf.GradientTape() as tape:
            h = tf.sin(x @ w)
            y = h * f(h, h) + f(h, tf.cos(h))
            loss = tf.reduce_sum(y**2) + tf.reduce_sum(w**2)
        results.append(tape.gradient(loss, [x, w, h]))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_variables_of_the_function_have_gradients():
    """Variables that the function reads, and ones among its arguments."""
    x, w = tf.Variable(X), tf.Variable(W)

    def closed(x):
        return block(x, w)

    results = []
    for f in (closed, tf.recompute_grad(closed)):
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(f(x) ** 3)
        assert [id(v) for v in tape.watched_variables()] in ([id(x), id(w)], [id(w), id(x)])
        results.append(tape.gradient(y, [x, w]))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


def test_nested_tapes():
    """Second and third derivatives (TensorFlow raises NotImplementedError)."""

    def third(f):
        x, v = tf.Variable(0.7, dtype=tf.float64), tf.Variable(1.3, dtype=tf.float64)
        with tf.GradientTape() as t3, tf.GradientTape() as t2:
            with tf.GradientTape() as t1:
                y = f(x, v)
            g = t1.gradient(y, x)
            h = t2.gradient(g, [x, v])
        return [float(g), *map(float, h), *map(float, t3.gradient(h[0], [x, v]))]

    f = lambda x, v: tf.sin(x * v) * x  # noqa: E731
    np.testing.assert_allclose(third(tf.recompute_grad(f)), third(f), rtol=1e-13)


def test_structures_of_arguments_and_results():
    @tf.recompute_grad
    def f(pair, *, scale):
        """Doc."""
        return {"p": pair["a"] * pair["b"] * scale, "s": [pair["a"] + pair["b"]]}

    assert f.__name__ == "f" and f.__doc__ == "Doc."
    a, b = tf.Variable(2.0), tf.constant(3.0)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(b)
        out = f({"a": a, "b": b}, scale=10.0)
        part = out["s"][0]
    assert [float(g) for g in tape.gradient(out["p"], [a, b])] == [30.0, 20.0]
    assert [float(g) for g in tape.gradient(part, [a, b])] == [1.0, 1.0]


def test_intermediate_values_are_freed():
    """Between the passes no intermediate of the function lives; without it they all do."""

    def alive(wrap):
        refs = []

        def deep(x):
            for _ in range(20):
                x = tf.exp(-x)
                refs.append(weakref.ref(x))
            return x * 1.0

        x = tf.Variable(np.ones(1000))
        with tf.GradientTape() as tape:
            y = wrap(deep)(x)
        gc.collect()
        count = sum(ref() is not None for ref in refs)
        assert tape.gradient(y, x) is not None
        del tape
        gc.collect()
        return count, len(refs), sum(ref() is not None for ref in refs)

    assert alive(lambda f: f) == (20, 20, 0)
    assert alive(tf.recompute_grad) == (0, 40, 0)


@pytest.mark.cpu  # it counts memory of the host
def test_peak_memory_of_a_chain_of_blocks():
    """Sixteen blocks of sixteen operations keep about 16 + 16 arrays, not 256."""
    import tracemalloc

    def peak(wrap):
        @wrap
        def deep(x):
            for _ in range(16):
                x = tf.sin(x)
            return x

        x = tf.Variable(np.ones(20_000))
        tracemalloc.start()
        with tf.GradientTape() as tape:
            y = x
            for _ in range(16):
                y = deep(y)
        tape.gradient(y, x)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size / x.numpy().nbytes

    plain, less = peak(lambda f: f), peak(tf.recompute_grad)
    assert plain > 250 and less < 60


@pytest.mark.parametrize("seed", [None, 3])
def test_dropout_draws_the_same_mask_again(seed):
    """The gradient is that of the very function that gave the value; later draws are not moved."""
    tf.random.set_seed(5)
    x = tf.Variable(np.ones(1000))
    f = tf.recompute_grad(lambda x: tf.nn.dropout(x, 0.5, seed=seed))
    with tf.GradientTape() as tape:
        y = f(x)
    np.testing.assert_array_equal(tape.gradient(y, x), y)
    after = tf.random.uniform((3,)).numpy()
    tf.random.set_seed(5)
    tf.nn.dropout(x, 0.5, seed=seed)
    np.testing.assert_array_equal(tf.random.uniform((3,)), after)


def test_no_gradient_asked_of_an_argument():
    x, w = tf.constant(X), tf.Variable(W)
    with tf.GradientTape() as tape:
        y = tf.recompute_grad(block)(x, w)
    assert tape.gradient(y, [w])[0].shape == (3, 3)


def test_assignment_between_the_passes_does_not_change_the_arguments():
    """Arguments keep the values they were called with; variables that are read are read again."""
    x, w = tf.Variable(2.0), tf.Variable(3.0)
    f = tf.recompute_grad(lambda x: x * x * w)
    with tf.GradientTape() as tape:
        y = f(x.value())
        z = y * 1.0
    x.assign(100.0)
    assert float(tape.gradient(z, x)) == 12.0


def test_not_a_function():
    with pytest.raises(TypeError, match="not 3"):
        tf.recompute_grad(3)


def test_what_the_function_assigns_is_assigned_once():
    count, scale = tf.Variable(1.0, trainable=False), tf.Variable(3.0)

    @tf.recompute_grad
    def f(x):
        count.assign(2.0 * count)
        return scale * x * x

    x = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        y = f(x)
    assert [float(g) for g in tape.gradient(y, [x, scale])] == [12.0, 4.0]
    assert float(count) == 2.0
