"""Elementwise operations: values at awkward points, kinks, masked branches, empty and 0-d input."""

from __future__ import annotations

import math

import numpy as np
import pytest

import distgrad as tf
from distgrad.core.dispatch import current
from distgrad.core.primitive import Primitive, registry
from distgrad.core.tensor import Tensor
from distgrad.testing.gradients import check_gradients

# Infinite and nan results are meant here; pytest shows the warnings that the backend silences.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

inf, nan = math.inf, math.nan
MODULES = {
    *("activations", "arithmetic", "casting", "clipping", "complex", "division", "exponential"),
    *("logic", "powers", "rounding", "special", "trigonometric"),
}
ELEMENTWISE = [
    pytest.param(p, s, id=f"{name}-{i}")
    for name, p in sorted(registry.items())
    if p.__module__.removeprefix("distgrad.ops.") in MODULES and name != "nonzero"
    for i, s in enumerate(p.make_samples(np.random.default_rng(0)))
]


def gradients(f, *points, dtype=np.float64):
    """The value of ``f`` and its gradient with respect to each point."""
    xs = [tf.constant(np.array(p, dtype=dtype)) for p in points]
    with tf.GradientTape() as tape:
        tape.watch(xs)
        y = f(*xs)
    return y, tape.gradient(y, xs)


def assert_gradient(f, x, expected):
    _, (g,) = gradients(f, x)
    np.testing.assert_allclose(g.numpy(), expected, rtol=1e-12)


# Empty and 0-d input


@pytest.mark.parametrize("p, s", ELEMENTWISE)
def test_empty_input_gives_empty_output_and_gradient(p: Primitive, s):
    args = [a.ravel()[:0] if isinstance(a, np.ndarray) else a for a in s.args]
    tensors = [tf.constant(a) if isinstance(a, np.ndarray) else a for a in args]
    with tf.GradientTape() as tape:
        tape.watch([t for t in tensors if isinstance(t, Tensor)])
        out = p(*tensors, **s.params)
    assert out.shape == (0,)
    assert out.dtype == p(*s.args, **s.params).dtype
    sources = [t for t in tensors if isinstance(t, Tensor) and t.dtype.is_floating]
    for g in tape.gradient(out, sources, unconnected_gradients="zero"):
        assert g.shape == (0,)


@pytest.mark.parametrize("p, s", ELEMENTWISE)
def test_scalar_input_gives_the_first_element_of_the_vector_result(p: Primitive, s):
    vectors = [a.ravel()[:1] if isinstance(a, np.ndarray) else a for a in s.args]
    scalars = [a.reshape(()) if isinstance(a, np.ndarray) else a for a in vectors]
    out = p(*scalars, **s.params)
    assert out.shape == ()
    assert isinstance(out._data, current().array_type)
    np.testing.assert_array_equal(out.numpy(), p(*vectors, **s.params).numpy()[0])
    if p.differentiable:
        check_gradients(lambda *args: p(*args, **s.params), scalars)


# Values


UNARY_AT_AWKWARD_POINTS = [
    ("exp", [-inf, -1000.0, 1000.0, nan], [0.0, 0.0, inf, nan]),
    ("expm1", [-inf, 1e-20, 1000.0], [-1.0, 1e-20, inf]),
    ("log", [0.0, -1.0, inf], [-inf, nan, inf]),
    ("log1p", [-1.0, 1e-20, -2.0], [-inf, 1e-20, nan]),
    ("sigmoid", [-inf, -1000.0, -40.0, 0.0, inf], [0.0, 0.0, math.exp(-40.0), 0.5, 1.0]),
    ("softplus", [-inf, -40.0, 0.0, 1000.0], [0.0, math.exp(-40.0), math.log(2.0), 1000.0]),
    ("log_sigmoid", [-1000.0, 0.0, 40.0], [-1000.0, -math.log(2.0), -math.exp(-40.0)]),
    ("sqrt", [0.0, -1.0, inf], [0.0, nan, inf]),
    ("rsqrt", [0.0, -1.0, inf], [inf, nan, 0.0]),
    ("reciprocal", [0.0, -0.0, inf], [inf, -inf, 0.0]),
    ("reciprocal_no_nan", [0.0, 4.0], [0.0, 0.25]),
    ("floor", [-1.5, 1.5, -0.0, inf], [-2.0, 1.0, -0.0, inf]),
    ("ceil", [-1.5, 1.5], [-1.0, 2.0]),
    ("round", [0.5, 1.5, 2.5, -0.5, -1.5, 0.4], [0.0, 2.0, 2.0, -0.0, -2.0, 0.0]),
    ("rint", [0.5, 1.5, 2.5, -2.5], [0.0, 2.0, 2.0, -2.0]),
    ("sign", [-3.0, 0.0, 0.1, nan], [-1.0, 0.0, 1.0, nan]),
    ("asin", [-1.0, 1.0, 1.1], [-math.pi / 2, math.pi / 2, nan]),
    ("acosh", [1.0, 0.9], [0.0, nan]),
    ("atanh", [1.0, -1.0, 1.1], [inf, -inf, nan]),
    ("tanh", [-1000.0, 1000.0], [-1.0, 1.0]),
    ("erfinv", [-1.0, 0.0, 1.0, 2.0], [-inf, 0.0, inf, nan]),
    ("erfcinv", [0.0, 1.0, 2.0], [inf, 0.0, -inf]),
    ("erfc", [-inf, 10.0], [2.0, 2.088487583762545e-45]),
    ("ndtri", [0.0, 0.5, 1.0], [-inf, 0.0, inf]),
    ("lgamma", [0.0, -1.0, 1.0, 171.5], [inf, inf, 0.0, math.lgamma(171.5)]),
]


