"""ForwardAccumulator: Jacobian-vector products, alone and nested with tapes."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as tf
from distgrad.testing.primitives import built_in, samples_of

Accumulator = tf.autodiff.ForwardAccumulator


def test_jvp_of_a_layer():
    """d tanh(x @ w + b) along a direction of x."""
    rng = np.random.default_rng(0)
    x, w, b, u = (rng.normal(size=s) for s in ((2, 3), (3, 4), (4,), (2, 3)))
    primal = tf.constant(x)
    with Accumulator(primal, tf.constant(u)) as acc:
        y = tf.tanh(primal @ tf.constant(w) + tf.constant(b))
    exact = (1 - np.tanh(x @ w + b) ** 2) * (u @ w)
    np.testing.assert_allclose(acc.jvp(y), exact, rtol=1e-12)
    np.testing.assert_allclose(acc.jvp(y), exact, rtol=1e-12)  # any number of times


def test_several_primals_add_up():
    """Nests of primals and tangents, variables among them; the result is the sum over all."""
    x, v = tf.constant([1.0, 2.0]), tf.Variable(3.0)
    with Accumulator({"x": x, "v": [v]}, {"x": [1.0, 10.0], "v": [tf.constant(100.0)]}) as acc:
        y = v * x
        z = y * y
    np.testing.assert_array_equal(acc.jvp(y), [103.0, 230.0])
    np.testing.assert_array_equal(acc.jvp({"z": z})["z"], [2 * 3 * 103.0, 2 * 6 * 230.0])


def test_jvp_of_a_primal_is_its_tangent():
    x, v = tf.constant([1.0, 2.0]), tf.Variable(3.0)
    with Accumulator([x, v], [tf.constant([5.0, 6.0]), tf.constant(7.0)]) as acc:
        v * x
    np.testing.assert_array_equal(acc.jvp(x), [5.0, 6.0])
    assert float(acc.jvp(v)) == 7.0


def test_what_does_not_depend_on_the_primals():
    """None, or zeros where asked; integers have no derivative."""
    x = tf.constant([1.0, 2.0])
    before = x * 2.0
    with Accumulator(x, tf.constant([1.0, 1.0])) as acc:
        other, n = tf.ones((2, 2)) * 3.0, tf.argmax(x)
        outside_inputs = tf.stop_gradient(x) * 2.0
    after = x * 2.0
    for value in (before, other, n, outside_inputs, after):
        assert acc.jvp(value) is None
    zeros = acc.jvp([other, n], unconnected_gradients="zero")
    assert [z.shape for z in zeros] == [(2, 2), ()] and not np.any(zeros[0])
    assert acc.jvp(other, tf.UnconnectedGradients.ZERO).dtype == tf.float32


def test_jvp_inside_the_block():
    """The accumulator does not follow its own products; it goes on with what comes next."""
    x = tf.constant(3.0)
    with Accumulator(x, tf.constant(1.0)) as acc:
        y = x * x
        first = acc.jvp(y)
        z = y * x
        assert acc.jvp(first) is None
    assert float(first) == 6.0 and float(acc.jvp(z)) == 27.0


def test_forward_over_forward():
    """The second derivative along two directions, from two accumulators."""
    x = tf.constant([1.0, 2.0], tf.float64)
    with Accumulator(x, tf.constant([1.0, 0.0], tf.float64)) as outer:
        with Accumulator(x, tf.constant([0.0, 1.0], tf.float64)) as inner:
            y = x[0] ** 2 * x[1] ** 3
        d = inner.jvp(y)
    assert float(d) == 12.0  # x0^2 * 3 x1^2
    assert float(outer.jvp(d)) == 24.0  # 2 x0 * 3 x1^2


def test_products_asked_for_after_all_blocks():
    """Accumulators and tapes around a block follow its products there as well, not the reverse."""
    x = tf.constant(1.5, tf.float64)
    with tf.GradientTape() as tape, Accumulator(x, tf.constant(2.0, tf.float64)) as outer:
        tape.watch(x)
        with Accumulator(x, tf.constant(1.0, tf.float64)) as inner:
            y = x**4
    slope = inner.jvp(y)
    second = outer.jvp(slope)
    assert float(slope) == 4 * 1.5**3 and float(second) == 2 * 12 * 1.5**2
    assert inner.jvp(outer.jvp(y)) is None
    assert float(tape.gradient(second, x)) == 2 * 24 * 1.5
    assert not tape._recording and outer.jvp(inner.jvp(y)) is not None


def quartic(x, a):
    return tf.reduce_sum(x**4) + 0.5 * tf.reduce_sum(x * tf.linalg.matvec(a, x))


@pytest.fixture
def hessian():
    """A function, its variables, a direction, and the Hessian times the direction by hand."""
    rng = np.random.default_rng(3)
    a = rng.normal(size=(5, 5))
    a, x, u = a + a.T, rng.normal(size=5), rng.normal(size=5)
    return tf.constant(a), tf.Variable(x), tf.constant(u), (np.diag(12 * x**2) + a) @ u


def test_hessian_vector_product_forward_over_reverse(hessian):
    """One gradient under an accumulator: the usual way, at the price of a few gradients."""
    a, x, u, exact = hessian
    with Accumulator(x, u) as acc:
        with tf.GradientTape() as tape:
            y = quartic(x, a)
        gradient = tape.gradient(y, x)
    np.testing.assert_allclose(acc.jvp(gradient), exact, rtol=1e-12)


def test_hessian_vector_product_reverse_over_forward(hessian):
    """The gradient of a directional derivative."""
    a, x, u, exact = hessian
    with tf.GradientTape() as tape:
        with Accumulator(x, u) as acc:
            y = quartic(x, a)
        slope = acc.jvp(y)
    np.testing.assert_allclose(tape.gradient(slope, x), exact, rtol=1e-12)


def test_hessian_vector_product_reverse_over_reverse(hessian):
    """Two tapes, the outer one with the direction as output_gradients."""
    a, x, u, exact = hessian
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            y = quartic(x, a)
        gradient = inner.gradient(y, x)
    np.testing.assert_allclose(outer.gradient(gradient, x, output_gradients=u), exact, rtol=1e-12)


def test_hessian_vector_product_through_a_keras_model():
    """Forward over reverse with a layer's variables, against finite differences of the gradient."""
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.Sequential(
        [tf.keras.layers.Dense(6, activation="tanh"), tf.keras.layers.Dense(3)]
    )
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(8, 4)).astype(np.float32))
    labels = rng.integers(0, 3, 8)
    model(x)
    variables = model.trainable_variables
    tangents = [tf.constant(rng.normal(size=v.shape).astype(np.float32)) for v in variables]

    def gradient():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model(x)))
        return tape.gradient(loss, variables)

    with Accumulator(variables, tangents) as acc:
        grads = gradient()
    products = acc.jvp(grads)
    start, step = [v.numpy() for v in variables], 1e-2
    ends = []
    for sign in (1, -1):
        for v, s, u in zip(variables, start, tangents, strict=True):
            v.assign(s + sign * step * u.numpy())
        ends.append([g.numpy() for g in gradient()])
    for product, above, below in zip(products, *ends, strict=True):
        np.testing.assert_allclose(product, (above - below) / (2 * step), atol=2e-3)


