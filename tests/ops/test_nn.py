"""Softmax, cross entropies, normalisation, dropout, embedding: values, gradients, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special

import distgrad as tf
from distgrad.ops.normalization import layer_norm
from distgrad.testing.gradients import check_gradients

from .tapes import gradients


def normal(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape)


# Softmax


@pytest.mark.parametrize("axis", [None, -1, 0, 1, -2])
def test_softmax_over_any_axis(axis):
    x, over = normal(3, 4, 2), -1 if axis is None else axis
    np.testing.assert_allclose(tf.nn.softmax(x, axis), scipy.special.softmax(x, over), rtol=1e-12)
    expected = scipy.special.log_softmax(x, over)
    np.testing.assert_allclose(tf.nn.log_softmax(x, axis), expected, rtol=1e-12)


def test_softmax_of_large_numbers_does_not_overflow():
    x = tf.constant([1e30, 0.0, -1e30])
    assert tf.nn.softmax(x).numpy().tolist() == [1.0, 0.0, 0.0]
    assert tf.nn.log_softmax(x).numpy()[0] == 0.0


def test_softmax_of_nothing():
    for shape in [(3, 0), (0, 3)]:
        assert tf.nn.softmax(tf.zeros(shape)).shape == shape
        assert tf.nn.log_softmax(tf.zeros(shape)).shape == shape


@pytest.mark.parametrize("fn", [tf.nn.softmax, tf.nn.log_softmax])
def test_softmax_refuses_integers_scalars_and_axes_out_of_range(fn):
    for x, axis in [([1, 2], -1), (1.0, -1), ([1.0, 2.0], 1)]:
        with pytest.raises(tf.errors.InvalidArgumentError):
            fn(tf.constant(x), axis=axis)


def test_aliases_are_the_same_objects():
    assert tf.math.softmax is tf.nn.softmax and tf.math.log_softmax is tf.nn.log_softmax
    assert tf.math.in_top_k is tf.nn.in_top_k


# Cross entropies


def test_cross_entropy_of_one_hot_labels_is_that_of_their_numbers():
    logits, labels = normal(3, 4), np.array([2, 0, 3])
    sparse = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    dense = tf.nn.softmax_cross_entropy_with_logits(np.eye(4)[labels], logits)
    np.testing.assert_allclose(sparse, dense, rtol=1e-12)
    expected = -scipy.special.log_softmax(logits, axis=1)[range(3), labels]
    np.testing.assert_allclose(sparse, expected, rtol=1e-12)


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_softmax_cross_entropy_over_any_axis(axis):
    logits, labels = normal(3, 4), np.random.default_rng(0).dirichlet(np.ones(4), size=3)
    found = tf.nn.softmax_cross_entropy_with_logits(labels, logits, axis=axis)
    expected = -np.sum(labels * scipy.special.log_softmax(logits, axis), axis)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_gradient_of_softmax_cross_entropy():
    logits, labels = normal(3, 4), np.random.default_rng(0).dirichlet(np.ones(4), size=3)
    to_labels, to_logits = gradients(tf.nn.softmax_cross_entropy_with_logits, labels, logits)
    np.testing.assert_allclose(to_logits, scipy.special.softmax(logits, 1) - labels, rtol=1e-10)
    np.testing.assert_allclose(to_labels, -scipy.special.log_softmax(logits, 1), rtol=1e-12)


def test_labels_broadcast_to_logits():
    found = tf.nn.softmax_cross_entropy_with_logits(np.full((1, 4), 0.25), normal(3, 4))
    expected = -np.mean(scipy.special.log_softmax(normal(3, 4), 1), axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_sigmoid_cross_entropy_is_exact_for_large_logits():
    logits = np.array([-1000.0, -2.0, 0.0, 3.0, 1000.0])
    for z in (0.0, 0.3, 1.0):
        found = tf.nn.sigmoid_cross_entropy_with_logits(np.full(5, z), logits)
        log_p, log_q = -np.logaddexp(0, -logits), -np.logaddexp(0, logits)
        expected = -z * log_p - (1 - z) * log_q
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    (_, g) = gradients(tf.nn.sigmoid_cross_entropy_with_logits, np.array([0.3]), np.zeros(1))
    assert g[0] == pytest.approx(0.2)  # 0.5 - 0.3, at the kink of abs


def test_weighted_cross_entropy():
    labels, logits = np.random.default_rng(0).uniform(size=(3, 4)), normal(3, 4)
    found = tf.nn.weighted_cross_entropy_with_logits(labels, logits, pos_weight=2.5)
    p = scipy.special.expit(logits)
    expected = -2.5 * labels * np.log(p) - (1 - labels) * np.log(1 - p)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    one = tf.nn.weighted_cross_entropy_with_logits(labels, logits, 1.0)
    np.testing.assert_allclose(
        one, tf.nn.sigmoid_cross_entropy_with_logits(labels, logits), rtol=1e-12
    )
    check_gradients(tf.nn.weighted_cross_entropy_with_logits, [labels, logits, np.array(2.5)])


def test_log_poisson_loss():
    targets, c = np.array([0.0, 0.5, 1.0, 3.0]), normal(4)
    plain = np.exp(c) - c * targets
    np.testing.assert_allclose(tf.nn.log_poisson_loss(targets, c), plain, rtol=1e-12)
    stirling = 3 * math.log(3) - 3 + 0.5 * math.log(2 * math.pi * 3)
    full = tf.nn.log_poisson_loss(targets, c, compute_full_loss=True)
    np.testing.assert_allclose(full, [*plain[:3], plain[3] + stirling], rtol=1e-12)


def test_l2_loss():
    assert float(tf.nn.l2_loss([3.0, 4.0])) == 12.5


@pytest.mark.parametrize(
    "fn",
    [
        lambda: tf.nn.sparse_softmax_cross_entropy_with_logits([3], tf.ones((1, 3))),
        lambda: tf.nn.sparse_softmax_cross_entropy_with_logits([-1], tf.ones((1, 3))),
        lambda: tf.nn.sparse_softmax_cross_entropy_with_logits([0, 1], tf.ones((1, 3))),
        lambda: tf.nn.sparse_softmax_cross_entropy_with_logits([0.0], tf.ones((1, 3))),
        lambda: tf.nn.sparse_softmax_cross_entropy_with_logits(0, tf.constant(1.0)),
        lambda: tf.nn.softmax_cross_entropy_with_logits(tf.ones((2, 3)), tf.ones((2, 4))),
        lambda: tf.nn.softmax_cross_entropy_with_logits(tf.ones((2, 3)), tf.ones((2, 3)), axis=2),
        lambda: tf.nn.sigmoid_cross_entropy_with_logits(tf.ones(3), tf.ones((2, 3))),
        lambda: tf.nn.weighted_cross_entropy_with_logits(tf.ones(3), tf.ones((2, 3)), 1.0),
        lambda: tf.nn.in_top_k([1], tf.ones((2, 3)), 1),
        lambda: tf.nn.embedding_lookup(tf.ones((2, 3)), [2]),
    ],
)
def test_labels_and_shapes_that_do_not_fit_are_invalid_arguments(fn):
    with pytest.raises(tf.errors.InvalidArgumentError):
        fn()


def test_in_top_k_lets_ties_in_and_refuses_what_is_not_finite():
    scores = [[1.0, 1.0, 2.0], [3.0, 3.0, 3.0], [0.0, 1.0, np.inf], [np.nan, 1.0, 2.0], [1, 2, 3]]
    found = tf.nn.in_top_k([0, 2, 1, 2, 9], np.array(scores, np.float32), 2)
    assert found.numpy().tolist() == [True, True, False, False, False]
    assert tf.nn.in_top_k([2, 0], tf.constant(scores[:2]), 1).numpy().tolist() == [True, True]
    assert tf.nn.in_top_k([0], tf.constant(scores[:1]), 1).numpy().tolist() == [False]


# Normalisation


@pytest.mark.parametrize("axis", [-1, [0, 1], [1, 2], 0])
def test_layer_norm(axis):
    x = normal(2, 3, 4)
    over = tuple(np.atleast_1d(axis))
    mean, variance = x.mean(over, keepdims=True), x.var(over, keepdims=True)
    found = layer_norm(x, scale=2.0, offset=1.0, axis=axis)
    np.testing.assert_allclose(found, (x - mean) / np.sqrt(variance + 1e-3) * 2 + 1, rtol=1e-12)


def test_layer_norm_of_constants_and_of_large_means():
    assert layer_norm(tf.fill((2, 3), 7.0)).numpy().tolist() == [[0.0] * 3] * 2
    x = (normal(4, 256) + 1e4).astype(np.float32)
    exact = x.astype(np.float64)
    expected = (exact - exact.mean(1, keepdims=True)) / np.sqrt(exact.var(1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(layer_norm(x), expected, atol=2e-3)  # 1e4 has a spacing of 1e-3


def test_layer_norm_has_a_third_derivative():
    scale, offset = normal(4), normal(4)[::-1].copy()
    check_gradients(lambda x, s, o: layer_norm(x, s, o), [normal(2, 4), scale, offset], order=3)


def test_batch_normalization():
    x, mean, variance = normal(5, 3), normal(3), np.array([0.5, 1.0, 2.0])
    found = tf.nn.batch_normalization(x, mean, variance, [1.0, 2.0, 3.0], 2.0, 1e-3)
    expected = (x - mean) / np.sqrt(variance + 1e-3) * 2 + [1.0, 2.0, 3.0]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    plain = tf.nn.batch_normalization(x, mean, variance, None, None, 1e-3)
    np.testing.assert_allclose(plain, (x - mean) / np.sqrt(variance + 1e-3), rtol=1e-10)


@pytest.mark.parametrize("axis", [None, 0, 1, [0, 1]])
def test_l2_normalize(axis):
    x = normal(3, 4)
    over = tuple(axis) if isinstance(axis, list) else axis
    length = np.sqrt(np.sum(x * x, axis=over, keepdims=True))
    np.testing.assert_allclose(tf.nn.l2_normalize(x, axis), x / length, rtol=1e-12)


def test_l2_normalize_of_zeros_is_zero_with_a_finite_gradient():
    zeros = np.zeros((2, 3))
    assert not tf.nn.l2_normalize(zeros, 1).numpy().any()
    (g,) = gradients(lambda x: tf.nn.l2_normalize(x, 1), zeros)
    np.testing.assert_allclose(g, np.full((2, 3), 1e6))


# Dropout and embedding


def test_dropout_keeps_the_mean_and_its_gradient_is_the_mask():
    tf.random.set_seed(1)
    x = np.ones((100, 100), np.float32)
    tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        y = tf.nn.dropout(tensor, 0.25)
    values = np.unique(y.numpy())
    np.testing.assert_allclose(values, [0, 1 / 0.75], rtol=1e-6)
    assert abs(float(tf.reduce_mean(y)) - 1) < 0.03
    assert np.array_equal(tape.gradient(y, tensor).numpy(), y.numpy())


def test_dropout_noise_shape_drops_whole_slices():
    tf.random.set_seed(1)
    y = tf.nn.dropout(tf.ones((50, 4)), 0.5, noise_shape=[None, 1]).numpy()
    assert {tuple(row) for row in y} == {(0.0,) * 4, (2.0,) * 4}
    with pytest.raises(ValueError, match="noise_shape"):
        tf.nn.dropout(tf.ones((2, 4)), 0.5, noise_shape=[1])


@pytest.mark.parametrize("x, rate", [([1.0], 1.0), ([1.0], -0.1), ([1], 0.5)])
def test_dropout_refuses_rates_outside_0_1_and_integers(x, rate):
    with pytest.raises(ValueError, match="dropout"):
        tf.nn.dropout(tf.constant(x), rate)


def test_embedding_lookup_gives_rows_and_bounds_their_norm():
    table = tf.Variable([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    ids = tf.constant([[0, 1], [1, 2]])
    assert np.array_equal(tf.nn.embedding_lookup(table, ids).numpy(), table.numpy()[ids.numpy()])
    found = tf.nn.embedding_lookup(table, ids, max_norm=1.0).numpy()
    np.testing.assert_allclose(found, [[[0.6, 0.8], [0.3, 0.4]], [[0.3, 0.4], [0, 0]]], rtol=1e-6)


def test_gradient_of_embedding_lookup_adds_up_repeats():
    table = tf.Variable(np.zeros((3, 2), np.float32))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.nn.embedding_lookup(table, [0, 2, 0]))
    g = tf.convert_to_tensor(tape.gradient(loss, table))
    assert g.numpy().tolist() == [[2.0, 2.0], [0.0, 0.0], [1.0, 1.0]]


@pytest.mark.parametrize("parts", [[[0, 1], [2, 3]], [[0, 1, 2, 3]]])
def test_a_list_of_tables_is_one_table_in_parts(parts):
    rows = np.arange(8.0).reshape(4, 2)
    tables = tuple(tf.constant(rows[part]) for part in parts)
    np.testing.assert_array_equal(tf.nn.embedding_lookup(tables, [[3], [1]]), rows[[[3], [1]]])
    with pytest.raises(ValueError, match="part"):
        tf.nn.embedding_lookup([], [0])
