"""Tape semantics 5: gradients at awkward points."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf

NAN, INF = float("nan"), float("inf")


def gradient(f, x, dtype=tf.float64):
    x = tf.constant(x, dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = f(x)
    return tape.gradient(y, x)


@pytest.mark.parametrize(
    "f, x, exact",
    [
        (tf.abs, [0.0], [0.0]),
        (tf.sign, [0.0, 2.0], [0.0, 0.0]),
        (tf.nn.relu, [0.0, -1.0, 1.0], [0.0, 0.0, 1.0]),
        (lambda x: tf.nn.relu6(x), [0.0, 6.0, 3.0, 7.0], [0.0, 0.0, 1.0, 0.0]),
    ],
    ids=["abs", "sign", "relu", "relu6"],
)
def test_at_zero(f, x, exact):
    """abs, sign at 0; relu at 0; relu6 at 0 and 6: 0."""
    np.testing.assert_array_equal(gradient(f, x), exact)


def test_leaky_relu_and_elu_at_zero():
    """leaky_relu at 0: alpha (0.2 default); elu at 0: 1."""
    np.testing.assert_allclose(gradient(lambda x: tf.nn.leaky_relu(x), [0.0, 1.0]), [0.2, 1.0])
    np.testing.assert_allclose(gradient(lambda x: tf.nn.leaky_relu(x, 0.3), [0.0]), [0.3])
    np.testing.assert_array_equal(gradient(lambda x: tf.nn.elu(x), [0.0]), [1.0])


@pytest.mark.parametrize("f", [tf.maximum, tf.minimum])
def test_a_tie_of_two(f):
    """maximum(x, c), minimum(x, c) at a tie: 1 to the first argument, 0 to the second."""
    x, c = tf.Variable([1.0, 2.0]), tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        y = f(x, c)
    of_x, of_c = tape.gradient(y, [x, c])
    np.testing.assert_array_equal(of_x, [1.0, 1.0])
    np.testing.assert_array_equal(of_c, [0.0, 0.0])
    np.testing.assert_array_equal(gradient(lambda t: f(t, 1.0), [1.0]), [1.0])
    np.testing.assert_array_equal(gradient(lambda t: f(1.0, t), [1.0]), [0.0])


@pytest.mark.parametrize("f", [tf.reduce_max, tf.reduce_min])
def test_ties_of_an_extremum(f):
    """reduce_max/min ties: shared equally."""
    np.testing.assert_array_equal(gradient(f, [2.0, 2.0, 2.0, 2.0]), [0.25] * 4)
    found = gradient(lambda x: f(x, axis=1), [[1.0, 1.0], [1.0, 3.0]])
    second = [0.0, 1.0] if f is tf.reduce_max else [1.0, 0.0]
    np.testing.assert_array_equal(found, [[0.5, 0.5], second])


def test_a_tie_in_a_pooling_window():
    """max_pool tie: first in the window."""
    x = np.ones((1, 2, 2, 1))
    found = gradient(lambda t: tf.nn.max_pool2d(t, 2, 2, "VALID"), x)
    np.testing.assert_array_equal(np.ravel(found), [1.0, 0.0, 0.0, 0.0])


def test_clip_by_value_at_a_bound():
    """clip_by_value exactly at a bound: 1; outside 0."""
    found = gradient(lambda x: tf.clip_by_value(x, -1.0, 1.0), [-2.0, -1.0, 0.0, 1.0, 2.0])
    np.testing.assert_array_equal(found, [0.0, 1.0, 1.0, 1.0, 0.0])


@pytest.mark.parametrize(
    "f, exact",
    [
        (tf.sqrt, INF),
        (tf.math.log, INF),
        (lambda x: x**0.5, INF),
        (lambda x: x**2.0, 0.0),
        (lambda x: x**2, 0.0),
        (lambda x: x**0, 0.0),
        (lambda x: x**0.0, 0.0),
        (lambda x: tf.pow(x, tf.constant([2.0], tf.float64)), 0.0),
        (lambda x: tf.pow(x, tf.constant([0.0], tf.float64)), 0.0),
    ],
)
def test_powers_at_zero(f, exact):
    """sqrt, log, x**0.5 at 0: inf; x**2.0 at 0: 0; x**0: 0."""
    np.testing.assert_array_equal(gradient(f, [0.0]), [exact])


def test_a_power_by_its_exponent():
    """pow by exponent where base <= 0: 0 (no nan)."""
    base, exponent = tf.constant([-2.0, 0.0, 2.0]), tf.Variable([3.0, 2.0, 3.0])
    with tf.GradientTape() as tape:
        y = base**exponent
    np.testing.assert_allclose(tape.gradient(y, exponent), [0.0, 0.0, 8 * np.log(2)], rtol=1e-6)


@pytest.mark.parametrize(
    "x, exact",
    [
        ([2.0, 0.0, 3.0], [0.0, 6.0, 0.0]),
        ([2.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        ([2.0, 5.0, 3.0], [15.0, 6.0, 10.0]),
        ([0.0], [1.0]),
    ],
)
def test_a_product_with_zeros(x, exact):
    """reduce_prod with zeros: correct: one zero → product of the others at that place."""
    np.testing.assert_array_equal(gradient(tf.reduce_prod, x), exact)


def test_norm_at_the_zero_vector():
    """norm at the zero vector; reduce_std of constants: nan."""
    assert np.isnan(gradient(tf.norm, [0.0, 0.0])).all()
    assert np.isnan(gradient(tf.math.reduce_std, [2.0, 2.0])).all()


@pytest.mark.parametrize(
    "f",
    [
        tf.sqrt,
        tf.math.rsqrt,
        lambda x: tf.norm(tf.stack([x, x]), axis=0),
    ],
    ids=["sqrt", "rsqrt", "norm"],
)
def test_a_masked_branch_with_a_zero_gradient(f):
    """masked branch: where(x>0, f(x), 0) at 0 or below: f = sqrt, rsqrt, norm: 0."""
    x = [0.0, -1.0] if f in (tf.sqrt, tf.math.rsqrt) else [0.0, 0.0]
    found = gradient(lambda t: tf.where(t > 0, f(t), 0), x)
    np.testing.assert_array_equal(found, [0.0, 0.0])


@pytest.mark.parametrize(
    "f, x",
    [
        (tf.math.log, [0.0]),
        (lambda x: 1.0 / x, [0.0]),
        (lambda x: x**0.5, [0.0, -1.0]),
    ],
    ids=["log", "1/x", "x**0.5"],
)
def test_a_masked_branch_that_gives_nan(f, x):
    """masked branch: f = log at 0, 1/x at 0, x**0.5 at or below 0: nan."""
    assert np.isnan(gradient(lambda t: tf.where(t > 0, f(t), 0), x)).all()


def test_round_half_to_even():
    """round: half to even."""
    np.testing.assert_array_equal(
        tf.round([0.5, 1.5, 2.5, -0.5, -1.5, 1.2]), [0.0, 2.0, 2.0, 0.0, -2.0, 1.0]
    )


def test_divide_no_nan_at_zero():
    """divide_no_nan at 0: value 0, gradient 0."""
    x, y = tf.Variable([1.0, 4.0, 0.0]), tf.Variable([0.0, 2.0, 0.0])
    with tf.GradientTape() as tape:
        z = tf.math.divide_no_nan(x, y)
    np.testing.assert_array_equal(z, [0.0, 2.0, 0.0])
    of_x, of_y = tape.gradient(z, [x, y])
    np.testing.assert_array_equal(of_x, [0.0, 0.5, 0.0])
    np.testing.assert_array_equal(of_y, [0.0, -1.0, 0.0])


@pytest.mark.parametrize("take", [tf.gather, lambda v, i: tf.nn.embedding_lookup(v, i)])
def test_gather_gives_indexed_slices(take):
    """gather/embedding on a variable: IndexedSlices (`values`, `indices`, `dense_shape`)."""
    v = tf.Variable(np.arange(8.0).reshape(4, 2))
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(take(v, [2, 0, 2]) * [[1.0], [10.0], [100.0]])
    g = tape.gradient(y, v)
    assert isinstance(g, tf.IndexedSlices)
    np.testing.assert_array_equal(g.values, [[1.0, 1.0], [10.0, 10.0], [100.0, 100.0]])
    np.testing.assert_array_equal(g.indices, [2, 0, 2])
    np.testing.assert_array_equal(g.dense_shape, [4, 2])
    dense = tf.convert_to_tensor(g)
    assert isinstance(dense, tf.Tensor)
    np.testing.assert_array_equal(dense, [[10, 10], [0, 0], [101, 101], [0, 0]])


def test_gather_mixed_with_dense_paths():
    """`convert_to_tensor` densifies, repeats add up; mixed with dense paths: dense result."""
    v = tf.Variable([1.0, 2.0, 3.0])
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(tf.gather(v, [1, 1])) + tf.reduce_sum(v * v)
    g = tape.gradient(y, v)
    assert isinstance(g, tf.Tensor)
    np.testing.assert_array_equal(g, [2.0, 6.0, 6.0])


def test_reductions_of_nothing():
    """reduce_mean of empty: nan; reduce_max of empty -inf; reduce_sum 0."""
    empty = tf.zeros((0,))
    assert np.isnan(tf.reduce_mean(empty).numpy())
    assert tf.reduce_max(empty).numpy() == -INF and tf.reduce_min(empty).numpy() == INF
    assert tf.reduce_sum(empty).numpy() == 0.0 and tf.reduce_prod(empty).numpy() == 1.0
    np.testing.assert_array_equal(tf.reduce_max(tf.zeros((2, 0)), axis=1), [-INF, -INF])


def second(f, x):
    x = tf.constant(x, tf.float64)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = f(x)
        g = inner.gradient(y, x)
    return outer.jacobian(g, x).numpy()


def test_second_derivative_of_softsign():
    """Not available in TF: second derivative of softsign; here -2 sign(x) / (1 + |x|)^3."""
    x = np.array([-2.0, 0.5, 3.0])
    exact = -2 * np.sign(x) / (1 + np.abs(x)) ** 3
    np.testing.assert_allclose(second(tf.nn.softsign, x), np.diag(exact), rtol=1e-12)


@pytest.mark.parametrize("dilation", [2, 3])
def test_the_gradient_of_a_dilated_convolution(dilation):
    """Not available in TF: conv2d gradient with dilation > 1 on CPU; here it is."""
    from distgrad.testing.gradients import check_gradients

    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(1, 8, 7, 2)), rng.normal(size=(2, 2, 2, 3))
    check_gradients(
        lambda a, b: tf.nn.conv2d(a, b, strides=1, padding="SAME", dilations=dilation), [x, w]
    )


def test_second_derivative_of_the_variance_of_moments():
    """Wrong in TF: second derivative through `nn.moments` (TF stops the mean's gradient)."""
    n = 4
    found = second(lambda x: tf.nn.moments(x, axes=[0])[1], np.array([1.0, 3.0, -2.0, 0.5]))
    np.testing.assert_allclose(found, 2 / n * (np.eye(n) - 1 / n), atol=1e-14)


def test_second_derivative_of_a_product_at_a_zero():
    """Wrong in TF: second derivative of `reduce_prod` at a zero; here the other factors."""
    found = second(tf.reduce_prod, [2.0, 0.0, 3.0])
    np.testing.assert_array_equal(found, [[0, 3, 0], [3, 0, 2], [0, 2, 0]])
    np.testing.assert_array_equal(second(tf.reduce_prod, [0.0, 0.0, 3.0]),
                                  [[0, 3, 0], [3, 0, 0], [0, 0, 0]])  # fmt: skip