def test_a_cotangent_that_cancels_does_not_hide_a_tangent():
    """sqrt treats a zero cotangent apart; y and -y must not add up to one."""
    x = tf.constant([4.0])
    with Accumulator(x, tf.constant([1.0])) as acc:
        y = tf.sqrt(x)
        z = tf.concat([y, -y], 0)
    np.testing.assert_array_equal(acc.jvp(z), [0.25, -0.25])


def test_gathered_rows_have_a_tangent():
    """A table that is only gathered from, whose gradient is IndexedSlices."""
    table = tf.Variable(np.arange(6.0).reshape(3, 2))
    direction = np.arange(6.0).reshape(3, 2) * 10
    with Accumulator(table, tf.constant(direction)) as acc:
        y = tf.gather(table, [2, 0, 2])
    np.testing.assert_array_equal(acc.jvp(y), direction[[2, 0, 2]])


@pytest.mark.parametrize(
    "primals, tangents, error",
    [
        (tf.constant([1.0, 2.0]), tf.constant([1.0]), ValueError),
        (tf.constant([1.0]), tf.constant([1.0], tf.float64), ValueError),
        ([tf.constant(1.0)], [tf.constant(1.0), tf.constant(1.0)], ValueError),
        ([tf.constant(1.0)], tf.constant(1.0), ValueError),
        (1.0, 1.0, ValueError),
        (tf.constant(1.0), None, ValueError),
    ],
    ids=["shape", "dtype", "count", "structure", "no tensor", "None"],
)
def test_primals_and_tangents_must_match(primals, tangents, error):
    with pytest.raises(error):
        Accumulator(primals, tangents)


def test_misuse():
    """A primal given twice, a product before the block, an accumulator entered twice."""
    x = tf.constant(1.0)
    with pytest.raises(ValueError, match="twice"):
        Accumulator([x, x], [x, x])
    acc = Accumulator(x, x)
    with pytest.raises(ValueError, match="entered"):
        acc.jvp(x)
    with acc, pytest.raises(ValueError), acc:
        pass
    with pytest.raises(TypeError):
        acc.jvp(1.0)
    with pytest.raises(ValueError):
        acc.jvp(x, unconnected_gradients="some")


SMOOTH = [
    pytest.param(p, s, id=f"{name}-{i}")
    for name, p in built_in().items()
    if p.differentiable
    for i, s in enumerate(samples_of(p)[:2])
]
STEP = 1e-6


@pytest.mark.parametrize("p, s", SMOOTH)
def test_every_primitive_has_a_jvp(p, s):
    """No primitive has a rule for it; all of them agree with finite differences."""
    rng = np.random.default_rng(1)
    varied = [i for i, a in enumerate(s.args) if getattr(a, "dtype", None) == np.float64]
    directions = {i: rng.normal(size=s.args[i].shape) for i in varied}
    if not any(d.size for d in directions.values()):
        return  # nothing to vary

    def outputs(shift):
        args = [a + shift * directions[i] if i in directions else a for i, a in enumerate(s.args)]
        value = p(*[tf.constant(a) if isinstance(a, np.ndarray) else a for a in args], **s.params)
        value = value if isinstance(value, tuple) else (value,)
        return [v for v in value if v.dtype == tf.float64]

    primals = {i: tf.constant(s.args[i]) for i in varied}
    with Accumulator(list(primals.values()), list(directions.values())) as acc:
        value = p(*[primals.get(i, a) for i, a in enumerate(s.args)], **s.params)
        value = value if isinstance(value, tuple) else (value,)
    found = acc.jvp([v for v in value if v.dtype == tf.float64], "zero")
    for f, above, below in zip(found, outputs(STEP), outputs(-STEP), strict=True):
        slope = (above.numpy() - below.numpy()) / (2 * STEP)
        np.testing.assert_allclose(
            f, slope, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(slope).max(initial=0))
        )
