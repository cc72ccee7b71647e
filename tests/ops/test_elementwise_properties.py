"""Properties of elementwise operations over shapes, broadcasting, layouts and dtypes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import distgrad as tf

from .properties import quick

UNARY = {
    "abs": np.abs, "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "exp": np.exp,
    "expm1": np.expm1, "square": np.square, "negative": np.negative, "atan": np.arctan,
    "asinh": np.arcsinh, "floor": np.floor, "ceil": np.ceil, "rint": np.rint, "sign": np.sign,
}  # fmt: skip
BINARY = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "maximum": np.maximum,
    "minimum": np.minimum, "squared_difference": lambda x, y: (x - y) ** 2, "atan2": np.arctan2,
    "less": np.less, "equal": np.equal, "greater_equal": np.greater_equal,
    "divide": np.divide, "floordiv": lambda x, y: np.floor(x / y), "floormod": np.mod,
}  # fmt: skip
DIFFERENTIABLE = ("add", "subtract", "multiply", "divide", "squared_difference", "atan2")

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
broadcastable = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=4)
three = hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3)
seeds = st.integers(0, 2**32 - 1)
floats = st.sampled_from([np.float32, np.float64])


def draw(seed, shape, dtype=np.float64):
    """Random numbers whose absolute value lies between 0.25 and 2."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.uniform(0.25, 2, shape) * rng.choice([-1, 1], shape)).astype(dtype)


def summed_to(x, shape):
    """The sum of ``x`` over the axes along which ``shape`` was broadcast: one loop, no cunning."""
    total = np.zeros(shape, x.dtype)
    for at in np.ndindex(x.shape):
        lead = at[len(at) - len(shape) :]
        total[tuple(0 if n == 1 else i for i, n in zip(lead, shape, strict=True))] += x[at]
    return total


@pytest.mark.parametrize("name", UNARY)
@quick
@given(shape=shapes, dtype=floats, seed=seeds)
def test_unary_functions_agree_with_numpy_in_any_shape(name, shape, dtype, seed):
    x = draw(seed, shape, dtype)
    found = getattr(tf.math, name)(x)
    assert found.shape == shape
    assert found.dtype == dtype
    np.testing.assert_allclose(found.numpy(), UNARY[name](x), rtol=1e-6)


@pytest.mark.parametrize("name", BINARY)
@quick
@given(pair=broadcastable, dtype=floats, seed=seeds)
def test_binary_functions_broadcast_as_numpy_does(name, pair, dtype, seed):
    x, y = (draw(seed + i, shape, dtype) for i, shape in enumerate(pair.input_shapes))
    found = getattr(tf.math, name)(x, y)
    assert found.shape == pair.result_shape
    expected = BINARY[name](x, y)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@quick
@given(pair=broadcastable, seed=seeds)
def test_gradients_of_a_broadcast_have_the_shape_of_the_operands(name, pair, seed):
    f = getattr(tf.math, name)
    x, y = (tf.constant(draw(seed + i, s)) for i, s in enumerate(pair.input_shapes))
    wide = [tf.constant(np.broadcast_to(v.numpy(), pair.result_shape).copy()) for v in (x, y)]
    upstream = draw(seed + 2, pair.result_shape)
    found, full = [], []
    for sources, result in (([x, y], found), (wide, full)):
        with tf.GradientTape() as tape:
            tape.watch(sources)
            z = f(*sources)
        result += tape.gradient(z, sources, output_gradients=tf.constant(upstream))
    for g, w, source in zip(found, full, (x, y), strict=True):
        assert g.shape == source.shape
        expected = summed_to(np.asarray(w.numpy()), tuple(source.shape))
        np.testing.assert_allclose(g.numpy(), expected, rtol=1e-9, atol=1e-12)


@quick
@given(shape=broadcastable)
def test_shapes_that_do_not_broadcast_are_refused(shape):
    x = np.zeros((*shape.input_shapes[0], 3))
    y = np.zeros((*shape.input_shapes[1], 2))
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.add(x, y)


@quick
@given(shapes=three, seed=seeds)
def test_where_selects_with_three_way_broadcasting(shapes, seed):
    c, x, y = (draw(seed + i, s) for i, s in enumerate(shapes.input_shapes))
    found = tf.where(c > 0, x, y)
    assert found.shape == shapes.result_shape
    np.testing.assert_array_equal(found.numpy(), np.where(c > 0, x, y))
    xs = [tf.constant(x), tf.constant(y)]
    with tf.GradientTape() as tape:
        tape.watch(xs)
        z = tf.where(c > 0, *xs)
    gx, gy = tape.gradient(z, xs)
    chosen = np.broadcast_to(c > 0, shapes.result_shape).astype(np.float64)
    np.testing.assert_array_equal(gx.numpy(), summed_to(chosen, x.shape))
    np.testing.assert_array_equal(gy.numpy(), summed_to(1 - chosen, y.shape))


