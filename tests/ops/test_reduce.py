"""Reductions, scans and norms against NumPy and SciPy, at their edges too."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

import distgrad as tf
from distgrad.testing.gradients import check_gradients

from .tapes import gradient

IAE = tf.errors.InvalidArgumentError
X = np.random.default_rng(0).normal(size=(2, 3, 4))
WAYS = [(None, False), (0, True), (-1, False), ([0, -1], True), ((1, 2), False), ([], False)]


def logsumexp(x, axis, keepdims):
    # SciPy takes no empty tuple of axes.
    return x if axis == () else scipy.special.logsumexp(x, axis=axis, keepdims=keepdims)


@pytest.mark.parametrize("axis, keepdims", WAYS)
@pytest.mark.parametrize(
    "ours, theirs",
    [
        (tf.reduce_sum, np.sum),
        (tf.reduce_mean, np.mean),
        (tf.reduce_max, np.max),
        (tf.reduce_min, np.min),
        (tf.reduce_prod, np.prod),
        (tf.math.reduce_std, np.std),
        (tf.math.reduce_variance, np.var),
        (tf.reduce_logsumexp, logsumexp),
        (tf.math.reduce_euclidean_norm, lambda x, **k: np.sqrt(np.sum(x * x, **k))),
        (tf.math.count_nonzero, lambda x, **k: np.sum(x != 0, **k)),
    ],
)
def test_reduction_over_axes(ours, theirs, axis, keepdims):
    over = tuple(axis) if isinstance(axis, list) else axis
    found = ours(X, axis=axis, keepdims=keepdims)
    expected = theirs(X, axis=over, keepdims=keepdims)
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize(
    "fn",
    [
        tf.math.reduce_std,
        tf.math.reduce_variance,
        tf.reduce_logsumexp,
        tf.math.reduce_euclidean_norm,
        lambda x, axis: tf.nn.moments(x, axis),
        lambda x, axis: tf.norm(x, axis=axis),
        lambda x, axis: tf.norm(x, 1, axis),
        lambda x, axis: tf.norm(x, np.inf, axis),
        lambda x, axis: tf.norm(x, 2.5, axis),
        lambda x, axis: tf.clip_by_norm(x, 0.7, axis),
        lambda x, axis: tf.clip_by_norm(x, 70.0, axis),
        lambda x, axis: tf.clip_by_global_norm([x, x[0]], 0.7)[0],
        lambda x, axis: tf.cumsum(x, axis, exclusive=True, reverse=True),
        lambda x, axis: tf.math.cumprod(x, axis),
        lambda x, axis: tf.math.cumulative_logsumexp(x, axis, exclusive=True)[:, 1:],
        lambda x, axis: tf.sort(x, axis, "DESCENDING"),
        lambda x, axis: tf.math.top_k(x, 2).values,
    ],
)
def test_composed_reduction_has_first_and_second_derivatives(fn):
    check_gradients(lambda x: fn(x, 1), [X[0]], order=2)


def test_aliases_are_the_same_objects():
    assert tf.reduce_sum is tf.math.reduce_sum
    assert tf.norm is tf.linalg.norm
    assert tf.argmax is tf.math.argmax
    assert tf.cumsum is tf.math.cumsum
    assert tf.nn.top_k is tf.math.top_k


# The spec, row by row


def test_spec_2_argmax_gives_int64():
    assert tf.argmax([1.0, 3.0, 3.0]).dtype == tf.int64
    assert int(tf.argmax([1.0, 3.0, 3.0])) == 1
    assert tf.argmin(X, -1, output_type=tf.int32).dtype == tf.int32


def test_spec_5_reduce_max_and_min_ties_share_equally():
    for fn in (tf.reduce_max, tf.reduce_min):
        np.testing.assert_allclose(gradient(fn, [3.0, 3.0, 3.0]), [1 / 3] * 3)
    rows = gradient(lambda x: tf.reduce_max(x, 1), [[1.0, 2.0, 2.0], [4.0, 0.0, 1.0]])
    np.testing.assert_array_equal(rows, [[0, 0.5, 0.5], [1, 0, 0]])


@pytest.mark.parametrize("zeros", [0, 1, 2, 3])
def test_spec_5_second_derivative_of_reduce_prod_at_zeros(zeros):
    x = np.array([1.5, -2.0, 0.7, 3.0])
    x[:zeros] = 0.0
    value = tf.constant(x)
    with tf.GradientTape() as outer:
        outer.watch(value)
        with tf.GradientTape() as inner:
            inner.watch(value)
            y = tf.reduce_prod(value)
        g = inner.gradient(y, value)
    hessian = outer.jacobian(g, value).numpy()
    for i, j in np.ndindex(4, 4):
        others = [x[k] for k in range(4) if k not in (i, j)]
        assert hessian[i, j] == pytest.approx(0.0 if i == j else np.prod(others), abs=1e-14)
    check_gradients(tf.reduce_prod, [x], order=3)


def test_spec_5_masked_norm_at_zero_has_a_zero_gradient():
    g = gradient(lambda x: tf.where(tf.reduce_sum(x) > 0, tf.norm(x), 0.0), [0.0, 0.0])
    np.testing.assert_array_equal(g, [0.0, 0.0])


def test_spec_5_reductions_of_nothing():
    empty = tf.zeros([0])
    assert np.isnan(float(tf.reduce_mean(empty)))
    assert int(tf.reduce_mean(tf.zeros([0], tf.int32))) == 0
    assert tf.math.cumulative_logsumexp(empty, exclusive=True).shape == (0,)
    assert float(tf.reduce_max(empty)) == -np.inf and float(tf.reduce_min(empty)) == np.inf
    assert float(tf.reduce_sum(empty)) == 0 and float(tf.reduce_prod(empty)) == 1
    assert not bool(tf.reduce_any(tf.zeros([0], tf.bool)))
    assert bool(tf.reduce_all(tf.zeros([0], tf.bool)))
    assert float(tf.reduce_logsumexp(empty)) == -np.inf
    assert tf.reduce_logsumexp(np.ones((1, 1)), axis=[]).shape == (1, 1)
    assert not tf.reduce_any([]) and tf.reduce_all([[], []], axis=1).numpy().tolist() == [True] * 2
    assert int(tf.reduce_max(tf.zeros([0], tf.int32))) == np.iinfo(np.int32).min
    np.testing.assert_array_equal(tf.reduce_max(tf.zeros([2, 0]), 1), [-np.inf, -np.inf])
    assert tf.reduce_sum(tf.zeros([0, 3]), 0).shape == (3,)
    assert gradient(tf.reduce_max, np.zeros(0)).shape == (0,)


def test_spec_5_second_derivative_through_moments():
    x = np.array([0.5, -1.0, 2.0])

    def variance(v):
        return tf.nn.moments(v, 0)[1]

    value = tf.constant(x)
    with tf.GradientTape() as outer:
        outer.watch(value)
        with tf.GradientTape() as inner:
            inner.watch(value)
            y = variance(value)
        g = inner.gradient(y, value)
    expected = 2 / 3 * (np.eye(3) - 1 / 3)
    np.testing.assert_allclose(outer.jacobian(g, value), expected, rtol=1e-13)


@pytest.mark.parametrize(
    "call",
    [
        lambda: tf.reduce_sum(X, 3),
        lambda: tf.reduce_max(X, [0, -3]),
        lambda: tf.argmax(X, 3),
        lambda: tf.argmax(1.0),
        lambda: tf.argmax(tf.zeros([0, 2]), 0),
        lambda: tf.cumsum(X, -4),
        lambda: tf.sort(X, 3),
        lambda: tf.nn.moments(X, [5]),
        lambda: tf.norm(X, axis=3),
    ],
)
def test_spec_6_bad_axis(call):
    with pytest.raises(IAE):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: tf.math.reduce_std([1, 2]),
        lambda: tf.reduce_logsumexp([1, 2]),
        lambda: tf.reduce_any([1.0]),
        lambda: tf.reduce_max([True]),
        lambda: tf.cumsum([True]),
        lambda: tf.norm([1, 2]),
    ],
)
def test_wrong_dtype(call):
    with pytest.raises(IAE):
        call()


# Norms and clipping


@pytest.mark.parametrize("ord", ["euclidean", 1, 2, 3, 2.5, np.inf])
def test_vector_norm(ord):
    order = 2 if ord == "euclidean" else ord
    np.testing.assert_allclose(tf.norm(X, ord, axis=1), np.linalg.norm(X, order, axis=1))
    flat = np.linalg.norm(X.ravel(), order)
    np.testing.assert_allclose(tf.norm(X, ord), flat)
    assert tf.norm(X, ord, keepdims=True).shape == (1, 1, 1)


@pytest.mark.parametrize("ord", ["euclidean", "fro", 1, 2, np.inf])
@pytest.mark.parametrize("axis", [(-2, -1), (2, 0)])
def test_matrix_norm(ord, axis):
    order = "fro" if ord == "euclidean" else ord
    for keepdims in (False, True):
        found = tf.norm(X, ord, axis, keepdims)
        np.testing.assert_allclose(found, np.linalg.norm(X, order, axis, keepdims), rtol=1e-12)
    check_gradients(lambda x: tf.norm(x, ord, axis), [X], order=1)


@pytest.mark.parametrize("ord, axis", [("fro", 0), (-1, 0), (0, None), (3, (0, 1)), ("no", (0, 1))])
def test_norm_of_an_unknown_order(ord, axis):
    with pytest.raises(ValueError, match="order"):
        tf.norm(X, ord, axis)


def test_clip_by_norm():
    np.testing.assert_allclose(tf.clip_by_norm([3.0, 4.0], 2.5), [1.5, 2.0])
    np.testing.assert_allclose(tf.clip_by_norm([3.0, 4.0], 10.0), [3.0, 4.0])
    rows = tf.clip_by_norm([[3.0, 4.0], [0.3, 0.4]], 1.0, axes=1)
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.3, 0.4]], rtol=1e-6)
    np.testing.assert_array_equal(gradient(lambda x: tf.clip_by_norm(x, 2.0), [0.0, 0.0]), [1, 1])
    for negative in (-1.0, tf.constant(-1.0)):
        np.testing.assert_array_equal(tf.clip_by_norm([3.0, 4.0], negative), [0, 0])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32"])
@pytest.mark.parametrize("captured", [False, True])
def test_means_of_integers_whose_sum_is_out_of_range(dtype, captured):
    top = np.iinfo(dtype).max
    mean = tf.function(tf.reduce_mean, jit_compile=True) if captured else tf.reduce_mean
    found = mean(tf.constant([[top, top - 1, top - 1], [3, 2, 2]], dtype), axis=1)
    assert found.dtype == dtype and found.numpy().tolist() == [top - 1, 2]
    if dtype != "uint8":
        assert int(mean(tf.constant([-top, -top + 1], dtype))) == -top + 1


def test_moments_of_half_precision_are_those_of_single():
    x = np.full((5000, 2), 20, np.float16)
    x[::2, 1] = 22
    mean, variance = tf.nn.moments(x, [0])
    assert mean.dtype == variance.dtype == tf.float16
    np.testing.assert_array_equal([mean, variance], [[20, 21], [0, 1]])


@pytest.mark.parametrize("dtype", ["int32", "uint8", "complex64"])
def test_euclidean_norm_keeps_the_dtype(dtype):
    found = tf.math.reduce_euclidean_norm(tf.cast([[3, 4], [3, 3]], dtype), axis=1)
    assert found.dtype == dtype
    expected = [5, 4] if dtype != "complex64" else [5, 18**0.5]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_clip_by_global_norm():
    clipped, length = tf.clip_by_global_norm([[3.0], None, [[4.0]]], 2.5)
    assert float(length) == 5 and clipped[1] is None
    np.testing.assert_allclose(clipped[0], [1.5])
    np.testing.assert_allclose(clipped[2], [[2.0]])
    same, _ = tf.clip_by_global_norm([[3.0]], 10.0)
    np.testing.assert_allclose(same[0], [3.0])
    half, given = tf.clip_by_global_norm([[3.0]], 1.0, use_norm=tf.constant(6.0))
    assert float(given) == 6 and float(half[0][0]) == pytest.approx(0.5)
    infinite, _ = tf.clip_by_global_norm([[np.inf]], 1.0)
    assert np.isnan(infinite[0]).all()
    assert float(tf.linalg.global_norm([[3.0], [4.0]])) == 5
    kept, norm = tf.clip_by_global_norm([None], 1.0)
    assert kept == [None] and float(norm) == 0  # as in TensorFlow
    for single in (tf.constant([3.0, 4.0]), np.array([3.0]), {"a": 1.0}):
        with pytest.raises(TypeError, match="list"):
            tf.clip_by_global_norm(single, 1.0)
        with pytest.raises(TypeError, match="list"):
            tf.linalg.global_norm(single)


# Scans


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_scans(exclusive, reverse):
    x = X[0]
    flags = {"exclusive": exclusive, "reverse": reverse}
    turned = x[::-1] if reverse else x
    start = {np.cumsum: 0.0, np.cumprod: 1.0, np.logaddexp.accumulate: -np.inf}
    for ours, theirs in [
        (tf.cumsum, np.cumsum),
        (tf.math.cumprod, np.cumprod),
        (tf.math.cumulative_logsumexp, np.logaddexp.accumulate),
    ]:
        expected = theirs(turned, axis=0)
        if exclusive:
            expected = np.concatenate([np.full((1, 4), start[theirs]), expected[:-1]])
        expected = expected[::-1] if reverse else expected
        np.testing.assert_allclose(ours(x, 0, **flags), expected, rtol=1e-13)
    np.testing.assert_array_equal(
        tf.cumsum([1, 2, 3], **flags), tf.cast(tf.cumsum([1.0, 2, 3], **flags), tf.int32)
    )


def test_cumprod_has_the_right_gradient_at_zeros():
    x = np.array([[2.0, 0.0, 3.0, 0.0, 5.0]])
    check_gradients(lambda v: tf.math.cumprod(v, 1), [x], order=3)


def test_segment_means_of_integers_are_integers():
    found = tf.math.segment_mean(tf.constant([1, 4, 7]), [0, 0, 2])
    assert found.dtype == tf.int32
    np.testing.assert_array_equal(found, [2, 0, 7])


def test_clip_by_norm_takes_a_norm_of_another_dtype():
    x = tf.constant([3.0, 4.0], tf.float64)
    np.testing.assert_allclose(tf.clip_by_norm(x, tf.constant(1.0)), [0.6, 0.8])


def test_cumulative_logsumexp_of_large_and_infinite_values():
    x = np.array([1000.0, 999.0, -np.inf])
    expected = 1000 + np.log1p(np.exp(-1))
    np.testing.assert_allclose(tf.math.cumulative_logsumexp(x), [1000, expected, expected])
    g = gradient(lambda v: tf.math.cumulative_logsumexp(v), np.array([-np.inf, 1.0]))
    np.testing.assert_array_equal(g, [0.0, 1.0])


def test_a_long_scan_is_exact_enough():
    x = np.random.default_rng(1).uniform(0.9, 1.1, 1000)
    g = gradient(lambda v: tf.reduce_sum(tf.math.cumprod(v)), x)
    products = np.cumprod(x)
    expected = np.cumsum(products[::-1])[::-1] / x
    np.testing.assert_allclose(g, expected, rtol=1e-11)


def test_logsumexp_of_infinities():
    assert float(tf.reduce_logsumexp([-np.inf, -np.inf])) == -np.inf
    assert float(tf.reduce_logsumexp([np.inf, 1.0])) == np.inf
    assert float(tf.reduce_logsumexp(np.array([1000.0, 1000.0]))) == 1000 + np.log(2)


# dtypes


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.int64])
def test_reductions_keep_the_dtype(dtype):
    x = tf.constant(np.array([[1, 2], [3, 4]], dtype))
    for fn in (tf.reduce_sum, tf.reduce_mean, tf.reduce_max, tf.reduce_prod, tf.cumsum):
        assert fn(x).dtype == dtype
    assert tf.math.segment_sum(x, [0, 0]).dtype == dtype
    assert tf.sort(x).dtype == dtype


def test_small_integers_and_many_of_them():
    x = tf.ones([300], tf.int8)
    assert int(tf.reduce_max(x)) == 1
    assert int(tf.reduce_mean(tf.ones([100], tf.int8))) == 1
