"""Gradients to the shape of the gamma distribution."""

import numpy as np
import pytest
from scipy import special

import distgrad as tf
from distgrad.ops.gamma_slopes import gamma_slope

SHAPES = np.array([0.05, 0.5, 1.0, 3.0, 20.0, 150.0])


@pytest.mark.parametrize("part", [1e-6, 0.1, 0.5, 0.9, 1 - 1e-6])
def test_a_number_stays_at_its_place_in_the_distribution(part):
    """Its slope is that of the quantile."""
    x = special.gammaincinv(SHAPES, part)
    step = 1e-6 * SHAPES
    ends = [special.gammaincinv(SHAPES + way, part) for way in (step, -step)]
    there = x > 1e-300
    slope = gamma_slope(SHAPES, x).numpy()[there]
    np.testing.assert_allclose(slope, ((ends[0] - ends[1]) / (2 * step))[there], rtol=1e-6)


@pytest.mark.parametrize("name", ["igamma", "igammac"])
def test_both_arguments_have_a_gradient(name):
    of = getattr(tf.math, name)
    x = np.linspace(0.3, 2.0, len(SHAPES)) * SHAPES
    inputs = [tf.constant(SHAPES), tf.constant(x)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = of(*inputs)
    to_a, to_x = tape.gradient(y, inputs)
    h = 1e-6
    by_a = (of(SHAPES + h, x).numpy() - of(SHAPES - h, x).numpy()) / (2 * h)
    by_x = (of(SHAPES, x + h).numpy() - of(SHAPES, x - h).numpy()) / (2 * h)
    np.testing.assert_allclose(to_a, by_a, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(to_x, by_x, rtol=1e-5, atol=1e-9)


def test_gradients_are_added_up_where_shapes_broadcast():
    a, x = tf.Variable(2.0), tf.constant([[0.5], [3.0]])
    with tf.GradientTape() as tape:
        y = tf.math.igamma(a, x)
    slopes = -gamma_slope(np.full((2, 1), 2.0), x.numpy().astype(float)).numpy()
    density = x.numpy() * np.exp(-x.numpy())
    np.testing.assert_allclose(tape.gradient(y, a), (slopes * density).sum(), rtol=1e-5)


def test_drawn_numbers_follow_their_parameters():
    """The mean of gamma numbers is ``alpha / beta``."""
    alpha, beta = tf.Variable([0.8, 4.0]), tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        drawn = tf.random.gamma([20000], alpha, beta, seed=1)
        mean = tf.reduce_sum(tf.reduce_mean(drawn, 0))
    to_alpha, to_beta = tape.gradient(mean, [alpha, beta])
    np.testing.assert_allclose(to_alpha, [1.0, 0.5], rtol=0.03)
    np.testing.assert_allclose(to_beta, [-0.8, -1.0], rtol=0.03)


def test_of_nothing_there_is_no_slope():
    found = gamma_slope(np.array([0.5, 1e-3, 2.0]), np.array([0.0, 0.0, -1.0]))
    np.testing.assert_array_equal(found, [0, 0, 0])