@quick
@given(shape=shapes, seed=seeds, low=st.floats(-2, 2), high=st.floats(-2, 2))
def test_clipped_values_lie_between_the_bounds(shape, seed, low, high):
    x = draw(seed, shape)
    low, high = min(low, high), max(low, high)
    found = tf.clip_by_value(x, low, high).numpy()
    np.testing.assert_array_equal(found, np.clip(x, low, high))


@quick
@given(
    x=hnp.arrays(np.int32, hnp.array_shapes(max_dims=2), elements=st.integers(-99, 99)),
    y=st.integers(-9, 9).filter(bool),
)
def test_division_with_remainder_of_integers_adds_up(x, y):
    quotient, remainder = tf.constant(x) // y, tf.constant(x) % y
    assert quotient.dtype == remainder.dtype == tf.int32
    np.testing.assert_array_equal(quotient.numpy() * y + remainder.numpy(), x)
    np.testing.assert_array_equal(quotient.numpy(), [[v // y for v in r] for r in np.atleast_2d(x)]
                                  if x.ndim == 2 else [v // y for v in x])  # fmt: skip
    t, r = tf.truncatediv(x, y).numpy(), tf.truncatemod(x, y).numpy()
    np.testing.assert_array_equal(t * y + r, x)
    assert (np.abs(r) < abs(y)).all()
    assert ((r == 0) | (np.sign(r) == np.sign(x))).all()


@quick
@given(shape=shapes, axes=st.randoms(use_true_random=False), seed=seeds)
def test_layout_does_not_matter(shape, axes, seed):
    order = list(range(len(shape)))
    axes.shuffle(order)
    x = draw(seed, shape).transpose(order)[..., ::-1] if shape else draw(seed, shape)
    for f in (tf.exp, tf.nn.gelu, tf.nn.softplus, tf.math.erf, tf.sigmoid):
        np.testing.assert_array_equal(
            f(x).numpy(), f(np.ascontiguousarray(x)).numpy().reshape(x.shape)
        )


@quick
@given(x=hnp.arrays(np.float64, hnp.array_shapes(max_dims=2), elements=st.floats(-30, 30)))
def test_identities(x):
    t = tf.constant(x)
    close = {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose((tf.sin(t) ** 2 + tf.cos(t) ** 2).numpy(), 1, **close)
    np.testing.assert_allclose((tf.sigmoid(t) + tf.sigmoid(-t)).numpy(), 1, **close)
    np.testing.assert_allclose((tf.nn.softplus(t) - tf.nn.softplus(-t)).numpy(), x, **close)
    np.testing.assert_allclose((tf.math.erf(t) + tf.math.erfc(t)).numpy(), 1, **close)
    np.testing.assert_allclose(tf.asinh(tf.sinh(t)).numpy(), x, **close)
    np.testing.assert_allclose((tf.nn.relu(t) - tf.nn.relu(-t)).numpy(), x, **close)
    np.testing.assert_allclose((tf.nn.gelu(t) - tf.nn.gelu(-t)).numpy(), x, **close)
    np.testing.assert_allclose(tf.math.log_sigmoid(t).numpy(), -np.logaddexp(0, -x), **close)
    np.testing.assert_allclose((tf.floor(t) + t % 1.0).numpy(), x, **close)


@quick
@given(x=hnp.arrays(np.float64, hnp.array_shapes(max_dims=2), elements=st.floats(0.1, 20)))
def test_recurrences_of_the_gamma_function_and_its_derivatives(x):
    close = {"rtol": 1e-9, "atol": 1e-9}
    for f, step in [
        (tf.math.lgamma, np.log(x)),
        (tf.math.digamma, 1 / x),
        (lambda v: tf.math.polygamma(1.0, v), -1 / x**2),
        (lambda v: tf.math.polygamma(2.0, v), 2 / x**3),
        (lambda v: tf.math.zeta(3.0, v), -1 / x**3),
    ]:
        np.testing.assert_allclose(f(x + 1).numpy(), f(x).numpy() + step, **close)


@quick
@given(p=hnp.arrays(np.float64, hnp.array_shapes(max_dims=2), elements=st.floats(0.01, 0.99)))
def test_inverses(p):
    np.testing.assert_allclose(tf.math.erf(tf.math.erfinv(p)).numpy(), p, rtol=1e-9)
    np.testing.assert_allclose(tf.math.erfc(tf.math.erfcinv(p)).numpy(), p, rtol=1e-9)
    normal = tf.math.erfc(tf.math.ndtri(p) * -np.sqrt(0.5)) * 0.5
    np.testing.assert_allclose(normal.numpy(), p, rtol=1e-9)
    np.testing.assert_allclose(tf.cos(tf.acos(p)).numpy(), p, rtol=1e-9)
    np.testing.assert_allclose(tf.tanh(tf.atanh(p)).numpy(), p, rtol=1e-9)
    np.testing.assert_allclose(tf.exp(tf.math.log(p)).numpy(), p, rtol=1e-9)
