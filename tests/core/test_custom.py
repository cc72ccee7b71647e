"""grad_pass_through: the gradient of the identity."""

from __future__ import annotations

import numpy as np

import distgrad as tf


def test_a_rounding_with_the_gradient_of_the_identity():
    """To both orders: the second derivative of x**2 through it is that of x**2."""

    @tf.grad_pass_through
    def rounded(x):
        """Doc."""
        return tf.round(x)

    x = tf.Variable([1.2, 2.7])
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            y = rounded(x * x) * x
        g = inner.gradient(y, x)
    np.testing.assert_array_equal(y, np.float32([1.0, 7.0]) * np.float32([1.2, 2.7]))
    np.testing.assert_allclose(g, np.round(x.numpy() ** 2) + 2 * x.numpy() ** 2, rtol=1e-6)
    np.testing.assert_allclose(outer.gradient(g, x), 6 * x.numpy(), rtol=1e-6)
    assert (rounded.__name__, rounded.__doc__) == ("rounded", "Doc.")


def test_variables_that_the_function_reads_have_no_gradient():
    x, v = tf.Variable(3.0), tf.Variable(2.0)
    f = tf.grad_pass_through(lambda a, b: (a * v, b * v))
    with tf.GradientTape() as tape:
        one, two = f(x, x)
        y = one + 10.0 * two
    of_x, of_v = tape.gradient(y, [x, v])
    assert float(y) == 66.0 and float(of_x) == 11.0 and of_v is None
