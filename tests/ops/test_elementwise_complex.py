"""Complex tensors: values against ``cmath``, and gradients of real losses by finite differences."""

from __future__ import annotations

import cmath

import numpy as np
import pytest

import distgrad as tf
from distgrad.testing.gradients import check_gradients

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

Z = np.array([0.4 + 0.7j, -0.6 + 0.3j, 0.5 - 0.2j])
W = np.array([1.2 - 0.5j, 0.7 + 0.9j, -0.8 + 0.4j])


@pytest.mark.parametrize("name", [
    "exp", "log", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan",
    "sinh", "cosh", "tanh", "asinh", "acosh", "atanh",
])  # fmt: skip
def test_holomorphic_functions(name):
    f = getattr(tf.math, name)
    expected = [getattr(cmath, name)(z) for z in Z]
    np.testing.assert_allclose(f(Z).numpy(), expected, rtol=1e-13)
    assert f(Z.astype(np.complex64)).dtype == tf.complex64
    check_gradients(f, [Z])


@pytest.mark.parametrize("name, expected", [
    ("expm1", lambda z: cmath.exp(z) - 1), ("log1p", lambda z: cmath.log(1 + z)),
    ("rsqrt", lambda z: 1 / cmath.sqrt(z)), ("reciprocal", lambda z: 1 / z),
    ("square", lambda z: z * z), ("negative", lambda z: -z), ("conj", lambda z: z.conjugate()),
    ("sigmoid", lambda z: 1 / (1 + cmath.exp(-z))), ("abs", abs), ("angle", cmath.phase),
    ("real", lambda z: z.real), ("imag", lambda z: z.imag),
    ("reciprocal_no_nan", lambda z: 1 / z),
])  # fmt: skip
def test_other_functions_of_one_argument(name, expected):
    f = getattr(tf.math, name)
    np.testing.assert_allclose(f(Z).numpy(), [expected(z) for z in Z], rtol=1e-13)
    check_gradients(f, [Z])


@pytest.mark.parametrize("name, expected", [
    ("add", lambda z, w: z + w), ("subtract", lambda z, w: z - w), ("divide", lambda z, w: z / w),
    ("multiply", lambda z, w: z * w), ("pow", lambda z, w: cmath.exp(w * cmath.log(z))),
    ("squared_difference", lambda z, w: abs(z - w) ** 2),
    ("divide_no_nan", lambda z, w: z / w), ("multiply_no_nan", lambda z, w: z * w),
    ("xdivy", lambda z, w: z / w), ("xlogy", lambda z, w: z * cmath.log(w)),
    ("xlog1py", lambda z, w: z * cmath.log(1 + w)),
])  # fmt: skip
def test_functions_of_two_arguments(name, expected):
    f = getattr(tf.math, name)
    found = f(Z, W).numpy()
    assert found.dtype == np.complex128
    np.testing.assert_allclose(found, [expected(z, w) for z, w in zip(Z, W, strict=True)])
    check_gradients(f, [Z, W])


def test_selection_and_powers_by_numbers():
    condition = np.array([True, False, True])
    check_gradients(lambda z, w: tf.where(condition, z, w), [Z, W])
    check_gradients(lambda z: z**3 + 2 * z - 1j * z + z / (1 + 2j), [Z])
    check_gradients(lambda z: (1 + 2j) ** z, [Z])


def test_parts_and_how_they_make_a_complex_tensor():
    a, b = np.array([0.4, -0.6, 0.5]), np.array(0.3)
    z = tf.complex(a, b)
    assert z.dtype == tf.complex128
    np.testing.assert_array_equal(z.numpy(), a + 0.3j)
    assert tf.complex(tf.constant(1.0), tf.constant(2.0)).dtype == tf.complex64
    np.testing.assert_array_equal(tf.math.real(z).numpy(), a)
    np.testing.assert_array_equal(tf.math.imag(z).numpy(), [0.3] * 3)
    check_gradients(tf.complex, [a, b])


def test_parts_of_real_tensors():
    x = tf.constant([-1.0, 2.0])
    assert tf.math.real(x) is x
    assert tf.math.conj(x) is x
    assert tf.math.imag(x).numpy().tolist() == [0, 0]
    np.testing.assert_allclose(tf.math.angle(x).numpy(), [np.pi, 0])


def test_casts_to_and_from_complex():
    z = tf.cast(tf.constant([1.0, 2.0]), tf.complex64)
    assert z.dtype == tf.complex64
    assert tf.cast([True], tf.complex64).numpy() == 1
    np.testing.assert_array_equal(tf.cast(Z, tf.float64).numpy(), Z.real)
    check_gradients(lambda x: tf.cast(x, tf.complex128) * (2 + 1j), [np.array([1.5, -2.0])])
    check_gradients(lambda v: tf.cast(v, tf.float64), [Z])


@pytest.mark.parametrize("f, z, expected", [
    (lambda z: z * z, 1 + 2j, 2 - 4j),  # the conjugate of the derivative
    (lambda z: tf.math.real(z * tf.math.conj(z)), 1 + 2j, 2 + 4j),
    (tf.math.imag, 1 + 2j, 1j),
    (tf.abs, 3 + 4j, 0.6 + 0.8j),
    (tf.abs, 0j, 0),
    (tf.math.angle, 3 + 4j, -0.16 + 0.12j),
    (tf.math.divide_no_nan, (1 + 1j, 0j), (0, 0)),
])  # fmt: skip
def test_the_gradient_of_a_real_loss_points_uphill(f, z, expected):
    points = [tf.constant(v) for v in (z if isinstance(z, tuple) else (z,))]
    with tf.GradientTape() as tape:
        tape.watch(points)
        y = f(*points)
    found = [g.numpy() for g in tape.gradient(y, points)]
    np.testing.assert_allclose(found, np.atleast_1d(expected), rtol=1e-12)


def test_comparisons_of_order_do_not_take_complex():
    with pytest.raises(tf.errors.InvalidArgumentError, match="complex128"):
        tf.less(Z, W)
    assert (tf.constant(Z) == tf.constant(Z)).numpy().all()
