"""``tf.math.special``: values and slopes of TensorFlow 2.21 at 0.3, 1 and 2.5."""

import numpy as np
import pytest

import distgrad as tf

AT = [0.3, 1.0, 2.5]
KNOWN = {
    "bessel_j0": ([0.97763, 0.7652, -0.048384], [-0.14832, -0.44005, -0.49709]),
    "bessel_j1": ([0.14832, 0.44005, 0.49709], [0.48324, 0.32515, -0.24722]),
    "bessel_k0": ([1.3725, 0.42102, 0.062348], [-3.056, -0.60191, -0.073891]),
    "bessel_k0e": ([1.8526, 1.1445, 0.75955], [-2.2725, -0.49169, -0.14063]),
    "bessel_k1": ([3.056, 0.60191, 0.073891], [-11.559, -1.0229, -0.091904]),
    "bessel_k1e": ([4.1252, 1.6362, 0.90017], [-11.478, -1.1445, -0.21944]),
    "bessel_y0": ([-0.80727, 0.088257, 0.49807], [2.2931, 0.78121, -0.14592]),
    "bessel_y1": ([-2.2931, -0.78121, 0.14592], [6.8364, 0.86947, 0.4397]),
    "expint": ([-0.30267, 1.8951, 7.0738], [4.4995, 2.7183, 4.873]),
}


@pytest.mark.parametrize("name", KNOWN)
def test_values_and_slopes_are_those_of_tensorflow(name):
    x = tf.constant(AT)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = getattr(tf.math.special, name)(x)
    value, slope = KNOWN[name]
    assert y.dtype == tf.float32
    np.testing.assert_allclose(y, value, rtol=5e-5)
    np.testing.assert_allclose(tape.gradient(y, x), slope, rtol=5e-5)


@pytest.mark.parametrize(
    ("name", "slope"), [("bessel_j1", 0.5), ("dawsn", 1.0), ("fresnel_sin", 0)]
)
def test_slopes_at_zero_are_their_limits(name, slope):
    x = tf.constant(0.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = getattr(tf.math.special, name)(x)
    assert (float(y), float(tape.gradient(y, x))) == (0, slope)


def test_the_slope_of_spence_at_one_is_its_limit():
    x = tf.constant(1.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.math.special.spence(x)
    assert (float(y), float(tape.gradient(y, x))) == (0, -1)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("kind", ["i", "k"])
def test_scaled_functions_of_large_numbers_are_their_limits(kind, order):
    x = np.array([100.0, 1000.0], np.float32)
    y = getattr(tf.math.special, f"bessel_{kind}{order}e")(x)
    limit = 1 / np.sqrt(2 * np.pi * x) if kind == "i" else np.sqrt(np.pi / (2 * x))
    np.testing.assert_allclose(y, limit, rtol=0.01)