@pytest.mark.parametrize("name, points, expected", UNARY_AT_AWKWARD_POINTS)
def test_values_at_awkward_points(name, points, expected):
    found = getattr(tf.math, name)(np.array(points)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_float32_sigmoid_and_its_kin_keep_their_relative_precision_far_out():
    x = np.linspace(-80, 80, 401)
    for f in (tf.sigmoid, tf.nn.softplus, tf.nn.silu, tf.math.log_sigmoid, tf.math.erfc, tf.nn.elu):
        wide, narrow = f(x).numpy(), f(x.astype(np.float32)).numpy()
        assert narrow.dtype == np.float32
        keep = np.abs(wide) > 1e-36
        np.testing.assert_allclose(narrow[keep], wide[keep], rtol=1e-5, err_msg=f.__name__)


def test_atan2_knows_all_quadrants():
    y, x = np.array([1.0, 1.0, -1.0, -1.0, 0.0]), np.array([1.0, -1.0, -1.0, 1.0, -1.0])
    quarters = np.array([1, 3, -3, -1, 4])
    np.testing.assert_allclose(tf.atan2(y, x).numpy(), quarters * math.pi / 4)


def test_division_that_rounds_follows_the_sign_of_the_divisor():
    x, y = np.array([7.0, -7.0, 7.0, -7.0, 1.0]), np.array([2.0, 2.0, -2.0, -2.0, 0.1])
    np.testing.assert_array_equal(tf.math.floordiv(x, y).numpy(), [3, -4, -4, 3, 10])
    np.testing.assert_allclose(tf.math.floormod(x, y).numpy(), [1, 1, -1, -1, 0.1], rtol=1e-14)
    np.testing.assert_array_equal(tf.truncatediv(x, y).numpy(), [3, -3, -3, 3, 10])
    np.testing.assert_allclose(tf.truncatemod(x, y).numpy(), [1, -1, 1, -1, 0.1], rtol=1e-14)
    n, d = np.array([7, -7, 7, -7]), np.array([2, 2, -2, -2])
    np.testing.assert_array_equal(tf.math.floordiv(n, d).numpy(), [3, -4, -4, 3])
    np.testing.assert_array_equal(tf.math.mod(n, d).numpy(), [1, 1, -1, -1])
    np.testing.assert_array_equal(tf.truncatediv(n, d).numpy(), [3, -3, -3, 3])
    np.testing.assert_array_equal(tf.truncatemod(n, d).numpy(), [1, -1, 1, -1])
    assert tf.math.floordiv(1.0, 0.0).numpy() == inf
    assert np.isnan(tf.math.floormod(1.0, 0.0).numpy())


def test_clip_by_value_gives_the_lower_bound_where_the_bounds_are_crossed():
    np.testing.assert_array_equal(tf.clip_by_value([0.0, 1.5, 5.0], 2.0, 1.0).numpy(), [2, 2, 2])
    np.testing.assert_array_equal(
        tf.clip_by_value([[0.0, 9.0], [9.0, 0.0]], [1.0, 2.0], [[3.0], [4.0]]).numpy(),
        [[1.0, 3.0], [4.0, 2.0]],
    )


def test_saturate_cast_clips_to_what_the_type_holds():
    wild = np.array([1e20, -1e20, 3.7, -3.7, 300.0], np.float32)
    assert tf.saturate_cast(wild, tf.uint8).numpy().tolist() == [255, 0, 3, 0, 255]
    # float32 holds neither 2**31 - 1 nor 2**63 - 1: the largest float below each
    assert tf.saturate_cast(wild, tf.int32).numpy().tolist() == [
        2**31 - 128, -(2**31), 3, -3, 300]  # fmt: skip
    assert tf.saturate_cast(wild, tf.int64).numpy().tolist() == [
        2**63 - 2**39, -(2**63), 3, -3, 300]  # fmt: skip
    assert tf.saturate_cast(np.array([-5, 300]), tf.uint8).numpy().tolist() == [0, 255]
    assert tf.saturate_cast(np.array([2**32 - 1], np.uint32), tf.int32).numpy() == 2**31 - 1
    assert tf.saturate_cast(np.array([inf, -inf]), tf.float16).numpy().tolist() == [65504, -65504]
    assert tf.saturate_cast(np.array([1e300]), tf.float32).numpy() == np.finfo(np.float32).max


def test_sums_and_products_of_several():
    a, b = np.array([1.0, 2.0]), np.array([10.0, 20.0])
    for f in (tf.add_n, tf.math.accumulate_n):
        np.testing.assert_array_equal(f([a, b, a]).numpy(), [12.0, 24.0])
    np.testing.assert_array_equal(tf.add_n(tf.constant([a, b])).numpy(), [11.0, 22.0])  # its rows
    np.testing.assert_array_equal(tf.math.scalar_mul(3.0, a).numpy(), [3.0, 6.0])
    np.testing.assert_array_equal(tf.math.polyval([1.0, 2.0, 3.0], a).numpy(), [6.0, 11.0])
    np.testing.assert_array_equal(tf.math.polyval([], a).numpy(), [0.0, 0.0])
    check_gradients(lambda x, y: tf.math.polyval([y, 2.0, x], x), [a, b])


def test_where_with_one_argument_gives_int64_positions():
    found = tf.where([[True, False], [True, True]])
    assert found.dtype == tf.int64
    assert found.numpy().tolist() == [[0, 0], [1, 0], [1, 1]]
    assert tf.where(np.array([0.0, 2.0])).numpy().tolist() == [[1]]


def test_activations_composed_of_others():
    x = np.array([-4.0, -3.0, -1.0, 0.0, 1.0, 3.0, 4.0])
    softplus = np.log1p(np.exp(x))
    hard = np.clip((x + 3) / 6, 0, 1)
    np.testing.assert_allclose(tf.nn.mish(x).numpy(), x * np.tanh(softplus))
    np.testing.assert_allclose(tf.nn.hard_sigmoid(x).numpy(), hard, atol=1e-15)
    np.testing.assert_allclose(tf.nn.hard_swish(x).numpy(), x * hard, atol=1e-15)
    np.testing.assert_allclose(tf.nn.silu(x, 2.0).numpy(), x / (1 + np.exp(-2 * x)))
    np.testing.assert_allclose(
        tf.nn.selu(x).numpy(),
        1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    )
    np.testing.assert_allclose(tf.nn.crelu(np.array([[1.0, -2.0]])).numpy(), [[1.0, 0.0, 0.0, 2.0]])
    np.testing.assert_allclose(
        tf.nn.crelu(np.array([[1.0, -2.0]]), axis=0).numpy(), [[1.0, 0.0], [0.0, 2.0]]
    )
    smooth = [-2.5, -1.0, 0.5, 2.0]
    for f in (tf.nn.mish, tf.nn.hard_sigmoid, tf.nn.hard_silu, tf.nn.selu, tf.nn.crelu):
        check_gradients(f, [np.array(smooth)])
    check_gradients(tf.nn.silu, [np.array(smooth), np.array(1.5)])
    for approximate in (False, True):
        check_gradients(lambda v, a=approximate: tf.nn.gelu(v, approximate=a), [np.array(smooth)])


# Gradients at kinks, ties and poles


KINKS = [
    ("abs at 0", tf.abs, [-2.0, 0.0, 3.0], [-1, 0, 1]),
    ("sign", tf.sign, [-2.0, 0.0, 3.0], [0, 0, 0]),
    ("relu at 0", tf.nn.relu, [-1.0, 0.0, 2.0, nan], [0, 0, 1, 0]),
    ("relu6 at 0 and 6", tf.nn.relu6, [-1.0, 0.0, 3.0, 6.0, 7.0], [0, 0, 1, 0, 0]),
    ("leaky_relu at 0", tf.nn.leaky_relu, [-1.0, 0.0, 2.0], [0.2, 0.2, 1]),
    ("leaky_relu, alpha", lambda x: tf.nn.leaky_relu(x, 2.0), [-1.0, 0.0, 2.0], [2, 2, 1]),
    ("elu at 0", tf.nn.elu, [-1.0, 0.0, 2.0], [math.exp(-1), 1, 1]),
    ("selu at 0", tf.nn.selu, [0.0, 2.0], [1.0507009873554805] * 2),
    ("softsign at 0", tf.nn.softsign, [-1.0, 0.0, 1.0], [0.25, 1, 0.25]),
    ("clip at the bounds", lambda x: tf.clip_by_value(x, 0.0, 1.0),
     [-1.0, 0.0, 0.5, 1.0, 2.0, nan], [0, 1, 1, 1, 0, 0]),
    ("sqrt at 0", tf.sqrt, [0.0, 4.0], [inf, 0.25]),
    ("log at 0", tf.math.log, [0.0, 4.0], [inf, 0.25]),
    ("x ** 0.5 at 0", lambda x: x**0.5, [0.0, 4.0], [inf, 0.25]),
    ("x ** 2.0 at 0", lambda x: x**2.0, [0.0, 4.0], [0, 8]),
    ("x ** 0", lambda x: x**0, [0.0, -4.0], [0, 0]),
    ("x ** 0.0 of tensors", lambda x: tf.pow(x, tf.zeros_like(x)), [0.0, -4.0], [0, 0]),
    ("asin at 1", tf.asin, [1.0, -1.0], [inf, inf]),
    ("acosh at 1", tf.acosh, [1.0], [inf]),
    ("divide_no_nan at 0", lambda x: tf.math.divide_no_nan(x, [0.0, 2.0]), [1.0, 3.0], [0, 0.5]),
    ("reciprocal_no_nan at 0", tf.math.reciprocal_no_nan, [0.0, 2.0], [0, -0.25]),
    ("erfinv at 1", tf.math.erfinv, [1.0, 0.0], [inf, math.sqrt(math.pi) / 2]),
    ("softplus far out", tf.nn.softplus, [-1000.0, 0.0, 1000.0], [0, 0.5, 1]),
    ("log_sigmoid far out", tf.math.log_sigmoid, [-1000.0, 0.0, 1000.0], [1, 0.5, 0]),
    ("sigmoid far out", tf.sigmoid, [-1000.0, 0.0, 1000.0], [0, 0.25, 0]),
    ("silu far out", tf.nn.silu, [0.0, 1000.0], [0.5, 1]),
    ("saturate_cast outside", lambda x: tf.saturate_cast(x, tf.float16), [1e20, 3.0], [0, 1]),
]  # fmt: skip


@pytest.mark.parametrize("f, x, expected", [pytest.param(*k[1:], id=k[0]) for k in KINKS])
def test_gradient_at_a_kink_or_pole(f, x, expected):
    assert_gradient(f, x, expected)


def test_a_tie_of_maximum_or_minimum_goes_to_the_first_argument():
    for f in (tf.maximum, tf.minimum):
        _, (gx, gy) = gradients(f, [1.0, 1.0], [1.0, 1.0])
        assert gx.numpy().tolist() == [1, 1]
        assert gy.numpy().tolist() == [0, 0]
    y, (gx, gy) = gradients(tf.maximum, [nan, 1.0], [1.0, nan])
    assert np.isnan(y.numpy()).all()
    assert (gx.numpy().tolist(), gy.numpy().tolist()) == ([0, 0], [1, 1])


def test_the_bounds_of_clip_by_value_get_the_gradient_where_they_are_the_result():
    x, low, high = [0.0, 1.0, 2.0, -1.0], [0.0] * 4, [1.0] * 4
    _, (gx, glow, ghigh) = gradients(tf.clip_by_value, x, low, high)
    assert gx.numpy().tolist() == [1, 1, 0, 0]
    assert glow.numpy().tolist() == [0, 0, 0, 1]
    assert ghigh.numpy().tolist() == [0, 0, 1, 0]
    _, crossed = gradients(tf.clip_by_value, [0.0, 1.5, 5.0], [2.0] * 3, [1.0] * 3)
    assert [g.numpy().tolist() for g in crossed] == [[0, 0, 0], [1, 1, 1], [0, 0, 0]]


def test_pow_by_an_exponent_has_no_gradient_where_the_base_is_not_positive():
    y, (_, gy) = gradients(tf.pow, [0.0, -2.0, 2.0], [2.0, 2.0, 2.0])
    assert y.numpy().tolist() == [0, 4, 4]
    np.testing.assert_allclose(gy.numpy(), [0, 0, 4 * math.log(2)])
    for base, expected in [(-2.0, 0.0), (0.0, 0.0), (2.0, 4 * math.log(2))]:
        _, (g,) = gradients(lambda e, b=base: b**e, 2.0)
        assert g.numpy() == pytest.approx(expected)


def test_the_mixed_derivative_of_pow_at_exponent_0_is_right():
    x, y = tf.constant(2.0), tf.constant(0.0)
    with tf.GradientTape() as outer:
        outer.watch(y)
        with tf.GradientTape() as inner:
            inner.watch(x)
            z = x**y
        dx = inner.gradient(z, x)
    assert outer.gradient(dx, y).numpy() == 0.5  # of y * x ** (y - 1): 1 / x at y = 0


def test_a_zero_factor_wins_and_has_gradient_0():
    _, (gx, gy) = gradients(tf.math.xlogy, [0.0, 0.0, 2.0], [0.0, -3.0, 3.0])
    np.testing.assert_allclose(gx.numpy(), [0, 0, math.log(3)])
    np.testing.assert_allclose(gy.numpy(), [0, 0, 2 / 3])
    _, (gx, gy) = gradients(tf.math.xdivy, [0.0, 2.0], [0.0, 3.0])
    np.testing.assert_allclose(gx.numpy(), [0, 1 / 3])
    np.testing.assert_allclose(gy.numpy(), [0, -2 / 9])
    _, (gx, gy) = gradients(tf.math.xlog1py, [0.0, 2.0], [-1.0, 3.0])
    np.testing.assert_allclose(gx.numpy(), [0, math.log(4)])
    np.testing.assert_allclose(gy.numpy(), [0, 0.5])
    y, (gx, gy) = gradients(tf.math.multiply_no_nan, [nan, inf, 3.0], [0.0, 0.0, 2.0])
    np.testing.assert_array_equal(y.numpy(), [0, 0, 6])
    np.testing.assert_array_equal(gx.numpy(), [0, 0, 2])
    np.testing.assert_array_equal(gy.numpy(), [nan, inf, 3])


MASKED = [
    ("sqrt", tf.sqrt, [0.0, -1.0, 4.0], [0, 0, 0.25]),
    ("rsqrt", tf.math.rsqrt, [0.0, -1.0, 4.0], [0, 0, -1 / 16]),
    ("log", tf.math.log, [0.0, 4.0], [nan, 0.25]),
    ("1 / x", lambda x: 1 / x, [0.0, 4.0], [nan, -1 / 16]),
    ("reciprocal", tf.math.reciprocal, [0.0, 4.0], [nan, -1 / 16]),
    ("x ** 0.5", lambda x: x**0.5, [0.0, -1.0, 4.0], [nan, nan, 0.25]),
]


@pytest.mark.parametrize("f, x, expected", [pytest.param(*m[1:], id=m[0]) for m in MASKED])
def test_masked_branch(f, x, expected):
    assert_gradient(lambda v: tf.where(v > 0, f(v), 0.0), x, expected)


@pytest.mark.parametrize("f, second", [(tf.sqrt, -1 / 32), (tf.math.rsqrt, 3 / 128)])
def test_masked_branch_of_a_root_is_zero_in_the_second_derivative_too(f, second):
    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.where(x > 0, f(x), 0.0)
        return tape.gradient(y, x)

    assert_gradient(slope, [0.0, -1.0, 4.0], [0, 0, second])


def test_a_root_is_linear_in_its_cotangent_even_at_a_cotangent_of_zero():
    # The double-backward way to a Jacobian-vector product differentiates at a zero cotangent.
    for f, slope in [(tf.sqrt, 0.25), (tf.math.rsqrt, -1 / 16)]:
        x, seed = tf.constant(4.0), tf.constant(0.0)
        with tf.GradientTape() as outer:
            outer.watch(seed)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = f(x)
            pulled = inner.gradient(y, x, output_gradients=seed)
        assert outer.gradient(pulled, seed).numpy() == pytest.approx(slope)


WITHOUT_GRADIENT = [
    ("floor", tf.floor), ("ceil", tf.math.ceil), ("round", tf.round), ("rint", tf.math.rint),
    ("floordiv", lambda x: x // 2.0), ("zeros_like", tf.zeros_like), ("ones_like", tf.ones_like),
    ("float to int to float", lambda x: tf.cast(tf.cast(x, tf.int32), tf.float64)),
    ("cast of a comparison", lambda x: tf.cast(x > 1.0, tf.float64)),
    ("stop_gradient", tf.stop_gradient),
    ("is_nan", lambda x: tf.cast(tf.math.is_nan(x), tf.float64)),
    ("where without branches", lambda x: tf.cast(tf.where(x > 1.0), tf.float64)),
    ("order of polygamma", lambda x: tf.math.polygamma(tf.floor(x), tf.constant(2.0, tf.float64))),
]  # fmt: skip


@pytest.mark.parametrize("f", [pytest.param(w[1], id=w[0]) for w in WITHOUT_GRADIENT])
def test_no_gradient_is_none_not_zeros(f):
    assert gradients(f, [1.5, 2.5])[1] == [None]


def test_cast_between_floats_has_a_gradient_of_the_type_of_the_source():
    x = tf.constant([1.5, 2.5], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.cast(x, tf.float64) ** 2
    g = tape.gradient(y, x)
    assert g.dtype == tf.float32
    assert g.numpy().tolist() == [3, 5]


# Higher orders


@pytest.mark.parametrize("f", [
    tf.math.lgamma, tf.math.digamma, tf.math.erf, tf.math.erfinv, tf.sqrt, tf.math.rsqrt, tf.asin,
    tf.nn.gelu, tf.nn.softsign, tf.nn.silu, tf.math.xlogy, tf.pow, tf.atan2, tf.nn.softplus,
])  # fmt: skip
def test_third_derivative(f):
    arguments = 2 if f in (tf.math.xlogy, tf.pow, tf.atan2) else 1
    check_gradients(f, [np.array([0.35, 0.6])] * arguments, order=3)


def test_polygamma_beyond_its_domain_is_nan():
    assert np.isnan(tf.math.polygamma([-1.0, 1.5], [2.5, 2.5]).numpy()).all()
    np.testing.assert_allclose(tf.math.polygamma(0.0, 2.5).numpy(), 0.7031566406, rtol=1e-6)


# Errors


@pytest.mark.parametrize("call, text", [
    (lambda: tf.add([1.0, 2.0], [1.0, 2.0, 3.0]), r"float32\[2\].*float32\[3\]"),
    (lambda: tf.where([True, False], [1.0, 2.0], [1.0, 2.0, 3.0]), r"\[2\].*\[3\]"),
    (lambda: tf.equal([1, 2], [1, 2, 3]), r"\[2\].*\[3\]"),
    (lambda: tf.clip_by_value(1.0, [0.0, 0.0], [1.0, 1.0]), "do not broadcast"),
    (lambda: tf.where(tf.constant([1, 0]), 1.0, 2.0), "bool.*int32"),
    (lambda: tf.constant([1, 2]) // tf.constant([0, 1]), "division by zero"),
    (lambda: tf.constant([1, 2]) % 0, "division by zero"),
    (lambda: tf.truncatediv(tf.constant([1]), 0), "division by zero"),
    (lambda: tf.constant([2]) ** -1, "negative"),
    (lambda: tf.pow(tf.constant([2, 1]), tf.constant([1, -2])), "negative"),
    (lambda: tf.add_n([[1.0], [1.0, 2.0]]), r"\(1,\).*\(2,\)"),
    (lambda: tf.complex(tf.constant([1.0]), tf.constant([2.0], tf.float64)), "float32.*float64"),
])  # fmt: skip
def test_misuse_raises_invalid_argument_at_the_call(call, text):
    with pytest.raises(tf.errors.InvalidArgumentError, match=text):
        call()


def test_misuse_that_is_a_value_error():
    for call in (
        lambda: tf.where([True], 1.0),
        lambda: tf.add_n([]),
        lambda: tf.math.scalar_mul([1.0, 2.0], [1.0]),
        lambda: tf.math.polyval(3.0, [1.0]),
        lambda: tf.constant([1.0]) + None,
    ):
        with pytest.raises(ValueError):
            call()
